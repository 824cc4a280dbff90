"""The bank file -> tensors on a device, and what a split may use of it: a `Stock` of sprites, fonts, photos."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor
from torch.nn import functional as F

from ming_omni.data.artists import MORE_STYLES, unit
from ming_omni.data.lettering import CHINESE_FONTS, font_split
from ming_omni.data.splits import split_of
from ming_omni.errors import InputError

PAINTER_STYLES = ("noto", "fluent", "fluent-3d")
"""What the painter learns to paint."""
JUDGE_STYLES = ("twemoji", "openmoji", "clipart", "fxemoji", "streamline")
"""What the judges of its pictures learn from; the understanding side learns from both."""
TEST_STYLES = ("emojione",)
"""Seen by nobody in training."""
TEXTURE_SIDE = 512


@dataclass(frozen=True)
class Font:
    name: str
    letters: str
    first: int
    """Place of its first letter among all glyphs."""
    advances: tuple[float, ...]

    @property
    def is_chinese(self) -> bool:
        return self.name in CHINESE_FONTS or not self.letters.isascii()


class Bank:
    """Everything a scene can be made of, expanded on one device."""

    def __init__(self, path: Path | str, device: torch.device | str = "cpu"):
        if not Path(path).is_file():
            raise InputError(f"there is no sprite bank {path}; make one with: ming data sprites")
        with safe_open(path, framework="pt", device="cpu") as file:
            about = json.loads(file.metadata()["about"])
            places, palettes = file.get_tensor("sprites"), file.get_tensor("palettes")
            photos = file.get_tensor("photos")
            glyphs = [file.get_tensor(f"glyphs.{i}") for i in range(len(about["fonts"]))]
            advances = [file.get_tensor(f"advances.{i}") for i in range(len(about["fonts"]))]
        if places.dim() == 1:  # packed; banks of the first weeks were not
            places = unpacked(places, len(about["sprites"]))
        self.device = torch.device(device)
        self.keys: list[tuple[str, str]] = [tuple(key) for key in about["sprites"]]
        self.concepts: dict[str, dict] = about["concepts"]
        self.photo_names: list[str] = about["photos"]
        self.sprites = _expand(places, palettes).to(self.device)  # (N, 4, 96, 96) premultiplied, uint8
        self.small = _halve(self.sprites)  # (N, 4, 48, 48) for things drawn small, which would shimmer otherwise
        self.photos = photos.permute(0, 3, 1, 2).contiguous().to(self.device)  # (n, 3, 256, 256)
        self.glyphs = torch.cat([*glyphs, torch.zeros(1, 48, 48, dtype=torch.uint8)])[:, None].to(self.device)
        self.texture = _texture().to(self.device)  # (512, 512), mean 0
        self.fonts, first = [], 0
        for (name, letters), widths in zip(about["fonts"], advances, strict=True):
            self.fonts.append(Font(name, letters, first, tuple(widths.tolist())))
            first += len(letters)

    def add(self, other: Bank) -> list[int]:
        """The other's drawings too, without their names; returns their places among this bank's."""
        first = len(self.keys)
        self.keys += other.keys
        self.sprites, self.small = torch.cat([self.sprites, other.sprites]), torch.cat([self.small, other.small])
        return list(range(first, len(self.keys)))

    def chinese(self, concept: str) -> str:
        return self.concepts[concept]["chinese"]


def packed(places: Tensor) -> Tensor:
    """(N, S, S) bytes -> (n,) bytes; flat colours shrink to a sixth."""
    return torch.from_numpy(np.frombuffer(zlib.compress(places.numpy().tobytes(), 9), np.uint8).copy())


def unpacked(stream: Tensor, count: int) -> Tensor:
    """(n,) bytes -> (count, S, S)"""
    places = torch.from_numpy(np.frombuffer(zlib.decompress(stream.numpy().tobytes()), np.uint8).copy())
    side = math.isqrt(len(places) // count)
    return places.view(count, side, side)


def _expand(places: Tensor, palettes: Tensor) -> Tensor:
    """(N, S, S) places, (N, 256, 4) -> (N, 4, S, S) with colours multiplied by alpha."""
    premultiplied = palettes.float()
    premultiplied[..., :3] *= premultiplied[..., 3:] / 255
    table = premultiplied.round().to(torch.uint8)
    flat = table.gather(1, places.flatten(1).long()[..., None].expand(-1, -1, 4))  # (N, S*S, 4)
    return flat.transpose(1, 2).reshape(len(places), 4, *places.shape[1:]).contiguous()


def _halve(sprites: Tensor) -> Tensor:
    return torch.cat([F.avg_pool2d(part.float(), 2).round().to(torch.uint8) for part in sprites.split(256)])


def _texture() -> Tensor:
    """Cloudy noise that tiles, the same on every device."""
    generator = torch.Generator().manual_seed(0)
    total = torch.zeros(1, 1, TEXTURE_SIDE, TEXTURE_SIDE)
    for octave in range(3, 9):
        noise = torch.randn(1, 1, 2**octave, 2**octave, generator=generator)
        noise = F.pad(noise, (1, 1, 1, 1), mode="circular")
        scale = TEXTURE_SIDE // 2**octave
        smooth = F.interpolate(noise, scale_factor=scale, mode="bilinear", align_corners=False)
        total += smooth[..., scale:-scale, scale:-scale] * 0.55 ** (octave - 3)
    return (total / total.abs().amax())[0, 0]


@dataclass
class Stock:
    """What one split may use. Training never meets the test's sprites, fonts, words, photos or styles."""

    bank: Bank
    split: str
    styles: tuple[str, ...]
    sprites: dict[str, list[int]] = field(default_factory=dict)
    """Concept -> its drawings."""
    latin_fonts: list[int] = field(default_factory=list)
    chinese_fonts: list[int] = field(default_factory=list)
    photos: list[int] = field(default_factory=list)

    def units(self) -> set[str]:
        """Names of all that belongs to this split alone, to look for leaks; shapes are everybody's."""
        bank = self.bank
        keys = [bank.keys[i] for indexes in self.sprites.values() for i in indexes]
        found = {f"sprite:{concept}/{style}" for concept, style in keys if style != "shape"}
        found |= {f"font:{bank.fonts[i].name}" for i in (*self.latin_fonts, *self.chinese_fonts)}
        return found | {f"photo:{bank.photo_names[i]}" for i in self.photos}


