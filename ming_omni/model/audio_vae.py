"""Samples (B, n) <-> latents (B, T, Z): causal transformers, and an inverse short-time Fourier transform (spec 7.5).

Decoding in pieces gives exactly the samples of decoding at once, 1.5 hops later.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel

from ming_omni.config import AudioVAEConfig
from ming_omni.model.backbone import Backbone, SlotCache

WINDOW_HOPS = 4
"""Each output frame is four hops wide, so three neighbours overlap it on either side."""


class Posterior(NamedTuple):
    """The latents a stretch of sound may have."""

    mean: Tensor  # (B, T, Z)
    std: Tensor

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """One draw (B, T, Z); the noise comes from the generator's device, so that a seed means the same everywhere."""
        device = generator.device if generator else self.mean.device
        noise = torch.randn(self.mean.shape, generator=generator, device=device)
        return self.mean + self.std * noise.to(self.mean)


class VAEEncoder(nn.Module):
    """Overlapping frames of samples -> posterior."""

    def __init__(self, config: AudioVAEConfig):
        super().__init__()
        width = config.encoder.hidden_size
        self.frame = nn.Linear(config.frame_samples, width, bias=False)
        self.mix = nn.Linear(width, width)
        self.backbone = Backbone(config.encoder)
        self.posterior = nn.Linear(width, 2 * config.latent_dim)

    def forward(self, frames: Tensor, rows=None) -> Tensor:
        """frames (B, T, frame_samples) -> (B, T, 2Z)."""
        return self.posterior(self.backbone(self.mix(self.frame(frames)), rows))


class VAEDecoder(nn.Module):
    """Latents -> windowed frames of samples, to be added where they overlap."""

    def __init__(self, config: AudioVAEConfig):
        super().__init__()
        width, window = config.decoder.hidden_size, WINDOW_HOPS * config.hop_samples
        self.latent = nn.Linear(config.latent_dim, width)
        self.backbone = Backbone(config.decoder)
        self.spectrum = nn.Linear(width, window + 2)

    def forward(self, latents: Tensor, rows=None) -> Tensor:
        """latents (B, T, Z) -> frames (B, T, 4 hops)."""
        spectrum = self.spectrum(self.backbone(self.latent(latents), rows)).float()
        log_magnitude, phase = spectrum.chunk(2, -1)  # (B, T, 2 hops + 1) each
        magnitude = log_magnitude.exp().clamp(max=100)
        frames = torch.fft.irfft(torch.polar(magnitude, phase), dim=-1)
        return frames * torch.hann_window(frames.shape[-1], device=frames.device)


class DecoderState:
    """What decoding remembers between pieces, for many rows: the cache and three hops of unfinished sound."""

    def __init__(self, config: AudioVAEConfig, num_slots: int, capacity: int, like: Tensor):
        self.cache = SlotCache(config.decoder, num_slots, capacity, like)
        shape = (num_slots, WINDOW_HOPS - 1, config.hop_samples)
        self.sound = torch.zeros(shape, device=like.device)
        self.weight = torch.zeros(shape, device=like.device)  # the squared windows that lie over the sound

    def free(self, slot: int) -> None:
        self.cache.free(slot)
        self.sound[slot], self.weight[slot] = 0, 0


