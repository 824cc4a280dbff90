"""A sound of any length, block by block -> stretches of speech, each as soon as it has ended; silence is dropped."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ming_omni.errors import InputError
from ming_omni.inputs.audio import MAX_CHANNELS, as_channels, one_channel, read_blocks
from ming_omni.inputs.mel import SAMPLE_RATE_HZ
from ming_omni.transcribe.voice import WINDOW_SAMPLES, WINDOWS_PER_SECOND, voice_detector

BLOCK_SECONDS = 4
MAX_HOURS = 24
"""A file of a few megabytes can hold days of silence."""
SPEECH = 0.5
"""Probability from which on somebody speaks; he goes on speaking until it falls below QUIET (silero-vad's own)."""
QUIET = 0.35
SHORTEST_SPEECH_SECONDS = 0.15
"""What is shorter is a click; a short yes is longer."""
MARGIN_SECONDS = 0.2
"""Kept before and after the speech: soft beginnings and endings are found late."""


@dataclass(frozen=True)
class Cuts:
    """Where one segment ends and the next begins."""

    pause_seconds: float
    """a pause this long separates two segments; shorter ones stay inside"""
    longest_seconds: float
    """what is longer is cut where it is quietest"""


WHOLE_SENTENCES = Cuts(pause_seconds=2.0, longest_seconds=30.0)
"""As much as the model reads at once: it hears best with what was said before and after."""
SUBTITLES = Cuts(pause_seconds=0.5, longest_seconds=8.0)
"""As much as a reader takes in at once."""


@dataclass(frozen=True)
class Stretch:
    """Windows [start, stop) in which somebody speaks."""

    start: int
    stop: int
    probability: float
    """of speech, mean over the windows that are not pauses"""


@dataclass(frozen=True)
class Speech:
    start: float
    """seconds, of the speech itself"""
    end: float
    samples: Tensor
    """(n,) at 16 kHz, with a margin on both sides"""
    probability: float


class Cutter:
    """Probabilities of speech, one for each window -> stretches, each as soon as it is certain."""

    def __init__(self, cuts: Cuts):
        self.pause = max(1, round(cuts.pause_seconds * WINDOWS_PER_SECOND))
        self.longest = int(cuts.longest_seconds * WINDOWS_PER_SECOND)
        self.shortest = math.ceil(SHORTEST_SPEECH_SECONDS * WINDOWS_PER_SECOND)
        self.now = 0
        """windows seen"""
        self.start: int | None = None
        """where the current stretch began"""
        self._kept: list[float] = []  # probabilities since `start`
        self._spoken = 0  # how many of these end with speech

    def push(self, probability: float) -> list[Stretch]:
        self.now += 1
        if self.start is None:
            if probability < SPEECH:
                return []
            self.start = self.now - 1
        is_speaking = self._spoken == len(self._kept)
        self._kept.append(probability)
        if probability >= SPEECH or (is_speaking and probability >= QUIET):
            self._spoken = len(self._kept)
        if len(self._kept) - self._spoken >= self.pause:
            return self._end(self._spoken)
        if len(self._kept) >= self.longest:
            return self._split()
        return []

    def finish(self) -> list[Stretch]:
        return [] if self.start is None else self._end(self._spoken)

    def _split(self) -> list[Stretch]:
        """End the stretch at the quietest moment of its second half; what comes after begins the next."""
        half = len(self._kept) // 2
        padded = np.pad(self._kept, 2, "edge")  # with zeros the last windows would seem quiet
        smooth = np.convolve(padded, np.full(5, 0.2), "valid")[half:]
        cut = half + int(np.flatnonzero(smooth == smooth.min())[-1])
        rest, first = self._kept[cut:], self.start + cut
        stop = max((i + 1 for i in range(cut) if self._kept[i] >= QUIET), default=cut)
        found = self._end(stop)
        self.now = first
        for probability in rest:
            found += self.push(probability)
        return found

    def _end(self, length: int) -> list[Stretch]:
        kept, start = self._kept[:length], self.start
        self.start, self._kept, self._spoken = None, [], 0
        if sum(probability >= SPEECH for probability in kept) < self.shortest:
            return []
        spoken = [probability for probability in kept if probability >= QUIET]
        return [Stretch(start, start + length, sum(spoken) / len(spoken))]


class Track:
    """The sound itself: one channel at 16 kHz, block by block, and how long it has been."""

    def __init__(self, source):
        self.num_samples = 0
        self._blocks = _gathered(_at_model_rate(_blocks(source)))
        self._first = next(self._blocks, None)
        if self._first is None:
            raise InputError("the sound is empty")

    @property
    def seconds(self) -> float:
        return self.num_samples / SAMPLE_RATE_HZ

    def __iter__(self) -> Iterator[Tensor]:
        block, self._first = self._first, None
        while block is not None:
            self.num_samples += len(block)
            if self.seconds > MAX_HOURS * 3600:
                raise InputError(f"the sound is longer than {MAX_HOURS} hours; cut it into several")
            yield block
            block = next(self._blocks, None)


def speech(blocks: Iterable[Tensor], cuts: Cuts) -> Iterator[Speech]:
    """Blocks (n,) at 16 kHz -> stretches of speech, never overlapping; only the current one is in memory."""
    cutter, margin = Cutter(cuts), round(MARGIN_SECONDS * SAMPLE_RATE_HZ)
    kept, first = torch.empty(0), 0  # samples from `first` on
    heard = end_of_last = 0  # samples the detector has heard; where the last stretch's samples end

    def cut(stretch: Stretch) -> Speech:
        nonlocal end_of_last
        start, stop = stretch.start * WINDOW_SAMPLES, stretch.stop * WINDOW_SAMPLES
        begin, end = max(end_of_last, start - margin, first), min(stop + margin, first + len(kept))
        if cutter.start is not None:  # the next stretch follows at once, and its beginning is its own
            end = min(end, max(stop, cutter.start * WINDOW_SAMPLES))
        end_of_last = end
        times = (min(sample, first + len(kept)) / SAMPLE_RATE_HZ for sample in (start, stop))
        return Speech(*times, kept[begin - first : end - first].clone(), stretch.probability)

    with voice_detector() as detect:
        for block in blocks:
            kept = torch.cat([kept, block])
            while first + len(kept) - heard >= WINDOW_SAMPLES:
                window = kept[heard - first :][:WINDOW_SAMPLES]
                heard += WINDOW_SAMPLES
                yield from map(cut, cutter.push(detect(window)))
            start = heard if cutter.start is None else cutter.start * WINDOW_SAMPLES
            drop = max(0, min(start - margin, len(kept) + first) - first)
            kept, first = kept[drop:], first + drop
        rest = kept[heard - first :]
        found = cutter.push(detect(torch.nn.functional.pad(rest, (0, WINDOW_SAMPLES - len(rest))))) if len(rest) else []
        yield from map(cut, found + cutter.finish())


def _blocks(source) -> Iterator[tuple[np.ndarray, int]]:
    """Any sound `read_audio` takes -> blocks (channels, n) of floats, with their rate in Hz."""
    if isinstance(source, tuple) and len(source) == 2:
        samples, rate_hz = as_channels(source[0]).numpy(), source[1]
        one_channel(samples[:, :1], rate_hz)  # says what is wrong with the rate
        step = int(rate_hz) * BLOCK_SECONDS
        yield from ((samples[:, i : i + step], int(rate_hz)) for i in range(0, samples.shape[1], step))
    elif isinstance(source, np.ndarray | Tensor):
        raise InputError("samples need their rate: pass (samples, sample_rate_hz)")
    else:
        yield from read_blocks(source)


def _at_model_rate(blocks: Iterable[tuple[np.ndarray, int]]) -> Iterator[Tensor]:
    """Channels are mixed and samples brought to 16 kHz, as `inputs.audio.one_channel` does for a whole sound."""
    resampler = None
    for block, rate_hz in blocks:
        assert block.shape[0] <= MAX_CHANNELS
        mono = block.mean(0)
        if not np.isfinite(mono).all():
            raise InputError("the sound holds samples that are not finite numbers")
        if rate_hz == SAMPLE_RATE_HZ:
            yield torch.from_numpy(mono)
            continue
        if resampler is None:
            import soxr

            one_channel(block[:, :1], rate_hz)  # says what is wrong with the rate
            resampler = soxr.ResampleStream(rate_hz, SAMPLE_RATE_HZ, 1, dtype="float32")
        yield torch.from_numpy(resampler.resample_chunk(mono))
    if resampler is not None:
        yield torch.from_numpy(resampler.resample_chunk(np.empty(0, np.float32), last=True))


def _gathered(blocks: Iterable[Tensor]) -> Iterator[Tensor]:
    """Decoders give a few milliseconds at a time; here come seconds."""
    kept, size = [], 0
    for block in blocks:
        kept.append(block)
        size += len(block)
        if size >= BLOCK_SECONDS * SAMPLE_RATE_HZ:
            yield torch.cat(kept)
            kept, size = [], 0
    if size:
        yield torch.cat(kept)
