"""Samples (n,) at 16 kHz -> log-mel frames (F, M), the front end of Whisper (spec 4.1)."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

SAMPLE_RATE_HZ = 16_000
WINDOW_SAMPLES = 400
HOP_SAMPLES = 160


def log_mel(samples: Tensor, num_mel_bins: int = 128) -> Tensor:
    """Ten milliseconds a frame; the quietest value is 8 (in log10) below the loudest of the whole clip."""
    # Reflection needs more samples than half a window; shorter clips end in silence.
    missing = max(0, WINDOW_SAMPLES // 2 + 1 - samples.shape[-1])
    samples = torch.nn.functional.pad(samples.float(), (0, missing))
    window = torch.hann_window(WINDOW_SAMPLES, device=samples.device)
    spectrum = torch.stft(samples, WINDOW_SAMPLES, HOP_SAMPLES, window=window, return_complex=True)
    power = spectrum[:, :-1].abs() ** 2  # (201, F)
    mel = mel_filters(num_mel_bins).to(samples.device) @ power
    log = mel.clamp(min=1e-10).log10()
    log = log.clamp(min=log.max() - 8.0)
    return ((log + 4.0) / 4.0).T.contiguous()  # (F, M)


@lru_cache
def mel_filters(num_mel_bins: int) -> Tensor:
    """(M, 201) triangles evenly spaced on Slaney's mel scale, each of unit area."""
    bins_hz = torch.linspace(0, SAMPLE_RATE_HZ / 2, WINDOW_SAMPLES // 2 + 1, dtype=torch.float64)
    top = _slaney_mel(torch.tensor(SAMPLE_RATE_HZ / 2, dtype=torch.float64))
    corners_hz = _slaney_hz(torch.linspace(0, float(top), num_mel_bins + 2, dtype=torch.float64))
    left, centre, right = (corners_hz[i : i + num_mel_bins, None] for i in range(3))
    rising = (bins_hz - left) / (centre - left)
    falling = (right - bins_hz) / (right - centre)
    triangles = torch.minimum(rising, falling).clamp(min=0)
    return (triangles * 2 / (right - left)).float()


# Slaney's scale: linear to 1 kHz (3 mel per 200 Hz), then 27 mel for every factor of 6.4.
_LINEAR_HZ_PER_MEL = 200 / 3
_BREAK_HZ = 1000.0
_LOG_STEP = torch.log(torch.tensor(6.4, dtype=torch.float64)).item() / 27


def _slaney_mel(hz: Tensor) -> Tensor:
    above = _BREAK_HZ / _LINEAR_HZ_PER_MEL + (hz.clamp(min=_BREAK_HZ) / _BREAK_HZ).log() / _LOG_STEP
    return torch.where(hz < _BREAK_HZ, hz / _LINEAR_HZ_PER_MEL, above)


def _slaney_hz(mel: Tensor) -> Tensor:
    break_mel = _BREAK_HZ / _LINEAR_HZ_PER_MEL
    above = _BREAK_HZ * ((mel - break_mel) * _LOG_STEP).exp()
    return torch.where(mel < break_mel, mel * _LINEAR_HZ_PER_MEL, above)