def stock(bank: Bank, split: str = "train", styles: Iterable[str] | None = None) -> Stock:
    """Everything of `split` in the given styles; by default the styles that the split's models know.

    Test scenes hold drawings training never saw, of the known styles and of those that nobody trains on.
    Further artists are for training alone: scores stay comparable whoever joins them.
    Shapes have no artist: they are the same everywhere, and only their colours vary.
    """
    if styles is None:
        styles = PAINTER_STYLES + JUDGE_STYLES + {"train": MORE_STYLES, "test": TEST_STYLES}.get(split, ())
    chosen = Stock(bank, split, tuple(styles))
    for index, (concept, style) in enumerate(bank.keys):
        if style == "shape" or (style in chosen.styles and sprite_split(concept, style) == split):
            chosen.sprites.setdefault(concept, []).append(index)
    for index, font in enumerate(bank.fonts):
        if font_split(font.name) == split:
            (chosen.chinese_fonts if font.is_chinese else chosen.latin_fonts).append(index)
    chosen.photos = [i for i, name in enumerate(bank.photo_names) if split_of("photo", name) == split]
    if len(chosen.sprites) < 8:
        raise InputError(f"the bank has only {len(chosen.sprites)} things for {split} in {', '.join(chosen.styles)}")
    return chosen


def sprite_split(concept: str, style: str) -> str:
    """One drawing's side; a style of the test has all its drawings there."""
    return "test" if style in TEST_STYLES else split_of("sprite", unit(concept, style))
