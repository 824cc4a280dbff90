"""Pictures from a file, bytes, PIL or numpy -> upright RGB, then the loader's resize (the first of two, spec 3.3)."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from ming_omni.errors import InputError
from ming_omni.inputs.behaviour import OURS, Behaviour
from ming_omni.inputs.sizes import smart_resize
from ming_omni.inputs.source import open_source

# Formats that decode in-process without calling another program (EPS would start Ghostscript).
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "ICO", "AVIF", "JPEG2000", "TGA")
MAX_IMAGE_PIXELS = 120_000_000
"""A larger picture is refused from its header alone: 360 MB of RGB, the most a phone camera takes today."""

FACTOR = 28
"""Sides are multiples of one merged patch: 14 pixels, merged 2x2."""
MIN_PIXELS = 4 * FACTOR**2
MAX_PIXELS = 1024 * FACTOR**2


def load_image(source: Any, behaviour: Behaviour = OURS, max_pixels: int = MAX_IMAGE_PIXELS) -> Image.Image:
    """Any picture -> RGB. Of an animation, the first frame."""
    if isinstance(source, np.ndarray):
        return to_rgb(from_array(source), behaviour)
    if isinstance(source, Image.Image):
        with _decoding():
            return to_rgb(source, behaviour)
    with open_source(source, "picture") as file, _decoding():
        Image.init()
        opened = Image.open(file, formats=[name for name in FORMATS if name in Image.OPEN])
        check_pixels(*opened.size, max_pixels)
        return to_rgb(opened, behaviour)


@contextmanager
def _decoding() -> Iterator[None]:
    """A decoder fed with hostile bytes raises almost anything: OSError, SyntaxError, KeyError, ..."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except InputError:
        raise
    except Image.DecompressionBombError as error:
        raise InputError("the picture is too large") from error
    except Image.UnidentifiedImageError as error:
        raise InputError("the picture cannot be read: the format is unknown or damaged") from error
    except Exception as error:
        raise InputError(f"the picture cannot be read: {str(error) or type(error).__name__}") from error


def fetch_image(
    image: Image.Image,
    *,
    factor: int = FACTOR,
    min_pixels: float = MIN_PIXELS,
    max_pixels: float = MAX_PIXELS,
    resized_height: int | None = None,
    resized_width: int | None = None,
) -> Image.Image:
    """The loader's resize: bicubic, to sides that are multiples of 28, at most 1024 tokens."""
    if resized_height and resized_width:
        height, width = smart_resize(
            resized_height, resized_width, factor=factor, min_pixels=MIN_PIXELS, max_pixels=MAX_PIXELS
        )
    else:
        height, width = smart_resize(
            image.height, image.width, factor=factor, min_pixels=min_pixels, max_pixels=max_pixels
        )
    return image.resize((width, height), Image.Resampling.BICUBIC)


def check_pixels(width: int, height: int, max_pixels: int = MAX_IMAGE_PIXELS) -> None:
    if width * height > max_pixels:
        raise InputError(f"a picture of {width}x{height} is too large; at most {max_pixels:,} pixels are read")
    if width * height == 0:
        raise InputError("the picture is empty")


def to_rgb(image: Image.Image, behaviour: Behaviour = OURS) -> Image.Image:
    check_pixels(*image.size)
    if behaviour.pictures == "stored":
        return image.convert("RGB")
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith(("I", "F")):
        return Image.fromarray(_eight_bits(np.asarray(image))).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def from_array(array: np.ndarray) -> Image.Image:
    """(H, W), (H, W, 1), (H, W, 3) or (H, W, 4) numbers -> a picture; floats in 0..1, integers by their width."""
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    if not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))):
        raise InputError(f"an array of shape {array.shape} is not a picture; expected (H, W), (H, W, 3) or (H, W, 4)")
    check_pixels(array.shape[1], array.shape[0])
    return Image.fromarray(np.ascontiguousarray(_eight_bits(array)))


def _eight_bits(array: np.ndarray) -> np.ndarray:
    if array.dtype == np.uint8:
        return array
    if array.dtype == bool:
        return array.astype(np.uint8) * 255
    if array.dtype.kind == "f":
        if not np.isfinite(array).all():
            raise InputError("the picture holds numbers that are not finite")
        scale = 255.0 if array.max() <= 1 else 1.0
        return (array * scale).round().clip(0, 255).astype(np.uint8)
    if array.dtype.kind in "iu":
        # Sixteen-bit pictures arrive as uint16, or as int32 from older decoders; both use the whole 16 bits.
        wide = array.dtype == np.uint16 or array.max() > 255
        return (array >> 8 if wide else array).clip(0, 255).astype(np.uint8)
    raise InputError(f"a picture cannot be made of {array.dtype} numbers")
