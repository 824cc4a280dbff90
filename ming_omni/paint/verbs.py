"""paint and edit: prompts, and perhaps pictures -> pictures, with progress after every step."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from ming_omni.errors import InputError
from ming_omni.inputs.image import load_image
from ming_omni.inputs.messages import Image as ImagePart
from ming_omni.inputs.messages import Message, Text
from ming_omni.inputs.processor import MingProcessor
from ming_omni.model.glyphs import as_prompt
from ming_omni.model.omni import MingForConditionalGeneration
from ming_omni.model.painter import Guidance, Painter, Step, draw_seed
from ming_omni.model.painting import add_text, picture_size, read_reference, read_states, to_images
from ming_omni.paint.picture import Picture

MAX_BATCH = 4
"""Pictures painted at once; guidance multiplies them by two or three inside the network."""
MAX_PICTURES = 64
TABLES = {512: False, 672: 672, 1024: True}
"""Sides for which the published model has a table of sizes -> what selects the table."""
MAX_STEPS = 1000


class Cancelled(Exception):
    """The callback returned False, so painting stopped between two steps."""


@dataclass(frozen=True)
class Progress:
    """A finished step of some pictures; `preview()` shows where they are heading."""

    step: Step
    first: int
    """Index of the first of these pictures among all that were asked for."""
    total: int
    """Pictures that were asked for."""
    painter: Painter

    @property
    def fraction(self) -> float:
        """Done of the whole work, of all pictures."""
        share = (self.step.index + 1) / self.step.num_steps
        return (self.first + share * len(self.step.latents)) / self.total

    def preview(self) -> list[Image.Image]:
        return to_images(self.painter.preview(self.step))


OnStep = Callable[[Progress], Any]
"""Called after every step; returning False cancels."""


def paint(
    model: MingForConditionalGeneration,
    processor: MingProcessor,
    prompt: str | Sequence[str],
    *,
    size: str | int | tuple[int, int] | None = None,
    aspect: str | float | None = None,
    steps: int | None = None,
    guidance: float | None = None,
    seed: int | None = None,
    negative: str | None = None,
    n: int = 1,
    text: str | None = None,
    on_step: OnStep | None = None,
    name: str = "ming",
) -> list[Picture]:
    """`n` pictures of each prompt.

    size      "1024x768" (width x height), one number for a square, or (width, height); the nearest size that the model
              was made for is painted
    aspect    "16:9" or width / height, at the model's usual area
    steps     of the sampler; None: as many as the model was made for, and so with guidance
    guidance  how closely to follow the prompt; 1 is not at all more than it comes naturally
    seed      picture k is painted with seed + k; None draws one from all 64-bit numbers
    negative  what to keep away from
    text      letters to write into the picture; None: what the prompt puts between quotes, "": none
    name      of the model, for the record
    """
    prompts = list(prompt) if isinstance(prompt, list | tuple) else [prompt]
    painter: Painter = model.require("painter")
    steps, guidance = _usual(painter, steps=steps, guidance=guidance)
    _check_kinds([*prompts, negative, text], steps=steps, seed=seed, n=n)
    _check_steps(steps)
    width, height, highres = _wish(painter, size, aspect)
    wanted = picture_size(painter, height, width, highres)
    seeds = _seeds(seed, len(prompts) * n, n)
    conversations = [_conversation(prompt) for prompt in prompts]
    inputs = processor.prepare(conversations, painting=True)
    texts = _texts(painter, inputs["image_gen_text"], text, len(prompts))
    order = [k for k in range(len(prompts)) for _ in range(n)]
    with torch.inference_mode():
        condition = painter.condition(read_states(model, inputs))
        avoided = _condition(model, processor, negative, [])
        images = _run(
            painter,
            condition[order],
            [texts[k] for k in order],
            seeds,
            on_step,
            size=wanted,
            num_steps=steps,
            guidance=Guidance(guidance),
            negative=avoided,
        )
    settings = _settings(steps=steps, guidance=guidance, negative=negative, text=text)
    return [
        Picture(image, prompts[k], used, name, settings) for image, k, used in zip(images, order, seeds, strict=True)
    ]


def edit(
    model: MingForConditionalGeneration,
    processor: MingProcessor,
    images: Any,
    instruction: str,
    *,
    aspect: str | float | None = None,
    highres: bool | int = False,
    steps: int | None = None,
    guidance: float | None = None,
    image_guidance: float | None = None,
    guidance_mode: int = 1,
    seed: int | None = None,
    negative: str | None = None,
    n: int = 1,
    text: str | None = None,
    on_step: OnStep | None = None,
    name: str = "ming",
) -> list[Picture]:
    """`n` edited versions of the first picture; the model sees the others too.

    images          a picture or a list of them: paths, bytes, PIL pictures, arrays or data: URLs
    aspect          width / height to cut the first picture to; it is then stretched to the nearest size of the model
    highres         False: about 512 x 512 pixels, 672, or True: about 1024 x 1024
    image_guidance  how closely to keep to the picture; 1 or less leaves that to `guidance`
    guidance_mode   1 to 6, the ways to mix both, see `Guidance`
    Everything else as in `paint`.
    """
    painter: Painter = model.require("painter")
    steps, guidance, image_guidance = _usual(painter, steps=steps, guidance=guidance, image_guidance=image_guidance)
    _check_kinds([instruction, negative, text], steps=steps, seed=seed, n=n)
    _check_steps(steps)
    guide = Guidance(guidance, image_guidance, guidance_mode)
    guide.weights(has_reference=True)  # refuses an unknown mode now
    pictures = [load_image(image) for image in (images if isinstance(images, list | tuple) else [images])]
    if not pictures:
        raise InputError("there is no picture to edit")
    seeds = _seeds(seed, n, n)
    inputs = processor.prepare(
        [_conversation(instruction, pictures)],
        painting=True,
        image_gen_highres=highres,
        image_gen_aspect_ratio=_ratio(aspect),
    )
    height, width = int(inputs["image_gen_height"]), int(inputs["image_gen_width"])
    wanted = picture_size(painter, height, width, highres)
    texts = _texts(painter, inputs["image_gen_text"], text, 1) * n
    with torch.inference_mode():
        condition = painter.condition(read_states(model, inputs)).expand(n, -1, -1)
        avoided = _condition(model, processor, negative, pictures)
        reference = read_reference(painter, inputs["image_gen_pixel_values_reference"], wanted)
        edited = _run(
            painter,
            condition,
            texts,
            seeds,
            on_step,
            size=wanted,
            num_steps=steps,
            guidance=guide,
            negative=avoided,
            reference=reference,
        )
    settings = _settings(steps=steps, guidance=guidance, negative=negative, text=text, aspect=aspect)
    settings |= {"highres": highres, "image_guidance": image_guidance, "guidance_mode": guidance_mode}
    return [Picture(image, instruction, used, name, settings) for image, used in zip(edited, seeds, strict=True)]


def _run(
    painter: Painter,
    condition: Tensor,
    texts: list[str],
    seeds: list[int],
    on_step: OnStep | None,
    *,
    negative: Tensor | None,
    reference: Tensor | None = None,
    **options: Any,
) -> list[Image.Image]:
    """Paint in batches of pictures that either all have letters to write, or none: the network sees no padding."""
    images: list[Image.Image] = []
    for start, stop in _batches([bool(text) for text in texts]):
        part = condition[start:stop]
        avoided = None if negative is None else negative.expand(len(part), -1, -1)
        if texts[start]:
            part, avoided = add_text(painter, part, avoided, texts[start:stop])
        edited = None if reference is None else reference.expand(len(part), -1, -1, -1)
        for step in painter.sample(part, seeds=seeds[start:stop], negative=avoided, reference=edited, **options):
            if on_step is not None and on_step(Progress(step, start, len(texts), painter)) is False:
                raise Cancelled
        images += to_images(painter.decode(step.latents))
    return images


def _batches(has_text: list[bool]) -> Iterator[tuple[int, int]]:
    """Runs of at most MAX_BATCH neighbours of one kind: (start, stop)."""
    start = 0
    for stop in range(1, len(has_text) + 1):
        if stop == len(has_text) or stop - start == MAX_BATCH or has_text[stop] != has_text[start]:
            yield start, stop
            start = stop


def _conversation(prompt: str, pictures: Sequence[Image.Image] = ()) -> list[Message]:
    if not prompt.strip():
        raise InputError("the prompt is empty")
    _check_letters(prompt)
    return [Message("user", [*map(ImagePart, pictures), Text(prompt)])]


def _condition(
    model: MingForConditionalGeneration, processor: MingProcessor, negative: str | None, pictures: list[Image.Image]
) -> Tensor | None:
    """Condition (1, S, X) of a negative prompt, which sees the same pictures as the positive one (spec Q52)."""
    if negative is None or not negative.strip():
        return None
    return model.painter.condition(read_states(model, processor.prepare([_conversation(negative, pictures)])))


def _texts(painter: Painter, found: Sequence[str], text: str | None, count: int) -> list[str]:
    """What each picture has to spell: as the caller says, or as the rule on quotes found it in the prompt."""
    if text is not None:
        _check_letters(text)
        found = [as_prompt(text)] * count
        if text and painter.glyphs is None:
            raise InputError("this model has no glyph branch; it cannot be told which letters to draw")
    return list(found) if painter.glyphs is not None else [""] * count


def _wish(painter: Painter, size: Any, aspect: Any) -> tuple[int, int, bool | int]:
    """Size or aspect -> width and height at the scale of the published tables, and the table nearest in area."""
    scale = 512 / painter.config.default_size
    if size is None:
        ratio = _ratio(aspect) or 1.0
        return round(512 * ratio**0.5), max(1, round(512 / ratio**0.5)), False
    if aspect is not None:
        raise InputError("give a size or an aspect, not both")
    if isinstance(size, str):
        match = re.fullmatch(r"\s*(\d{1,6})\s*(?:[x×*]\s*(\d{1,6}))?\s*", size)
        if not match:
            raise InputError(f"a size is width x height, such as 512x512, not {size!r}")
        size = int(match[1]), int(match[2] or match[1])
    width, height = (size, size) if not isinstance(size, list | tuple) else size if len(size) == 2 else (0, 0)
    if min(width, height) < 1:
        raise InputError(f"a picture of {width}x{height} cannot be painted")
    side = math.sqrt(width * height) * scale
    largest = max(TABLES)
    if side > 1.25 * largest:
        limit = round(largest / scale)
        raise InputError(f"a picture of {width}x{height} is too large; this model paints up to about {limit}x{limit}")
    table = min(TABLES, key=lambda known: abs(known - side))
    return width, height, TABLES[table]


def _ratio(aspect: str | float | None) -> float | None:
    """ "16:9", "1.5" or a number -> width / height."""
    if aspect is None:
        return None
    try:
        width, _, height = str(aspect).partition(":")
        ratio = float(width) / float(height or 1)
    except (ValueError, ZeroDivisionError):
        ratio = math.nan
    if not 1 / 16 <= ratio <= 16:
        raise InputError(f"an aspect is width:height between 1:16 and 16:1, such as 16:9, not {aspect!r}")
    return ratio


def _seeds(seed: int | None, count: int, n: int) -> list[int]:
    if n < 1 or count > MAX_PICTURES:
        raise InputError(f"between 1 and {MAX_PICTURES} pictures can be painted at once, not {count}")
    if count < 1:
        raise InputError("there is no prompt to paint")
    if seed is None:
        seed = draw_seed()
    if not 0 <= seed < 2**64:
        raise InputError(f"a seed lies between 0 and 2^64 - 1, not at {seed}")
    return [(seed + k) % 2**64 for k in range(count)]


def _check_letters(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:  # half a character: what a terminal in another encoding sends
        raise InputError("the prompt is not valid Unicode text") from error


def _check_kinds(texts: Sequence[Any], **counts: Any) -> None:
    for text in texts:
        if text is not None and not isinstance(text, str):
            raise InputError(f"a prompt is text, not {text!r}")
    for name, count in counts.items():
        if count is not None and (isinstance(count, bool) or not isinstance(count, int)):
            raise InputError(f"{name} is a whole number, not {count!r}")


def _check_steps(steps: int) -> None:
    if not 1 <= steps <= MAX_STEPS:
        raise InputError(f"painting takes between 1 and {MAX_STEPS} steps, not {steps}")


def _usual(painter: Painter, **given: Any) -> list[Any]:
    """What was left open is as the model was made for."""
    return [getattr(painter.config, name) if value is None else value for name, value in given.items()]


def _settings(**given: Any) -> dict[str, Any]:
    return {key: value for key, value in given.items() if value is not None}
