"""Makes the three folders that the recipes beside it learn from, out of nothing; yours look the same.

    python examples/finetune/make_folders.py my-data

Each holds train.jsonl, one JSON object a line, and the files that the lines name. The sounds are made-up words of four
tones, the pictures stripes: enough for `tiny` to learn in seconds, and to see what a folder must hold.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import soundfile
from PIL import Image

SAMPLE_RATE_HZ = 16_000
WORDS = {"Zanavir": (300, 500, 400), "Kelvox": (700, 350, 600), "Brimodan": (450, 800, 300), "Tulexa": (900, 600, 750)}
"""Names that no model has heard of, and the tones that stand for how they sound."""
STYLE = {"a barn": 8, "a boat": 12, "a lamp": 16, "a road": 20}
"""What a picture shows, and the width of its stripes."""


def write(folder: Path, lines: list[dict]) -> None:
    (folder / "train.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def melody(tones_hz: tuple[int, ...], seconds: float = 0.12) -> np.ndarray:
    time = np.arange(round(seconds * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    return np.concatenate([0.4 * np.sin(2 * np.pi * hz * time) for hz in tones_hz]).astype(np.float32)


def domain_words(folder: Path) -> None:
    """Recordings, what is said in them, and the words that a list may hold."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for word, tones in WORDS.items():
        soundfile.write(folder / f"{word}.wav", melody(tones), SAMPLE_RATE_HZ)
        lines.append({"task": "transcribe", "audio": f"{word}.wav", "text": f"take {word}", "words": [word]})
    write(folder, lines)


def new_voice(folder: Path) -> None:
    """Sentences and their recordings by one speaker."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for word, tones in WORDS.items():
        soundfile.write(folder / f"{word}.wav", melody(tones), SAMPLE_RATE_HZ)
        lines.append({"task": "speak", "text": word, "audio": f"{word}.wav"})
    write(folder, lines)


def picture_style(folder: Path) -> None:
    """Pictures in one style, and what each shows."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for number, (what, width) in enumerate(STYLE.items()):
        pixels = np.full((128, 128, 3), (250, 240, 200), np.uint8)
        pixels[(np.arange(128) // width) % 2 == 0] = (200, 60, 30)
        Image.fromarray(pixels).save(folder / f"{number}.png")
        lines.append({"task": "paint", "prompt": f"{what} in the style of stripes", "image": f"{number}.png"})
    write(folder, lines)


def main(root: Path) -> None:
    for make in (domain_words, new_voice, picture_style):
        make(root / make.__name__)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "my-data"))
