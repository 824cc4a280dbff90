"""Few routed rows on a CPU -> outputs: each row times its experts' matrices where they lie, nothing sorted or copied.

Gathering the chosen matrices for one batched product would read and write them all once more; it measured slower.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def expert_mlp(x: Tensor, weights: Tensor, chosen: Tensor, gate: Tensor, up: Tensor, down: Tensor) -> Tensor:
    outs = [
        down[expert] @ (F.silu(gate[expert] @ row) * (up[expert] @ row))
        for row, experts in zip(x, chosen.tolist(), strict=True)
        for expert in experts
    ]
    out = _stack(outs, x).view(*chosen.shape, x.shape[1])
    return (out.float() * weights[..., None].float()).sum(1).to(x.dtype)


def pick_linear(x: Tensor, weight: Tensor, pick: Tensor) -> Tensor:
    outs = [weight[group] @ row for row, group in zip(x, pick.tolist(), strict=True)]
    return _stack(outs, x).view(len(x), weight.shape[1])


def _stack(rows: list[Tensor], like: Tensor) -> Tensor:
    return torch.stack(rows) if rows else like.flatten()
