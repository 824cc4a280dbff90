"""Vectors (R, T, D) -> hidden states (R, T, D): a causal Qwen2 transformer whose cache lets rows come and go.

The talker's language model and both halves of the AudioVAE are this network (spec 7.1, 7.5).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ming_omni.config import BackboneConfig
from ming_omni.model.layers import MLP, attend, rotate


class SlotCache:
    """Keys and values of many rows. Each row lives in a slot and has its own length; a freed slot is used again."""

    def __init__(self, config: BackboneConfig, num_slots: int, capacity: int, like: Tensor):
        shape = (config.num_hidden_layers, num_slots, config.num_key_value_heads, capacity, config.head_dim)
        self.keys, self.values = like.new_zeros(shape), like.new_zeros(shape)  # (layers, slots, K, S, C)
        self.lengths = torch.zeros(num_slots, dtype=torch.long, device=like.device)
        self.num_shared = config.num_attention_heads // config.num_key_value_heads

    @property
    def capacity(self) -> int:
        return self.keys.shape[3]

    def rows(self, slots: Tensor, extent: int) -> Rows:
        """The rows in `slots` (R,), none longer than `extent` once the coming tokens are stored."""
        if extent > self.capacity:
            room = (0, 0, 0, max(extent, 2 * self.capacity) - self.capacity)
            self.keys, self.values = F.pad(self.keys, room), F.pad(self.values, room)
        return Rows(self, slots, extent)

    def free(self, slot: int) -> None:
        self.lengths[slot] = 0


class Rows:
    """Some rows of a SlotCache during one forward pass."""

    def __init__(self, cache: SlotCache, slots: Tensor, extent: int):
        self.cache, self.slots, self.extent = cache, slots, extent

    def positions(self, num_tokens: int) -> Tensor:
        """Positions (R, T) of the coming tokens; also notes where they go and what they see."""
        new = torch.arange(num_tokens, device=self.slots.device)
        positions = self.cache.lengths[self.slots][:, None] + new  # (R, T)
        heads = torch.arange(self.cache.keys.shape[2], device=self.slots.device)
        self.places = (self.slots[:, None, None], heads[:, None], positions[:, None])  # broadcast to (R, K, T)
        seen = torch.arange(self.extent, device=self.slots.device) <= positions[:, None, :, None]  # (R, 1, T, S)
        seen = seen.repeat(1, 1, self.cache.num_shared, 1)
        # Numbers rather than truths, which every layer would turn into numbers again.
        self.bias = torch.zeros(seen.shape, dtype=self.cache.keys.dtype, device=seen.device)
        self.bias.masked_fill_(~seen, float("-inf"))
        return positions

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Store the new k, v (R, K, T, C), then attend from q (R, H, T, C) to each row's own past."""
        keys, values = self.cache.keys[layer], self.cache.values[layer]
        keys[self.places], values[self.places] = k, v
        keys = keys[:, :, : self.extent].index_select(0, self.slots)  # (R, K, S, C)
        values = values[:, :, : self.extent].index_select(0, self.slots)
        # The query heads of one key head become its queries, so that no key is copied per head.
        grouped = q.reshape(q.shape[0], k.shape[1], -1, q.shape[3])  # (R, K, H / K * T, C)
        return F.scaled_dot_product_attention(grouped, keys, values, attn_mask=self.bias).reshape(q.shape)

    def advance(self, num_tokens: int) -> None:
        self.cache.lengths.index_add_(0, self.slots, torch.full_like(self.slots, num_tokens))


class BackboneAttention(nn.Module):
    """Fused q, k, v with bias; full rotary; grouped-query causal attention."""

    def __init__(self, config: BackboneConfig, layer: int):
        super().__init__()
        self.layer, self.head_dim = layer, config.head_dim
        num_heads, num_kv = config.num_attention_heads, config.num_key_value_heads
        self.split = (num_heads, num_kv, num_kv)
        self.qkv = nn.Linear(config.hidden_size, sum(self.split) * config.head_dim)
        self.out = nn.Linear(num_heads * config.head_dim, config.hidden_size, bias=False)

    def forward(self, x: Tensor, rotary: tuple[Tensor, Tensor], rows: Rows | None) -> Tensor:
        num_heads, num_kv = self.split[:2]
        qkv = self.qkv(x).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)  # (R, H + 2K, T, C)
        qk, v = qkv.split((num_heads + num_kv, num_kv), 1)
        q, k = rotate(qk, *rotary).split((num_heads, num_kv), 1)
        mixed = attend(q, k, v) if rows is None else rows.attend(self.layer, q, k, v)
        return self.out(mixed.transpose(1, 2).flatten(2))


class BackboneLayer(nn.Module):
    """Attention, then MLP."""

    def __init__(self, config: BackboneConfig, layer: int):
        super().__init__()
        self.attention_norm = nn.RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.attention = BackboneAttention(config, layer)
        self.mlp_norm = nn.RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = MLP(config.hidden_size, config.intermediate_size)

    def forward(self, x: Tensor, rotary: tuple[Tensor, Tensor], rows: Rows | None) -> Tensor:
        x = x + self.attention(self.attention_norm(x), rotary, rows)
        return x + self.mlp(self.mlp_norm(x))


class Backbone(nn.Module):
    """The layers and the final norm; `embedding` only where the config has a vocabulary."""

    def __init__(self, config: BackboneConfig):
        super().__init__()
        self.config = config
        if config.vocab_size:
            self.embedding = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(BackboneLayer(config, i) for i in range(config.num_hidden_layers))
        self.norm = nn.RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, x: Tensor, rows: Rows | None = None) -> Tensor:
        """x (R, T, D) -> (R, T, D); with `rows` the T tokens follow what each row's slot already holds."""
        num_tokens = x.shape[1]
        positions = torch.arange(num_tokens, device=x.device)[None] if rows is None else rows.positions(num_tokens)
        rotary = self._rotary(positions, x.dtype)
        for layer in self.layers:
            x = layer(x, rotary, rows)
        if rows is not None:
            rows.advance(num_tokens)
        return self.norm(x)

    def _rotary(self, positions: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Positions (R, T) -> cos, sin (R, T, C / 2), fp32 unless the published roundings are asked for (spec N1)."""
        channels, rounds = self.config.head_dim, self.config.numerics == "reference"
        exponents = torch.arange(0, channels, 2, dtype=torch.float32, device=positions.device) / channels
        frequencies = self.config.rope_theta**-exponents
        angles = positions[..., None] * (frequencies.to(dtype).float() if rounds else frequencies)
        cos, sin = angles.cos(), angles.sin()
        return (cos.to(dtype), sin.to(dtype)) if rounds else (cos, sin)
