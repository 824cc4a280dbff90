"""The thinker on packed weights: same arguments and results as `model.thinker.Thinker`, made for a CPU that chats.

It is the fast twin of the plain one. A mixture of experts is one gated MLP here: shared and routed experts lie side by
side in two matrices, and the inner values of experts that the router did not choose are multiplied by zero.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import SimpleNamespace

import torch
from torch import Tensor
from torch.nn import functional as F

from ming_omni.config import MODALITIES, MoEConfig, ThinkerConfig
from ming_omni.model.layers import Cache, Part, attend, rotary_tables
from ming_omni.model.moe import Routing, choose_experts
from ming_omni.model.thinker import ThinkerOutput
from ming_omni.packed import Packed, adapter, collect, register
from ming_omni.packed.cache import RoomyCache
from ming_omni.packed.matrix import Matrix, Products, as_four_bit, fastest, join, stack

NUM_EXACT_LOGITS = 64
"""Few rows of logits are computed in 4-bit products first, and this many of the likeliest again in fp32."""

Get = Callable[[str], Packed | Tensor]
"""A stored parameter by its name within the part that reads it."""


class Norm:
    """x / rms(x) * weight in fp32, in as few calls as torch allows."""

    def __init__(self, weight: Tensor, eps: float):
        width = len(weight)
        self.weight, self.floor = weight.float() * width**0.5, torch.tensor((width * eps) ** 0.5)

    def __call__(self, x: Tensor) -> Tensor:
        # rms(x)² + eps = (|x|² + width · eps) / width
        size = torch.hypot(torch.linalg.vector_norm(x, dim=-1, keepdim=True), self.floor)
        return x * (self.weight / size)


class Rotary:
    """Turns q and k together; made once a step from the positions of its tokens."""

    def __init__(self, config: ThinkerConfig, positions: Tensor):
        cos, sin = rotary_tables(config, positions, torch.float32)  # (B, T, n)
        self.num_turning = 2 * cos.shape[-1]
        self.cos, self.sin = torch.cat((cos, cos), -1)[:, None], torch.cat((-sin, sin), -1)[:, None]  # (B, 1, T, 2n)

    def __call__(self, x: Tensor) -> Tensor:
        """x (B, H, T, C): channels i and i + n turn together, those from 2n on stay."""
        still = None
        if self.num_turning < x.shape[-1]:
            x, still = x.tensor_split([self.num_turning], -1)
        turned = torch.addcmul(x * self.cos, x.roll(self.num_turning // 2, -1), self.sin)
        return turned if still is None else torch.cat((turned, still), -1)


class Attention:
    """Fused q, k, v; optional norms of q and k; rotary; grouped-query causal attention."""

    def __init__(self, config: ThinkerConfig, layer: int, get: Get, products: Products):
        self.layer, self.channels = layer, config.head_dim
        self.num_heads, self.num_kv = config.num_attention_heads, config.num_key_value_heads
        self.qkv, self.out = (
            Matrix(partial(get, f"{name}.weight"), products, adapter.find(get, name)) for name in ("qkv", "out")
        )
        self.norms = None
        if config.use_qk_norm:
            self.norms = [Norm(get(f"{name}.weight"), config.rms_norm_eps) for name in ("q_norm", "k_norm")]

    def __call__(self, x: Tensor, rotary: Rotary, cache: Cache | None, mask: Tensor | None) -> Tensor:
        """x (B · T, D)"""
        num_rows, num_tokens = rotary.cos.shape[0], rotary.cos.shape[2]
        num_heads, num_kv = self.num_heads, self.num_kv
        qkv = self.qkv(x).float().view(num_rows, num_tokens, -1, self.channels).transpose(1, 2)  # (B, H + 2K, T, C)
        qk, v = qkv.narrow(1, 0, num_heads + num_kv), qkv.narrow(1, num_heads + num_kv, num_kv)
        if self.norms is not None:
            parts = zip(self.norms, qk.split((num_heads, num_kv), 1), strict=True)
            qk = torch.cat([norm(part) for norm, part in parts], 1)
        qk = rotary(qk)
        q, k = qk.narrow(1, 0, num_heads), qk.narrow(1, num_heads, num_kv)
        mixed = attend(q, k, v, mask) if cache is None else cache.attend(self.layer, q, k, v, mask)
        return self.out(mixed.transpose(1, 2).reshape(x.shape[0], -1))


class DenseMLP:
    """down(silu(gate(x)) * up(x))"""

    def __init__(self, get: Get, products: Products):
        self.gate_up = Matrix(lambda: stack([get("gate.weight"), get("up.weight")]), products)
        self.down = Matrix(lambda: get("down.weight"), products)

    def __call__(self, x: Tensor, modality: Tensor | None, mask: Tensor | None) -> tuple[Tensor, None]:
        gate, up = self.gate_up(x).chunk(2, -1)
        return self.down(F.silu(gate).mul_(up)), None


class ExpertMLP:
    """The shared expert and all routed ones as one wide MLP, weighted between its two halves."""

    def __init__(self, config: MoEConfig, get: Get, products: Products):
        # Plain values: each read of a transformers config costs as much as a small tensor operation.
        self.config = SimpleNamespace(**config.to_dict())
        experts = partial(_experts, config, get)
        self.gate_up = Matrix(lambda: stack([*experts("gate"), *experts("up")]), products)
        self.down = Matrix(lambda: join(experts("down")), products)
        self.router_weight = torch.stack([get(f"routers.{name}.weight").float() for name in MODALITIES])  # (3, E, D)
        self.router_bias = torch.stack([get(f"routers.{name}.bias").float() for name in MODALITIES])  # (3, E)
        self.text_weight, self.text_bias = self.router_weight[0], self.router_bias[0]

    def __call__(self, x: Tensor, modality: Tensor | None, mask: Tensor | None) -> tuple[Tensor, Routing]:
        """x (B · T, D), modality and mask (B · T,)"""
        routing = self.route(x, modality, mask)
        num_experts, width = self.config.num_experts, self.config.expert_width
        mixing = torch.zeros_like(routing.logits).scatter_(1, routing.chosen, routing.weights)  # (B · T, E)
        gate, up = self.gate_up(x).chunk(2, -1)
        inner = F.silu(gate).mul_(up)
        inner[:, -num_experts * width :].view(-1, num_experts, width).mul_(mixing[:, :, None])
        return self.down(inner), routing

    def route(self, x: Tensor, modality: Tensor | None, mask: Tensor | None) -> Routing:
        if modality is None:
            logits, bias = F.linear(x, self.text_weight), self.text_bias
        else:
            every = F.linear(x, self.router_weight.flatten(0, 1)).unflatten(1, self.router_bias.shape)  # (B · T, 3, E)
            logits, bias = every[torch.arange(len(x)), modality], self.router_bias[modality]
        weights, chosen = choose_experts(logits, bias, self.config)
        return Routing(logits, chosen, weights, modality, mask)


def _experts(config: MoEConfig, get: Get, name: str) -> list[Packed]:
    """`name` of the shared expert, if there is one, and of all routed experts as one matrix."""
    shared = [get(f"shared.{name}.weight")] if config.num_shared_experts else []
    routed = get(f"experts.{name}")  # gate and up (E, I, D), down (E, D, I)
    if name == "down":
        return [*shared, Packed(*(t if t is None else t.transpose(0, 1).flatten(1) for t in routed))]
    return [*shared, Packed(*(t if t is None else t.flatten(0, 1) for t in routed))]


class Head:
    """Hidden states -> logits through the 8-bit embedding."""

    def __init__(self, embedding: Packed, products: Products):
        self.embedding = embedding
        self.rough = Matrix(partial(as_four_bit, embedding), products)

    def __call__(self, hidden: Tensor) -> Tensor:
        rows = hidden.flatten(0, -2)
        if rows.shape[0] > self.rough.few_rows:
            return F.linear(hidden, self.embedding.float())
        logits = self.rough(torch.cat((rows, rows), -1)).float()  # (N, V), rounded to bf16
        top = logits.topk(min(NUM_EXACT_LOGITS, logits.shape[-1])).indices
        weights = Packed(self.embedding.codes[top], self.embedding.scale[top]).float()  # (N, top, D)
        logits.scatter_(1, top, (weights @ rows[..., None])[..., 0])
        return logits.unflatten(0, hidden.shape[:-1])


class Layer:
    """Attention, then the MLP; each reads a normed copy and adds to the fp32 stream."""

    def __init__(self, config: ThinkerConfig, layer: int, get: Get, products: Products):
        self.attention_norm, self.mlp_norm = (
            Norm(get(f"{name}.weight"), config.rms_norm_eps) for name in ("attention_norm", "mlp_norm")
        )
        self.attention = Attention(config, layer, lambda name: get(f"attention.{name}"), products)
        mlp = [lambda name: get(f"mlp.{name}"), products]
        self.mlp = DenseMLP(*mlp) if layer < config.num_dense_layers else ExpertMLP(config.moe, *mlp)

    def __call__(
        self, x: Tensor, rotary: Rotary, modality: Tensor | None, mask: Tensor | None, cache: Cache | None
    ) -> tuple[Tensor, Routing | None]:
        """x, modality (B · T, ...), mask (B, S)"""
        x = x + self.attention(self.attention_norm(x), rotary, cache, mask)
        is_real = None if mask is None else mask[:, -rotary.cos.shape[2] :].flatten()
        mixed, routing = self.mlp(self.mlp_norm(x), modality, is_real)
        return x + mixed, routing


class PackedThinker(Part):
    """Its state dict holds the stored tensors as they were, so that saving loses nothing. It lives on the CPU."""

    config_class = ThinkerConfig
    base_model_prefix = "thinker"

    def __init__(self, config: ThinkerConfig, stored: dict[str, Tensor], products: Products | None = None):
        """stored: tensors of a packed folder by name, without the prefix `thinker.`"""
        super().__init__(config)
        products = products or fastest()
        for name, tensor in stored.items():
            register(self, name, tensor)
        get = collect(stored).__getitem__
        self.rows = get("embedding.weight")
        self.head = Head(self.rows, products)
        self.blocks = [
            Layer(config, i, lambda name, i=i: get(f"layers.{i}.{name}"), products)
            for i in range(config.num_hidden_layers)
        ]
        self.final_norm = Norm(get("norm.weight"), config.rms_norm_eps)

    def new_cache(self) -> RoomyCache:
        return RoomyCache()

    def embed(self, ids: Tensor) -> Tensor:
        """ids (B, T) -> (B, T, D); ids outside the vocabulary are clipped, as published."""
        ids = ids.clamp(0, self.config.vocab_size - 1)
        return Packed(self.rows.codes[ids], self.rows.scale[ids]).float()

    def logits(self, hidden: Tensor) -> Tensor:
        return self.head(hidden)

    @torch.no_grad()
    def forward(
        self,
        embeddings: Tensor,
        positions: Tensor,
        *,
        modality: Tensor | None = None,
        cache: Cache | None = None,
        mask: Tensor | None = None,
        collect_hidden_states: bool = False,
        collect_routing: bool = False,
    ) -> ThinkerOutput:
        """Arguments as those of `Thinker.forward`."""
        rotary = Rotary(self.config, positions)
        flat_modality = None if modality is None else modality.flatten()
        x = embeddings.float().flatten(0, 1)  # (B · T, D) from here on
        hidden_states, routings = [], []
        for block in self.blocks:
            if collect_hidden_states:
                hidden_states.append(x.view_as(embeddings))
            x, routing = block(x, rotary, flat_modality, mask, cache)
            if collect_routing and routing is not None:
                routings.append(routing)
        hidden = self.final_norm(x).view_as(embeddings)
        if collect_hidden_states:
            hidden_states.append(hidden)
        return ThinkerOutput(hidden, hidden_states, routings)
