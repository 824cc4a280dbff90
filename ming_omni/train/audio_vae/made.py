"""Seconds -> samples of tunes and noises, made on the device: what speech shards do not hold."""

from __future__ import annotations

import torch
from torch import Tensor

SAMPLE_RATE_HZ = 16_000
PIECE_SECONDS = 4
NOTES, VOICES, HARMONICS = 8, 3, 8
STEPS = (0, 2, 4, 7, 9)
"""Of a pentatonic scale: no two sound wrong together."""


def made(seconds: float, generator: torch.Generator) -> Tensor:
    """(n,) between -1 and 1, tunes and noises in turn; n is a whole number of pieces."""
    count = max(1, round(seconds / PIECE_SECONDS / 2))
    pieces = []
    for _ in range(count):
        pieces += [tune(generator), noise(generator)]
    return torch.cat(pieces)


def tune(generator: torch.Generator) -> Tensor:
    """Eight chords of three voices, each plucked and dying away."""
    device = generator.device
    length = PIECE_SECONDS * SAMPLE_RATE_HZ // NOTES
    time = torch.arange(length, device=device) / SAMPLE_RATE_HZ
    shape = (NOTES, VOICES, 1)

    def draw(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(shape, generator=generator, device=device)

    steps = torch.tensor(STEPS, device=device)[(draw(0, len(STEPS), *shape)).long()]
    pitch = 110 * 2 ** ((steps + 12 * draw(0, 4, *shape).floor()) / 12)  # (notes, voices, 1), in Hz
    brightness, decay = draw(0.8, 2.5, 1), draw(1, 8, 1)
    sound = torch.zeros(NOTES, length, device=device)
    for harmonic in range(1, HARMONICS + 1):
        is_heard = harmonic * pitch < 0.45 * SAMPLE_RATE_HZ
        waves = torch.sin(2 * torch.pi * harmonic * pitch * time) * harmonic**-brightness * is_heard
        sound += waves.sum(1)
    sound = sound * (-decay * time).exp() * (time * 200).clamp(max=1)
    return (sound / sound.abs().max() * draw(0.2, 0.7, 1)).flatten()


def noise(generator: torch.Generator) -> Tensor:
    """From white to brown, louder and softer."""
    device, length = generator.device, PIECE_SECONDS * SAMPLE_RATE_HZ
    white = torch.randn(length, generator=generator, device=device)
    frequency = torch.arange(length // 2 + 1, device=device).clamp(min=20 * PIECE_SECONDS)
    colour, level = torch.rand(2, 1, generator=generator, device=device)
    coloured = torch.fft.irfft(torch.fft.rfft(white) * frequency ** (-2 * colour / 2), n=length)
    loudness = torch.rand(1, 1, 12, generator=generator, device=device)
    coloured = coloured * torch.nn.functional.interpolate(loudness, length, mode="linear")[0, 0]
    return coloured / coloured.abs().max() * (0.05 + 0.5 * level)
