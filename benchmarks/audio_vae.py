"""Pieces of the AudioVAE's run -> JSON: errors that a round trip adds, DNSMOS it costs, seconds for a second of sound.

    python -m benchmarks.audio_vae PIECES --data DATA [--limit 40] [--output scores.json]

Clips are the test's synthetic voices, plain sentences in English and Mandarin, and real recordings of words. Whisper
base listens and DNSMOS judges, before and after; DATA/venv-judges has both (benchmarks/whisper.py, benchmarks/mos.py).
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from benchmarks import judges
from ming_omni.evaluate.clips import Clip, real_clips, synthetic_clips
from ming_omni.evaluate.metrics import Errors, pinyin_errors, word_errors
from ming_omni.model.audio_vae import AudioVAE, DecodeStream
from ming_omni.train.audio_vae import pieces
from ming_omni.train.audio_vae.settings import Settings
from ming_omni.train.audio_vae.spectra import MelDistance, envelope_likeness

PLAIN = ("everyday", "question", "mandarin", "english")
"""Kinds of clips whose transcripts can only be written in one way."""
PATCH = 6
"""Latents that are decoded at a time when speaking."""
MOS = ("overall", "signal", "background", "p808")


def chosen(data: Path, limit: int) -> list[Clip]:
    """As many of each kind at most; a third as many real ones of each archive."""
    clips = [clip for clip in synthetic_clips(data, limit) if clip.kind in PLAIN and not clip.accent]
    return clips + real_clips(data, max(1, limit // 3))


@torch.inference_mode()
def round_trip(vae: AudioVAE, clip: Clip) -> Clip:
    """What comes back from the likeliest latents, played as 16 bits."""
    latents = vae.encode(torch.from_numpy(clip.samples)[None]).mean
    made = vae.decode(latents)[0, : len(clip.samples)].clamp(-1, 1)
    return replace(clip, samples=((made * 32767).round() / 32767).numpy())


def group(clip: Clip) -> str:
    return f"{'synthetic' if clip.source == 'synthetic' else 'real'} {clip.language}"


def error_rates(clips: Sequence[Clip], before: Sequence[str], after: Sequence[str]) -> dict[str, dict[str, float]]:
    """By group, in percent: word errors in English, toneless syllables in Mandarin."""
    sums: dict[str, list[Errors]] = {}
    for clip, *texts in zip(clips, before, after, strict=True):
        own = sums.setdefault(group(clip), [Errors(), Errors()])
        for i, text in enumerate(texts):
            own[i] += pinyin_errors(clip.text, text) if clip.language == "zh" else word_errors(clip.text, text)
    rates = {name: [100 * errors.rate for errors in both] for name, both in sums.items()}
    return {
        name: {"before": round(first, 2), "after": round(second, 2), "added": round(second - first, 2)}
        for name, (first, second) in rates.items()
    }


def mos(data: Path, clips: Sequence[Clip]) -> list[dict[str, float]]:
    with tempfile.TemporaryDirectory() as scratch:
        sounds, output = Path(scratch) / "clips.npz", Path(scratch) / "mos.json"
        np.savez(sounds, **{str(i): clip.samples for i, clip in enumerate(clips)})
        python, script = data / "venv-judges" / "bin" / "python", Path(__file__).parent / "mos.py"
        subprocess.run([str(part) for part in (python, script, sounds, output)], check=True)
        return json.loads(output.read_text())


def mos_lost(clips: Sequence[Clip], before: Sequence[dict], after: Sequence[dict]) -> dict[str, dict[str, float]]:
    """By group, of synthetic clips: a lone word is too short for DNSMOS."""
    found = {}
    for name in dict.fromkeys(group(clip) for clip in clips if clip.source == "synthetic"):
        rows = [pair for clip, *pair in zip(clips, before, after, strict=True) if group(clip) == name]
        found[name] = {}
        for measure in MOS:
            first, second = (statistics.mean(row[i][measure] for row in rows) for i in (0, 1))
            found[name][measure] = {
                "before": round(first, 3),
                "after": round(second, 3),
                "lost": round(first - second, 3),
            }
    return found


def spectra(clips: Sequence[Clip], after: Sequence[Clip], sample_rate_hz: int) -> dict[str, dict[str, float]]:
    """By group: mel distance, and how alike the bands' loudness rises and falls."""
    distance, found = MelDistance(Settings().windows, sample_rate_hz), {}
    for clip, other in zip(clips, after, strict=True):
        made, wanted = (torch.from_numpy(np.asarray(c.samples, np.float32)) for c in (other, clip))
        scores = float(distance(made[None], wanted[None])), float(envelope_likeness(made, wanted, sample_rate_hz))
        found.setdefault(group(clip), []).append(scores)
    means = {name: [statistics.mean(column) for column in zip(*rows, strict=True)] for name, rows in found.items()}
    return {name: {"mel": round(mel, 4), "likeness": round(like, 4)} for name, (mel, like) in means.items()}


@torch.inference_mode()
def speed(vae: AudioVAE, seconds: int = 6) -> dict[str, float]:
    """Seconds of work for a second of sound: the whole at once, and decoded patch by patch."""
    rate, hop = vae.config.sample_rate_hz, vae.config.hop_samples
    samples = torch.randn(1, seconds * rate) / 10
    latents = vae.encode(samples).mean
    steps = []
    stream = DecodeStream(vae)
    for patch in latents.split(PATCH, 1):
        started = time.perf_counter()
        stream.feed(patch)
        steps.append((time.perf_counter() - started) / (patch.shape[1] * hop / rate))
    started = time.perf_counter()
    vae.encode(samples)
    encoded = time.perf_counter()
    vae.decode(latents)
    decoded = time.perf_counter()
    return {
        "encode": round((encoded - started) / seconds, 4),
        "decode": round((decoded - encoded) / seconds, 4),
        "decode_by_patch": round(statistics.median(steps), 4),
    }


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pieces", type=Path, help="folder with audio_vae.safetensors and audio_vae.json")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--limit", type=int, default=40, help="clips of a kind")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    vae, told = pieces.load(given.pieces)
    clips = chosen(given.data, given.limit)
    after = [round_trip(vae, clip) for clip in clips]
    found = {"clips": len(clips), "step": told["facts"]["step"], "seconds_of_training": told["facts"]["seconds"]}
    found["spectra"] = spectra(clips, after, vae.config.sample_rate_hz)
    found["seconds_a_second"] = speed(vae) | {"threads": given.threads}
    heard = [[row["text"] for row in judges.heard(given.data, part, given.threads)] for part in (clips, after)]
    found["error_percent"] = error_rates(clips, *heard)
    found["dnsmos"] = mos_lost(clips, mos(given.data, clips), mos(given.data, after))
    text = json.dumps(found, indent=2)
    if given.output:
        given.output.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
