"""Flow matching: clean data and noise -> training loss; noise and a velocity -> data. Shared by pictures and speech.

A flow moves along the straight line between noise and data. Pictures measure the way by the noise level sigma, from 1
down to 0; speech by time, from 0 up to 1. Both are grids of points on the line, and every function takes any grid.
"""

from __future__ import annotations

import itertools
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


def guide(unconditional: Tensor, conditional: Tensor, scale: float) -> Tensor:
    """Move from the unconditional velocity past the conditional one; at scale 1 the latter is returned."""
    return unconditional + scale * (conditional - unconditional)


def shift(sigma: Tensor, factor: float) -> Tensor:
    """Bend noise levels towards 1 (factor > 1), so that more steps decide the layout of the picture."""
    return factor * sigma / (1 + (factor - 1) * sigma)


def logit_normal(count: int, generator: torch.Generator | None = None, mean: float = 0.0, std: float = 1.0) -> Tensor:
    """Training noise levels (count,) in (0, 1), most of them near the middle, where the velocity is hardest to tell."""
    return (mean + std * torch.randn(count, generator=generator)).sigmoid()
