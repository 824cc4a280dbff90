"""Samples (B, n) on the device -> losses of the AudioVAE and of its critics; the mean of its weights, which ships."""

from __future__ import annotations

import math
from copy import deepcopy

import torch
from torch import Tensor, nn

from ming_omni.config import AudioVAEConfig, audio_vae_nano
from ming_omni.errors import InputError
from ming_omni.model.audio_vae import AudioVAE
from ming_omni.model.backbone import Backbone
from ming_omni.train import losses
from ming_omni.train.audio_vae.critics import Critics
from ming_omni.train.audio_vae.settings import Settings
from ming_omni.train.audio_vae.spectra import MelDistance

MODELS = {"nano": audio_vae_nano, "tiny": AudioVAEConfig}


class Learner(nn.Module):
    def __init__(self, settings: Settings, device: torch.device):
        super().__init__()
        if settings.model not in MODELS:
            raise InputError(f"model is one of {', '.join(MODELS)}, not {settings.model!r}")
        self.settings = settings
        self.vae = AudioVAE(MODELS[settings.model]())
        begin(self.vae)
        self.vae.encoder.requires_grad_(settings.learn.encoder)
        self.mean = deepcopy(self.vae).requires_grad_(False).eval()
        self.critics = Critics(settings.critics)
        self.distance = MelDistance(settings.windows, self.vae.config.sample_rate_hz)
        self.to(device)
        self.num_averaged = 0
        self.is_fast = device.type == "cuda"
        if self.is_fast or settings.compile:
            for backbone in (self.vae.encoder.backbone, self.vae.decoder.backbone):
                quicken(backbone, device, settings.compile)
        self.critics.to(memory_format=torch.channels_last)

    def resound(self, samples: Tensor) -> tuple[Tensor, Tensor]:
        """(B, n) -> what the VAE makes of it through noisy latents, and their distance from the unit Gaussian (KL)."""
        posterior = self.vae.encode(samples)
        amount = self.settings.learn.noise * torch.rand_like(posterior.mean[:, :1, :1])
        spread = (posterior.std.square() + amount.square()).sqrt()
        latents = posterior.mean + spread * torch.randn_like(posterior.mean)
        return self.vae.decode(latents), losses.gaussian_kl(posterior.mean, posterior.std)

    def forward(self, samples: Tensor, adversarial: float) -> dict[str, Tensor]:
        """Weighted losses. adversarial: how much the critics count; 0: they are not asked.

        `critics` is theirs and does not reach the VAE; the others do not reach the critics.
        """
        learn = self.settings.learn
        made, kl = self.resound(samples)
        found = {"mel": learn.mel * self.distance(made, samples), "kl": learn.kl * kl}
        return found | self._judge(made, samples, adversarial) if adversarial else found

    def _judge(self, made: Tensor, samples: Tensor, strength: float) -> dict[str, Tensor]:
        learn = self.settings.learn
        made, real = self.segments(made, samples)
        with torch.autocast(made.device.type, torch.bfloat16, enabled=self.is_fast):
            self.critics.requires_grad_(True)
            scores, features = self.critics(torch.cat([real, made.detach()]))
            halves = [score.float().chunk(2) for score in scores]
            own = torch.stack([losses.critic_loss(*half) for half in halves]).mean()
            wanted = [feature.detach().chunk(2)[0] for feature in features]
            self.critics.requires_grad_(False)
            scores, features = self.critics(made)
            self.critics.requires_grad_(True)
            adversarial = torch.stack([losses.adversarial_loss(score) for score in scores]).mean()
            likeness = losses.feature_distance(features, wanted)
        return {
            "critics": own,
            "adversarial": strength * learn.adversarial * adversarial,
            "features": strength * learn.features * likeness,
        }

    def segments(self, *sounds: Tensor) -> list[Tensor]:
        """The same random stretches of each (B, n) -> (segments, samples)."""
        settings, (num_rows, length) = self.settings.critics, sounds[0].shape
        count, samples = max(1, settings.segments // num_rows), min(settings.samples, length)
        first = (torch.rand(num_rows, count, 1, device=sounds[0].device) * (length - samples + 1)).long()
        index = (first + torch.arange(samples, device=first.device)).flatten(1)
        return [sound.gather(1, index).view(-1, samples) for sound in sounds]

    @torch.no_grad()
    def average(self) -> None:
        """Move the mean towards the weights; the first ones, which are far off, are soon forgotten."""
        self.num_averaged += 1
        stays = min(self.settings.learn.average, self.num_averaged / (self.num_averaged + 10))
        torch._foreach_lerp_(list(self.mean.parameters()), list(self.vae.parameters()), 1 - stays)


@torch.no_grad()
def begin(vae: AudioVAE) -> None:
    """First weights where samples and latents come in and frames go out."""
    frame, mix, spectrum = vae.encoder.frame, vae.encoder.mix, vae.decoder.spectrum
    # Speech is about a tenth of full scale; vectors are of size one.
    nn.init.normal_(frame.weight, std=10 / math.sqrt(frame.in_features))
    nn.init.normal_(mix.weight, std=1 / math.sqrt(mix.in_features))
    # A norm would otherwise blow up digital silence, and its gradients, a thousand times.
    nn.init.normal_(mix.bias, std=0.1)
    nn.init.normal_(vae.decoder.latent.weight, std=1 / math.sqrt(vae.config.latent_dim))
    # A tone in the middle of a window turns by half a circle from bin to bin: with that as the beginning, phases that
    # change little from bin to bin are what tones need.
    num_bins = spectrum.out_features // 2
    spectrum.bias[:num_bins] = -2.0
    spectrum.bias[num_bins:] = torch.pi * (torch.arange(num_bins) % 2)


def quicken(backbone: Backbone, device: torch.device, is_compiled: bool) -> None:
    """bf16 inside, fp32 outside: what turns waves into vectors and vectors into phases stays exact."""
    plain = torch.compile(backbone.forward, dynamic=False) if is_compiled else backbone.forward

    def forward(x: Tensor, rows=None) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            return plain(x, rows).float()

    backbone.forward = forward
