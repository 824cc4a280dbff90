"""Hidden states (B, T, D) -> hidden states (B, T, D): norm, rotary positions, attention with its cache, gated MLP."""

from __future__ import annotations

import warnings
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel
from transformers.utils import is_flash_attn_2_available

from ming_omni.config import ThinkerConfig


class Part(PreTrainedModel):
    """A transformers model that takes eager, sdpa or flash attention; flash that is not installed becomes sdpa."""

    _supports_sdpa = True
    _supports_flash_attn = True

    @classmethod
    def _can_set_attn_implementation(cls) -> bool:
        """Attention reads its config at every call; transformers only guesses so from the source."""
        return True

    def _check_and_adjust_attn_implementation(self, attn_implementation, *args, **kwargs):
        if attn_implementation == "flash_attention_2" and not is_flash_attn_2_available():
            warnings.warn("flash-attn is not installed: attention runs as sdpa", stacklevel=2)
            # The public setter reaches nested configs too, so that parts built later find sdpa and do not warn again.
            self.config._attn_implementation = attn_implementation = "sdpa"
        return super()._check_and_adjust_attn_implementation(attn_implementation, *args, **kwargs)


class RMSNorm(nn.Module):
    """x / rms(x) * weight over the last axis: normalised in fp32, rounded to x's dtype, then weighted (spec N7)."""

    def __init__(self, width: int, eps: float):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float()
        normed = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.eps)
        return self.weight * normed.to(x.dtype)


class MLP(nn.Module):
    """down(silu(gate(x)) * up(x))"""

    def __init__(self, width: int, inner: int):
        super().__init__()
        self.gate = nn.Linear(width, inner, bias=False)
        self.up = nn.Linear(width, inner, bias=False)
        self.down = nn.Linear(inner, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.silu(self.gate(x)) * self.up(x))


def rotary_axes(variant: str, num_frequencies: int, device: torch.device | None = None) -> Tensor:
    """Which of time, height, width (0, 1, 2) turns each frequency; the released 32 split into 8, 12 and 12."""
    i = torch.arange(num_frequencies, device=device)
    num_time = num_frequencies // 4
    num_space = num_frequencies - num_time
    if variant == "vanilla":
        return torch.zeros_like(i)
    if variant == "3d":
        return (i >= num_time).long() + (i >= num_time + (num_space + 1) // 2)
    # video: height and width alternate on the high frequencies, time takes the lowest.
    return torch.where(i < num_space, 1 + i % 2, 0)


def rotary_tables(config: ThinkerConfig, positions: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Positions (3, B, T) -> cos, sin (B, T, rotary_dim / 2).

    Native tables are fp32. Reference tables repeat the released roundings: frequencies and results rounded to `dtype`,
    the angle between them in fp32 (spec N1, N2).
    """
    device, size = positions.device, config.rotary_dim
    exponents = torch.arange(0, size, 2, dtype=torch.float32, device=device) / size
    frequencies = 1.0 / config.rope_theta**exponents
    if config.numerics == "reference":
        frequencies = frequencies.to(dtype).float()
    axes = rotary_axes(config.rope_variant, size // 2, device)
    angles = positions.float()[axes].movedim(0, -1) * frequencies  # (B, T, rotary_dim / 2)
    cos, sin = angles.cos(), angles.sin()
    return (cos.to(dtype), sin.to(dtype)) if config.numerics == "reference" else (cos, sin)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn channel pairs (i, i + n) of x (B, H, T, C) by the n angles of cos, sin (B, T, n); the rest pass through."""
    n = cos.shape[-1]
    cos, sin = cos[:, None], sin[:, None]  # (B, 1, T, n)
    first, second, rest = x[..., :n], x[..., n : 2 * n], x[..., 2 * n :]
    turned = (first * cos - second * sin, second * cos + first * sin)
    return torch.cat([*(t.to(x.dtype) for t in turned), rest], -1)


def visible(mask: Tensor | None, num_queries: int, num_keys: int, device: torch.device) -> Tensor:
    """Which keys each query sees, (B or 1, 1, T, S): the T queries are the last of the S keys.

    mask (B, S)  True for real tokens. A padding token sees itself, so that no row of the softmax is empty.
    """
    query = torch.arange(num_keys - num_queries, num_keys, device=device)[:, None]
    key = torch.arange(num_keys, device=device)
    allowed = (key <= query)[None, None]
    return allowed if mask is None else allowed & (mask.bool()[:, None, None, :] | (key == query))


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, implementation: str | None = None) -> Tensor:
    """Causal attention of T queries, the last of S keys: q (B, H, T, C), k and v (B, K, S, C) -> (B, H, T, C).

    mask (B, S)  True for real tokens; None when all are. Query heads share key heads in runs of H / K.
    """
    if implementation == "flash_attention_2":
        return _flash(q, k, v, mask)
    return (_eager if implementation == "eager" else _sdpa)(q, k, v, mask)


def _eager(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    num_shared = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(num_shared, 1), v.repeat_interleave(num_shared, 1)
    scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5  # (B, H, T, S)
    scores = scores.masked_fill(~visible(mask, q.shape[2], k.shape[2], q.device), float("-inf"))
    return scores.softmax(-1, dtype=torch.float32).to(q.dtype) @ v


def _sdpa(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    (num_rows, num_heads, num_queries, channels), num_keys = q.shape, k.shape[2]
    num_shared = num_heads // k.shape[1]
    if mask is None and num_queries == num_keys:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=num_shared > 1)
    if num_queries == 1:
        # One token sees every key: the query heads of one key head become its queries, and no key is copied.
        q = q.reshape(num_rows, -1, num_shared, channels)  # (B, K, H / K, C)
        seen = None if mask is None else visible(mask, 1, num_keys, q.device)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=seen).reshape(num_rows, num_heads, 1, channels)
    # Keys are copied here, because with a mask no fused kernel of a GPU shares heads.
    k, v = k.repeat_interleave(num_shared, 1), v.repeat_interleave(num_shared, 1)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=visible(mask, num_queries, num_keys, q.device))


