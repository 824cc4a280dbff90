"""A batch of rows (B, T) and its media tokens -> hidden states: the thinker of `model/thinker.py` made for training.

Same parameters, same results, other trade-offs: what is frozen is bf16 and gets no gradient, attention learns through
a low-rank addition, every token goes through all routed experts, which for a few small ones is one matrix product, and
turns about one picture are kept apart by a mask. A host launches kernels more slowly than a GPU runs them, so the
weights of all layers are made ready together, and each layer takes as few steps as it can.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ming_omni.config import MODALITIES, ThinkerConfig
from ming_omni.model.layers import rotary_tables
from ming_omni.model.moe import MoE, choose_experts
from ming_omni.model.thinker import Thinker

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
    is_one: Tensor
    """(N, 3) of what modality each token is"""


class Frozen(NamedTuple):
    """What never changes: of all layers one after another (L, ...), or of each."""

    qkv: Tensor
    """(L, O, D)"""
    out: Tensor
    norms: list[tuple[Tensor, Tensor]]
    """before attention, before the MLP"""
    head_norms: list[tuple[Tensor, Tensor] | None]
    """of q and k"""
    gate_up: list[Tensor]
    """(2 I, D) of the MLP or the shared expert"""
    down: list[Tensor]


class Learned(NamedTuple):
    """Of one layer with routed experts."""

    gate_up: Tensor
    """(2 E I, D)"""
    down: Tensor
    """(E I, D)"""
    router: Tensor
    """(3 E, D) fp32"""
    bias: Tensor
    """(3, E)"""


class Steps:
    """What happens to single tokens of a layer, before and after attention: tensors -> tensors, x (N, D)."""

    def __init__(self, config: ThinkerConfig):
        self.split = (config.num_attention_heads, config.num_key_value_heads, config.num_key_value_heads)
        self.eps, self.moe, self.turned = config.rms_norm_eps, config.moe, config.rotary_dim

    def before(
        self, x: Tensor, norm: Tensor, qkv: Tensor, head_norms: tuple[Tensor, Tensor] | None, cos: Tensor, sin: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """cos, sin (N, 1, C / 2) -> q (N, H, C), k and v (N, K, C)"""
        heads = F.linear(self.normed(x, norm), qkv).unflatten(-1, (sum(self.split), -1))
        asking = heads[:, : sum(self.split[:2])]  # q and k turn together
        if head_norms is not None:
            parts = asking.split(self.split[:2], 1)
            asking = torch.cat([self.normed(part, own) for part, own in zip(parts, head_norms, strict=True)], 1)
        n = self.turned // 2
        first, second, rest = asking[..., :n], asking[..., n : 2 * n], asking[..., 2 * n :]
        turned = torch.cat([first * cos - second * sin, second * cos + first * sin], -1).to(x.dtype)
        asking = torch.cat([turned, rest], -1) if rest.shape[-1] else turned
        q, k = asking.split(self.split[:2], 1)
        return q, k, heads[:, sum(self.split[:2]) :]

    def dense(self, x: Tensor, mixed: Tensor, out: Tensor, norm: Tensor, gate_up: Tensor, down: Tensor) -> Tensor:
        """A layer without routed experts, or with them left out."""
        x = x + F.linear(mixed, out)
        return x + F.linear(gated(F.linear(self.normed(x, norm), gate_up)), down)

    def mixture(
        self,
        x: Tensor,
        mixed: Tensor,
        out: Tensor,
        norm: Tensor,
        gate_up: Tensor,
        down: Tensor,
        learned: Learned,
        is_one: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """-> x, the router's logits (N, E), and 1 for each chosen expert (N, E)"""
        x = x + F.linear(mixed, out)
        normed = self.normed(x, norm)
        every = F.linear(normed.float(), learned.router).unflatten(-1, learned.bias.shape)  # (N, 3, E)
        logits = (every * is_one[..., None]).sum(1)
        weights, ids = choose_experts(logits, is_one @ learned.bias, self.moe)
        share = torch.zeros_like(logits).scatter(1, ids, weights)  # (N, E)
        inner = gated(F.linear(normed, learned.gate_up)).unflatten(-1, (share.shape[1], -1))  # (N, E, I)
        routed = (inner * share.to(x.dtype)[..., None]).flatten(1) @ learned.down
        shared = F.linear(gated(F.linear(normed, gate_up)), down)
        return x + routed + shared, logits, (share.detach() > 0).float()

    def normed(self, x: Tensor, weight: Tensor) -> Tensor:
        return F.rms_norm(x, weight.shape, weight, self.eps)


def gated(both: Tensor) -> Tensor:
    """Gate and up (N, 2 I) -> (N, I)"""
    gate, up = both.chunk(2, -1)
    return F.silu(gate) * up


