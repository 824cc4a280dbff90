"""Which sounds, and how they are treated -> samples -> log-mel frames -> audio tokens (B, L, D), all rows at once.

All sounds lie on the device as 16-bit samples. Treatments are those of `data/augment.py`; its random numbers come from
the host row by row, these are drawn where they are used.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ming_omni.inputs.mel import HOP_SAMPLES, SAMPLE_RATE_HZ, WINDOW_SAMPLES, mel_filters
from ming_omni.model.audio_encoder import AudioEncoder

EDGE = WINDOW_SAMPLES // 2
TELEPHONE_HZ = (300, 3400)
QUARTER = SAMPLE_RATE_HZ // 4
ROOM_SAMPLES = int(0.8 * SAMPLE_RATE_HZ)
SPAN_FRAMES, BAND_BINS = 30, 12
"""Of a mel spectrum at most lost at once: 0.3 seconds, a seventh of the bins."""


@dataclass
class Treatments:
    """(B,) each; see `data.augment.Treatment`."""

    speed: Tensor
    reverberation_seconds: Tensor
    snr_db: Tensor
    noise_colour: Tensor
    is_telephone: Tensor
    level_db: Tensor


def samples_of(store: Tensor, starts: Tensor, lengths: Tensor, speed: Tensor, new_lengths: Tensor, size: int) -> Tensor:
    """Rows of the store (n,) int16 at another speed -> (B, size) float, silence after each row's end."""
    place = torch.arange(size, device=store.device, dtype=torch.float64) * speed[:, None].double()
    before = torch.minimum(place.long(), lengths[:, None] - 1)
    after = torch.minimum(before + 1, lengths[:, None] - 1)
    mix = (place - before).clamp(0, 1).float()
    first, second = (store[starts[:, None] + at].float() / 32768 for at in (before, after))
    return torch.lerp(first, second, mix) * inside(size, new_lengths)


def inside(size: int, lengths: Tensor) -> Tensor:
    return torch.arange(size, device=lengths.device) < lengths[:, None]


def treat(samples: Tensor, lengths: Tensor, t: Treatments, noises: tuple[Tensor, Tensor] | None = None) -> Tensor:
    """samples (B, n) after room, noise, telephone and level; noises: (B, m) for rooms and (B, n) for noise."""
    real = inside(samples.shape[1], lengths)
    if noises is None:
        noises = (
            torch.randn(len(samples), ROOM_SAMPLES, device=samples.device),
            torch.randn_like(samples),
        )
    samples = _room(samples, t.reverberation_seconds, noises[0], real)
    samples = samples + _noise(samples, t.snr_db, t.noise_colour, noises[1] * real) * real
    samples = torch.where(t.is_telephone[:, None], _telephone(samples) * real, samples)
    return (samples * 10 ** (t.level_db[:, None] / 20)).clamp(-1, 1)


