"""Noisy latents (B, Z, h, w) and a condition (B, S, X) -> velocity (B, Z, h, w): the painter's diffusion transformer.

A picture is cut into patches; the patches refine themselves, then picture and condition tokens attend to each other,
layer by layer. An edit adds the picture to be edited as a second frame of patches. Specification section 6.7.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.modeling_layers import GradientCheckpointingLayer

from ming_omni.config import DiTConfig


def waves(place: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines (T, width / 2) of places (T,) at wavelengths from 2 pi to 10,000 times that."""
    rates = torch.exp(-math.log(10_000) * torch.arange(width // 2, device=place.device) / (width // 2))
    angles = place.float()[:, None] * rates
    return angles.cos(), angles.sin()


def position_table(config: DiTConfig, rows: int, columns: int, device: torch.device) -> Tensor:
    """The centre (rows * columns, D) of the absolute position table of a `max_grid` picture: column, then row."""

    def axis(cells: int) -> Tensor:
        index = torch.arange(cells, device=device) + (config.max_grid - cells) // 2
        cos, sin = waves(index * (config.base_grid / config.max_grid), config.hidden_size // 2)
        return torch.cat([sin, cos], dim=-1)

    down = axis(rows)[:, None].expand(rows, columns, -1)
    across = axis(columns)[None].expand(rows, columns, -1)
    return torch.cat([across, down], dim=-1).flatten(0, 1)


def rotary_table(config: DiTConfig, frames: int, rows: int, columns: int, tokens: int, device: torch.device) -> Tensor:
    """Complex turns (frames * rows * columns + tokens, C / 2): the cells of each frame, then the condition tokens.

    Rows and columns count from the middle; condition tokens go on from the picture's edge on all three axes.
    """
    cells = torch.cartesian_prod(
        torch.arange(frames, device=device),
        torch.arange(rows, device=device) - (rows + 1) // 2,
        torch.arange(columns, device=device) - (columns + 1) // 2,
    )
    text = torch.arange(tokens, device=device) + max(rows // 2, columns // 2)
    places = torch.cat([cells, text[:, None].expand(-1, 3)])  # (L, 3)
    turns = [torch.complex(*waves(places[:, i], width)) for i, width in enumerate(config.rotary_axes)]
    return torch.cat(turns, dim=-1)


def rotate(x: Tensor, turns: Tensor) -> Tensor:
    """Turn neighbouring channel pairs of x (B, T, ..., C) by complex `turns` (T, C / 2), in float32."""
    pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)))
    turns = turns.view(turns.shape[0], *[1] * (x.dim() - 3), turns.shape[1])
    return torch.view_as_real(pairs * turns).flatten(-2).to(x.dtype)


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return torch.addcmul(shift, x, 1 + scale)


def mlp(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, 4 * width), nn.GELU("tanh"), nn.Linear(4 * width, width))


class Closed(nn.Linear):
    """A projection that starts at zero: branches start closed and the first velocity is zero."""


