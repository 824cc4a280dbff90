"""Router logits and choices of every layer -> the balance losses of `train/balance.py`, and moves of all biases.

The same figures from matrix products: adding up by index is slow where few sums take many tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ming_omni.config import MODALITIES
from ming_omni.model.moe import MoE
from ming_omni.model.thinker import Thinker
from ming_omni.train.balance import Strengths


def costs(
    logits: Sequence[Tensor], chosen: Sequence[Tensor], is_one: Tensor, strengths: Strengths
) -> tuple[Tensor, ...]:
    """logits, chosen (N, E) of each layer, is_one (N, 3) -> auxiliary loss, z-loss without strength, loads (L, 3, E)"""
    raw, picked = torch.stack(list(logits)).float(), torch.stack(list(chosen))  # (L, N, E)
    scores = raw.sigmoid()
    shares = scores / scores.sum(-1, keepdim=True)
    loads = is_one.T @ picked  # (L, 3, E)
    num_chosen = picked[0, 0].sum()
    counted = (loads.sum(-1, keepdim=True) / num_chosen).clamp(min=1)  # tokens of each modality
    f = shares.shape[-1] / (num_chosen * counted) * loads
    p = (is_one.T @ shares) / counted
    auxiliary = ((f * p).sum(-1).sum(0) * strengths.tensor(raw)).sum()
    real = is_one.sum(-1)
    z = (raw.logsumexp(-1).square() * real).sum() / real.sum().clamp(min=1)
    return auxiliary, z, loads.detach()


class Biases:
    """The biases of all routers as one tensor (L, 3, E), which moves after every step."""

    def __init__(self, thinker: Thinker):
        routers = [layer.mlp.routers for layer in thinker.layers if isinstance(layer.mlp, MoE)]
        self.values = torch.stack([torch.stack([r[name].bias.data for name in MODALITIES]) for r in routers]).float()
        for layer, router in enumerate(routers):
            for m, name in enumerate(MODALITIES):
                router[name].bias.data = self.values[layer, m]  # a view: one move reaches all

    @torch.no_grad()
    def move(self, loads: Tensor, rates: Strengths) -> None:
        """As `balance.move_bias`; a modality without tokens does not move."""
        direction = (loads.mean(-1, keepdim=True) - loads).sign()
        direction -= direction.mean(-1, keepdim=True)
        self.values += direction * rates.tensor(loads)[:, None]


def max_violations(loads: Tensor) -> dict[str, float]:
    """Loads (L, 3, E) -> how far the busiest expert lies above the mean, in the mean layer and in the worst."""
    violation = loads.amax(-1) / loads.mean(-1).clamp(min=1e-9) - 1  # (L, 3)
    found = {}
    for m, name in enumerate(MODALITIES):
        if loads[:, m].any():
            found[f"max_violation/{name}"] = float(violation[:, m].mean())
            found[f"max_violation/{name}/worst_layer"] = float(violation[:, m].max())
    return found
