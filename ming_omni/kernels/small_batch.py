"""Few routed rows -> outputs: copy the chosen experts' weights side by side, then one batched product each."""

from torch import Tensor
from torch.nn import functional as F


def expert_mlp(x: Tensor, weights: Tensor, chosen: Tensor, gate: Tensor, up: Tensor, down: Tensor) -> Tensor:
    column = x[:, None, :, None]  # (T, 1, D, 1)
    inner = F.silu(gate[chosen] @ column) * (up[chosen] @ column)  # (T, A, I, 1)
    out = (down[chosen] @ inner)[..., 0]  # (T, A, D)
    return (out.float() * weights[..., None].float()).sum(1).to(x.dtype)


def pick_linear(x: Tensor, weight: Tensor, pick: Tensor) -> Tensor:
    return (weight[pick] @ x[..., None])[..., 0]
