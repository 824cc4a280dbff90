"""Routed rows through stacked weights: the model calls these two operations and never learns which version ran."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import ModuleType

import torch
from torch import Tensor

from ming_omni.kernels import grouped, reference, small_batch

__all__ = ["available", "expert_mlp", "grouped", "pick_linear", "reference", "small_batch", "use"]

SMALL_BATCH_ROWS = 8
"""Up to this many routed rows are cheaper one by one than sorted, on a CPU (one token of nano: 72 against 137 us)."""

_forced: ContextVar[ModuleType | None] = ContextVar("forced kernel", default=None)


def available() -> list[ModuleType]:
    """Every fast version that runs here; `reference` is their definition."""
    return [grouped, small_batch]


@contextmanager
def use(kernel: ModuleType) -> Iterator[None]:
    """Run this version inside the block, in this thread or task only."""
    token = _forced.set(kernel)
    try:
        yield
    finally:
        _forced.reset(token)


def expert_mlp(x: Tensor, weights: Tensor, chosen: Tensor, gate: Tensor, up: Tensor, down: Tensor) -> Tensor:
    """Sum over each token's experts of weight * down(silu(gate(x)) * up(x)).

    x        (T, D)
    weights  (T, A)  mixing weights; products are summed in fp32, then rounded to x's dtype (spec N6)
    chosen   (T, A)  expert ids
    gate, up (E, I, D), down (E, D, I)
    returns  (T, D)
    """
    if torch.is_autocast_enabled(x.device.type):  # as a linear layer would
        dtype = torch.get_autocast_dtype(x.device.type)
        x, gate, up, down = (tensor.to(dtype) for tensor in (x, gate, up, down))
    return _version(x, chosen.numel()).expert_mlp(x, weights, chosen, gate, up, down)


def pick_linear(x: Tensor, weight: Tensor, pick: Tensor) -> Tensor:
    """Each row through the one matrix it picks: x (T, D), weight (G, O, D), pick (T,) -> (T, O)."""
    return _version(x, len(x)).pick_linear(x, weight, pick)


def _version(x: Tensor, num_rows: int) -> ModuleType:
    if torch.compiler.is_compiling():
        return grouped  # the only version with one graph for any routing; dynamo cannot read a context variable either
    forced = _forced.get()
    if forced is not None:
        return forced
    return small_batch if x.device.type == "cpu" and num_rows <= SMALL_BATCH_ROWS else grouped
