"""Sounds (B, n) -> scores and feature maps: critics of the wave at several periods, and of its spectrum.

The kinds that vocoders learn against; they start from nothing and are thrown away afterwards.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from ming_omni.train.audio_vae.settings import CriticSettings

LOUDNESS_POWER = 0.3
"""Magnitudes are compressed as hearing compresses them, so that soft high sounds are seen too; phases stay."""


class Ladder(nn.Module):
    """Convolutions, each with its size and step; the output of each is a feature map, the last becomes scores."""

    def __init__(self, num_in: int, steps: Sequence[tuple[int, tuple[int, int], tuple[int, int]]]):
        """steps: width, kernel, stride"""
        super().__init__()
        self.steps = nn.ModuleList()
        for width, kernel, stride in steps:
            padding = (kernel[0] // 2, kernel[1] // 2)
            self.steps.append(weight_norm(nn.Conv2d(num_in, width, kernel, stride, padding)))
            num_in = width
        self.out = weight_norm(nn.Conv2d(num_in, 1, (3, 1), padding=(1, 0)))

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        features = []
        for step in self.steps:
            x = F.leaky_relu(step(x), 0.1)
            features.append(x)
        return self.out(x).flatten(1), features


class Critics(nn.Module):
    def __init__(self, settings: CriticSettings):
        super().__init__()
        self.periods, self.windows = settings.periods, settings.windows
        width = settings.width
        widths = (width, 2 * width, 4 * width, 8 * width)
        along = [(each, (5, 1), (3, 1)) for each in widths] + [(widths[-1], (5, 1), (1, 1))]
        over = [(width, (9, 3), (2, 1))] * 3 + [(width, (3, 3), (2, 2)), (width, (3, 3), (1, 1))]
        ladders = [Ladder(1, along) for _ in self.periods] + [Ladder(2, over) for _ in self.windows]
        self.ladders = nn.ModuleList(ladders)
        for window in self.windows:
            self.register_buffer(f"hann_{window}", torch.hann_window(window))

    def views(self, samples: Tensor) -> list[Tensor]:
        """What each ladder looks at: the wave folded at its period (B, 1, L, period), or a spectrum (B, 2, bins, F)."""
        folded = []
        for period in self.periods:
            whole = samples[:, : samples.shape[1] // period * period]
            folded.append(whole.unflatten(1, (-1, period))[:, None])
        return folded + [self._spectrum(samples, window) for window in self.windows]

    def _spectrum(self, samples: Tensor, window: int) -> Tensor:
        hann = getattr(self, f"hann_{window}")
        spectrum = torch.stft(samples, window, window // 4, window=hann, return_complex=True) * (4 / window)
        parts = torch.stack([spectrum.real, spectrum.imag], 1)
        return parts * (parts.square().sum(1, keepdim=True) + 1e-8) ** ((LOUDNESS_POWER - 1) / 2)

    def forward(self, samples: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """scores (B, places) of each ladder; feature maps of all"""
        scores, features = [], []
        for ladder, view in zip(self.ladders, self.views(samples), strict=True):
            score, found = ladder(view.contiguous(memory_format=torch.channels_last))
            scores.append(score)
            features += found
        return scores, features
