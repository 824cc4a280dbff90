"""Pictures (B, 4, S, S) -> losses: what the autoencoder makes of them, compared by pixels, edges and features."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from ming_omni import config as presets
from ming_omni.data.eyes import Eyes
from ming_omni.model.image_vae import ImageVAE
from ming_omni.train.image_vae.settings import Settings
from ming_omni.train.losses import feature_distance, gaussian_kl

NEAR = 9
"""Pixels around a letter, each way and itself, that weigh more."""
QUIET = -5.0
"""Log-variance of the latents at the start."""
COMPARED = (1, 2, 4, 7, 10)
"""Blocks of the eyes whose outputs are compared: from half the size to a sixteenth."""


class Features(nn.Module):
    """Pixels in [-1, 1] -> what eyes trained on photographs see in them, coarser and coarser; they do not learn."""

    def __init__(self, file: Path):
        super().__init__()
        self.eyes = Eyes()
        self.eyes.load_state_dict(load_file(file))
        self.eyes.requires_grad_(False).eval()

    def forward(self, pixels: Tensor) -> list[Tensor]:
        x = self.eyes.stem((pixels * 127.5 + 0.5) / 128)  # as `Eyes` reads 0 ... 255
        found = []
        for number, block in enumerate(self.eyes.blocks[: COMPARED[-1] + 1]):
            x = block(x)
            if number in COMPARED:
                found.append(x)
        return found


class Learner(nn.Module):
    def __init__(self, settings: Settings):
        super().__init__()
        painter = {"tiny": presets.tiny_painter, "nano": presets.nano_painter}[settings.model]()
        self.vae = ImageVAE(painter.vae)
        quieten(self.vae)
        self.average = deepcopy(self.vae).requires_grad_(False).eval()
        self.losses = settings.losses
        self.features = Features(Path(settings.losses.eyes)) if settings.losses.eyes else None

    def to_device(self, device: torch.device, is_compiled: bool) -> None:
        self.to(device, memory_format=torch.channels_last)
        if is_compiled:  # the averaged copy stays as it is: it is used seldom, with other sizes
            for part in (self.vae.encoder, self.vae.decoder, *([self.features] if self.features else [])):
                part.compile(dynamic=False)

    def forward(self, pictures: Tensor) -> dict[str, Tensor]:
        """pictures (B, 4, S, S) uint8, the last of letters -> weighted losses, and figures to watch under `about/`"""
        target = pixels(pictures)
        posterior = self.vae.posterior(target)
        mean, std = posterior.mean.float(), (0.5 * posterior.log_variance.float()).exp()
        latents = mean + std * torch.randn_like(mean)
        made = self.vae.decoder(self.vae.post_quant(latents)).float()
        losses = self.compare(made, target, weights(pictures[:, 3:], self.losses.letters))
        losses["kl"] = self.losses.kl * gaussian_kl(mean, std)
        error = (made.detach().clamp(-1, 1) - target).square().mean((1, 2, 3))
        about = {"psnr": psnr(error).mean(), "latent_std": mean.detach().std(), "noise_std": std.detach().mean()}
        return losses | {f"about/{name}": value for name, value in about.items()}

    def compare(self, made: Tensor, target: Tensor, weight: Tensor) -> dict[str, Tensor]:
        """made, target (B, 3, S, S); weight (B, 1, S, S), one in the mean"""
        chosen, error = self.losses, made - target
        across, down = error.diff(dim=3).abs() * weight[..., 1:], error.diff(dim=2).abs() * weight[..., 1:, :]
        found = {
            "pixels": (error.abs() * weight).mean(),
            "square": chosen.square * (error.square() * weight).mean(),
            "edges": chosen.edges * (across.mean() + down.mean()) / 2,
        }
        if self.features:
            with torch.no_grad():
                wanted = self.features(target)
            found["features"] = chosen.features * feature_distance(self.features(made), wanted)
        return found

    @torch.no_grad()
    def follow(self, step: int, keep: float) -> None:
        """The average takes a part of the present weights; a larger one in the first steps."""
        keep = min(keep, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self.average.parameters()), list(self.vae.parameters()), 1 - keep)


@torch.no_grad()
def quieten(vae: ImageVAE) -> None:
    """Let latents begin with little noise: at the usual start, a unit of it drowns all that they say."""
    log_variance = slice(vae.config.latent_channels, None)
    vae.encoder.conv_out.weight[log_variance] *= 0.1
    vae.encoder.conv_out.bias[log_variance] = QUIET


def pixels(pictures: Tensor) -> Tensor:
    """(B, 4, S, S) uint8 -> (B, 3, S, S) in [-1, 1]"""
    return (pictures[:, :3].float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)


def weights(letters: Tensor, strength: float) -> Tensor:
    """Letters (B, 1, S, S) in 0 ... 255 -> weights, one in the mean of the batch."""
    near = F.max_pool2d(letters.float() / 255, NEAR, 1, NEAR // 2)
    weight = 1 + strength * near
    return weight / weight.mean()


def psnr(error: Tensor) -> Tensor:
    """Mean squared errors of pixels in [-1, 1] -> dB"""
    return -10 * (error / 4).clamp(min=1e-8).log10()


def reconstruct(vae: ImageVAE, target: Tensor, noise: float = 0.0) -> Tensor:
    """Through the latents and back, as the product does; with noise on the latents, as a painter leaves it."""
    latents = vae.encode(target)
    return vae.decode(latents + noise * torch.randn_like(latents)).float().clamp(-1, 1)


@torch.no_grad()
def measure(vae: ImageVAE, batches: list[Tensor]) -> dict[str, list[float]]:
    """Mean and std of each channel of the unscaled latents of pictures (B, 4, S, S)."""
    found = torch.cat([vae.posterior(pixels(batch)).mean.float().transpose(0, 1).flatten(1) for batch in batches], 1)
    return {"mean": found.mean(1).tolist(), "std": found.std(1).tolist()}


def rescale(vae: ImageVAE, about: dict[str, list[float]]) -> None:
    """Settings that give latents mean 0 and variance 1 over all channels."""
    mean, std = torch.tensor(about["mean"]), torch.tensor(about["std"])
    shift = mean.mean()
    vae.config.shift_factor = float(shift)
    vae.config.scaling_factor = float((std.square() + (mean - shift).square()).mean().rsqrt())
