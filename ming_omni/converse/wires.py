"""Bytes of a live sound, piece by piece -> samples at the rate that models hear, and spoken samples -> bytes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ming_omni.errors import InputError
from ming_omni.inputs.mel import SAMPLE_RATE_HZ


@dataclass(frozen=True)
class Wire:
    """How samples travel."""

    name: str
    rate_hz: int
    sample_bytes: int

    def decode(self, data: bytes) -> np.ndarray:
        """(n,) float32 in -1..1"""
        if len(data) % self.sample_bytes:
            raise InputError(f"{self.name} has {self.sample_bytes} bytes a sample; {len(data)} bytes end inside one")
        if self.name == "audio/pcm":
            return np.frombuffer(data, "<i2").astype(np.float32) / 32_768
        return _LEVELS[self.name][np.frombuffer(data, np.uint8)].astype(np.float32) / 32_768

    def encode(self, samples: np.ndarray) -> bytes:
        """samples (n,) float32 at this wire's rate"""
        whole = np.rint(np.clip(samples, -1, 1) * 32_767).astype("<i2")
        return whole.tobytes() if self.name == "audio/pcm" else _nearest(_LEVELS[self.name], whole).tobytes()

    def seconds(self, data: bytes) -> float:
        return len(data) / self.sample_bytes / self.rate_hz


def _mu_law() -> np.ndarray:
    """(256,) the level of each byte (ITU-T G.711)"""
    code = ~np.arange(256, dtype=np.uint8)
    size = (((code & 15).astype(np.int32) << 3) + 132 << (code >> 4 & 7)) - 132
    return np.where(code & 128, -size, size)


def _a_law() -> np.ndarray:
    """(256,) the level of each byte (ITU-T G.711)"""
    code = np.arange(256, dtype=np.uint8) ^ 0x55
    exponent, mantissa = (code >> 4 & 7).astype(np.int32), (code & 15).astype(np.int32)
    size = np.where(exponent == 0, (mantissa << 4) + 8, (mantissa << 4) + 264 << np.maximum(exponent - 1, 0))
    return np.where(code & 128, size, -size)


_LEVELS = {"audio/pcmu": _mu_law(), "audio/pcma": _a_law()}
WIRES = {
    "audio/pcm": Wire("audio/pcm", 24_000, 2),
    "audio/pcmu": Wire("audio/pcmu", 8_000, 1),
    "audio/pcma": Wire("audio/pcma", 8_000, 1),
}


def _nearest(levels: np.ndarray, samples: np.ndarray) -> np.ndarray:
    """The byte whose level is closest to each sample."""
    order = np.argsort(levels, kind="stable")
    between = (levels[order][1:] + levels[order][:-1]) / 2
    return order[np.searchsorted(between, samples)].astype(np.uint8)


class Inlet:
    """One sound as it arrives, brought to 16 kHz; the filter holds the last few milliseconds back until `finish`."""

    def __init__(self, wire: Wire):
        import soxr

        self.wire = wire
        self._resampler = soxr.ResampleStream(wire.rate_hz, SAMPLE_RATE_HZ, 1, dtype="float32")

    def push(self, data: bytes) -> np.ndarray:
        """(n,) at 16 kHz"""
        return self._resampler.resample_chunk(self.wire.decode(data))

    def finish(self) -> np.ndarray:
        """The rest; afterwards a new sound begins."""
        rest = self._resampler.resample_chunk(np.zeros(0, np.float32), last=True)
        self._resampler.clear()
        return rest
