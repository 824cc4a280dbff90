"""Videos from a file, bytes, a folder or list of frames -> a few resized frames (T, 3, H, W) of 0..255 (spec 3.5)."""

from __future__ import annotations

import bisect
import itertools
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ming_omni.errors import InputError
from ming_omni.inputs.behaviour import OURS, Behaviour
from ming_omni.inputs.container import open_container
from ming_omni.inputs.image import FACTOR, check_pixels, from_array, load_image
from ming_omni.inputs.sizes import smart_resize
from ming_omni.inputs.source import local_path, open_source

FRAME_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".avif"}

# Spec 3.5: two frames a second of anything longer than four seconds, 4 to 128 frames, and one budget of pixels.
MAX_FRAMES_PER_SECOND = 2.0
FULL_RATE_SECONDS = 4.0
MIN_FRAMES, MAX_FRAMES = 4, 128
MIN_PIXELS = 128 * FACTOR**2
TOTAL_PIXELS = 96 * 128 * FACTOR**2


WORTH_A_JUMP = 48
"""Frames to skip, from which on finding a key frame is quicker than decoding all of them."""


@dataclass(frozen=True)
class FrameOptions:
    """Which frames of a video are read, and how large; the published message keys."""

    nframes: int | None = None
    min_frames: int | None = None
    max_frames: int | None = None
    max_video_fps: float = MAX_FRAMES_PER_SECOND
    sample: Literal["sequence", "uniform", "random"] = "sequence"
    min_pixels: float = MIN_PIXELS
    max_pixels: float | None = None
    resized_height: int | None = None
    resized_width: int | None = None
    total_pixels: int = TOTAL_PIXELS
    """Shared by all frames, two of which make one layer of patches."""
    factor: int = FACTOR
    """Sides are multiples of it; the model's, never a message's."""

    def __post_init__(self):
        if self.sample not in ("sequence", "uniform", "random"):
            raise InputError(f"sample is 'sequence', 'uniform' or 'random', not {self.sample!r}")
        for field in fields(self):
            value = getattr(self, field.name)
            is_positive = isinstance(value, int | float) and 0 < value < math.inf
            if field.name != "sample" and value is not None and not is_positive:
                raise InputError(f"{field.name} is a positive number, not {value!r}")
        for name in ("nframes", "min_frames", "max_frames", "resized_height", "resized_width"):
            if not isinstance(getattr(self, name), int | None):
                raise InputError(f"{name} is a whole number, not {getattr(self, name)!r}")


def load_video(source: Any, options: FrameOptions | None = None, behaviour: Behaviour = OURS) -> Tensor:
    """Any video -> its chosen frames (T, 3, H, W), T even: uint8 from a video file, float from single frames."""
    options = options or FrameOptions()
    path = local_path(source)
    if path is not None and path.is_dir():
        source = sorted(p for p in path.iterdir() if p.suffix.lower() in FRAME_SUFFIXES)
        if not source:
            raise InputError(f"the folder {path} holds no pictures")
    if isinstance(source, np.ndarray | Tensor):
        return _from_array(source, options, behaviour)
    if isinstance(source, list | tuple):
        return _from_frames(source, options, behaviour)
    return _from_file(source, options, behaviour)


def _floor_even(number: int) -> int:
    return number // 2 * 2


