"""A picture before and after its parts were painted over -> masks: PNG, run lengths, polygons, area, box, overlay."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

COLORS = {
    "red": (255, 0, 0),
    "green": (0, 255, 0),
    "blue": (0, 0, 255),
    "yellow": (255, 255, 0),
    "magenta": (255, 0, 255),
    "cyan": (0, 255, 255),
    "orange": (255, 128, 0),
    "purple": (128, 0, 255),
    "white": (255, 255, 255),
    "black": (0, 0, 0),
}
"""The fixed colour map: the k-th class or instance gets the k-th colour."""


@dataclass(frozen=True)
class Mask:
    """Where one thing is: `inside` is (H, W) bool, at the size of the picture that was asked about."""

    name: str
    color: str
    inside: np.ndarray
    score: float = 0.0
    """How clearly it stands out, 0 ... 1: see `segment.certainty`."""

    @property
    def area(self) -> int:
        """Pixels."""
        return int(self.inside.sum())

    @property
    def box(self) -> tuple[int, int, int, int] | None:
        """Left, top, right, bottom, the last two exclusive; None for an empty mask."""
        if not self.inside.any():
            return None
        rows, columns = self.inside.any(1).nonzero()[0], self.inside.any(0).nonzero()[0]
        return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1

    def png(self) -> bytes:
        """White on black, one bit a pixel."""
        file = io.BytesIO()
        Image.fromarray(self.inside).save(file, "PNG", optimize=True)
        return file.getvalue()

    def rle(self) -> dict[str, list[int]]:
        """COCO's uncompressed run lengths: column after column, outside first."""
        flat = np.concatenate([[False], self.inside.T.ravel(), [not self.inside.T.ravel()[-1]]])
        ends = np.flatnonzero(flat[1:] != flat[:-1])
        return {"size": list(self.inside.shape), "counts": np.diff(ends, prepend=0).tolist()}

    def polygons(self) -> list[list[tuple[int, int]]]:
        """Closed rings of corners (x, y) along the edges of pixels; outlines run clockwise, holes the other way."""
        return rings(self.inside)


def from_rle(rle: dict[str, list[int]]) -> np.ndarray:
    height, width = rle["size"]
    flat = np.repeat(np.arange(len(rle["counts"])) % 2 == 1, rle["counts"])
    return flat.reshape(width, height).T


def rings(inside: np.ndarray) -> list[list[tuple[int, int]]]:
    """Follow the cracks between inside and outside, with the inside on the right hand."""
    padded = np.pad(inside, 1)
    following: dict[tuple[int, int], list[tuple[int, int]]] = {}

    def add(pixels: np.ndarray, start: tuple[int, int], step: tuple[int, int]) -> None:
        for row, column in np.argwhere(pixels) - 1:
            x, y = int(column) + start[0], int(row) + start[1]
            following.setdefault((x, y), []).append((x + step[0], y + step[1]))

    add(padded & ~np.roll(padded, 1, 0), (0, 0), (1, 0))  # top sides, to the right
    add(padded & ~np.roll(padded, -1, 1), (1, 0), (0, 1))  # right sides, down
    add(padded & ~np.roll(padded, -1, 0), (1, 1), (-1, 0))  # bottom sides, to the left
    add(padded & ~np.roll(padded, 1, 1), (0, 1), (0, -1))  # left sides, up

    found = []
    for start in list(following):
        while start in following:  # two rings meet at a corner that two pixels share
            found.append(_follow(following, start))
    return found


def _follow(following: dict[tuple[int, int], list[tuple[int, int]]], start: tuple[int, int]) -> list[tuple[int, int]]:
    """Take one ring out of the ways that lead from corner to corner; its corners are where it turns."""
    ring, here, heading = [], start, (0, 0)
    while True:
        ends = following[here]
        # Where two pixels touch at a corner, turn right: the ring stays with its own pixel.
        right = (here[0] - heading[1], here[1] + heading[0])
        there = right if right in ends else ends[0]
        ends.remove(there)
        if not ends:
            del following[here]
        turned = (there[0] - here[0], there[1] - here[1])
        if turned != heading:
            ring.append(here)
        here, heading = there, turned
        if here == start:
            return ring


def changed(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """How much each pixel changed, (H, W) in 0 ... 1: the root mean square over its channels. Pixels are 0 ... 255."""
    return np.sqrt(np.mean((after.astype(np.float32) - before.astype(np.float32)) ** 2, axis=-1)) / 255


def nearest_color(before: np.ndarray, after: np.ndarray, colors: Sequence[tuple[int, int, int]]) -> np.ndarray:
    """Which colour (H, W) was laid over each pixel, at whatever opacity explains the change best."""
    before, after = before.astype(np.float32), after.astype(np.float32)
    misfits = []
    for color in colors:
        direction = np.asarray(color, np.float32) - before
        length = np.maximum((direction**2).sum(-1), 1e-6)
        opacity = np.clip(((after - before) * direction).sum(-1) / length, 0, 1)
        misfits.append(((after - before - opacity[..., None] * direction) ** 2).sum(-1))
    return np.argmin(misfits, axis=0)


def overlay(image: Image.Image, masks: Sequence[Mask], opacity: float = 0.5) -> Image.Image:
    """The picture with every mask laid over it in its colour."""
    pixels = np.asarray(image.convert("RGB"), np.float32).copy()
    for mask in masks:
        pixels[mask.inside] += opacity * (np.asarray(COLORS[mask.color], np.float32) - pixels[mask.inside])
    return Image.fromarray(pixels.round().astype(np.uint8))
