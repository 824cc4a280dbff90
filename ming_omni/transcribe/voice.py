"""Blocks of samples at 16 kHz -> how likely somebody speaks in each 32 ms of them, by silero-vad (MIT)."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ming_omni.inputs.mel import SAMPLE_RATE_HZ

WINDOW_SAMPLES = 512
WINDOWS_PER_SECOND = SAMPLE_RATE_HZ / WINDOW_SAMPLES
_idle: list[Any] = []
"""Loaded detectors that nobody uses. One remembers what it has heard, so it serves one sound at a time."""
_loading = threading.Lock()


class VoiceDetector:
    """Listens to one sound from its beginning to its end."""

    def __init__(self, model: Any):
        self._model = model
        self._model.reset_states()

    @torch.inference_mode()
    def __call__(self, window: Tensor) -> float:
        """The next window (512,) -> probability of speech."""
        return float(self._model(window, SAMPLE_RATE_HZ))


@contextmanager
def voice_detector() -> Iterator[VoiceDetector]:
    try:
        model = _idle.pop()
    except IndexError:
        model = _load()
    try:
        yield VoiceDetector(model)
    finally:
        _idle.append(model)


def _load() -> Any:
    # One at a time: importing the package leaves one thread to the whole process, and whoever came meanwhile would
    # take that for the number to go back to.
    with _loading, warnings.catch_warnings():
        num_threads = torch.get_num_threads()
        warnings.simplefilter("ignore", DeprecationWarning)  # how the package finds and opens its own file
        import silero_vad

        model = silero_vad.load_silero_vad()
        torch.set_num_threads(num_threads)
    return model
