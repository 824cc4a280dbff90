"""Flow matching: clean data and noise -> training loss; noise and a velocity -> data. Shared by pictures and speech.

A flow moves along the straight line between noise and data. Pictures measure the way by the noise level sigma, from 1
down to 0; speech by time, from 0 up to 1. Both are grids of points on the line, and every function takes any grid.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor


def on_line(start: Tensor, end: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
    """The point a part `place` (B,) of the way from `start` to `end` (B, ...), and the velocity there."""
    place = place.to(start.dtype).reshape(-1, *[1] * (start.dim() - 1))
    return torch.lerp(start, end, place), end - start


def flow_loss(
    velocity: Callable[[Tensor, Tensor], Tensor],
    start: Tensor,
    end: Tensor,
    place: Tensor,
    weight: Tensor | None = None,
) -> Tensor:
    """Mean squared error of the predicted velocity at `place` (B,) on the lines from `start` to `end` (B, ...).

    velocity(point, place)  the model
    weight (B, ...)         broadcast over the error; zero where the data is padding
    """
    point, target = on_line(start, end, place)
    error = (velocity(point, place).float() - target.float()).square()
    if weight is None:
        return error.mean()
    weight = weight.float().expand_as(error)
    return (error * weight).sum() / weight.sum().clamp(min=1e-8)


def euler(velocity: Callable[[Tensor, Tensor], Tensor], x: Tensor, grid: Tensor) -> Iterator[Tensor]:
    """Follow the flow through `grid` (steps + 1,), yielding x after every step; the caller may stop at any of them.

    Each step is taken in float32 and rounded to the velocity's own precision, as published.
    """
    for here, there in itertools.pairwise(grid):
        v = velocity(x, here)
        x = (x.float() + (there - here).to(x.device, torch.float32) * v).to(v.dtype)
        yield x


def shift(sigma: Tensor, factor: float) -> Tensor:
    """Bend noise levels towards 1 (factor > 1), so that more steps decide the layout of the picture."""
    return factor * sigma / (1 + (factor - 1) * sigma)


def logit_normal(count: int, generator: torch.Generator | None = None, mean: float = 0.0, std: float = 1.0) -> Tensor:
    """Training noise levels (count,) in (0, 1), most of them near the middle, where the velocity is hardest to tell."""
    return (mean + std * torch.randn(count, generator=generator)).sigmoid()


SPEECH_STEPS = {
    5: (0, 2, 4, 8, 16, 32),
    6: (0, 2, 4, 6, 8, 16, 32),
    7: (0, 2, 4, 6, 8, 16, 24, 32),
    10: (0, 2, 4, 6, 8, 12, 16, 20, 24, 28, 32),
    12: (0, 2, 4, 6, 8, 10, 12, 14, 16, 20, 24, 28, 32),
    16: (0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28, 32),
}
"""Times in 1/32 where a speech flow of n steps is evaluated: dense near the noise (EPSS, spec 7.2)."""


def uneven_times(steps: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Times 0..1 (steps + 1,), uneven for the step counts that have a table."""
    if steps in SPEECH_STEPS:
        return torch.tensor(SPEECH_STEPS[steps]).to(dtype) / 32
    return torch.linspace(0, 1, steps + 1, dtype=dtype)


def sway(times: Tensor) -> Tensor:
    """Bend times towards the noise: t -> 1 - cos(pi t / 2), rounded where the release rounds."""
    return times - (torch.cos(math.pi / 2 * times) - 1 + times)


def speech_grid(steps: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """The times (steps + 1,) at which speech is sampled."""
    return sway(uneven_times(steps, dtype))
