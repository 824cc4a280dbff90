"""Routed rows -> outputs, one expert after the other: the definition that every faster version must equal."""

import torch
from torch import Tensor
from torch.nn import functional as F


def expert_mlp(x: Tensor, weights: Tensor, chosen: Tensor, gate: Tensor, up: Tensor, down: Tensor) -> Tensor:
    total = torch.zeros(x.shape, dtype=torch.float32, device=x.device)
    for expert in range(len(gate)):
        token, slot = torch.where(chosen == expert)
        rows = x[token]
        inner = F.silu(F.linear(rows, gate[expert])) * F.linear(rows, up[expert])
        out = F.linear(inner, down[expert])
        total = total.index_add(0, token, out.float() * weights[token, slot, None].float())
    return total.to(x.dtype)


def pick_linear(x: Tensor, weight: Tensor, pick: Tensor) -> Tensor:
    out = x.new_zeros(len(x), weight.shape[1])
    for group in range(len(weight)):
        rows = torch.where(pick == group)[0]
        out = out.index_put((rows,), F.linear(x[rows], weight[group]))
    return out
