"""Pictures or films and their labels -> one contact sheet, a PNG that a person looks at before any training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

LINE_HEIGHT = 15


def write_sheet(
    path: Path, pictures: Sequence[Tensor], labels: Sequence[str], columns: int = 6, font: Path | None = None
) -> None:
    """pictures: (3, H, W) uint8 each, of one height; below each its label, wrapped.

    font: a file that has Chinese letters; without it only Latin labels can be read.
    """
    face = ImageFont.truetype(font, 12) if font else ImageFont.load_default(12)
    height, width = pictures[0].shape[1], max(picture.shape[2] for picture in pictures)
    lines = [_wrap(label, face, width - 4) for label in labels]
    text = LINE_HEIGHT * max(map(len, lines)) + 6
    rows = -(-len(pictures) // columns)
    sheet = Image.new("RGB", (columns * (width + 6), rows * (height + text)), "white")
    draw = ImageDraw.Draw(sheet)
    for number, (picture, label) in enumerate(zip(pictures, lines, strict=True)):
        left, top = (number % columns) * (width + 6), (number // columns) * (height + text)
        sheet.paste(Image.fromarray(np.asarray(picture.permute(1, 2, 0).cpu())), (left, top))
        draw.multiline_text((left + 2, top + height + 2), "\n".join(label), fill="black", font=face)
    sheet.save(path)


def _wrap(label: str, face, width: int) -> list[str]:
    """Break at spaces, and between Chinese characters, so that no line is wider than the picture."""
    found = []
    for paragraph in label.split("\n"):
        line = ""
        for letter in paragraph:
            if face.getlength(line + letter) > width:
                cut = line.rfind(" ") + 1 if letter.isascii() and " " in line else len(line)
                found.append(line[:cut])
                line = line[cut:]
            line += letter
        found.append(line)
    return found
