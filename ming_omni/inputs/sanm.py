"""Samples (n,) at 16 kHz -> filter-bank features (F, 560): the release's legacy front end (spec 4.4).

The published encoder cannot read these; they exist because the published processor produces them by default.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from ming_omni.errors import InputError

WINDOW_SAMPLES, HOP_SAMPLES, FFT_SIZE = 400, 160, 512
NUM_BINS = 80
LOWEST_HZ, HIGHEST_HZ = 20.0, 8000.0
PREEMPHASIS = 0.97
STACKED, STRIDE = 7, 6
"""Seven frames side by side, every sixth one."""


def sanm_features(samples: Tensor) -> Tensor:
    """Kaldi filter bank, seven frames stacked, normalised: one row every 60 ms."""
    frames = filter_bank(samples)  # (T, 80)
    length = math.ceil(len(frames) / STRIDE)
    before = (STACKED - 1) // 2
    padded = torch.cat([frames[:1].expand(before, -1), frames])
    after = (length - 1) * STRIDE + STACKED - len(padded)
    padded = torch.cat([padded, frames[-1:].expand(max(0, after), -1)])
    stacked = padded.unfold(0, STACKED, STRIDE)[:length]  # (F, 80, 7)
    stacked = stacked.transpose(1, 2).flatten(1)
    shift, scale = torch.tensor(_SHIFT), torch.tensor(_SCALE)
    return (stacked + shift.repeat(STACKED)) * scale.repeat(STACKED)


def filter_bank(samples: Tensor) -> Tensor:
    """(n,) in -1..1 -> (T, 80) log energies as Kaldi computes them: Hamming window, no dither, whole windows only."""
    if len(samples) < WINDOW_SAMPLES:
        raise InputError(f"the sound is too short; at least {WINDOW_SAMPLES} samples at 16 kHz are needed")
    frames = (samples.float() * 32_768).unfold(0, WINDOW_SAMPLES, HOP_SAMPLES)  # (T, 400)
    frames = frames - frames.mean(1, keepdim=True)
    frames = frames - PREEMPHASIS * F.pad(frames[None], (1, 0), mode="replicate")[0, :, :-1]
    window = torch.hamming_window(WINDOW_SAMPLES, periodic=False)
    power = torch.fft.rfft(frames * window, n=FFT_SIZE).abs() ** 2  # (T, 257)
    energies = power @ _triangles().T
    return energies.clamp(min=torch.finfo(torch.float32).eps).log()


@lru_cache
def _triangles() -> Tensor:
    """(80, 257) triangles, evenly spaced and straight on the mel scale 1127·ln(1 + f/700)."""

    low, high = (1127.0 * math.log(1.0 + hz / 700.0) for hz in (LOWEST_HZ, HIGHEST_HZ))
    corners = low + torch.arange(NUM_BINS + 2) * ((high - low) / (NUM_BINS + 1))
    bins = 1127.0 * (1.0 + torch.arange(FFT_SIZE // 2) * (16_000 / FFT_SIZE) / 700.0).log()
    left, centre, right = (corners[i : i + NUM_BINS, None] for i in range(3))
    triangles = torch.minimum((bins - left) / (centre - left), (right - bins) / (right - centre)).clamp(min=0)
    return F.pad(triangles, (0, 1))  # the highest frequency belongs to no triangle


# Mean and spread of each filter over the recordings the front end was made for: the 80 values of the public
# FunASR `am.mvn`, which the release repeats in its source (spec 1.1).
_SHIFT = (
    -8.311879, -8.600912, -9.615928, -10.43595, -11.21292, -11.88333, -12.36243, -12.63706, -12.8818, -12.83066,
    -12.89103, -12.95666, -13.19763, -13.40598, -13.49113, -13.5546, -13.55639, -13.51915, -13.68284, -13.53289,
    -13.42107, -13.65519, -13.50713, -13.75251, -13.76715, -13.87408, -13.73109, -13.70412, -13.56073, -13.53488,
    -13.54895, -13.56228, -13.59408, -13.62047, -13.64198, -13.66109, -13.62669, -13.58297, -13.57387, -13.4739,
    -13.53063, -13.48348, -13.61047, -13.64716, -13.71546, -13.79184, -13.90614, -14.03098, -14.18205, -14.35881,
    -14.48419, -14.60172, -14.70591, -14.83362, -14.92122, -15.00622, -15.05122, -15.03119, -14.99028, -14.92302,
    -14.86927, -14.82691, -14.7972, -14.76909, -14.71356, -14.61277, -14.51696, -14.42252, -14.36405, -14.30451,
    -14.23161, -14.19851, -14.16633, -14.15649, -14.10504, -13.99518, -13.79562, -13.3996, -12.7767, -11.71208,
)  # fmt: skip
_SCALE = (
    0.155775, 0.154484, 0.1527379, 0.1518718, 0.1506028, 0.1489256, 0.147067, 0.1447061, 0.1436307, 0.1443568,
    0.1451849, 0.1455157, 0.1452821, 0.1445717, 0.1439195, 0.1435867, 0.1436018, 0.1438781, 0.1442086, 0.1448844,
    0.1454756, 0.145663, 0.146268, 0.1467386, 0.1472724, 0.147664, 0.1480913, 0.1483739, 0.1488841, 0.1493636,
    0.1497088, 0.1500379, 0.1502916, 0.1505389, 0.1506787, 0.1507102, 0.1505992, 0.1505445, 0.1505938, 0.1508133,
    0.1509569, 0.1512396, 0.1514625, 0.1516195, 0.1516156, 0.1515561, 0.1514966, 0.1513976, 0.1512612, 0.151076,
    0.1510596, 0.1510431, 0.151077, 0.1511168, 0.1511917, 0.151023, 0.1508045, 0.1505885, 0.1503493, 0.1502373,
    0.1501726, 0.1500762, 0.1500065, 0.1499782, 0.150057, 0.1502658, 0.150469, 0.1505335, 0.1505505, 0.1505328,
    0.1504275, 0.1502438, 0.1499674, 0.1497118, 0.1494661, 0.1493102, 0.1493681, 0.1495501, 0.1499738, 0.1509654,
)  # fmt: skip
