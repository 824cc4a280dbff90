"""Noisy latents and a condition -> velocity, and the middle of the network: `model/dit.py` made for training.

Same parameters, same results. Turns are real numbers, which a compiler can fuse with what surrounds them; a layer is
compiled once for all sizes of pictures and conditions, and only where the network is asked to be fast: in steps, which
are many.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.fx.experimental._config
import torch.nn.functional as F
from torch import Tensor

from ming_omni.model.dit import (
    Attention,
    DiT,
    Frame,
    JointLayer,
    Refiner,
    attend,
    modulate,
    position_table,
    rotary_table,
    waves,
)

Turns = tuple[Tensor, Tensor]
"""cos and sin (T, 1, C / 2)"""


class Network:
    """Runs any `DiT` of one shape; holds no weights."""

    def __init__(self):
        self.fast: tuple[Callable, Callable] = refine, join
        self._tables: dict[tuple, Tensor | Turns] = {}

    def compile(self) -> None:
        torch._dynamo.config.cache_size_limit = max(64, torch._dynamo.config.cache_size_limit)
        # As many patches as channels are a coincidence, on which nothing may be specialised.
        torch.fx.experimental._config.use_duck_shape = False
        self.fast = tuple(torch.compile(one, dynamic=True, fullgraph=True) for one in (refine, join))

    def __call__(
        self,
        dit: DiT,
        latents: Tensor,
        time: Tensor,
        context: Tensor,
        pooled: Tensor,
        reference: Tensor | None,
        is_fast: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """As `DiT.forward` -> velocity (B, Z, h, w), patches (B, N, D) after half of the layers"""
        config = dit.config
        cos, sin = waves(time, 256)
        level = dit.time(torch.cat([cos, sin], dim=-1).to(latents.dtype)) + dit.pooled(pooled)
        level = F.silu(level)[:, None]

        refiner, joint = self.fast if is_fast else (refine, join)
        x, y = self._frame(dit.noise, latents, level, refiner), dit.context(context)
        rows, columns = (side // config.patch_size for side in latents.shape[2:])
        frames = 1 if reference is None else 2
        if reference is not None:
            x = torch.cat([x, self._frame(dit.reference, reference, level, refiner)], dim=1)
        turns = self._turns(dit, frames, rows, columns, y.shape[1], x.device)

        middle = x
        for number, layer in enumerate(dit.layers, 1):
            x, y = joint(layer, x, y, level, *turns)
            if number == len(dit.layers) // 2:
                middle = x[:, : rows * columns]

        scale, shift = dit.modulation(level).chunk(2, dim=-1)
        x = dit.out(modulate(dit.norm(x[:, : rows * columns]), shift, scale))
        p = config.patch_size
        patches = x.view(-1, rows, columns, p, p, config.latent_channels)
        return patches.permute(0, 5, 1, 3, 2, 4).reshape(latents.shape), middle

    def _frame(self, frame: Frame, latents: Tensor, level: Tensor, refiner: Callable) -> Tensor:
        cells = frame.patch(latents)
        key = "places", *cells.shape[2:], cells.device
        if key not in self._tables:
            self._tables[key] = position_table(frame.config, *cells.shape[2:], cells.device)
        x = cells.flatten(2).transpose(1, 2).contiguous()  # laid out alike with and without a picture to edit
        x = x + self._tables[key].to(x.dtype)
        for module in frame.refiners:
            x = refiner(module, x, level)
        return x

    def _turns(self, dit: DiT, frames: int, rows: int, columns: int, tokens: int, device: torch.device) -> Turns:
        assert dit.config.use_rotary
        key = frames, rows, columns, tokens, device
        if key not in self._tables:
            turns = rotary_table(dit.config, frames, rows, columns, tokens, device)[:, None]
            self._tables[key] = turns.real.contiguous(), turns.imag.contiguous()
        return self._tables[key]


def refine(refiner: Refiner, x: Tensor, level: Tensor) -> Tensor:
    """As `Refiner.forward`."""
    shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = refiner.modulation(level).chunk(6, dim=-1)
    x = torch.addcmul(x, gate, refiner.attention.forward(modulate(refiner.norm(x), shift, scale), None))
    return torch.addcmul(x, mlp_gate, refiner.mlp(modulate(refiner.norm(x), mlp_shift, mlp_scale)))


def join(layer: JointLayer, x: Tensor, y: Tensor, level: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    """As `JointLayer.forward`; the last layer hands the condition on as it was."""
    split = x.shape[1]
    own, other = layer.picture, layer.condition
    shift, scale, gate, mlp_shift, mlp_scale, mlp_gate, *second = own.modulation(level).chunk(
        9 if layer.dual is not None else 6, dim=-1
    )
    normed = own.norm(x)
    picture = project(own.attention, modulate(normed, shift, scale), cos[:split], sin[:split])
    if layer.is_last:
        y_scale, y_shift = other.modulation(level).chunk(2, dim=-1)
    else:
        y_shift, y_scale, y_gate, y_mlp_shift, y_mlp_scale, y_mlp_gate = other.modulation(level).chunk(6, dim=-1)
    y_normed = modulate(other.norm(y), y_shift, y_scale)
    condition = project(other.attention, y_normed, cos[split:], sin[split:])

    heads = attend(*(torch.cat(pair, dim=1) for pair in zip(picture, condition, strict=True)))
    x = torch.addcmul(x, gate, own.attention.out(heads[:, :split]))
    if layer.dual is not None:
        shift, scale, gate = second
        heads_alone = attend(*project(layer.dual, modulate(normed, shift, scale), cos[:split], sin[:split]))
        x = torch.addcmul(x, gate, layer.dual.out(heads_alone))
    x = torch.addcmul(x, mlp_gate, own.mlp(modulate(own.norm(x), mlp_shift, mlp_scale)))
    if layer.is_last:
        return x, y
    y = torch.addcmul(y, y_gate, other.attention.out(heads[:, split:]))
    return x, torch.addcmul(y, y_mlp_gate, other.mlp(modulate(other.norm(y), y_mlp_shift, y_mlp_scale)))


def project(attention: Attention, x: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """As `Attention.project`, with turns as real numbers."""
    q, k, v = attention.qkv(x).unflatten(-1, (3, -1, attention.head_dim)).unbind(2)
    if attention.q_norm is not None:
        q, k = attention.q_norm(q), attention.k_norm(k)
    return turn(q, cos, sin).to(v.dtype), turn(k, cos, sin).to(v.dtype), v


def turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Neighbouring channels of x (B, T, H, C) by cos, sin (T, 1, C / 2), in float32."""
    a, b = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack([a * cos - b * sin, a * sin + b * cos], -1).flatten(-2)