class Attention(nn.Module):
    """The projections on either side of an attention: tokens -> q, k, v and heads -> tokens."""

    def __init__(self, config: DiTConfig, normed: bool, has_output: bool = True):
        super().__init__()
        width, self.head_dim = config.hidden_size, config.head_dim
        self.qkv = nn.Linear(width, 3 * width)
        self.q_norm = nn.RMSNorm(config.head_dim, eps=1e-6) if normed else None
        self.k_norm = nn.RMSNorm(config.head_dim, eps=1e-6) if normed else None
        self.out = nn.Linear(width, width) if has_output else None

    def project(self, x: Tensor, turns: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """x (B, T, D) -> q, k, v (B, T, H, C); turns (T, C / 2) or None for no rotary positions."""
        q, k, v = self.qkv(x).unflatten(-1, (3, -1, self.head_dim)).unbind(2)
        if self.q_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        if turns is not None:
            q, k = rotate(torch.stack([q, k], dim=2), turns).unbind(2)
        return q, k, v

    def forward(self, x: Tensor, turns: Tensor | None) -> Tensor:
        return self.out(attend(*self.project(x, turns)))


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Full attention of q, k, v (B, T, H, C) -> (B, T, D)."""
    heads = F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
    return heads.transpose(1, 2).flatten(2)


class Refiner(GradientCheckpointingLayer):
    """One frame alone: self-attention without positions, then an MLP, both modulated by the noise level."""

    def __init__(self, config: DiTConfig):
        super().__init__()
        width = config.hidden_size
        self.norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.modulation = Closed(width, 6 * width)
        self.attention = Attention(config, normed=False)
        self.mlp = mlp(width)

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        """x (B, T, D), level (B, 1, D) -> (B, T, D)"""
        shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = self.modulation(level).chunk(6, dim=-1)
        x = torch.addcmul(x, gate, self.attention(modulate(self.norm(x), shift, scale), None))
        return torch.addcmul(x, mlp_gate, self.mlp(modulate(self.norm(x), mlp_shift, mlp_scale)))


class Stream(nn.Module):
    """One side of a joint layer, picture or condition: its projections, MLP and modulation."""

    def __init__(self, config: DiTConfig, is_dual: bool = False, is_last_condition: bool = False):
        super().__init__()
        width = config.hidden_size
        num_chunks = 9 if is_dual else 2 if is_last_condition else 6
        self.norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.modulation = Closed(width, num_chunks * width)
        self.attention = Attention(config, config.use_qk_norm, has_output=not is_last_condition)
        self.mlp = None if is_last_condition else mlp(width)


class JointLayer(GradientCheckpointingLayer):
    """Picture and condition attend to both; in dual layers the picture also to itself; then an MLP for each."""

    def __init__(self, config: DiTConfig, is_dual: bool, is_last: bool):
        super().__init__()
        self.is_last = is_last
        self.picture = Stream(config, is_dual=is_dual)
        self.condition = Stream(config, is_last_condition=is_last)
        self.dual = Attention(config, config.use_qk_norm) if is_dual else None

    def forward(self, x: Tensor, y: Tensor, level: Tensor, turns: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Picture x (B, N, D), condition y (B, S, D), level (B, 1, D) -> the same; the last layer drops y."""
        split = x.shape[1]
        picture_turns, condition_turns = (None, None) if turns is None else (turns[:split], turns[split:])
        shift, scale, gate, mlp_shift, mlp_scale, mlp_gate, *second = self.picture.modulation(level).chunk(
            9 if self.dual is not None else 6, dim=-1
        )
        normed = self.picture.norm(x)
        picture = self.picture.attention.project(modulate(normed, shift, scale), picture_turns)

        if self.is_last:
            y_scale, y_shift = self.condition.modulation(level).chunk(2, dim=-1)  # scale first: published order
        else:
            y_shift, y_scale, y_gate, y_mlp_shift, y_mlp_scale, y_mlp_gate = self.condition.modulation(level).chunk(
                6, dim=-1
            )
        y_normed = modulate(self.condition.norm(y), y_shift, y_scale)
        condition = self.condition.attention.project(y_normed, condition_turns)

        heads = attend(*(torch.cat(pair, dim=1) for pair in zip(picture, condition, strict=True)))
        x = torch.addcmul(x, gate, self.picture.attention.out(heads[:, :split]))
        if self.dual is not None:
            shift, scale, gate = second
            x = torch.addcmul(x, gate, self.dual(modulate(normed, shift, scale), picture_turns))
        x = torch.addcmul(x, mlp_gate, self.picture.mlp(modulate(self.picture.norm(x), mlp_shift, mlp_scale)))
        if self.is_last:
            return x, None
        y = torch.addcmul(y, y_gate, self.condition.attention.out(heads[:, split:]))
        y = torch.addcmul(y, y_mlp_gate, self.condition.mlp(modulate(self.condition.norm(y), y_mlp_shift, y_mlp_scale)))
        return x, y


class Frame(nn.Module):
    """Latents (B, Z, h, w) -> refined patches (B, N, D): the noisy picture, or the one to be edited."""

    def __init__(self, config: DiTConfig):
        super().__init__()
        self.config = config
        self.patch = nn.Conv2d(config.latent_channels, config.hidden_size, config.patch_size, config.patch_size)
        self.refiners = nn.ModuleList(Refiner(config) for _ in range(config.num_refiner_layers))

    def forward(self, latents: Tensor, level: Tensor) -> Tensor:
        cells = self.patch(latents)
        x = cells.flatten(2).transpose(1, 2)
        x = x + position_table(self.config, *cells.shape[2:], cells.device).to(x.dtype)
        for refiner in self.refiners:
            x = refiner(x, level)
        return x


class DiT(PreTrainedModel):
    """Noisy latents -> the velocity from data to noise, given a condition and perhaps a picture to edit."""

    config_class = DiTConfig
    main_input_name = "latents"
    supports_gradient_checkpointing = True
    _no_split_modules = ("Refiner", "JointLayer")

    def __init__(self, config: DiTConfig):
        super().__init__(config)
        width, patch = config.hidden_size, config.patch_size
        self.time = nn.Sequential(nn.Linear(256, width), nn.SiLU(), nn.Linear(width, width))
        self.pooled = nn.Sequential(nn.Linear(config.pooled_width, width), nn.SiLU(), nn.Linear(width, width))
        self.context = nn.Linear(config.context_width, width)
        self.noise = Frame(config)
        self.reference = Frame(config)
        last = config.num_hidden_layers - 1
        self.layers = nn.ModuleList(
            JointLayer(config, is_dual=i in config.dual_attention_layers, is_last=i == last)
            for i in range(config.num_hidden_layers)
        )
        self.norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.modulation = Closed(width, 2 * width)
        self.out = Closed(width, patch * patch * config.latent_channels)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, Closed):
            init.zeros_(module.weight)
        elif isinstance(module, nn.Linear):
            init.xavier_uniform_(module.weight)  # suits any width, where a fixed deviation suits one

    def forward(
        self, latents: Tensor, time: Tensor, context: Tensor, pooled: Tensor, reference: Tensor | None = None
    ) -> Tensor:
        """
        latents    (B, Z, h, w)  sides divisible by the patch size
        time       (B,)          noise level in 0 ... 1000
        context    (B, S, X)     condition tokens
        pooled     (B, X')       their summary
        reference  (B, Z, h, w)  latents of the picture to edit
        """
        cos, sin = waves(time, 256)
        level = self.time(torch.cat([cos, sin], dim=-1).to(latents.dtype)) + self.pooled(pooled)
        level = F.silu(level)[:, None]  # (B, 1, D)

        x, y = self.noise(latents, level), self.context(context)
        rows, columns = (side // self.config.patch_size for side in latents.shape[2:])
        if reference is not None:
            x = torch.cat([x, self.reference(reference, level)], dim=1)
        turns = None
        if self.config.use_rotary:
            frames = 1 if reference is None else 2
            turns = rotary_table(self.config, frames, rows, columns, y.shape[1], x.device)

        for layer in self.layers:
            x, y = layer(x, y, level, turns)

        scale, shift = self.modulation(level).chunk(2, dim=-1)
        x = self.out(modulate(self.norm(x[:, : rows * columns]), shift, scale))
        p = self.config.patch_size
        patches = x.view(-1, rows, columns, p, p, self.config.latent_channels)
        return patches.permute(0, 5, 1, 3, 2, 4).reshape(latents.shape)  # rows x p, columns x p