def _ceil_even(number: int) -> int:
    return -(-number // 2) * 2


def frame_budget(total: int, fps: float, options: FrameOptions) -> int:
    """How many frames may be looked at: all of a short or slow video, two a second of a longer one."""
    duration = total / fps if fps > 0 else 0.0
    if fps > options.max_video_fps and duration > FULL_RATE_SECONDS:
        return int(duration * options.max_video_fps)
    return total


def num_frames(budget: int, options: FrameOptions, behaviour: Behaviour = OURS) -> int:
    """How many frames are read: an even number, since two consecutive frames share a patch."""
    if options.nframes is not None:
        count = round(options.nframes / 2) * 2
    else:
        most = _floor_even(options.max_frames if options.max_frames is not None else min(MAX_FRAMES, budget))
        least = _ceil_even(options.min_frames if options.min_frames is not None else MIN_FRAMES)
        count = _floor_even(max(min(budget, most), least))
    if behaviour.videos == "published" and not 2 <= count <= budget:
        raise InputError(f"{count} frames were asked for, of a video with {budget}")
    return max(2, count)


def frame_indices(total: int, count: int, sample: str = "sequence") -> list[int]:
    """Which `count` of `total` frames: evenly from first to last, or the middle or any one of `count` equal parts."""
    if count > total:
        return [min(i, total - 1) for i in range(count)]
    if sample == "sequence":
        return np.linspace(0, total - 1, count).astype(int).tolist()
    edges = np.linspace(0, total, count + 1).astype(int).tolist()
    parts = list(itertools.pairwise(edges))
    if sample == "uniform":
        return [(first + last - 1) // 2 for first, last in parts]
    choose = random.Random(total)  # the same request reads the same frames
    return [choose.randrange(first, last) for first, last in parts]


def frame_size(height: int, width: int, count: int, options: FrameOptions) -> tuple[int, int]:
    """(height, width) of every frame: more frames, smaller frames."""
    if options.resized_height and options.resized_width:
        height, width = options.resized_height, options.resized_width
    share = max(options.total_pixels / count * 2, int(options.min_pixels * 1.05))
    return smart_resize(
        height, width, factor=options.factor, min_pixels=options.min_pixels, max_pixels=options.max_pixels or share
    )


def resize_frames(frames: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear with antialiasing; bytes stay bytes (rounded), floats stay floats."""
    resized = F.interpolate(frames.float(), size=size, mode="bilinear", align_corners=False, antialias=True)
    return resized.round().clamp(0, 255).to(torch.uint8) if frames.dtype == torch.uint8 else resized


def choose_frames(
    total: int, fps: float, options: FrameOptions, behaviour: Behaviour = OURS
) -> tuple[list[int], float]:
    """The indices to read, and the frames a second they come to."""
    if total < 1:
        raise InputError("the video has no frames")
    # A video with fewer frames than asked for gives them all; an odd one shows its last frame twice.
    count = min(num_frames(frame_budget(total, fps, options), options, behaviour), _ceil_even(total))
    return frame_indices(total, count, options.sample), count / max(total, 1e-6) * fps


def _from_frames(sources: Sequence[Any], options: FrameOptions, behaviour: Behaviour) -> Tensor:
    """Single pictures, already a choice: no frames a second, so no thinning by time."""
    if not sources:
        raise InputError("the list of frames is empty")
    indices, _ = choose_frames(len(sources), 0.0, options, behaviour)
    count = len(indices)
    if behaviour.videos == "published":  # every frame is kept; the count still sets the size (spec Q27)
        indices = list(range(len(sources)))
    frames, size = [], None
    for index in indices:
        image = load_image(sources[index], behaviour)
        size = size or frame_size(image.height, image.width, count, options)
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float()
        frames.append(resize_frames(pixels, size))
    return torch.cat(frames)


def _from_array(array: np.ndarray | Tensor, options: FrameOptions, behaviour: Behaviour) -> Tensor:
    """(T, H, W, 3) as numpy holds videos, or (T, 3, H, W) as torch does."""
    if array.ndim != 4:
        raise InputError(f"an array of shape {tuple(array.shape)} is not a video; expected (T, H, W, 3)")
    if isinstance(array, Tensor):
        array = array.permute(0, 2, 3, 1).cpu().numpy()
    indices, _ = choose_frames(len(array), 0.0, options, behaviour)
    size = frame_size(*array.shape[1:3], len(indices), options)
    frames = np.stack([np.asarray(from_array(array[index]).convert("RGB")) for index in indices])
    return resize_frames(torch.from_numpy(frames).permute(0, 3, 1, 2), size)


def _from_file(source: Any, options: FrameOptions, behaviour: Behaviour) -> Tensor:
    """Read the times of all frames without decoding, then decode only up to the chosen ones."""
    with open_source(source, "video") as file:
        with open_container(file, "video") as container:
            times, keys, fps = _times(container, _video_stream(container))
        indices, _ = choose_frames(len(times), fps, options, behaviour)
        file.seek(0)
        frames: list[Tensor] = []
        size = None
        with open_container(file, "video") as container:
            stream = _video_stream(container)
            for frame in _decode(container, stream, indices, times, keys):
                pixels = frame.to_ndarray(format="rgb24")
                if behaviour.pictures == "upright":
                    pixels = np.rot90(pixels, frame.rotation // 90)
                size = size or frame_size(*pixels.shape[:2], len(indices), options)
                frames.append(resize_frames(torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None], size))
    if not frames:
        raise InputError("the video has no readable frames")
    frames += frames[-1:] * (len(indices) - len(frames))  # the file ends before it said it would
    return torch.cat(frames)


@dataclass(frozen=True)
class Measure:
    """How much a film is, as far as can be told without decoding it."""

    seconds: float
    pixels: int
    """of one frame"""
    work: float
    """pixels to decode until MAX_FRAMES frames are found, at worst"""


def measure(source: Any) -> Measure:
    with open_source(source, "video") as file, open_container(file, "video") as container:
        stream = _video_stream(container)
        times, keys, _ = _times(container, stream)
        if not times:
            raise InputError("the video has no frames")
        pixels = stream.codec_context.width * stream.codec_context.height
        # From one key frame to the next, every frame has to be decoded.
        places = [bisect.bisect_left(times, key) for key in keys] + [len(times)]
        longest = max(following - place for place, following in itertools.pairwise([0, *places]))
        num_decoded = min(len(times), 2 * MAX_FRAMES * max(longest, 1))
        return Measure(float((times[-1] - times[0]) * stream.time_base), pixels, float(num_decoded * pixels))


def _video_stream(container):
    from av.stream import Disposition

    for stream in container.streams.video:
        if not stream.disposition & Disposition.attached_pic:  # the cover of a song is not a video
            check_pixels(stream.codec_context.width, stream.codec_context.height)
            stream.thread_type = "AUTO"
            return stream
    raise InputError("the file holds no video")


def _times(container, stream) -> tuple[list[int], list[int], float]:
    """Presentation times of all frames, those of the key frames, and the frames a second."""
    packets = [
        (packet.pts if packet.pts is not None else packet.dts, packet.is_keyframe)
        for packet in container.demux(stream)
        if packet.size
    ]
    packets = [(time, is_key) for time, is_key in packets if time is not None]
    fps = float(stream.average_rate or stream.guessed_rate or 0)
    return sorted(time for time, _ in packets), sorted(time for time, is_key in packets if is_key), fps


def _decode(container, stream, indices: list[int], times: list[int], keys: list[int]):
    """One decoded frame for each index, in order; long gaps are jumped over."""
    frame, frames, here = None, container.decode(stream), -1
    for index in indices:
        # Some containers land one key frame late, so aim one early.
        key = keys[max(0, bisect.bisect_right(keys, times[index]) - 2)] if keys else times[0]
        if index - here > WORTH_A_JUMP and key > times[max(0, here)]:
            container.seek(key, stream=stream)
            frames = container.decode(stream)
            frame = next(frames, None)
            if frame is None or _time(frame) > times[index]:
                container.seek(0)
                frame, frames = None, container.decode(stream)
        while frame is None or _time(frame) < times[index]:
            frame = next(frames, None)
            if frame is None:
                return
        here = index
        yield frame


def _time(frame) -> float:
    time = frame.pts if frame.pts is not None else frame.dts
    return -math.inf if time is None else time
