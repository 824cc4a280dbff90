"""Whatever a model reads while it is watched -> how often each expert was chosen, and how unevenly."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ming_omni.config import MODALITIES
from ming_omni.evaluate.score import Score


class Watch:
    """Counts (layers, 3, E), added up over all that was read."""

    def __init__(self):
        self.counts: Tensor | None = None

    def add(self, output) -> None:
        if output.routing:
            loads = torch.stack([routing.load for routing in output.routing]).double().cpu()
            self.counts = loads if self.counts is None else self.counts + loads


@contextmanager
def watched(thinker: nn.Module) -> Iterator[Watch]:
    """Every call of the thinker, the engine's too, reports its routing; what the engine remembers is not read."""
    watch = Watch()
    asking = thinker.register_forward_pre_hook(
        lambda _, args, kwargs: (args, kwargs | {"collect_routing": True}), with_kwargs=True
    )
    taking = thinker.register_forward_hook(lambda _, args, output: watch.add(output))
    try:
        yield watch
    finally:
        asking.remove()
        taking.remove()


def balance_scores(counts: Tensor) -> list[Score]:
    """MaxVio of each modality: how far the most used expert lies above the mean, in means; the mean over layers.

    The interval is that of the layers, least to most; a layer's own figure has no other.
    """
    found = []
    for modality, name in enumerate(MODALITIES):
        loads = counts[:, modality]  # (layers, E)
        if loads.sum():
            violations = (loads.amax(1) / loads.mean(1) - 1).tolist()
            mean = sum(violations) / len(violations)
            bounds = min(violations), max(violations)
            name = f"MaxVio, {name} (mean of layers, least to most)"
            found.append(Score(name, mean, *bounds, int(loads[0].sum()), 1.0, 0.3, is_error=True, is_ratio=True))
    return found
