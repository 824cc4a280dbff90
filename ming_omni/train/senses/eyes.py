"""Pictures (n, 3, S, S) of bytes, all of one size -> patches as the processor makes them -> tokens (n, M, D).

The encoder is the model's own; what depends on sizes only (windows, rotary tables) is made once for each size.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ming_omni.inputs.patches import ImageProcessor
from ming_omni.model.vision_encoder import VisionEncoder


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


class Eyes(nn.Module):
    def __init__(self, vision: VisionEncoder):
        super().__init__()
        self.vision = vision
        self._plans: dict[tuple, tuple] = {}

    def forward(self, rows: Tensor, count: int, grid: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
        """Patches of `count` pictures of one grid -> tokens (n, M, D), and merged features (n, M, E) before them."""
        vision = self.vision
        rotary, windows, frames = self._plan(count, grid, rows.device)
        x = vision.patch_embedding(rows)
        for index, layer in enumerate(vision.layers):
            x = layer(x, rotary, frames if index in vision.config.full_attention_layers else windows)
        merged = vision.merger(x)
        tokens = vision.normalize(vision.projector(merged))
        return tokens.unflatten(0, (count, -1)), merged.unflatten(0, (count, -1))

    def _plan(self, count: int, grid: tuple[int, int, int], device: torch.device) -> tuple:
        key = count, grid, device
        if key not in self._plans:
            grids = [grid] * count
            self._plans[key] = (self.vision.rotary(grids, device), *self.vision.segments(grids, device))
        return self._plans[key]
