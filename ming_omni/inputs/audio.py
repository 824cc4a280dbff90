"""Sound from a file, bytes, arrays or the track of a video -> one channel of samples at 16 kHz (spec 4.1)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator
from contextlib import suppress
from numbers import Real
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from ming_omni.errors import InputError
from ming_omni.inputs.behaviour import OURS, Behaviour
from ming_omni.inputs.container import decoding, open_container
from ming_omni.inputs.mel import SAMPLE_RATE_HZ
from ming_omni.inputs.resample import resample
from ming_omni.inputs.source import open_source

MAX_SAMPLES = 500_000_000
"""Over all channels: 2 GB in memory, three hours of one channel at 44.1 kHz. A short file can hold days of silence."""
MAX_CHANNELS = 64
MIN_RATE_HZ, MAX_RATE_HZ = 1_000, 768_000


def load_audio(source: Any, behaviour: Behaviour = OURS, sample_rate_hz: int = SAMPLE_RATE_HZ) -> Tensor:
    """Any sound, or (samples, rate), -> (n,) float32 at the given rate."""
    waveform, rate_hz = read_audio(source)
    return one_channel(waveform, rate_hz, behaviour, sample_rate_hz)


def one_channel(
    waveform: Tensor | np.ndarray, rate_hz: int, behaviour: Behaviour = OURS, sample_rate_hz: int = SAMPLE_RATE_HZ
) -> Tensor:
    """(channels, n) or (n,) of floats or integers at any rate -> (n',) float32 at `sample_rate_hz`."""
    if not isinstance(rate_hz, Real) or rate_hz != rate_hz // 1 or not MIN_RATE_HZ <= rate_hz <= MAX_RATE_HZ:
        raise InputError(f"a sample rate is a whole number of {MIN_RATE_HZ} to {MAX_RATE_HZ} Hz, not {rate_hz!r}")
    channels = as_channels(waveform)
    mono = channels[0] if behaviour.channels == "first" else channels.mean(0)
    if not torch.isfinite(mono).all():
        raise InputError("the sound holds samples that are not finite numbers")
    return resample(mono, int(rate_hz), sample_rate_hz, behaviour.resampler)


def as_channels(waveform: Tensor | np.ndarray) -> Tensor:
    """(n,), (channels, n) or (n, channels), floats or integers -> (channels, n) float32 in -1..1."""
    array = waveform.detach().cpu().numpy() if isinstance(waveform, Tensor) else np.asarray(waveform)
    if array.ndim == 1:
        array = array[None]
    if array.ndim != 2 or array.size == 0:
        raise InputError(f"an array of shape {array.shape} is not a sound; expected (n,) or (channels, n)")
    if array.shape[0] > array.shape[1] and array.shape[1] <= MAX_CHANNELS:
        array = array.T
    if array.shape[0] > MAX_CHANNELS:
        raise InputError(f"a sound has at most {MAX_CHANNELS} channels, not {array.shape[0]}")
    if array.dtype.kind in "iu":
        full_scale = 2.0 ** (array.dtype.itemsize * 8 - 1)
        array = array / full_scale - (1.0 if array.dtype.kind == "u" else 0.0)
    elif array.dtype.kind != "f":
        raise InputError(f"a sound cannot be made of {array.dtype} numbers")
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))


def read_audio(source: Any, max_samples: int = MAX_SAMPLES, max_seconds: float = math.inf) -> tuple[Tensor, int]:
    """Any sound -> (channels, n) float32 and its rate in Hz. `max_samples` is over all channels of a file."""
    if isinstance(source, tuple) and len(source) == 2:
        return as_channels(source[0]), source[1]
    if isinstance(source, np.ndarray | Tensor):
        raise InputError("samples need their rate: pass (samples, sample_rate_hz)")
    return _joined(read_blocks(source), max_samples, max_seconds)


# How the files begin that soundfile reads quickly and quietly; MP3 is left to FFmpeg, since libsndfile's decoder
# writes its opinion of damaged files to the terminal.
_SOUNDFILE_STARTS = (b"RIFF", b"RF64", b"riff", b"fLaC", b"OggS", b"FORM", b"caff", b".snd")


