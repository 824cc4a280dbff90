"""A batch of rows (B, T) and its media tokens -> losses: the thinker of `model/thinker.py` in a form made for training.

Same parameters, same results, other trade-offs: what is frozen is bf16 and gets no gradient, attention learns through
a low-rank addition, every token goes through all routed experts, which for a few small ones is one matrix product, and
turns about one picture are kept apart by a mask.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ming_omni.config import MODALITIES
from ming_omni.model.layers import rotary_tables, rotate
from ming_omni.model.moe import MoE, choose_experts
from ming_omni.model.thinker import Thinker, ThinkerLayer

GROUP, LARGEST_CODE = 64, 7
"""Weights of a shipped expert that share a scale, and the largest of their 4-bit codes."""


class LowRank(nn.Module):
    """What is added to a frozen matrix (O, D): b a, zero at the start."""

    def __init__(self, linear: nn.Linear, rank: int):
        super().__init__()
        self.a = nn.Parameter(torch.randn(rank, linear.in_features) * linear.in_features**-0.5)
        self.b = nn.Parameter(torch.zeros(linear.out_features, rank))

    def product(self) -> Tensor:
        return self.b @ self.a


@dataclass
class Rows:
    """A batch on its device."""

    ids: Tensor
    """(B, T)"""
    source: Tensor
    """(B, T)"""
    places: Tensor
    """(3, B, T)"""
    modality: Tensor
    """(B, T), negative where no token is"""
    segment: Tensor | None = None

    @property
    def real(self) -> Tensor:
        return self.modality >= 0


@dataclass
class Thought:
    hidden: Tensor
    """(N, D) after the final norm, all rows one after another"""
    logits: list[Tensor]
    """for each mixture layer: (N, E) of the token's own router"""
    chosen: list[Tensor]
    """for each mixture layer: (N, E), 1 where an expert was chosen"""


class Parts(NamedTuple):
    """What happens to single tokens of a layer, around attention."""

    before: Callable
    after_dense: Callable
    after_mixed: Callable


class Network(nn.Module):
    def __init__(self, thinker: Thinker, rank: int):
        super().__init__()
        self.thinker = thinker
        self.low_rank = nn.ModuleDict()
        for i, layer in enumerate(thinker.layers):
            self.low_rank[f"{i}_qkv"] = LowRank(layer.attention.qkv, rank)
            self.low_rank[f"{i}_out"] = LowRank(layer.attention.out, rank)
        self.parts = PLAIN

    def compile(self) -> None:
        """Fuse what happens to single tokens; its shapes are the same in every batch, whatever B and T."""
        self.parts = Parts(*(torch.compile(part, dynamic=False, fullgraph=True) for part in PLAIN))

    def embed(self, rows: Rows, media: Tensor | None) -> Tensor:
        """Ids, and media tokens (B, M, D) where the source says so -> (N, D)."""
        embedded = self.thinker.embed(rows.ids)  # (B, T, D)
        if media is None:
            return embedded.flatten(0, 1)
        (num_rows, length, width), num_media = embedded.shape, media.shape[1]
        # Where each media token goes; those that no token asks for fall behind the row's end.
        place = torch.arange(length, device=rows.ids.device).expand(num_rows, -1)
        slot = torch.where(rows.source >= 0, rows.source, num_media)
        goes = rows.ids.new_full((num_rows, num_media + 1), length).scatter(1, slot, place)[:, :num_media]
        padded = F.pad(embedded, (0, 0, 0, 1))
        filled = padded.scatter(1, goes[..., None].expand(-1, -1, width), media.to(embedded))
        return filled[:, :length].flatten(0, 1)

    def forward(self, rows: Rows, media: Tensor | None = None, *, is_base: bool = False) -> Thought:
        """is_base: as the thinker was before training, without low-rank additions and routed experts."""
        config = self.thinker.config
        x = self.embed(rows, media)
        if torch.is_grad_enabled():
            parts = self.parts
            x = x.requires_grad_()  # also where no medium is: one compiled form for all batches
        else:
            parts = PLAIN
        num_rows, length = rows.ids.shape
        cos, sin = rotary_tables(config, rows.places, x.dtype)
        rotary = cos.flatten(0, 1), sin.flatten(0, 1)  # (N, C / 2)
        mask = None if rows.segment is None else seen(rows.segment, x.dtype)
        is_one = one_hot(rows.modality.flatten())  # (N, 3)
        logits, chosen = [], []
        for i, layer in enumerate(self.thinker.layers):
            add = (
                (None, None) if is_base else (self.low_rank[f"{i}_qkv"].product(), self.low_rank[f"{i}_out"].product())
            )
            q, k, v = parts.before(layer, x, rotary, add[0])
            mixed = attend(q, k, v, (num_rows, length), mask)
            if is_base or not isinstance(layer.mlp, MoE):
                x = parts.after_dense(layer, x, mixed, add[1])
            else:
                x, layer_logits, layer_chosen = parts.after_mixed(layer, x, mixed, add[1], is_one)
                logits.append(layer_logits)
                chosen.append(layer_chosen)
        return Thought(self.thinker.norm(x), logits, chosen)

    def logits(self, hidden: Tensor) -> Tensor:
        return self.thinker.logits(hidden)


