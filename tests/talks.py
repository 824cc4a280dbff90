"""Words of real speakers and the pauses between them -> a sound whose every word has a known place."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np

from ming_omni.inputs.audio import load_audio

RATE_HZ = 16_000
SPEECH = Path(__file__).parent / "fixtures" / "speech"
WORDS = tuple(sorted(path.name for path in SPEECH.iterdir() if path.suffix in (".wav", ".mp3")))


@cache
def word(name: str) -> np.ndarray:
    """(n,) at 16 kHz"""
    return load_audio(SPEECH / name).numpy()


def silence(seconds: float) -> np.ndarray:
    return np.zeros(round(seconds * RATE_HZ), np.float32)


def talk(names: list[str], pause_seconds: float = 1.0) -> tuple[np.ndarray, list[tuple[float, float]]]:
    """Words with pauses before, between and after them -> samples (n,), and the seconds of each word."""
    pieces, places = [silence(pause_seconds)], []
    for name in names:
        start = sum(map(len, pieces)) / RATE_HZ
        places.append((start, start + len(word(name)) / RATE_HZ))
        pieces += [word(name), silence(pause_seconds)]
    return np.concatenate(pieces), places


def noise(seconds: float, loudness: float) -> np.ndarray:
    return (loudness * np.random.default_rng(0).standard_normal(round(seconds * RATE_HZ))).astype(np.float32)


def music(seconds: float) -> np.ndarray:
    """Chords with overtones that are struck and fade, one every two seconds."""
    time = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    since = time % 2.0
    chords = np.array([(220, 277, 330), (262, 330, 392), (196, 247, 294)])
    pitch = chords[(time // 2).astype(int) % 3]  # (n, 3)
    tones = sum(np.sin(2 * np.pi * h * pitch * time[:, None]).sum(1) / h for h in range(1, 6))
    return (0.1 * np.minimum(since * 20, 1) * np.exp(-since) * tones).astype(np.float32)
