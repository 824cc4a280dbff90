"""Tokens (T, D) and their modalities (T,) -> tokens (T, D): a router per modality, routed experts, a shared expert."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ming_omni import kernels
from ming_omni.config import MODALITIES, MoEConfig
from ming_omni.model.layers import MLP


@dataclass
class Routing:
    """What one layer decided for its T tokens; training balances the experts from it."""

    logits: Tensor
    """(T, E) of the token's own router"""
    chosen: Tensor
    """(T, A) expert ids"""
    weights: Tensor
    """(T, A) mixing weights, fp32"""
    modality: Tensor | None
    """(T,) or None: all text"""
    mask: Tensor | None
    """(T,) True for real tokens; None: all are"""

    @property
    def load(self) -> Tensor:
        """How often each modality chose each expert, padding left out: (3, E)."""
        num_experts = self.logits.shape[1]
        modality = torch.zeros_like(self.chosen) if self.modality is None else self.modality[:, None]
        counted = torch.ones_like(self.weights) if self.mask is None else self.mask[:, None].float()
        counts = torch.zeros(len(MODALITIES) * num_experts, device=self.chosen.device)
        place = (modality * num_experts + self.chosen).flatten()
        return counts.scatter_add(0, place, counted.expand_as(self.chosen).flatten()).view(-1, num_experts)


def choose_experts(logits: Tensor, bias: Tensor, config: MoEConfig) -> tuple[Tensor, Tensor]:
    """Pick experts for each token: the best of the best groups.

    logits  (T, E)  of the token's own router; their dtype is the dtype of the scores
    bias    (T, E)  load balance, or (E,) for all tokens; moves the choice, never the weight
    returns (T, A) mixing weights that sum to `routed_scale`, fp32; (T, A) expert ids
    """
    scores = logits.sigmoid()
    preference = scores + bias.to(scores.dtype)
    if config.groups_kept < config.num_groups:
        grouped = preference.unflatten(-1, (config.num_groups, -1))  # (T, groups, E / groups)
        best_two = grouped.topk(min(2, grouped.shape[-1])).values.float().sum(-1)  # (T, groups)
        kept = best_two.topk(config.groups_kept).indices
        dropped = torch.ones_like(best_two, dtype=torch.bool).scatter(-1, kept, False)
        preference = grouped.masked_fill(dropped[..., None], float("-inf")).flatten(-2)
    chosen = preference.topk(config.experts_per_token).indices  # (T, A)
    # Weights come from the unbiased scores, so balancing does not bend the task's gradient.
    weights = scores.gather(-1, chosen).float()
    return config.routed_scale * weights / (weights.sum(-1, keepdim=True) + 1e-20), chosen


class Router(nn.Module):
    """One modality's router. Its bias is moved by the load, not by gradients."""

    def __init__(self, width: int, num_experts: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_experts, width))
        self.bias = nn.Parameter(torch.zeros(num_experts, dtype=torch.float32), requires_grad=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.kaiming_uniform_(self.weight, a=5**0.5)

    def _apply(self, fn, recurse: bool = True):
        # The bias follows the model to its device but never to its dtype: bf16 would round small moves away.
        bias = self.bias.data
        super()._apply(fn, recurse)
        if self.bias.dtype != bias.dtype:
            self.bias.data = bias.to(self.bias.device)
        return self

    def forward(self) -> tuple[Tensor, Tensor]:
        """Weight (E, D) and bias (E,); a call, so that offloaded routers are fetched."""
        return self.weight, self.bias


class Experts(nn.Module):
    """All routed experts in three stacked tensors; a compressed form replaces this module and keeps its forward."""

    def __init__(self, num_experts: int, width: int, inner: int):
        super().__init__()
        self.gate = nn.Parameter(torch.empty(num_experts, inner, width))
        self.up = nn.Parameter(torch.empty(num_experts, inner, width))
        self.down = nn.Parameter(torch.empty(num_experts, width, inner))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        for weight in (self.gate, self.up, self.down):
            nn.init.normal_(weight, std=weight.shape[-1] ** -0.5)

    def forward(self, x: Tensor, weights: Tensor, chosen: Tensor) -> Tensor:
        """x (T, D), mixing weights (T, A), expert ids (T, A) -> (T, D)"""
        return kernels.expert_mlp(x, weights, chosen, self.gate, self.up, self.down)


class MoE(nn.Module):
    """Route each token by its own modality's router, then routed experts plus the shared one."""

    def __init__(self, width: int, config: MoEConfig, numerics: str = "native"):
        super().__init__()
        self.config, self.numerics = config, numerics
        self.routers = nn.ModuleDict({name: Router(width, config.num_experts) for name in MODALITIES})
        self.experts = Experts(config.num_experts, width, config.expert_width)
        num_shared = config.num_shared_experts
        self.shared = MLP(width, config.expert_width * num_shared) if num_shared else None

    def forward(self, x: Tensor, modality: Tensor | None = None, mask: Tensor | None = None) -> tuple[Tensor, Routing]:
        """x (T, D); modality (T,) as in `MODALITIES`, None for all text; mask (T,) only tells what the load counts."""
        routing = self.route(x, modality, mask)
        routed = self.experts(x, routing.weights, routing.chosen)
        return (routed if self.shared is None else routed + self.shared(x)), routing

    def route(self, x: Tensor, modality: Tensor | None, mask: Tensor | None = None) -> Routing:
        # Released code rounds logits, scores and bias to the hidden dtype (spec N4); native routing is fp32 throughout.
        dtype = x.dtype if self.numerics == "reference" else torch.float32
        with torch.autocast(x.device.type, enabled=False):
            if modality is None:
                weight, bias = self.routers["text"]()
                logits = F.linear(x.to(dtype), weight.to(dtype))
            else:
                weight, bias = map(torch.stack, zip(*(router() for router in self.routers.values()), strict=True))
                logits = kernels.pick_linear(x.to(dtype), weight.to(dtype), modality)  # weight (3, E, D)
                bias = bias[modality]  # (T, E)
            weights, chosen = choose_experts(logits, bias, self.config)
        return Routing(logits, chosen, weights, modality, mask)
