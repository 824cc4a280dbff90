"""segment: a picture and words -> masks, by asking for an edit that paints the named things over (spec 6.10)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

from ming_omni.config import PainterConfig
from ming_omni.errors import InputError
from ming_omni.inputs.canvas import canvas
from ming_omni.inputs.image import load_image
from ming_omni.inputs.messages import Image as ImagePart
from ming_omni.inputs.messages import Message
from ming_omni.inputs.processor import MingProcessor
from ming_omni.model.omni import MingForConditionalGeneration
from ming_omni.model.painting import read_reference, to_images
from ming_omni.paint import masks as reading
from ming_omni.paint.masks import COLORS, Mask
from ming_omni.paint.picture import Picture
from ming_omni.paint.verbs import edit

THRESHOLD = PainterConfig.mask_threshold
"""Unless the model says otherwise. `benchmarks/paint.py --sweep` paints known masks over drawn scenes, at opacities
from 0.4 to 1, with the noise an edit leaves elsewhere: here they agree best."""
MIN_SHARE = 0.002
"""Of the picture; an instance of fewer pixels is taken for noise."""


@dataclass(frozen=True)
class Segmentation:
    """The masks found in `image`, and the edit that they were read from."""

    image: Image.Image
    masks: list[Mask]
    edited: Picture
    before: np.ndarray
    """(H, W, 3) in 0 ... 255: what the edit began with, as the autoencoder gives it back."""

    def overlay(self, opacity: float = 0.5) -> Image.Image:
        return reading.overlay(self.image, self.masks, opacity)


def segment(
    model: MingForConditionalGeneration,
    processor: MingProcessor,
    image: Any,
    what: str | None = None,
    *,
    classes: Sequence[str] | None = None,
    instances: bool = False,
    color: str = "red",
    threshold: float | None = None,
    **options: Any,
) -> Segmentation:
    """Find things in a picture.

    what       one thing; gives one mask, in `color` (choose one that the picture lacks)
    classes    several things instead; gives one mask each, in the order of COLORS
    instances  every `what` apart; gives one mask each, as many as were found
    threshold  change of a pixel, 0 ... 1, above which it belongs to a mask; None: the model's own
    options    as in `edit`, for one picture, whole and without letters
    """
    if unfit := options.keys() & {"n", "aspect", "text"}:
        raise InputError(f"segmenting has no option {', '.join(sorted(unfit))}")
    if threshold is None:
        threshold = model.require("painter").config.mask_threshold
    if not 0 <= threshold < 1:
        raise InputError(f"the threshold lies between 0 and 1, not at {threshold}")
    instruction, names, colors = request(what, classes, instances, color)
    picture = load_image(image)
    [edited] = edit(model, processor, picture, instruction, text="", **options)
    before = as_the_painter_sees(model, processor, picture, edited)
    after = np.asarray(edited.image)
    inside = read(before, after, [COLORS[c] for c in colors], threshold)
    scores = [certainty(before, after, part, threshold) for part in inside]
    inside = _resize(inside, picture.size)
    found = [Mask(*facts) for facts in zip(names, colors, inside, scores, strict=True)]
    if instances:
        least = MIN_SHARE * picture.width * picture.height
        found = [mask for mask in found if mask.area >= least]
    return Segmentation(picture, found, edited, before)


def request(
    what: str | None, classes: Sequence[str] | None, instances: bool, color: str
) -> tuple[str, list[str], list[str]]:
    """The instruction, the names of the masks to read, and their colours; the first form is the release's own."""
    if (what is None) == (classes is None) or isinstance(classes, str):
        raise InputError("name what to segment, or a list of classes")
    if any(not name.strip() for name in ([what] if classes is None else classes)):
        raise InputError("the name of what to segment is empty")
    if classes is not None:
        if instances:
            raise InputError("instances are told apart for one thing at a time; leave out the classes")
        if not 1 <= len(classes) <= len(COLORS):
            raise InputError(f"between 1 and {len(COLORS)} classes can be segmented at once, not {len(classes)}")
        colors = [*COLORS][: len(classes)]
        parts = [f"the {name} using {color} mask" for name, color in zip(classes, colors, strict=True)]
        return f"please segment {', '.join(parts)}", list(classes), colors
    if instances:
        colors = [*COLORS]
        names = [f"{what} {k + 1}" for k in range(len(colors))]
        return f"please segment each {what} using masks of different colors: {', '.join(colors)}", names, colors
    if color not in COLORS:
        raise InputError(f"a mask is painted in {', '.join(COLORS)}, not {color!r}")
    return f"please segment the {what} using {color} mask", [what], [color]


def read(
    before: np.ndarray, after: np.ndarray, colors: Sequence[tuple[int, int, int]], threshold: float
) -> list[np.ndarray]:
    """Pictures (H, W, 3) in 0 ... 255 -> a mask (H, W) per colour: what changed enough, by the colour laid over it."""
    has_changed = reading.changed(before, after) > threshold
    which = reading.nearest_color(before, after, colors)
    return [has_changed & (which == k) for k in range(len(colors))]


def certainty(before: np.ndarray, after: np.ndarray, inside: np.ndarray, threshold: float) -> float:
    """How far the pixels of a mask (H, W) lie above the threshold: 0 just at it, 1 infinitely far; 0 for no pixels."""
    if not inside.any():
        return 0.0
    return float(np.mean(1 - threshold / reading.changed(before, after)[inside]))


@torch.inference_mode()
def as_the_painter_sees(
    model: MingForConditionalGeneration, processor: MingProcessor, picture: Image.Image, edited: Picture
) -> np.ndarray:
    """The picture that was edited, after the autoencoder: what that loses everywhere does not count as painted over."""
    [stretched], _, _ = processor.process_vision_info([Message("user", [ImagePart(picture)])])
    pixels = canvas(stretched, edited.settings["highres"], None)["image_gen_pixel_values_reference"]
    latents = read_reference(model.painter, pixels, edited.size[::-1])
    return np.asarray(to_images(model.painter.decode(latents))[0])


def _resize(inside: list[np.ndarray], size: tuple[int, int]) -> list[np.ndarray]:
    """Masks that do not overlap, at the size (width, height) of the picture: a pixel goes to what covers most of it."""
    outside = ~np.any(inside, axis=0)
    shares = [
        np.asarray(Image.fromarray(part.astype(np.uint8) * 255).resize(size, Image.Resampling.BILINEAR))
        for part in (outside, *inside)
    ]
    most = np.argmax(shares, axis=0)
    return [most == k + 1 for k in range(len(inside))]
