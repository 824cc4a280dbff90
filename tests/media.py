"""Tones, boards and clips made in code -> what a user would send: arrays, pictures, and files as bytes."""

from __future__ import annotations

import base64
import io
from fractions import Fraction

import numpy as np
from PIL import Image


def tone(seconds: float = 0.5, rate_hz: int = 16_000, frequency_hz: float = 440.0) -> np.ndarray:
    """(n,) float32, half of full scale."""
    time = np.arange(round(seconds * rate_hz)) / rate_hz
    return (0.5 * np.sin(2 * np.pi * frequency_hz * time)).astype(np.float32)


def wav(samples: np.ndarray, rate_hz: int = 16_000, file_format: str = "WAV", subtype: str | None = None) -> bytes:
    """(n,) or (n, channels) -> the bytes of a sound file."""
    import soundfile

    file = io.BytesIO()
    soundfile.write(file, samples, rate_hz, format=file_format, subtype=subtype)
    return file.getvalue()


def track(samples: np.ndarray, rate_hz: int, container: str, codec: str) -> bytes:
    """(n,) or (channels, n) float32 -> a compressed sound file, through FFmpeg."""
    import av

    samples = np.atleast_2d(samples)
    file = io.BytesIO()
    with av.open(file, "w", format=container) as output:
        layout = "mono" if len(samples) == 1 else "stereo"
        stream = output.add_stream(codec, rate=rate_hz, layout=layout)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), format="fltp", layout=layout)
        frame.sample_rate = rate_hz
        resampler = av.AudioResampler(
            stream.format, layout, rate_hz, frame_size=stream.codec_context.frame_size or 1024
        )
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            output.mux(stream.encode(part))
        output.mux(stream.encode(None))
    return file.getvalue()


def board(height: int = 60, width: int = 90, square: int = 15) -> Image.Image:
    """A checkerboard of red and blue."""
    y, x = np.mgrid[:height, :width] // square
    is_red = (x + y) % 2 == 0
    return Image.fromarray(np.where(is_red[..., None], [220, 30, 30], [30, 30, 220]).astype(np.uint8))


def picture_file(image: Image.Image, file_format: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


def data_url(data: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def grey(index: int, total: int) -> int:
    """Frame `index` of `movie` is this grey all over, so that a frame tells its own number."""
    return 20 + 210 * index // max(1, total - 1)


def movie(
    num_frames: int = 12,
    fps: int = 4,
    size: tuple[int, int] = (48, 64),
    container: str = "mp4",
    codec: str = "mpeg4",
    sound: bool = False,
    gop: int = 12,
) -> bytes:
    """A clip that grows from dark to bright; with sound, a tone as long as the clip."""
    import av

    file = io.BytesIO()
    with av.open(file, "w", format=container) as output:
        stream = output.add_stream(codec, rate=fps, options={"g": str(gop)})
        stream.height, stream.width, stream.pix_fmt = *size, "yuv420p"
        stream.bit_rate = 2_000_000
        stream.time_base = Fraction(1, fps)
        voice = output.add_stream("aac", rate=16_000, layout="mono") if sound else None
        for index in range(num_frames):
            pixels = np.full((*size, 3), grey(index, num_frames), np.uint8)
            output.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        output.mux(stream.encode(None))
        if voice is not None:
            samples = tone(num_frames / fps)[None]
            for start in range(0, samples.shape[1], 1024):
                part = np.ascontiguousarray(samples[:, start : start + 1024])
                frame = av.AudioFrame.from_ndarray(part, format="fltp", layout="mono")
                frame.sample_rate, frame.pts = 16_000, start
                output.mux(voice.encode(frame))
            output.mux(voice.encode(None))
    return file.getvalue()