def read_blocks(source: Any) -> Iterator[tuple[np.ndarray, int]]:
    """A path, bytes or an open file -> blocks (channels, n) float32 as they are decoded, each with its rate in Hz.

    However long the sound is, only one block of it is in memory.
    """
    import soundfile

    with open_source(source, "sound") as file:
        opened = None
        if file.read(4).startswith(_SOUNDFILE_STARTS):
            file.seek(0)
            with suppress(Exception):  # damaged, or a codec it lacks: the next decoder gives the verdict
                opened = soundfile.SoundFile(_Forgiving(file))
        if opened is not None and opened.frames < UNTOLD:
            yield from _soundfile_blocks(opened)
        else:
            file.seek(0)
            yield from _track_blocks(file)


UNTOLD = 1 << 62
"""What soundfile says of a FLAC whose header does not tell its length, as of one that was streamed; it then fails."""


class _Forgiving:
    """An open file for soundfile. A damaged header may point before its beginning: then nothing moves or is printed."""

    def __init__(self, file: BinaryIO):
        self.file, self.read, self.tell = file, file.read, file.tell

    def seek(self, offset: int, whence: int = 0) -> int:
        with suppress(ValueError, OSError):
            return self.file.seek(offset, whence)
        return self.file.tell()


def _soundfile_blocks(opened) -> Iterator[tuple[np.ndarray, int]]:
    """WAV, FLAC, OGG and the like."""
    with decoding("sound"), opened:
        if opened.channels > MAX_CHANNELS:
            raise InputError(f"a sound has at most {MAX_CHANNELS} channels, not {opened.channels}")
        # Block by block: a header may promise more samples than the file holds.
        for block in opened.blocks(blocksize=1 << 18, dtype="float32", always_2d=True):
            yield block.T, opened.samplerate


def _track_blocks(file: BinaryIO) -> Iterator[tuple[np.ndarray, int]]:
    """The first sound track of anything FFmpeg reads: m4a, webm, the sound of a video."""
    with open_container(file, "sound") as container, decoding("sound"):
        import av

        if not container.streams.audio:
            raise InputError("the file holds no sound")
        stream = container.streams.audio[0]
        rate_hz, num_channels = stream.codec_context.sample_rate, stream.codec_context.channels
        if not rate_hz or not 1 <= num_channels <= MAX_CHANNELS:
            raise InputError("the file holds no readable sound")
        to_floats = av.AudioResampler(format="fltp", layout=stream.codec_context.layout, rate=rate_hz)
        for frame in itertools.chain(container.decode(stream), [None]):  # None: what the resampler still holds
            for block in to_floats.resample(frame):
                yield _with_channels(block.to_ndarray(), num_channels), rate_hz


def _with_channels(block: np.ndarray, num_channels: int) -> np.ndarray:
    """(channels, n) -> (num_channels, n): damaged or glued files change their number of channels on the way."""
    if len(block) == num_channels:
        return block
    return block.mean(0, keepdims=True).repeat(num_channels, axis=0)


def _joined(blocks: Iterable[tuple[np.ndarray, int]], max_samples: int, max_seconds: float) -> tuple[Tensor, int]:
    """Blocks (channels, n) one after another, as long as they fit in memory."""
    kept, size, num_frames, rate_hz = [], 0, 0, 0
    for block, block_rate_hz in blocks:
        rate_hz = block_rate_hz
        size += block.size
        num_frames += block.shape[-1]
        if size > max_samples:
            raise InputError(f"the sound is too long; at most {max_samples:,} samples over all channels are read")
        if num_frames > max_seconds * rate_hz:
            raise InputError(f"the sound is too long; at most {max_seconds:.0f} seconds are read")
        kept.append(block)
    if size == 0:
        raise InputError("the sound is empty")
    return torch.from_numpy(np.ascontiguousarray(np.concatenate(kept, axis=1), dtype=np.float32)), rate_hz


def clips(samples: Tensor, max_seconds: float, behaviour: Behaviour = OURS) -> list[Tensor]:
    """One clip, or equal parts when the encoder cannot read all of it in one go."""
    limit = int(max_seconds * SAMPLE_RATE_HZ)
    if behaviour.long_audio == "whole" or len(samples) <= limit:
        return [samples]
    return list(samples.chunk(math.ceil(len(samples) / limit)))