def one_hot(modality: Tensor) -> Tensor:
    """(N,) -> (N, 3) float; no token, no modality."""
    return (modality[:, None] == torch.arange(len(MODALITIES), device=modality.device)).float()


def seen(segment: Tensor, dtype: torch.dtype) -> Tensor:
    """Turns (B, T) -> what is added to the scores (B, 1, T, T): a token sees the beginning and its own turn, so far."""
    key, query = segment[:, None, :], segment[:, :, None]
    place = torch.arange(segment.shape[1], device=segment.device)
    allowed = (place[None, :] <= place[:, None]) & ((key == 0) | (key == query))
    allowed |= torch.eye(len(place), dtype=torch.bool, device=segment.device)  # padding sees itself
    return torch.zeros(allowed.shape, dtype=dtype, device=segment.device).masked_fill(~allowed, float("-inf"))[:, None]


def attend(q: Tensor, k: Tensor, v: Tensor, shape: tuple[int, int], mask: Tensor | None) -> Tensor:
    """q (N, H, C), k and v (N, K, C) of rows (B, T) -> (N, H C). Rows are filled up on the right: causal is enough."""
    q, k, v = (x.unflatten(0, shape).transpose(1, 2) for x in (q, k, v))  # (B, H, T, C)
    num_shared = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(num_shared, 1), v.repeat_interleave(num_shared, 1)
    if mask is not None:
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask.expand(-1, q.shape[1], -1, -1))
    else:
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    return mixed.transpose(1, 2).flatten(2).flatten(0, 1)


# What happens to single tokens: x (N, D).


def before_attention(
    layer: ThinkerLayer, x: Tensor, rotary: tuple[Tensor, Tensor], add: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """-> q (N, H, C), k and v (N, K, C)"""
    attention = layer.attention
    qkv = linear(layer.attention_norm(x), attention.qkv.weight, add)
    q, k, v = qkv.unflatten(-1, (sum(attention.split), -1)).split(attention.split, 1)
    q, k = attention.q_norm(q), attention.k_norm(k)
    # `rotate` wants heads before tokens; here every token is a row of its own.
    cos, sin = rotary[0][:, None], rotary[1][:, None]  # (N, 1, C / 2)
    return rotate(q[:, :, None], cos, sin)[:, :, 0], rotate(k[:, :, None], cos, sin)[:, :, 0], v


def after_attention_dense(layer: ThinkerLayer, x: Tensor, mixed: Tensor, add: Tensor | None) -> Tensor:
    """A layer without routed experts, or with them left out."""
    x = x + linear(mixed, layer.attention.out.weight, add)
    mlp = layer.mlp.shared if isinstance(layer.mlp, MoE) else layer.mlp
    return x + mlp(layer.mlp_norm(x))


def after_attention_mixed(
    layer: ThinkerLayer, x: Tensor, mixed: Tensor, add: Tensor | None, is_one: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """-> x, the router's logits (N, E), and 1 for each chosen expert (N, E)"""
    moe = layer.mlp
    x = x + linear(mixed, layer.attention.out.weight, add)
    normed = layer.mlp_norm(x)
    weight = torch.stack([moe.routers[name].weight for name in MODALITIES])  # (3, E, D)
    bias = torch.stack([moe.routers[name].bias for name in MODALITIES])
    every = F.linear(normed.float(), weight.flatten(0, 1)).unflatten(-1, weight.shape[:2])  # (N, 3, E)
    logits = (every * is_one[..., None]).sum(1)
    weights, ids = choose_experts(logits, is_one @ bias, moe.config)
    share = torch.zeros_like(logits).scatter(1, ids, weights)  # (N, E)
    chosen = torch.zeros_like(logits).scatter(1, ids, 1.0)
    gate, up, down = (shipped(w).to(x.dtype) for w in (moe.experts.gate, moe.experts.up, moe.experts.down))
    inner = F.silu(F.linear(normed, gate.flatten(0, 1))) * F.linear(normed, up.flatten(0, 1))  # (N, E I)
    inner = inner.unflatten(-1, (len(gate), -1)) * share.to(x.dtype)[..., None]
    routed = inner.flatten(1) @ down.transpose(1, 2).flatten(0, 1)  # (N, D)
    if moe.shared is not None:
        routed = routed + moe.shared(normed)
    return x + routed, logits, chosen


def shipped(weight: Tensor) -> Tensor:
    """An expert's matrix as it ships, in 4 bits (`packed.pack`), so that it learns to do its work with them.

    The gradient is that of the matrix itself.
    """
    groups = weight.detach().unflatten(-1, (-1, min(GROUP, weight.shape[-1])))
    scale = (groups.abs().amax(-1, keepdim=True) / LARGEST_CODE).half().float()
    codes = (groups / scale.clamp(min=torch.finfo(torch.half).tiny)).round().clamp(-LARGEST_CODE - 1, LARGEST_CODE)
    return weight + ((codes * scale).flatten(-2) - weight.detach())


def linear(x: Tensor, weight: Tensor, add: Tensor | None) -> Tensor:
    return F.linear(x, weight.to(x.dtype) if add is None else weight.to(x.dtype) + add.to(x.dtype))


PLAIN = Parts(before_attention, after_attention_dense, after_attention_mixed)
