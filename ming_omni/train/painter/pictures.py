"""A batch of requests -> pictures on a device, as the painter meets them: latents to paint, latents to edit, weights.

A picture to edit takes the product's own way: the loader's resize, the stretch to a size of the published tables, then
the painter's size. The edited picture takes it too, so that what an edit leaves alone is exactly what was there.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ming_omni.buckets import bucket
from ming_omni.data.bank import Bank
from ming_omni.data.render import Rendered, render
from ming_omni.model.painter import Painter
from ming_omni.model.painting import picture_size
from ming_omni.train.losses import edit_weight
from ming_omni.train.painter.requests import COLORS, OPACITY, Batch
from ming_omni.train.painter.settings import LearnSettings
from ming_omni.train.senses import eyes

LETTER = 255
"""Owner of a pixel that shows a letter, see `data.render`."""


class Pictures(NamedTuple):
    """Of one batch, on its device."""

    seen: Tensor | None
    """(B, 3, S, S) uint8: pictures to edit, as they are given"""
    latents: Tensor
    """(B, Z, h, w) to paint"""
    reference: Tensor | None
    """(B, Z, h, w) to edit"""
    weight: Tensor
    """(B, 1, h, w) of the error at each cell, one in the mean of each picture"""


@torch.no_grad()
def draw(bank: Bank, painter: Painter, batch: Batch, loaded: tuple[int, int], learn: LearnSettings) -> Pictures:
    """loaded: height and width of a picture after the loader's resize"""
    side, dtype = painter.config.default_size, painter.vae.dtype
    drawn = render(bank, [scenes[-1] for scenes in batch.scenes], side)
    if batch.kind == "paint":
        latents = painter.vae.encode((drawn.pictures.float() / 127.5 - 1).to(dtype))
        return Pictures(None, latents, None, _emphasis(drawn, learn, latents.shape[2:]))
    before = render(bank, [scenes[0] for scenes in batch.scenes], side).pictures
    size = picture_size(painter, *bucket(*loaded))
    pixels = [as_edited(pictures, loaded, size) for pictures in (before, covered(drawn, batch.covers))]
    reference, latents = painter.vae.encode(torch.cat(pixels).to(dtype)).chunk(2)
    return Pictures(before, latents, reference, edit_weight(*pixels, learn.edited, latents.shape[2:]))


def as_edited(pictures: Tensor, loaded: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """(n, 3, S, S) uint8 -> (n, 3, H, W) in [-1, 1], as the painter sees a picture to edit."""
    if tuple(pictures.shape[2:]) != loaded:
        pictures = eyes.resize(pictures, loaded, "bicubic")
    stretched = bucket(*loaded)
    if loaded != stretched:
        pictures = eyes.resize(pictures, stretched, "bilinear")
    pixels = (pictures.float() / 255 - 0.5) * 2
    if stretched != size:
        pixels = F.interpolate(pixels, size, mode="bilinear", antialias=True).clamp(-1, 1)
    return pixels


def covered(drawn: Rendered, covers: list[tuple[tuple[int, str], ...]]) -> Tensor:
    """Pictures (n, 3, S, S) uint8 with masks painted over some of their things."""
    table = torch.zeros(len(covers), 256, 4)  # red, green, blue and opacity for each owner
    for row, parts in enumerate(covers):
        for number, color in parts:
            table[row, number + 1] = torch.tensor([*COLORS[color], OPACITY])
    owners, device = drawn.owners, drawn.pictures.device
    rows = torch.arange(len(covers), device=device)[:, None, None]
    mask = table.to(device, non_blocking=True)[rows, owners.long()].permute(0, 3, 1, 2)  # (n, 4, S, S)
    return torch.lerp(drawn.pictures.float(), mask[:, :3], mask[:, 3:].expand(-1, 3, -1, -1)).round().to(torch.uint8)


def _emphasis(drawn: Rendered, learn: LearnSettings, cells: tuple[int, int]) -> Tensor:
    """Things and letters are what is asked for; most of a picture is background."""
    weight = torch.ones_like(drawn.owners, dtype=torch.float32)
    weight = weight.masked_fill(drawn.owners > 0, learn.things).masked_fill(drawn.owners == LETTER, learn.letters)
    weight = F.adaptive_avg_pool2d(weight[:, None], tuple(cells))
    return weight / weight.mean((1, 2, 3), keepdim=True)
