"""Picture sizes -> the sizes the model reads, multiples of one merged patch; and the parts to cut to a wanted shape."""

from __future__ import annotations

import math

from ming_omni.errors import InputError

MAX_RATIO = 200
"""Longest side over shortest side that is still a picture (spec 3.3)."""


def smart_resize(
    height: int, width: int, *, factor: int, min_pixels: float, max_pixels: float, clamp: bool = True
) -> tuple[int, int]:
    """Closest size whose sides are multiples of `factor` and whose area lies between the two limits.

    clamp  True: a side never falls below `factor` (loader, video); False: a side shorter than that is an error
           (the image processor, spec 3.4)
    """
    if not clamp and min(height, width) < factor:
        raise InputError(f"a picture of {width}x{height} is too small; each side needs at least {factor} pixels")
    if min(height, width) < 1 or max(height, width) / min(height, width) > MAX_RATIO:
        raise InputError(f"a picture of {width}x{height} is too narrow; sides may differ by a factor of {MAX_RATIO}")
    least = factor if clamp else 0
    new_height = max(least, round(height / factor) * factor)
    new_width = max(least, round(width / factor) * factor)
    if new_height * new_width > max_pixels:
        shrink = math.sqrt(height * width / max_pixels)
        new_height = max(factor, math.floor(height / shrink / factor) * factor)
        new_width = max(factor, math.floor(width / shrink / factor) * factor)
    elif new_height * new_width < min_pixels:
        grow = math.sqrt(min_pixels / (height * width))
        new_height = math.ceil(height * grow / factor) * factor
        new_width = math.ceil(width * grow / factor) * factor
    return new_height, new_width


def cover(height: int, width: int, target: tuple[int, int]) -> tuple[int, int]:
    """Smallest (height, width) of the same shape that covers `target`, before a centre crop to it."""
    target_height, target_width = target
    if height * target_width < width * target_height:
        return target_height, target_height * width // height
    return target_width * height // width, target_width


def centre_crop(height: int, width: int, aspect_ratio: float) -> tuple[int, int, int, int]:
    """Box (left, top, right, bottom) of the largest centred part with the given width/height ratio."""
    if width / height > aspect_ratio:
        kept = max(1, int(height * aspect_ratio))
        left = (width - kept) // 2
        return left, 0, left + kept, height
    kept = max(1, int(width / aspect_ratio))
    top = (height - kept) // 2
    return 0, top, width, top + kept
