"""Prompts (B, T) and query tokens -> thinker states at the last query grid (B, n², D): the frozen thinker, in training.

Same results as `painting.read_states`. A prompt does not see the queries behind it, so it is read once, without
gradients, and leaves its keys and values; only the queries, whose gradient passes through all layers, are read with
them. Attention apart, the work on single tokens is that of `train.senses.network`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ming_omni.config import MODALITIES
from ming_omni.model.layers import rotary_tables
from ming_omni.model.moe import MoE
from ming_omni.model.painter import Painter
from ming_omni.model.painting import last_grid
from ming_omni.model.positions import positions
from ming_omni.model.thinker import Thinker
from ming_omni.train.senses.network import Learned, Steps, attend, one_hot

IMAGE = MODALITIES.index("image")


@dataclass
class Prompts:
    """A batch on its device, filled up on the right."""

    ids: Tensor
    """(B, T)"""
    places: Tensor
    """(3, B, T)"""
    modality: Tensor
    """(B, T), negative where no token is"""
    starts: Tensor
    """(B,) position of the first query"""
    media: Tensor | None = None
    """(B, M, D) tokens of a picture, which stand at the same place in every row"""
    first: int = 0
    """that place"""


class Layer(NamedTuple):
    """Weights of one layer, laid out for `Steps`."""

    norm: Tensor
    qkv: Tensor
    head_norms: tuple[Tensor, Tensor] | None
    out: Tensor
    mlp_norm: Tensor
    gate_up: Tensor
    down: Tensor
    routed: Learned | None


class Reader(nn.Module):
    """Owns nothing that learns: the queries are the painter's."""

    def __init__(self, thinker: Thinker, painter: Painter):
        super().__init__()
        self.thinker = thinker
        self.steps = Steps(thinker.config)
        ids = painter.query_ids(thinker.config)[:-1]  # nothing reads the last end mark
        places, _ = positions(thinker.config, ids[None], None, painter.query_grid())
        is_query = ids == thinker.config.image_patch_token
        self.register_buffer("query_ids", ids, persistent=False)
        self.register_buffer("query_places", places[:, 0], persistent=False)  # (3, Q)
        self.register_buffer("is_query", is_query, persistent=False)
        self._layers: dict[tuple, list[Layer]] = {}

    def forward(self, painter: Painter, groups: list[Prompts]) -> list[Tensor]:
        """States (B, n², D) of each group; groups share everything but attention."""
        config = self.thinker.config
        with torch.no_grad():
            x = torch.cat([self._embed(prompts).flatten(0, 1) for prompts in groups])
            shapes = [tuple(prompts.ids.shape) for prompts in groups]
            turns = _turns(config, [prompts.places for prompts in groups], x.dtype)
            is_one = one_hot(torch.cat([prompts.modality.flatten() for prompts in groups]))
            seen = [self._seen(prompts, x.dtype) for prompts in groups]
        counts = [len(prompts.ids) for prompts in groups]
        num_queries = len(self.query_ids)
        y = self._queries(painter).expand(sum(counts), -1, -1).flatten(0, 1)
        starts = torch.cat([prompts.starts for prompts in groups])
        query_places = self.query_places[:, None] + starts[None, :, None]  # (3, B, Q)
        query_turns = _turns(config, [query_places], y.dtype)
        query_is_one = one_hot((self.is_query.long() * IMAGE).repeat(sum(counts)))
        query_shapes = [(count, num_queries) for count in counts]

        for layer in self.layers():
            with torch.no_grad():
                heads = self.steps.before(x, layer.norm, layer.qkv, layer.head_norms, *turns)
                parts = _apart(heads, shapes)
                mixed = torch.cat([attend(*part, shape, None) for part, shape in zip(parts, shapes, strict=True)])
                x = self._after(x, mixed, layer, is_one)
            query_heads = self.steps.before(y, layer.norm, layer.qkv, layer.head_norms, *query_turns)
            query_parts = _apart(query_heads, query_shapes)
            together = zip(query_parts, query_shapes, parts, shapes, seen, strict=True)
            y = self._after(y, torch.cat([_ask(*each) for each in together]), layer, query_is_one)
        states = self.thinker.norm(y).unflatten(0, (-1, num_queries))
        return [last_grid(painter, part) for part in states.split(counts)]

    def _after(self, x: Tensor, mixed: Tensor, layer: Layer, is_one: Tensor) -> Tensor:
        after = x, mixed, layer.out, layer.mlp_norm, layer.gate_up, layer.down
        return self.steps.dense(*after) if layer.routed is None else self.steps.mixture(*after, layer.routed, is_one)[0]

    def _embed(self, prompts: Prompts) -> Tensor:
        """(B, T, D)"""
        embedded = self.thinker.embed(prompts.ids)
        if prompts.media is None:
            return embedded
        first, last = prompts.first, prompts.first + prompts.media.shape[1]
        return torch.cat([embedded[:, :first], prompts.media.to(embedded), embedded[:, last:]], 1)

    def _queries(self, painter: Painter) -> Tensor:
        """(Q, D): the grids' markers and the painter's own tokens."""
        markers = self.thinker.embed(self.query_ids)
        return markers.masked_scatter(self.is_query[:, None], painter.query_tokens().to(markers))

    def _seen(self, prompts: Prompts, dtype: torch.dtype) -> Tensor:
        """What is added to the scores of queries (B, 1, Q, T + Q): all of the prompt, and the queries before."""
        num_queries, device = len(self.query_ids), prompts.ids.device
        is_real = (prompts.modality >= 0)[:, None].expand(-1, num_queries, -1)  # (B, Q, T)
        is_before = torch.ones(num_queries, num_queries, dtype=torch.bool, device=device).tril()
        allowed = torch.cat([is_real, is_before.expand(len(prompts.ids), -1, -1)], 2)[:, None]
        return torch.zeros(allowed.shape, dtype=dtype, device=device).masked_fill(~allowed, float("-inf"))

    def layers(self) -> list[Layer]:
        """Laid out once for each place and type that the thinker has been moved to."""
        weight = self.thinker.embedding.weight
        key = weight.device, weight.dtype
        if key not in self._layers:
            has_norms = self.thinker.config.use_qk_norm
            found = []
            for layer in self.thinker.layers:
                own, mlp = layer.attention, layer.mlp
                whole = mlp.shared if isinstance(mlp, MoE) else mlp
                found.append(
                    Layer(
                        layer.attention_norm.weight.data,
                        own.qkv.weight.data,
                        (own.q_norm.weight.data, own.k_norm.weight.data) if has_norms else None,
                        own.out.weight.data,
                        layer.mlp_norm.weight.data,
                        torch.cat([whole.gate.weight.data, whole.up.weight.data]),
                        whole.down.weight.data,
                        _routed(mlp) if isinstance(mlp, MoE) else None,
                    )
                )
            self._layers = {key: found}
        return self._layers[key]