class AudioVAE(PreTrainedModel):
    """Encoder and decoder."""

    config_class = AudioVAEConfig
    main_input_name = "samples"

    def __init__(self, config: AudioVAEConfig):
        super().__init__(config)
        self.encoder = VAEEncoder(config)
        self.decoder = VAEDecoder(config)
        self.post_init()

    @property
    def trim(self) -> int:
        """Samples cut at both ends, so that T latents give T hops."""
        return (WINDOW_HOPS - 1) * self.config.hop_samples // 2

    def encode(self, samples: Tensor) -> Posterior:
        """samples (B, n) in [-1, 1] -> the posterior of ceil(n / hop) latents."""
        hop, frame = self.config.hop_samples, self.config.frame_samples
        num_frames = -(-samples.shape[1] // hop)
        padded = F.pad(samples, (0, (num_frames - 1) * hop + frame - samples.shape[1]))
        return self._posterior(self.encoder(padded.unfold(1, frame, hop)))

    def decode(self, latents: Tensor) -> Tensor:
        """latents (B, T, Z) -> samples (B, T hops)."""
        frames = self.decoder(latents)
        before = frames.new_zeros(latents.shape[0], WINDOW_HOPS - 1, self.config.hop_samples)
        sound, weight = self._overlap(frames, before, before)
        return self._divide(sound, weight)[:, self.trim : -self.trim]

    def decode_step(self, latents: Tensor, state: DecoderState, slots: Tensor, extent: int) -> tuple[Tensor, Tensor]:
        """The next latents (R, T, Z) of the rows in `slots` -> finished samples (R, T hops), the rest (R, 1.5 hops).

        The first `trim` samples of a row are to be dropped. The rest is what still follows if the row ends here.
        extent: no row holds more latents than this after the step.
        """
        frames = self.decoder(latents, state.cache.rows(slots, extent))
        before = state.sound.index_select(0, slots), state.weight.index_select(0, slots)
        sound, weight = self._overlap(frames, *before)
        num_frames = latents.shape[1]
        state.sound.index_copy_(0, slots, sound[:, num_frames:])
        state.weight.index_copy_(0, slots, weight[:, num_frames:])
        samples = self._divide(sound, weight)
        done = num_frames * self.config.hop_samples
        return samples[:, :done], samples[:, done : done + self.trim]

    def _overlap(self, frames: Tensor, sound: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Add frames (R, T, 4 hops) and their squared windows onto the tails (R, 3, hop) -> (R, T + 3, hop) each."""
        frames = frames.unflatten(-1, (WINDOW_HOPS, -1))  # (R, T, 4, hop)
        window = torch.hann_window(frames[0, 0].numel(), device=frames.device).square().view_as(frames[0, 0])
        return _add_frames(sound, frames), _add_frames(weight, window.expand_as(frames))

    def _divide(self, sound: Tensor, weight: Tensor) -> Tensor:
        # The squared windows sum to zero at the very first sample only, which the trim removes.
        return (sound / weight.clamp(min=1e-11)).flatten(1)

    def _posterior(self, out: Tensor) -> Posterior:
        mean, spread = out.chunk(2, -1)
        return Posterior(mean, F.softplus(spread) + 1e-4)

    def forward(self, samples: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Posterior]:
        """samples (B, n) -> their reconstruction (B, n) through sampled latents, and the posterior: for training."""
        posterior = self.encode(samples)
        return self.decode(posterior.sample(generator))[:, : samples.shape[1]], posterior


def _add_frames(tail: Tensor, frames: Tensor) -> Tensor:
    """Add frames (R, T, 4, hop), each one hop after the last, onto the tail (R, 3, hop) -> (R, T + 3, hop)."""
    out = F.pad(tail, (0, 0, 0, frames.shape[1]))
    for i in range(WINDOW_HOPS):
        out = out + F.pad(frames[:, :, i], (0, 0, i, WINDOW_HOPS - 1 - i))
    return out


class EncodeStream:
    """Samples of one sound, any number at a time -> posteriors; together what `encode` returns."""

    def __init__(self, vae: AudioVAE):
        self.vae = vae
        like = vae.encoder.frame.weight
        self.cache = SlotCache(vae.config.encoder, 1, 256, like)
        self.slot = torch.zeros(1, dtype=torch.long, device=like.device)
        self.waiting = like.new_zeros(1, 0)
        self.num_frames = 0

    def feed(self, samples: Tensor, is_last: bool = False) -> Posterior:
        """samples (1, n) -> the posterior (1, T, Z) of every frame that is complete; `is_last` pads the others."""
        hop, frame = self.vae.config.hop_samples, self.vae.config.frame_samples
        self.waiting = torch.cat([self.waiting, samples], 1)
        length = self.waiting.shape[1]
        ready = -(-length // hop) if is_last else max(0, (length - max(frame, hop)) // hop + 1)
        if not ready:
            empty = samples.new_zeros(1, 0, self.vae.config.latent_dim)
            return Posterior(empty, empty)
        padded = F.pad(self.waiting, (0, max(0, (ready - 1) * hop + frame - length)))
        frames = padded.unfold(1, frame, hop)[:, :ready]
        self.waiting, self.num_frames = self.waiting[:, ready * hop :], self.num_frames + ready
        return self.vae._posterior(self.vae.encoder(frames, self.cache.rows(self.slot, self.num_frames)))


class DecodeStream:
    """Latents of one sentence, any number at a time -> samples; together what `decode` returns."""

    def __init__(self, vae: AudioVAE):
        self.vae = vae
        like = vae.decoder.latent.weight
        self.state = DecoderState(vae.config, 1, 256, like)
        self.slot = torch.zeros(1, dtype=torch.long, device=like.device)
        self.num_latents, self.to_drop = 0, vae.trim

    def feed(self, latents: Tensor, is_last: bool = False) -> Tensor:
        """latents (1, T, Z) -> samples (1, n): 1.5 hops fewer than T hops at first, 1.5 hops more at last."""
        self.num_latents += latents.shape[1]
        samples, rest = self.vae.decode_step(latents, self.state, self.slot, self.num_latents)
        samples = torch.cat([samples, rest], 1) if is_last else samples
        dropped = min(self.to_drop, samples.shape[1])
        self.to_drop -= dropped
        return samples[:, dropped:]
