"""Pixels (B, 3, H, W) in [-1, 1] <-> latents (B, Z, h, w): the painter's autoencoder, whole or in tiles.

Residual convolutions, one attention at the coarsest size (specification section 6.9). Latents leave `encode` and enter
`decode` on the painter's own scale, close to unit variance.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers import initialization as init

from ming_omni.config import ImageVAEConfig


class Residual(nn.Module):
    """Twice norm, SiLU, convolution; added to the input, which is projected where the channels change."""

    def __init__(self, num_in: int, num_out: int, num_groups: int):
        super().__init__()
        self.norm1 = nn.GroupNorm(num_groups, num_in, eps=1e-6)
        self.conv1 = nn.Conv2d(num_in, num_out, 3, padding=1)
        self.norm2 = nn.GroupNorm(num_groups, num_out, eps=1e-6)
        self.conv2 = nn.Conv2d(num_out, num_out, 3, padding=1)
        self.shortcut = nn.Conv2d(num_in, num_out, 1) if num_in != num_out else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(F.silu(self.norm1(x)))
        return self.shortcut(x) + self.conv2(F.silu(self.norm2(y)))


class CellAttention(nn.Module):
    """Every cell attends to every cell, with one head as wide as the channels."""

    def __init__(self, num_channels: int, num_groups: int):
        super().__init__()
        self.norm = nn.GroupNorm(num_groups, num_channels, eps=1e-6)
        self.qkv = nn.Linear(num_channels, 3 * num_channels)
        self.out = nn.Linear(num_channels, num_channels)

    def forward(self, x: Tensor) -> Tensor:
        cells = self.norm(x).flatten(2).transpose(1, 2)  # (B, h w, C)
        q, k, v = self.qkv(cells)[:, None].chunk(3, dim=-1)
        cells = self.out(F.scaled_dot_product_attention(q, k, v)[:, 0])
        return x + cells.transpose(1, 2).reshape(x.shape)


def middle(num_channels: int, num_groups: int) -> nn.Sequential:
    return nn.Sequential(
        Residual(num_channels, num_channels, num_groups),
        CellAttention(num_channels, num_groups),
        Residual(num_channels, num_channels, num_groups),
    )


class Stage(nn.Module):
    """Residual blocks at one size, then half or double the size (the last stage keeps it)."""

    def __init__(self, num_in: int, num_out: int, num_blocks: int, num_groups: int, resize: nn.Module | None):
        super().__init__()
        self.blocks = nn.Sequential(
            *(Residual(num_in if i == 0 else num_out, num_out, num_groups) for i in range(num_blocks))
        )
        self.resize = resize or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.resize(self.blocks(x))


def halve(num_channels: int) -> nn.Sequential:
    """Published padding: one row and column, at the far sides only."""
    return nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(num_channels, num_channels, 3, stride=2))


def double(num_channels: int) -> nn.Sequential:
    return nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(num_channels, num_channels, 3, padding=1))


class Encoder(nn.Module):
    """Pixels -> mean and log-variance of the latents, stacked (B, 2 Z, h, w)."""

    def __init__(self, config: ImageVAEConfig):
        super().__init__()
        channels, groups = config.block_channels, config.num_norm_groups
        self.conv_in = nn.Conv2d(config.in_channels, channels[0], 3, padding=1)
        self.stages = nn.Sequential()
        for i, (num_in, num_out) in enumerate(zip([channels[0], *channels], channels, strict=False)):
            resize = None if i == len(channels) - 1 else halve(num_out)
            self.stages.append(Stage(num_in, num_out, config.blocks_per_stage, groups, resize))
        self.middle = middle(channels[-1], groups)
        self.norm = nn.GroupNorm(groups, channels[-1], eps=1e-6)
        self.conv_out = nn.Conv2d(channels[-1], 2 * config.latent_channels, 3, padding=1)

    def forward(self, pixels: Tensor) -> Tensor:
        x = self.middle(self.stages(self.conv_in(pixels)))
        return self.conv_out(F.silu(self.norm(x)))


class Decoder(nn.Module):
    """Latents -> pixels; one residual block more per size than the encoder."""

    def __init__(self, config: ImageVAEConfig):
        super().__init__()
        channels, groups = config.block_channels[::-1], config.num_norm_groups
        self.conv_in = nn.Conv2d(config.latent_channels, channels[0], 3, padding=1)
        self.middle = middle(channels[0], groups)
        self.stages = nn.Sequential()
        for i, (num_in, num_out) in enumerate(zip([channels[0], *channels], channels, strict=False)):
            resize = None if i == len(channels) - 1 else double(num_out)
            self.stages.append(Stage(num_in, num_out, config.blocks_per_stage + 1, groups, resize))
        self.norm = nn.GroupNorm(groups, channels[-1], eps=1e-6)
        self.conv_out = nn.Conv2d(channels[-1], config.in_channels, 3, padding=1)

    def forward(self, latents: Tensor) -> Tensor:
        x = self.stages(self.middle(self.conv_in(latents)))
        return self.conv_out(F.silu(self.norm(x)))


@dataclass
class Posterior:
    """A Gaussian over latents, before scaling: mean and log-variance, both (B, Z, h, w)."""

    mean: Tensor
    log_variance: Tensor

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        noise = torch.randn(self.mean.shape, generator=generator, dtype=self.mean.dtype).to(self.mean.device)
        return self.mean + (0.5 * self.log_variance).exp() * noise

    def kl(self) -> Tensor:
        """Distance (B,) from the unit Gaussian, summed over the latents of each picture."""
        kl = self.mean.square() + self.log_variance.exp() - 1 - self.log_variance
        return 0.5 * kl.flatten(1).sum(-1)


class ImageVAE(PreTrainedModel):
    """Pixels <-> latents; `encode` gives the most likely latents, as the published model uses them."""

    config_class = ImageVAEConfig
    main_input_name = "pixels"

    def __init__(self, config: ImageVAEConfig):
        super().__init__(config)
        self.encoder, self.decoder = Encoder(config), Decoder(config)
        z = config.latent_channels
        self.quant = nn.Conv2d(2 * z, 2 * z, 1) if config.use_quant_conv else nn.Identity()
        self.post_quant = nn.Conv2d(z, z, 1) if config.use_post_quant_conv else nn.Identity()
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, nn.Conv2d | nn.Linear):
            init.kaiming_uniform_(module.weight, a=5**0.5)  # torch's own, which follows the number of channels

    def posterior(self, pixels: Tensor) -> Posterior:
        mean, log_variance = self.quant(self.encoder(pixels)).chunk(2, dim=1)
        return Posterior(mean, log_variance.clamp(-30, 20))  # published bounds: variances stay finite

    def scale(self, latents: Tensor) -> Tensor:
        return (latents - self.config.shift_factor) * self.config.scaling_factor

    def unscale(self, latents: Tensor) -> Tensor:
        return latents / self.config.scaling_factor + self.config.shift_factor

    def forward(self, pixels: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Posterior]:
        """Pixels -> their reconstruction from sampled latents, and the posterior: what training needs."""
        posterior = self.posterior(pixels)
        return self.decoder(self.post_quant(posterior.sample(generator))), posterior

    def encode(self, pixels: Tensor) -> Tensor:
        """Pixels (B, 3, H, W) in [-1, 1] -> scaled latents (B, Z, H / downscale, W / downscale)."""
        cells = pixels.shape[2] * pixels.shape[3] // self.config.downscale**2
        step = self.config.downscale

        def code(part: Tensor) -> Tensor:
            return self.posterior(part).mean

        return self.scale(
            code(pixels) if cells <= self.config.max_cells else in_tiles(code, pixels, 64 * step, 1 / step)
        )

    def decode(self, latents: Tensor) -> Tensor:
        """Scaled latents (B, Z, h, w) -> pixels (B, 3, h * downscale, w * downscale), not clamped."""

        def code(part: Tensor) -> Tensor:
            return self.decoder(self.post_quant(part))

        latents, cells = self.unscale(latents), latents.shape[2] * latents.shape[3]
        return code(latents) if cells <= self.config.max_cells else in_tiles(code, latents, 64, self.config.downscale)


def in_tiles(code: Callable[[Tensor], Tensor], x: Tensor, tile: int, factor: float) -> Tensor:
    """Apply `code`, which resizes by `factor`, to overlapping square tiles of x (B, ., H, W) and cross-fade the parts.

    Memory then depends on the tile, not on the picture. A quarter of each tile fades into the next.
    """

    def starts(length: int) -> list[int]:
        last = max(length - tile, 0)
        return [*range(0, last, tile * 3 // 4), last]

    def fade(start: int, starts: list[int], length: int) -> Tensor:
        """Weights (length,) rising from the side where a neighbour overlaps and falling on the other."""
        ramp = torch.arange(1, length + 1, device=x.device, dtype=torch.float32)
        weight = torch.ones_like(ramp)
        if start > starts[0]:
            weight = torch.minimum(weight, ramp / (length // 4))
        if start < starts[-1]:
            weight = torch.minimum(weight, ramp.flip(0) / (length // 4))
        return weight

    height, width = x.shape[2:]
    tops, lefts = starts(height), starts(width)
    total = weights = None
    for top in tops:
        for left in lefts:
            part = code(x[:, :, top : top + tile, left : left + tile]).float()
            if total is None:
                total = part.new_zeros(*part.shape[:2], int(height * factor), int(width * factor))
                weights = total.new_zeros(total.shape[2:])
            weight = fade(top, tops, part.shape[2])[:, None] * fade(left, lefts, part.shape[3])
            place = (
                slice(int(top * factor), int(top * factor) + part.shape[2]),
                slice(int(left * factor), int(left * factor) + part.shape[3]),
            )
            total[:, :, *place] += part * weight
            weights[place] += weight
    return (total / weights).to(x.dtype)