def _room(samples: Tensor, seconds: Tensor, noise: Tensor, real: Tensor) -> Tensor:
    """Convolve with decaying noise that starts with the direct sound; loudness stays."""
    time = torch.arange(noise.shape[1], device=samples.device) / SAMPLE_RATE_HZ
    answer = noise * torch.exp(-6.9 * time / seconds[:, None].clamp(min=1e-3)) * (time < seconds[:, None])
    tail = answer[:, 1:]
    answer = torch.cat([tail.norm(dim=1, keepdim=True), tail], 1)
    answer = answer / answer.norm(dim=1, keepdim=True).clamp(min=1e-9)
    # A size without large prime factors, and few different ones: plans of transforms are kept by size.
    total = -(-(samples.shape[1] + noise.shape[1]) // QUARTER) * QUARTER
    wet = torch.fft.irfft(torch.fft.rfft(samples, total) * torch.fft.rfft(answer, total), total)
    wet = wet[:, : samples.shape[1]] * real
    loudness = samples.norm(dim=1, keepdim=True) / wet.norm(dim=1, keepdim=True).clamp(min=1e-9)
    return torch.where(seconds[:, None] > 0, wet * loudness, samples)


def _noise(samples: Tensor, snr_db: Tensor, colour: Tensor, white: Tensor) -> Tensor:
    """Coloured noise at the asked ratio to the row's own power; none where the ratio is infinite."""
    spectrum = torch.fft.rfft(white)
    steps = torch.arange(1, spectrum.shape[1] + 1, device=samples.device).float()
    noise = torch.fft.irfft(spectrum * steps ** (-colour[:, None] / 2), white.shape[1])
    wanted = samples.norm(dim=1, keepdim=True) * 10 ** (-snr_db[:, None] / 20)
    return noise * (wanted / noise.norm(dim=1, keepdim=True).clamp(min=1e-9))


def _telephone(samples: Tensor) -> Tensor:
    """The band of a telephone and its 8-bit companding."""
    low, high = TELEPHONE_HZ
    total = samples.shape[1] + QUARTER
    spectrum = torch.fft.rfft(samples, total)
    hz = torch.linspace(0, SAMPLE_RATE_HZ / 2, spectrum.shape[1], device=samples.device)
    band = ((hz - low) / 50 + 0.5).clamp(0, 1) * ((high - hz) / 100 + 0.5).clamp(0, 1)
    narrow = torch.fft.irfft(spectrum * band, total)[:, : samples.shape[1]].clamp(-1, 1)
    companded = narrow.sign() * (1 + 255 * narrow.abs()).log() / math.log(256)
    companded = (companded * 127).round() / 127
    return companded.sign() * (256 ** companded.abs() - 1) / 255


def num_frames(lengths: Tensor) -> Tensor:
    return lengths.clamp(min=EDGE + 1) // HOP_SAMPLES


def log_mels(samples: Tensor, lengths: Tensor, num_mel_bins: int) -> Tensor:
    """samples (B, n), lengths (B,) -> (B, F, M) as `inputs.mel.log_mel` makes of each row alone, zero after its end."""
    lengths = lengths.clamp(min=EDGE + 1)
    samples = F.pad(samples, (0, max(0, EDGE + 1 - samples.shape[1]) + EDGE))
    # Each row is mirrored at its own end, as a spectrum of it alone would do.
    place = torch.arange(samples.shape[1], device=samples.device)
    mirrored = torch.where(place < lengths[:, None], place, (2 * (lengths[:, None] - 1) - place).clamp(min=0))
    near = place < lengths[:, None] + EDGE
    samples = samples.gather(1, mirrored) * near
    window = torch.hann_window(WINDOW_SAMPLES, device=samples.device)
    spectrum = torch.stft(samples, WINDOW_SAMPLES, HOP_SAMPLES, window=window, return_complex=True)
    power = spectrum.abs() ** 2  # (B, 201, F)
    mel = mel_filters(num_mel_bins).to(samples.device, non_blocking=True) @ power
    real = inside(mel.shape[-1], num_frames(lengths))[:, None]
    log = mel.clamp(min=1e-10).log10()
    loudest = log.masked_fill(~real, -10.0).amax((1, 2), keepdim=True)
    log = (torch.maximum(log, loudest - 8.0) + 4.0) / 4.0
    return (log * real).transpose(1, 2)


def masked(features: Tensor, frames: Tensor) -> Tensor:
    """features (B, F, M), zero after frames (B,): half of the rows lose two spans and two bands (SpecAugment)."""
    count, length, bins = features.shape
    real = inside(length, frames)[..., None]
    mean = features.sum((1, 2), keepdim=True) / (frames * bins).clamp(min=1)[:, None, None]
    is_chosen = torch.rand(count, 1, device=features.device) < 0.5
    spans, bands = _stretches(length, frames, SPAN_FRAMES), _stretches(bins, torch.full_like(frames, bins), BAND_BINS)
    is_lost = ((spans & is_chosen)[:, :, None] | (bands & is_chosen)[:, None]) & real
    return torch.where(is_lost, mean, features)


def _stretches(size: int, room: Tensor, longest: int) -> Tensor:
    """(B, size): two stretches of each row's room (B,), of at most that length."""
    place = torch.arange(size, device=room.device)
    start, width = torch.rand(2, len(room), 2, 1, device=room.device)
    start, width = start * room[:, None, None], width * longest
    return ((place >= start) & (place < start + width)).any(1)


class Ears(nn.Module):
    def __init__(self, audio: AudioEncoder):
        super().__init__()
        self.audio = audio

    def encode(self, features: Tensor, frames: Tensor) -> Tensor:
        """features (B, F, M), zero after each row's frames (B,) -> clips (B, L, D), each as if it were alone."""
        audio = self.audio
        x = features.transpose(1, 2)  # (B, M, F)
        real = inside(x.shape[-1], frames)
        x = F.gelu(audio.conv1(x)) * real[:, None]
        x = F.gelu(audio.conv2(x)).transpose(1, 2)  # (B, L, D)
        x = x + audio.positions[: x.shape[1]].to(x.dtype)
        mask = real[:, ::2]
        for layer in audio.layers:
            x = layer(x, mask)
        return audio.norm(x) * mask[..., None]

    def forward(self, encoded: Tensor) -> Tensor:
        """-> tokens (B, L / stride, D)"""
        audio = self.audio
        tokens = audio.projector(encoded.transpose(1, 2))
        if audio.config.normalize:
            tokens = (F.normalize(tokens.float(), dim=-1) * audio.config.token_norm).to(tokens.dtype)
        return tokens
