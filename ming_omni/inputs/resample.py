"""Samples at one rate -> samples at another: soxr by default, the release's windowed sinc on request."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ming_omni.errors import InputError

ZERO_CROSSINGS = 6
ROLLOFF = 0.99
"""The release's filter: six zero crossings to each side, cut off just below the lower Nyquist frequency (spec 4.1)."""
MAX_WEIGHTS = 1 << 24
"""44,100 to 16,000 Hz takes 76,000; two rates without a common divisor would take gigabytes."""


def resample(samples: Tensor, from_hz: int, to_hz: int, resampler: str = "soxr") -> Tensor:
    """(n,) -> (ceil(n·to/from),) for "sinc"; soxr may differ by a sample."""
    if from_hz == to_hz:
        return samples
    if resampler == "sinc":
        return _windowed_sinc(samples, from_hz, to_hz)
    import soxr

    return torch.from_numpy(soxr.resample(samples.numpy(), from_hz, to_hz))


def _windowed_sinc(samples: Tensor, from_hz: int, to_hz: int) -> Tensor:
    """A strided convolution: rates reduced to old/new, output k·new + p reads around input k·old + p·old/new.

    Most of its weights are zero. It stays this way because the order of the sums is the release's own, and the
    logarithm of quiet mel bins magnifies a difference in the last place.
    """
    common = math.gcd(from_hz, to_hz)
    old, new = from_hz // common, to_hz // common
    cutoff = min(old, new) * ROLLOFF
    reach = math.ceil(ZERO_CROSSINGS * old / cutoff)
    if new * (old + 2 * reach) > MAX_WEIGHTS:
        raise InputError(f"the published resampler cannot turn {from_hz} Hz into {to_hz} Hz; the default one can")

    # Distance from each input to each of the `new` output phases, in zero crossings of the filter.
    inputs = torch.arange(-reach, reach + old, dtype=torch.float64) / old
    phases = torch.arange(new, dtype=torch.float64) / new
    distance = ((inputs - phases[:, None]) * cutoff).clamp(-ZERO_CROSSINGS, ZERO_CROSSINGS)
    window = (distance * math.pi / ZERO_CROSSINGS / 2).cos() ** 2
    filters = torch.sinc(distance) * window * (cutoff / old)  # (new, reach + old + reach)

    padded = F.pad(samples.float(), (reach, reach + old))
    outputs = F.conv1d(padded[None, None], filters.float()[:, None], stride=old)  # (1, new, k)
    return outputs[0].T.flatten()[: math.ceil(len(samples) * new / old)]
