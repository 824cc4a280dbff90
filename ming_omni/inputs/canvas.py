"""A prompt and its first picture -> what only the painter reads: words to write, size, reference pixels."""

from __future__ import annotations

import re
from numbers import Real
from typing import Any

import numpy as np
import torch
from PIL import Image

from ming_omni.buckets import bucket
from ming_omni.errors import InputError
from ming_omni.inputs.sizes import centre_crop

DEFAULT_SIDE = 512

QUOTED = (re.compile(r'"(.*?)"'), re.compile(r"‘(.*?)’"), re.compile(r"“(.*?)”"))
OPENING = re.compile(r'["‘“]')
TAKING_AWAY = re.compile(r"remove|delete|clear", re.IGNORECASE)
CJK = re.compile(r"[\u4e00-\u9fff]")
LONGEST_SPAN = 60
"""Longer spans between single quotes are apostrophes far apart, not quotations; a CJK character counts three."""


def glyph_text(prompt: str) -> str:
    """`Text "OPEN". ` for `a sign 'OPEN'`; empty when there is nothing to write. The last quotation counts."""
    if _are_quotes(prompt):
        prompt = prompt.replace("'", '"')
    found = [text for pattern in QUOTED for text in pattern.findall(prompt)]
    if len(found) == 1:
        opening = OPENING.search(prompt).start()
        if TAKING_AWAY.search(prompt[:opening]):  # "remove the word ..." asks for the opposite
            return ""
    return f'Text "{found[-1]}". ' if found else ""


def _are_quotes(prompt: str) -> bool:
    spans = prompt.split("'")[1::2]
    return prompt.count("'") % 2 == 0 and all(len(span) + 2 * len(CJK.findall(span)) < LONGEST_SPAN for span in spans)


def canvas(image: Image.Image | None, highres: bool | int | None, aspect_ratio: float | None) -> dict[str, Any]:
    """The size to paint at, and the picture to edit, stretched to that size, in -1..1 (spec 6.8).

    aspect_ratio  width over height: the picture is cut to it first; without a picture it widens the square
    """
    if aspect_ratio is not None and not (isinstance(aspect_ratio, Real) and 1 / 16 <= aspect_ratio <= 16):
        raise InputError(f"the aspect ratio (width over height) lies between 1/16 and 16, not at {aspect_ratio}")
    fields: dict[str, Any] = {"image_gen_highres": highres}
    if image is None:
        height, width = DEFAULT_SIDE, int(DEFAULT_SIDE * (aspect_ratio or 1))
    else:
        if aspect_ratio is not None:
            image = image.crop(centre_crop(image.height, image.width, aspect_ratio))
        height, width = bucket(image.height, image.width, highres)
        image = image.resize((width, height), Image.Resampling.BILINEAR)
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 255
        fields["image_gen_pixel_values_reference"] = (pixels - 0.5) * 2  # (1, 3, h, w)
    return fields | {"image_gen_height": torch.tensor([height]), "image_gen_width": torch.tensor([width])}