class Network(nn.Module):
    def __init__(self, thinker: Thinker, rank: int):
        super().__init__()
        self.thinker = thinker
        self.low_rank = nn.ModuleDict()
        for i, layer in enumerate(thinker.layers):
            self.low_rank[f"{i}_qkv"] = LowRank(layer.attention.qkv, rank)
            self.low_rank[f"{i}_out"] = LowRank(layer.attention.out, rank)
        self.plain = Steps(thinker.config)
        self.steps: Steps | Compiled = self.plain
        self._frozen: dict[tuple, Frozen] = {}

    def compile(self) -> None:
        """Fuse what happens to single tokens; its shapes are the same in every batch, whatever B and T."""
        options = {"dynamic": False, "fullgraph": True}
        self.steps = Compiled(*(torch.compile(getattr(self.plain, name), **options) for name in Compiled._fields))

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

    def forward(self, *groups: tuple[Rows, Tensor | None], is_base: bool = False) -> Thought:
        """Several groups of rows, each with its media tokens or without, in one pass: only attention tells them apart.

        is_base  as the thinker was before training, without low-rank additions and routed experts
        """
        x = torch.cat([self.embed(rows, media) for rows, media in groups])
        steps = self.plain
        if torch.is_grad_enabled():
            steps = self.steps
            x = x.requires_grad_()  # also where no medium is: one compiled form for all batches
        shapes = [tuple(rows.ids.shape) for rows, _ in groups]
        masks = [None if rows.segment is None else seen(rows.segment, x.dtype) for rows, _ in groups]
        places = torch.cat([rows.places.flatten(1) for rows, _ in groups], 1)[:, None]  # (3, 1, N)
        cos, sin = (t.transpose(0, 1) for t in rotary_tables(self.thinker.config, places, x.dtype))
        is_one = one_hot(torch.cat([rows.modality.flatten() for rows, _ in groups]))  # (N, 3)
        frozen = self.frozen()
        qkvs, outs = self.attention(frozen, is_base)
        learned = iter([] if is_base else self.learned(x.dtype))
        logits, chosen = [], []
        for i, layer in enumerate(self.thinker.layers):
            norm, mlp_norm = frozen.norms[i]
            heads = steps.before(x, norm, qkvs[i], frozen.head_norms[i], cos, sin)
            parts = zip(*(t.split([b * n for b, n in shapes]) for t in heads), shapes, masks, strict=True)
            mixed = torch.cat([attend(*part) for part in parts])
            after = x, mixed, outs[i], mlp_norm, frozen.gate_up[i], frozen.down[i]
            if is_base or not isinstance(layer.mlp, MoE):
                x = steps.dense(*after)
            else:
                x, layer_logits, layer_chosen = steps.mixture(*after, next(learned), is_one)
                logits.append(layer_logits)
                chosen.append(layer_chosen)
        return Thought(self.thinker.norm(x), logits, chosen, is_one)

    def logits(self, hidden: Tensor) -> Tensor:
        return self.thinker.logits(hidden)

    def frozen(self) -> Frozen:
        """Laid out once for each place and type that the thinker has been moved to."""
        weight = self.thinker.embedding.weight
        key = weight.device, weight.dtype
        if key not in self._frozen:
            layers = self.thinker.layers
            mlps = [layer.mlp.shared if isinstance(layer.mlp, MoE) else layer.mlp for layer in layers]
            has_norms = self.thinker.config.use_qk_norm
            self._frozen = {
                key: Frozen(
                    torch.stack([layer.attention.qkv.weight.data for layer in layers]),
                    torch.stack([layer.attention.out.weight.data for layer in layers]),
                    [(layer.attention_norm.weight.data, layer.mlp_norm.weight.data) for layer in layers],
                    [
                        (layer.attention.q_norm.weight.data, layer.attention.k_norm.weight.data) if has_norms else None
                        for layer in layers
                    ],
                    [torch.cat([mlp.gate.weight.data, mlp.up.weight.data]) for mlp in mlps],
                    [mlp.down.weight.data for mlp in mlps],
                )
            }
        return self._frozen[key]

    def attention(self, frozen: Frozen, is_base: bool) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """qkv and out of every layer, additions included."""
        if is_base:
            return frozen.qkv.unbind(), frozen.out.unbind()
        found = []
        for name, weight in (("qkv", frozen.qkv), ("out", frozen.out)):
            added = [self.low_rank[f"{i}_{name}"] for i in range(len(weight))]
            product = torch.bmm(torch.stack([own.b for own in added]), torch.stack([own.a for own in added]))
            found.append((weight + product.to(weight.dtype)).unbind())
        return found[0], found[1]

    def learned(self, dtype: torch.dtype) -> list[Learned]:
        """Routed experts and routers of every layer that has some."""
        mixtures = [layer.mlp for layer in self.thinker.layers if isinstance(layer.mlp, MoE)]
        gate, up, down = (
            shipped(torch.stack([getattr(moe.experts, name) for moe in mixtures])).to(dtype)  # (L, E, ., .)
            for name in ("gate", "up", "down")
        )
        gate_up = torch.cat([gate.flatten(1, 2), up.flatten(1, 2)], 1)
        down = down.transpose(2, 3).flatten(1, 2)
        routers = [moe.routers[name] for moe in mixtures for name in MODALITIES]
        router = torch.stack([own.weight for own in routers]).unflatten(0, (-1, len(MODALITIES))).flatten(1, 2)
        bias = torch.stack([own.bias.data for own in routers]).unflatten(0, (-1, len(MODALITIES)))
        return [Learned(*own) for own in zip(gate_up, down, router, bias, strict=True)]


class Compiled(NamedTuple):
    """The steps of a layer, compiled."""

    before: Callable
    dense: Callable
    mixture: Callable


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
    if mask is None:
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=num_shared > 1)
    else:
        # With a mask no fused kernel shares heads.
        k, v = (x[:, :, None].expand(-1, -1, num_shared, -1, -1).flatten(1, 2) for x in (k, v))
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask.expand(-1, q.shape[1], -1, -1))
    return mixed.transpose(1, 2).flatten(2).flatten(0, 1)


def shipped(weight: Tensor) -> Tensor:
    """An expert's matrix as it ships, in 4 bits (`packed.pack`), so that it learns to do its work with them.

    The gradient is that of the matrix itself.
    """
    groups = weight.detach().unflatten(-1, (-1, min(GROUP, weight.shape[-1])))
    scale = (groups.abs().amax(-1, keepdim=True) / LARGEST_CODE).half().float()
    codes = (groups / scale.clamp(min=torch.finfo(torch.half).tiny)).round().clamp(-LARGEST_CODE - 1, LARGEST_CODE)
    return weight + ((codes * scale).flatten(-2) - weight.detach())
