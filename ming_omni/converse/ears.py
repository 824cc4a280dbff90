"""Samples at 16 kHz as they come -> where somebody starts and stops speaking, and what is said in between."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from ming_omni.errors import InputError
from ming_omni.inputs.mel import SAMPLE_RATE_HZ
from ming_omni.transcribe.voice import WINDOW_SAMPLES

LONGEST_TURN_SECONDS = 120
"""Then a turn ends by itself: nobody's silence is awaited for ever, and no buffer grows for ever."""
SURE_WINDOWS = 3
"""A tenth of a second of speech in a row starts a turn; a click does not."""
PAUSE_SECONDS = 0.2
"""A silence this long may be the end of a turn. What is heard of a turn ends here, whatever silence follows."""
HYSTERESIS = 0.15
"""Who speaks goes on speaking until the probability is this much lower (silero-vad's own)."""


@dataclass(frozen=True)
class Manners:
    """When a turn begins and ends."""

    threshold: float = 0.5
    prefix_seconds: float = 0.3
    """kept from before the speech, whose soft beginning is found late"""
    silence_seconds: float = 0.5
    kept_silence_seconds: float = 0.0
    """how much of a silence stays at hand, beyond the prefix"""


@dataclass(frozen=True)
class Started:
    at: float
    """seconds since the first sample, the prefix counted"""


@dataclass(frozen=True)
class Paused:
    samples: np.ndarray
    """(n,) at 16 kHz: the whole turn, if it ends here"""


@dataclass(frozen=True)
class Stopped:
    at: float
    """seconds since the first sample, the silence counted"""
    samples: np.ndarray
    """(n,) at 16 kHz: those of the last pause"""


Event = Started | Paused | Stopped


class Ears:
    """The input buffer. With manners it finds turns; without, it only keeps what comes until somebody takes it."""

    def __init__(self, detect: Callable[[torch.Tensor], float], manners: Manners | None = None):
        self.detect = detect
        self.manners = manners
        self.is_hearing = False
        """somebody speaks"""
        self.now = 0
        """samples that have come"""
        self._kept: deque[np.ndarray] = deque()  # the last of them, in the pieces they came in,
        self._first = 0  # from this one on
        self._unheard = np.zeros(0, np.float32)  # by the detector, less than a window
        self._sure = self._quiet = 0  # windows in a row with speech, without
        self._paused: np.ndarray | None = None  # the turn up to the pause that goes on

    @property
    def seconds(self) -> float:
        """that have come"""
        return self.now / SAMPLE_RATE_HZ

    @property
    def kept_seconds(self) -> float:
        return (self.now - self._first) / SAMPLE_RATE_HZ

    def behave(self, manners: Manners | None) -> None:
        """From now on. What was heard before is not heard again."""
        self.manners = manners
        self._unheard = np.zeros(0, np.float32)
        self.is_hearing, self._sure, self._quiet = False, 0, 0

    def hear(self, samples: np.ndarray) -> Iterator[Event]:
        """samples (n,) at 16 kHz"""
        if self.manners is None and self.kept_seconds + len(samples) / SAMPLE_RATE_HZ > LONGEST_TURN_SECONDS:
            raise InputError(f"the buffer holds at most {LONGEST_TURN_SECONDS} seconds; commit or clear it")
        self._kept.append(samples)
        self.now += len(samples)
        if self.manners is None:
            return
        self._unheard = np.concatenate([self._unheard, samples])
        while len(self._unheard) >= WINDOW_SAMPLES:
            window, self._unheard = self._unheard[:WINDOW_SAMPLES], self._unheard[WINDOW_SAMPLES:]
            yield from self._listen(self.detect(torch.from_numpy(window)))
        self._trim()

    def take(self) -> np.ndarray:
        """Everything that is kept, as a turn: (n,)."""
        samples = self._first_samples(self.now - self._first)
        self.clear()
        return samples

    def clear(self) -> None:
        self._drop(self.now)
        self._unheard = np.zeros(0, np.float32)
        self.is_hearing, self._sure, self._quiet = False, 0, 0

    @property
    def _heard(self) -> int:
        """samples that the detector has heard"""
        return self.now - len(self._unheard)

    def _listen(self, probability: float) -> Iterator[Event]:
        """One more window."""
        manners = self.manners
        if not self.is_hearing:
            self._sure = self._sure + 1 if probability >= manners.threshold else 0
            if self._sure >= SURE_WINDOWS:
                self.is_hearing, self._quiet, self._paused = True, 0, None
                prefix = round(manners.prefix_seconds * SAMPLE_RATE_HZ)
                self._drop(self._heard - SURE_WINDOWS * WINDOW_SAMPLES - prefix)
                yield Started(self._first / SAMPLE_RATE_HZ)
            return
        self._quiet = self._quiet + 1 if probability < manners.threshold - HYSTERESIS else 0
        pause, silence = (
            math.ceil(seconds * SAMPLE_RATE_HZ / WINDOW_SAMPLES) for seconds in (PAUSE_SECONDS, manners.silence_seconds)
        )
        if self._quiet == 0:
            self._paused = None
        elif self._quiet == min(pause, silence):
            self._paused = self._first_samples(self._heard - self._first)
            yield Paused(self._paused)
        if self._quiet >= silence or self._heard - self._first >= LONGEST_TURN_SECONDS * SAMPLE_RATE_HZ:
            samples = self._first_samples(self._heard - self._first) if self._paused is None else self._paused
            self.is_hearing, self._sure = False, 0
            self._drop(self._heard)
            yield Stopped(self._heard / SAMPLE_RATE_HZ, samples)

    def _trim(self) -> None:
        """In a silence, keep only what a turn that starts now would take along."""
        if self.manners is not None and not self.is_hearing:
            kept = self.manners.prefix_seconds + self.manners.kept_silence_seconds
            self._drop(self._heard - SURE_WINDOWS * WINDOW_SAMPLES - round(kept * SAMPLE_RATE_HZ))

    def _drop(self, before: int) -> None:
        """Forget samples that came before this place."""
        while self._kept and self._first + len(self._kept[0]) <= before:
            self._first += len(self._kept.popleft())
        if before > self._first:
            self._kept[0] = self._kept[0][before - self._first :]
            self._first = before

    def _first_samples(self, count: int) -> np.ndarray:
        return np.concatenate([*self._kept, np.zeros(0, np.float32)])[:count]