def _flash(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, is_causal: bool = True) -> Tensor:
    """transformers' wrapper unpads ragged rows; the last T of S keys need left padding, as the release assumes."""
    from transformers.modeling_flash_attention_utils import _flash_attention_forward

    q, k, v = (x.transpose(1, 2) for x in (q, k, v))  # (B, T, H, C)
    out = _flash_attention_forward(
        q, k, v, mask, query_length=q.shape[1], is_causal=is_causal, attn_implementation="flash_attention_2"
    )
    return out.transpose(1, 2)


def attend_both_ways(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, implementation: str | None = None
) -> Tensor:
    """Encoder attention, all tokens to all tokens: q, k, v (B, H, T, C), mask (B, T) True for real -> (B, H, T, C)."""
    if implementation == "flash_attention_2":
        return _flash(q, k, v, mask, is_causal=False)
    seen = None if mask is None else mask[:, None, None]  # (B, 1, 1, T)
    if implementation == "eager":
        scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5  # (B, H, T, T)
        scores = scores if seen is None else scores.masked_fill(~seen, float("-inf"))
        return scores.softmax(-1, dtype=torch.float32).to(q.dtype) @ v
    return F.scaled_dot_product_attention(q, k, v, attn_mask=seen)


class Cache(Protocol):
    """Keeps the keys and values of tokens already read. It knows how its own keys are laid out, so it attends."""

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        """Store the new k, v (B, K, T, C), then attend from q (B, H, T, C) to all keys -> (B, H, T, C)."""


class KVCache:
    """The plain cache: each layer's keys and values in one tensor that grows by concatenation."""

    def __init__(self, implementation: str | None = None):
        self.implementation = implementation
        self.keys: dict[int, Tensor] = {}  # layer -> (B, K, S, C)
        self.values: dict[int, Tensor] = {}

    @property
    def length(self) -> int:
        """Tokens kept, padding included."""
        return self.keys[0].shape[2] if self.keys else 0

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        if layer in self.keys:
            k, v = torch.cat([self.keys[layer], k], 2), torch.cat([self.values[layer], v], 2)
        self.keys[layer], self.values[layer] = k, v
        return attend(q, k, v, mask, self.implementation)


class Attention(nn.Module):
    """Fused q, k, v; optional norms of q and k; partial rotary; grouped-query causal attention."""

    def __init__(self, config: ThinkerConfig, layer: int):
        super().__init__()
        self.config, self.layer = config, layer
        num_heads, num_kv, channels = config.num_attention_heads, config.num_key_value_heads, config.head_dim
        self.split = (num_heads, num_kv, num_kv)
        self.qkv = nn.Linear(config.hidden_size, sum(self.split) * channels, bias=False)
        self.out = nn.Linear(num_heads * channels, config.hidden_size, bias=False)
        self.q_norm = RMSNorm(channels, config.rms_norm_eps) if config.use_qk_norm else nn.Identity()
        self.k_norm = RMSNorm(channels, config.rms_norm_eps) if config.use_qk_norm else nn.Identity()

    def forward(self, x: Tensor, rotary: tuple[Tensor, Tensor], cache: Cache | None, mask: Tensor | None) -> Tensor:
        num_rows, num_tokens, _ = x.shape
        qkv = self.qkv(x).view(num_rows, num_tokens, sum(self.split), -1).transpose(1, 2)  # (B, H + 2K, T, C)
        q, k, v = qkv.split(self.split, 1)
        q, k = rotate(self.q_norm(q), *rotary), rotate(self.k_norm(k), *rotary)
        if cache is None:
            mixed = attend(q, k, v, mask, self.config._attn_implementation)
        else:
            mixed = cache.attend(self.layer, q, k, v, mask)
        return self.out(mixed.transpose(1, 2).reshape(num_rows, num_tokens, -1))