def _routed(mlp: MoE) -> Learned:
    """Routed experts side by side: for a few small ones one product of all is faster than sorting tokens."""
    experts, routers = mlp.experts, [mlp.routers[name] for name in MODALITIES]
    return Learned(
        torch.cat([experts.gate.data.flatten(0, 1), experts.up.data.flatten(0, 1)]),
        experts.down.data.transpose(1, 2).flatten(0, 1).contiguous(),
        torch.cat([router.weight.data.float() for router in routers]),
        torch.stack([router.bias.data.float() for router in routers]),
    )


def _turns(config, places: list[Tensor], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Places (3, B, T) of each group -> cos and sin (N, 1, C / 2) of all tokens."""
    flat = torch.cat([own.flatten(1) for own in places], 1)[:, None]
    cos, sin = rotary_tables(config, flat, dtype)
    return cos.transpose(0, 1), sin.transpose(0, 1)


def _apart(heads: tuple[Tensor, ...], shapes: list[tuple[int, int]]) -> list[tuple[Tensor, ...]]:
    """q, k, v of all tokens -> of each group."""
    return list(zip(*(t.split([b * n for b, n in shapes]) for t in heads), strict=True))


def _ask(
    queries: tuple[Tensor, ...], shape: tuple[int, int], prompt: tuple[Tensor, ...], prompt_shape: tuple[int, int],
    seen: Tensor,
) -> Tensor:  # fmt: skip
    """Queries look at their prompt and at the queries before: q, k, v (B Q, H, C) and (B T, H, C) -> (B Q, H C)."""
    q, *own = (x.unflatten(0, shape).transpose(1, 2) for x in queries)  # (B, H, Q, C)
    before = [x.unflatten(0, prompt_shape).transpose(1, 2) for x in prompt[1:]]
    k, v = (torch.cat(pair, 2) for pair in zip(before, own, strict=True))  # (B, K, T + Q, C)
    # With a mask no fused kernel shares heads.
    k, v = (x[:, :, None].expand(-1, -1, q.shape[1] // x.shape[1], -1, -1).flatten(1, 2) for x in (k, v))
    mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=seen.expand(-1, q.shape[1], -1, -1))
    return mixed.transpose(1, 2).flatten(2).flatten(0, 1)
