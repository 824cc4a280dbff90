"""Tones, boards and stripes made in code -> small training folders, one for every task."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import soundfile
import torch
from PIL import Image

from ming_omni.model.omni import MingForConditionalGeneration
from ming_omni.train import parts
from ming_omni.train.batches import DataSet
from ming_omni.train.examples import Reader
from ming_omni.train.folder import read
from ming_omni.train.learner import Learner
from ming_omni.train.recipe import DataSettings, ModelSettings, Recipe
from tests.media import tone

COLORS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (30, 40, 220), "yellow": (230, 220, 40)}


def stripes(color: str, width: int = 64, height: int = 64) -> Image.Image:
    pixels = np.full((height, width, 3), 240, np.uint8)
    pixels[(np.arange(height) // 8) % 2 == 0] = COLORS[color]
    return Image.fromarray(pixels)


def write(folder: Path, rows: list[dict], file: str = "train.jsonl") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / file).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def lesson(folder: Path, task: str) -> Path:
    """A folder with four lines of one task and the media that they name."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for i, color in enumerate(COLORS):
        stripes(color).save(folder / f"{color}.png")
        soundfile.write(folder / f"{color}.wav", tone(0.3 + 0.05 * i, 16_000, 220.0 * (i + 1)), 16_000)
        mask = np.zeros((64, 64), np.uint8)
        mask[16 * (i % 2) : 32, :40] = 255
        Image.fromarray(mask).save(folder / f"{color}-mask.png")
        picture, sound = f"{color}.png", f"{color}.wav"
        rows.append(
            {
                "ask": {"prompt": "Which color?", "images": [picture], "answer": color},
                "transcribe": {"audio": sound, "text": f"tone {color}", "words": [color]},
                "paint": {"prompt": f'{color} stripes, "{color}"', "image": picture},
                "edit": {"images": ["red.png"], "instruction": f"make it {color}", "image": picture},
                "segment": {"image": picture, "what": "corner", "mask": f"{color}-mask.png"},
                "speak": {"text": f"{color}", "audio": sound},
                "code_image": {"image": picture, "label": color},
                "code_sound": {"audio": sound},
            }[task]
            | {"task": task}
        )
    return write(folder, rows)


def tiny_model() -> tuple[MingForConditionalGeneration, object]:
    """The whole tiny model and its processor."""
    return parts.load(ModelSettings(painter=True, talker=True))


def data_set(folder: Path, model, processor, recipe: Recipe | None = None, **settings) -> DataSet:
    recipe = recipe or Recipe()
    data = DataSettings(folder=str(folder), **{"image_size": 64, "sound_seconds": 0.2, **settings})
    lines, _ = read(folder)
    reader = Reader(model, processor, data, recipe.words, lines, recipe.seed)
    return DataSet(folder.name, data, lines, reader, recipe.guard.bad_examples)


def learner(model, recipe: Recipe, *kinds: str) -> Learner:
    made = Learner(model, recipe, sorted(COLORS))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made.add_critics(set(kinds))
    return made
