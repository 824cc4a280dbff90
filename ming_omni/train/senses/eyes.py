"""Pictures (n, 3, S, S) of bytes, all of one size -> patches as the processor makes them -> tokens (n, M, D).

The modules are the model's own. All pictures have one size, so patches can be laid out window by window once, and then
both kinds of attention see neighbours: nothing is gathered in between.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ming_omni.inputs.patches import ImageProcessor
from ming_omni.model.layers import attend_both_ways
from ming_omni.model.vision_encoder import VisionAttention, VisionEncoder, rotate

BEND = 0.03
"""How far points of a 6 x 6 net move, in halves of a side (standard deviation): things get 10 % wider or narrower."""


def still_patches(pictures: Tensor, sizes: Sequence[tuple[int, int]], processor: ImageProcessor) -> Tensor:
    """pictures (n, 3, S, S) uint8; sizes after each resize -> (n P, C·T·p·p)"""
    for size in sizes:
        if tuple(pictures.shape[2:]) != size:
            pictures = resize(pictures, size, "bicubic")
    twice = pictures[:, None].expand(-1, processor.temporal_patch_size, -1, -1, -1)  # (n, T, 3, H, W)
    return patches(twice, processor)


def film_patches(frames: Tensor, size: tuple[int, int], num_frames: int, processor: ImageProcessor) -> Tensor:
    """frames (n F, 3, S, S) uint8 -> (n P, C·T·p·p)"""
    if tuple(frames.shape[2:]) != size:
        frames = resize(frames, size, "bilinear")
    return patches(frames.unflatten(0, (-1, num_frames)), processor)


def resize(pictures: Tensor, size: tuple[int, int], mode: str) -> Tensor:
    """As Pillow resizes, within one step of 255."""
    resized = F.interpolate(pictures.float(), size=size, mode=mode, align_corners=False, antialias=True)
    return resized.round().clamp(0, 255).to(torch.uint8)


def patches(frames: Tensor, processor: ImageProcessor) -> Tensor:
    """frames (n, T, 3, H, W) -> rows (n P, C·T·p·p) in the processor's order."""
    mean, std = (
        torch.tensor(values).to(frames.device, non_blocking=True)[:, None, None]
        for values in (processor.image_mean, processor.image_std)
    )
    pixels = (frames.float() * (1 / 255) - mean) / std
    p, merge = processor.patch_size, processor.merge_size
    return rearrange(
        pixels,
        "n (t l) c (h a y) (w b x) -> (n t h w a b) (c l y x)",
        l=processor.temporal_patch_size, a=merge, b=merge, y=p, x=p,
    )  # fmt: skip


def varied(pictures: Tensor, frames: int = 1) -> Tensor:
    """Training pictures (n, 3, S, S) uint8 -> the same, each bent, blurred, tinted and made noisy in its own way.

    A few drawings of each thing are known; those to come are drawn differently. `frames` in a row, a film, share all
    but the noise.
    """
    count, side, device = len(pictures) // frames, pictures.shape[-1], pictures.device

    def normal(*shape: int) -> Tensor:
        return torch.randn(count, 1, *shape, device=device)

    strength = (torch.rand(count, 1, 1, 1, 1, device=device) * 4 / 3 - 1 / 3).clamp(min=0)  # a quarter stays as it is
    net = (strength * BEND * normal(2, 6, 6)).flatten(0, 1)
    bend = rearrange(F.interpolate(net, size=(side, side), mode="bicubic"), "n c h w -> n h w c")
    straight = F.affine_grid(torch.eye(2, 3, device=device)[None], [1, 3, side, side], align_corners=False)
    grid = (straight + bend).repeat_interleave(frames, 0)
    x = F.grid_sample(pictures.float(), grid, padding_mode="border", align_corners=False)
    smooth = F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
    x, smooth = x.unflatten(0, (count, frames)), smooth.unflatten(0, (count, frames))
    x = x + strength * normal(1, 1, 1).clamp(0, 1) * (smooth - x)
    middle = x.mean((1, 2, 3, 4), keepdim=True)
    contrast = 1 + strength * (0.12 * normal(1, 1, 1) + 0.06 * normal(3, 1, 1))
    x = middle + contrast * (x - middle) + strength * (20 * normal(1, 1, 1) + 6 * torch.randn_like(x))
    return x.flatten(0, 1).round().clamp(0, 255).to(torch.uint8)


class Layout(NamedTuple):
    """How the patches of one frame are laid out: window by window."""

    order: Tensor
    """(P,) which patch stands where"""
    back: Tensor
    """(P / 4,) where each token of the usual order stands"""
    runs: list[tuple[int, int]]
    """Windows of one size, one after another: how many, of how many patches."""
    rotary: tuple[Tensor, Tensor]
    """cos and sin (P, C)"""


class Eyes(nn.Module):
    def __init__(self, vision: VisionEncoder):
        super().__init__()
        self.vision = vision
        self._layouts: dict[tuple, Layout] = {}

    def forward(self, rows: Tensor, count: int, grid: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
        """Patches of `count` pictures of one grid -> tokens (n, M, D), and merged features (n, M, E) before them."""
        vision = self.vision
        layout = self._layout(grid, rows.device)
        x = vision.patch_embedding(rows.unflatten(0, (count * grid[0], -1))[:, layout.order])  # (frames, P, D)
        whole = [(1, len(layout.order))]
        for index, layer in enumerate(vision.layers):
            runs = whole if index in vision.config.full_attention_layers else layout.runs
            x = x + attend(layer.attention, layer.attention_norm(x), layout.rotary, runs)
            x = x + layer.mlp(layer.mlp_norm(x))
        merged = vision.merger(x.flatten(0, 1)).unflatten(0, (len(x), -1))  # (frames, P / 4, E)
        merged = merged[:, layout.back].flatten(0, 1)
        tokens = vision.normalize(vision.projector(merged))
        return tokens.unflatten(0, (count, -1)), merged.unflatten(0, (count, -1))

    def _layout(self, grid: tuple[int, int, int], device: torch.device) -> Layout:
        key = grid[1:], device
        if key not in self._layouts:
            frame = [(1, *grid[1:])]
            cells = self.vision.config.spatial_merge_size**2
            tokens, sizes = self.vision.windows(frame)
            order = (tokens[:, None] * cells + torch.arange(cells)).flatten()
            cos, sin = self.vision.rotary(frame, torch.device("cpu"))
            self._layouts[key] = Layout(
                order.to(device),
                tokens.argsort().to(device),
                [(len(list(run)), size * cells) for size, run in groupby(sizes)],
                (cos[order].to(device), sin[order].to(device)),
            )
        return self._layouts[key]


def attend(attention: VisionAttention, x: Tensor, rotary: tuple[Tensor, Tensor], runs: list[tuple[int, int]]) -> Tensor:
    """x (frames, P, D) -> the same; each window, one after another as the runs say, sees itself."""
    heads = attention.config.num_attention_heads
    qkv = rearrange(attention.qkv(x), "f p (three h c) -> three f p h c", three=3, h=heads)
    q, k, v = rotate(qkv[0], *rotary), rotate(qkv[1], *rotary), qkv[2]
    pieces, start = [], 0
    for count, size in runs:
        part = slice(start, start + count * size)
        windows = (rearrange(t[:, part], "f (n s) h c -> (f n) h s c", n=count) for t in (q, k, v))
        pieces.append(rearrange(attend_both_ways(*windows), "(f n) h s c -> f (n s) (h c)", n=count))
        start += count * size
    return attention.out(torch.cat(pieces, 1))
