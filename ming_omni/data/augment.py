"""Clean speech (B, n) -> the same in a room, in noise, over a telephone, at another speed and level, in batches.

What happens to a row depends on its seed alone, so that a shard sounds the same on every machine.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ming_omni.data.splits import generator

SPEEDS = (0.8, 1.25)
TELEPHONE_HZ = (300, 3400)
REVERBERATION_SECONDS = (0.1, 0.8)
SNR_DB = (5, 30)


@dataclass(frozen=True)
class Treatment:
    """What happens to one row; 1, 0 and infinity leave it alone."""

    speed: float = 1.0
    reverberation_seconds: float = 0.0
    snr_db: float = math.inf
    noise_colour: float = 1.0  # power falls with frequency to this exponent: 0 white, 1 pink, 2 brown
    is_telephone: bool = False
    level_db: float = 0.0
    seed: int = 0


def treatment(seed: int) -> Treatment:
    """Most rows get one or two treatments, a quarter none but speed and level."""
    numbers = generator("augment", seed)
    chosen = numbers.random(4) < (0.5, 0.35, 0.4, 0.15)
    return Treatment(
        speed=float(numbers.uniform(*SPEEDS)) if chosen[0] else 1.0,
        reverberation_seconds=float(numbers.uniform(*REVERBERATION_SECONDS)) if chosen[1] else 0.0,
        snr_db=float(numbers.uniform(*SNR_DB)) if chosen[2] else math.inf,
        noise_colour=float(numbers.uniform(0, 2)),
        is_telephone=bool(chosen[3]),
        level_db=float(numbers.uniform(-20, 3)),
        seed=seed,
    )


def augment(
    samples: Tensor, lengths: Tensor, treatments: Sequence[Treatment], sample_rate_hz: int = 16_000
) -> tuple[Tensor, Tensor]:
    """samples (B, n), lengths (B) -> the same after speed, room, noise, telephone and level, in this order."""
    samples, lengths = change_speed(samples, lengths, [t.speed for t in treatments])
    samples = add_room(samples, lengths, treatments, sample_rate_hz)
    samples = add_noise(samples, lengths, treatments)
    samples = telephone(samples, lengths, [t.is_telephone for t in treatments], sample_rate_hz)
    level = torch.tensor([10 ** (t.level_db / 20) for t in treatments], device=samples.device)
    samples = samples * level[:, None] * _inside(samples, lengths)
    return samples.clamp(-1, 1), lengths


def change_speed(samples: Tensor, lengths: Tensor, speeds: Sequence[float]) -> tuple[Tensor, Tensor]:
    """Faster and higher, or slower and lower, as a tape would be: rows resampled by linear interpolation."""
    speed = torch.tensor(speeds, device=samples.device, dtype=torch.float64)
    new_lengths = (lengths.to(speed) / speed).round().long()
    places = torch.arange(int(new_lengths.max()), device=samples.device, dtype=torch.float64) * speed[:, None]  # (B, m)
    before = places.floor().long().clamp(max=samples.shape[1] - 1)
    after = (before + 1).clamp(max=samples.shape[1] - 1)
    mix = (places - before).clamp(0, 1).to(samples)
    changed = torch.lerp(samples.gather(1, before), samples.gather(1, after), mix)
    return changed * _inside(changed, new_lengths), new_lengths


def add_room(samples: Tensor, lengths: Tensor, treatments: Sequence[Treatment], sample_rate_hz: int) -> Tensor:
    """Convolve with decaying noise that starts with the direct sound; loudness stays."""
    rows = [i for i, t in enumerate(treatments) if t.reverberation_seconds > 0]
    if not rows:
        return samples
    size = math.ceil(max(treatments[i].reverberation_seconds for i in rows) * sample_rate_hz)
    seconds = torch.arange(size, device=samples.device) / sample_rate_hz
    answers = []
    for i in rows:
        numbers = torch.from_numpy(np.random.default_rng(treatments[i].seed).standard_normal(size)).to(samples)
        # -60 dB after the reverberation time; the direct sound carries about as much as the room.
        answer = numbers * torch.exp(-6.9 * seconds / treatments[i].reverberation_seconds)
        answer = answer * (seconds < treatments[i].reverberation_seconds)
        answer[0] = answer[1:].norm()
        answers.append(answer / answer.norm())
    total = samples.shape[1] + size - 1
    wet = torch.fft.irfft(torch.fft.rfft(samples[rows], total) * torch.fft.rfft(torch.stack(answers), total), total)
    wet = wet[:, : samples.shape[1]] * _inside(samples[rows], lengths[rows])
    loudness = samples[rows].norm(dim=1, keepdim=True) / wet.norm(dim=1, keepdim=True).clamp(min=1e-9)
    return samples.index_copy(0, torch.tensor(rows, device=samples.device), wet * loudness)


def add_noise(samples: Tensor, lengths: Tensor, treatments: Sequence[Treatment]) -> Tensor:
    """Coloured noise at the asked ratio to the row's own power."""
    rows = [i for i, t in enumerate(treatments) if math.isfinite(t.snr_db)]
    if not rows:
        return samples
    out = samples.clone()
    for i in rows:
        t, length = treatments[i], int(lengths[i])
        white = torch.from_numpy(np.random.default_rng(t.seed + 1).standard_normal(length)).to(samples)
        spectrum = torch.fft.rfft(white)
        tilt = torch.arange(1, len(spectrum) + 1, device=samples.device).float() ** (-t.noise_colour / 2)
        noise = torch.fft.irfft(spectrum * tilt, length)
        wanted = samples[i, :length].norm() * 10 ** (-t.snr_db / 20)
        out[i, :length] += noise * (wanted / noise.norm().clamp(min=1e-9))
    return out


def telephone(samples: Tensor, lengths: Tensor, chosen: Sequence[bool], sample_rate_hz: int) -> Tensor:
    """The band of a telephone and its 8-bit companding."""
    out = samples.clone()
    low, high = TELEPHONE_HZ
    for i in (i for i, is_chosen in enumerate(chosen) if is_chosen):
        length = int(lengths[i])
        total = length + sample_rate_hz // 4  # silence, so that the end does not ring into the beginning
        spectrum = torch.fft.rfft(samples[i, :length], total)
        hz = torch.linspace(0, sample_rate_hz / 2, len(spectrum), device=samples.device)
        band = ((hz - low) / 50 + 0.5).clamp(0, 1) * ((high - hz) / 100 + 0.5).clamp(0, 1)
        narrow = torch.fft.irfft(spectrum * band, total)[:length].clamp(-1, 1)
        companded = narrow.sign() * (1 + 255 * narrow.abs()).log() / math.log(256)
        companded = (companded * 127).round() / 127
        out[i, :length] = companded.sign() * (256 ** companded.abs() - 1) / 255
    return out


def pad_rows(rows: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Rows (n) of any length -> (B, n), lengths (B)"""
    lengths = torch.tensor([len(row) for row in rows], device=rows[0].device)
    size = int(lengths.max())
    return torch.stack([F.pad(row, (0, size - len(row))) for row in rows]), lengths


def _inside(samples: Tensor, lengths: Tensor) -> Tensor:
    return torch.arange(samples.shape[1], device=samples.device) < lengths[:, None]
