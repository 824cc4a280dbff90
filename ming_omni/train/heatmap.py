"""Expert loads (layers, 3, E) -> a picture: one block per modality, a row per layer, a column per expert."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from ming_omni.config import MODALITIES

CELL, LABEL, GAP = 12, 14, 6
"""Pixels."""


def draw(counts: Tensor) -> Image.Image:
    """White: used as often as the mean expert. Red: more often, up to four times. Blue: less, down to never."""
    num_layers, num_blocks, num_experts = counts.shape
    block = LABEL + num_layers * CELL + GAP
    picture = Image.new("RGB", (max(num_experts * CELL, 60), num_blocks * block), "white")
    pen = ImageDraw.Draw(picture)
    for modality, loads in enumerate(counts.float().cpu().transpose(0, 1)):  # (layers, E)
        top = modality * block
        is_absent = not loads.any()
        pen.text((0, top), MODALITIES[modality] + (": no tokens" if is_absent else ""), fill="black")
        relative = torch.zeros_like(loads) + 1 if is_absent else loads / loads.mean(-1, keepdim=True).clamp(min=1e-9)
        for layer in range(num_layers):
            for expert in range(num_experts):
                left, upper = expert * CELL, top + LABEL + layer * CELL
                pen.rectangle((left, upper, left + CELL - 2, upper + CELL - 2), fill=_color(relative[layer, expert]))
    return picture


def save(counts: Tensor, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    draw(counts).save(path)


def _color(relative: Tensor) -> tuple[int, int, int]:
    if relative > 1:
        rest = round(255 * (1 - min(1.0, (float(relative) - 1) / 3)))
        return 255, rest, rest
    rest = round(255 * float(relative))
    return rest, rest, 255
