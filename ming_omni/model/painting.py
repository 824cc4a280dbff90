"""Processor output -> picture, with the whole model: the published `generate(image_gen=True, ...)` (spec 6.1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from inspect import signature
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ming_omni.buckets import bucket
from ming_omni.config import MODALITIES
from ming_omni.errors import InputError
from ming_omni.model.painter import Guidance, Painter, draw_seed
from ming_omni.model.positions import next_positions, positions

if TYPE_CHECKING:
    from PIL.Image import Image

    from ming_omni.model.omni import MingForConditionalGeneration, Prompt

PROMPT_KEYS = ("input_ids", "attention_mask", "pixel_values", "image_grid_thw")
"""Painting reads words and pictures; sound and video of the prompt are not used, as published."""
PREFIX = "image_gen_"
"""Options of painting, beside the prompt."""


def with_queries(model: MingForConditionalGeneration, prompt: Prompt) -> Prompt:
    """The prompt with the painter's query tokens at its end, as pictures that only the painter draws."""
    painter, config = model.require("painter"), model.config.thinker
    ids = painter.query_ids(config).to(prompt.ids.device).expand(len(prompt.ids), -1)
    is_query = ids == config.image_patch_token
    embeddings = model.thinker.embed(ids)
    queries = painter.query_tokens().to(embeddings)
    embeddings = embeddings.masked_scatter(is_query[..., None], queries.repeat(len(ids), 1))
    # Positions inside the queries do not depend on where they start, only shift with it.
    grid = painter.query_grid().repeat(len(ids), 1)
    places, _ = positions(config, ids, None, grid)
    start = next_positions(prompt.delta, prompt.ids.shape[1]).to(places.device)  # (3, B, 1)
    modality = is_query.long() * MODALITIES.index("image")
    before = torch.zeros_like(prompt.ids) if prompt.modality is None else prompt.modality
    queries_only = replace(
        prompt, ids=ids, embeddings=embeddings, positions=places + start, modality=modality, mask=None
    )
    return replace(prompt, modality=before) + queries_only


def read_states(model: MingForConditionalGeneration, inputs: Mapping[str, Tensor | None]) -> Tensor:
    """Prompts -> thinker states at the last query grid (B, n², D)."""
    prompt = with_queries(model, model.prepare({key: inputs[key] for key in PROMPT_KEYS if key in inputs}))
    limit = model.config.thinker.max_position_embeddings
    if prompt.ids.shape[1] > limit:
        raise InputError(f"the prompt is {prompt.ids.shape[1]} tokens long; to paint, this model reads {limit}")
    output = model.thinker(prompt.embeddings, prompt.positions, modality=prompt.modality, mask=prompt.mask)
    return last_grid(model.painter, output.hidden[:, :-1])  # an end marker follows the grid


def last_grid(painter: Painter, states: Tensor) -> Tensor:
    """The states (B, n², D) of the last and finest query grid, which alone conditions the picture (spec Q44)."""
    return states[:, -(painter.config.query_scales[-1] ** 2) :]


def add_text(
    painter: Painter, condition: Tensor, negative: Tensor | None, texts: list[str]
) -> tuple[Tensor, Tensor | None]:
    """Append tokens of the texts to draw to the condition (B, S, X), and as many zeros to the negative one."""
    glyphs = painter.spell(texts).to(condition.dtype)
    if negative is not None:
        negative = torch.cat([negative, torch.zeros_like(glyphs)], dim=1)
    return torch.cat([condition, glyphs], dim=1), negative


def picture_size(painter: Painter, height: int, width: int, highres: bool | int | None = False) -> tuple[int, int]:
    """The height and width that will be painted for a wish: the nearest bucket, scaled to the model's own size."""
    if min(height, width) < 1:
        raise InputError(f"a picture of {width}x{height} cannot be painted")
    scale = painter.config.default_size / 512 / painter.cell
    height, width = (max(1, round(side * scale)) * painter.cell for side in bucket(height, width, highres))
    return height, width


def read_reference(painter: Painter, pixels: Tensor, size: tuple[int, int]) -> Tensor:
    """Pictures to edit (B, 3, H, W) in [-1, 1] -> their latents, at the size (height, width) that will be painted."""
    pixels = pixels.to(painter.device, torch.float32)
    if pixels.shape[2:] != size:
        pixels = F.interpolate(pixels, size, mode="bilinear", antialias=True).clamp(-1, 1)
    return painter.vae.encode(pixels.to(painter.vae.dtype))


def to_images(pixels: Tensor) -> list[Image]:
    """Pixels (B, 3, H, W) in [0, 1] -> PIL pictures."""
    from PIL import Image

    arrays = (pixels * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    return [Image.fromarray(array) for array in arrays]


def one_each(x: Tensor, count: int, what: str) -> Tensor:
    """x (1 or B, ...) -> (B, ...): one for every prompt."""
    if len(x) not in (1, count):
        raise InputError(f"{len(x)} {what} do not fit {count} prompts; give one, or one for each")
    return x.expand(count, *x.shape[1:])


def generate(model: MingForConditionalGeneration, inputs: Mapping[str, Any]) -> Image | list[Image]:
    """`generate_image`, given everything that the processor made of a prompt."""
    given = {key: value for key, value in inputs.items() if key in PROMPT_KEYS or key.startswith(PREFIX)}
    if unknown := given.keys() - signature(generate_image).parameters.keys():
        raise InputError(f"painting has no option {', '.join(sorted(unknown))}")
    return generate_image(model, **given)


@torch.inference_mode()
def generate_image(
    model: MingForConditionalGeneration,
    *,
    input_ids: Tensor | None = None,
    attention_mask: Tensor | None = None,
    pixel_values: Tensor | None = None,
    image_grid_thw: Tensor | None = None,
    image_gen_steps: int | None = None,
    image_gen_seed: int | None = None,
    image_gen_cfg: float | None = None,
    image_gen_image_cfg: float | None = None,
    image_gen_cfg_mode: int = 1,
    image_gen_height: int | Tensor = 512,
    image_gen_width: int | Tensor = 512,
    image_gen_highres: bool | int | None = False,
    image_gen_text: Sequence[str] | None = None,
    image_gen_pixel_values_reference: Tensor | None = None,
    image_gen_negative_input_ids: Tensor | None = None,
    image_gen_negative_attention_mask: Tensor | None = None,
    image_gen_llm_hidden_states: Tensor | None = None,
    image_gen_negative_llm_hidden_states: Tensor | None = None,
) -> Image | list[Image]:
    """Paint what the prompts say: one picture, or a list for several prompts. Arguments as published.

    Steps and both guidances are those that the painter was made for, unless given; of the published one, 30, 5 and 2.
    A seed of None or below zero is drawn from all 64-bit numbers; `picture.info["seed"]` tells which. Picture k of a
    batch is painted with seed + k.
    """
    painter: Painter = model.require("painter")
    config = painter.config
    image_gen_steps = config.steps if image_gen_steps is None else image_gen_steps
    image_gen_cfg = config.guidance if image_gen_cfg is None else image_gen_cfg
    image_gen_image_cfg = config.image_guidance if image_gen_image_cfg is None else image_gen_image_cfg
    pictures = {"pixel_values": pixel_values, "image_grid_thw": image_grid_thw}

    def condition_of(ids: Tensor | None, mask: Tensor | None, states: Tensor | None) -> Tensor:
        if states is None:
            states = read_states(model, {"input_ids": ids, "attention_mask": mask, **pictures})
        least, width = painter.config.query_scales[-1] ** 2, painter.config.thinker_width
        if states.dim() != 3 or states.shape[1] < least or states.shape[2] != width:
            raise InputError(f"hidden states of {tuple(states.shape)} are not (prompts, {least} or more, {width})")
        states = last_grid(painter, states).to(painter.device, painter.proj_in.weight.dtype)
        return painter.condition(states)

    guidance = Guidance(image_gen_cfg, image_gen_image_cfg, image_gen_cfg_mode)
    if input_ids is None and image_gen_llm_hidden_states is None:
        raise InputError("painting reads input_ids or image_gen_llm_hidden_states")
    if image_gen_seed is not None and image_gen_seed >= 2**64:
        raise InputError(f"a seed lies below 2^64, not at {int(image_gen_seed)}")
    size = picture_size(painter, int(image_gen_height), int(image_gen_width), image_gen_highres)

    condition, negative = condition_of(input_ids, attention_mask, image_gen_llm_hidden_states), None
    count = len(condition)
    if image_gen_negative_input_ids is not None or image_gen_negative_llm_hidden_states is not None:
        negative = condition_of(
            image_gen_negative_input_ids, image_gen_negative_attention_mask, image_gen_negative_llm_hidden_states
        )
        negative = one_each(negative, count, "negative prompts")
    if painter.glyphs is not None and any(image_gen_text or ()):
        if len(image_gen_text) != count:
            raise InputError(f"{len(image_gen_text)} texts to draw do not fit {count} prompts")
        condition, negative = add_text(painter, condition, negative, list(image_gen_text))

    reference = None
    if image_gen_pixel_values_reference is not None:
        reference = read_reference(painter, image_gen_pixel_values_reference, size).to(condition.dtype)
        reference = one_each(reference, count, "pictures to edit")

    seed = draw_seed() if image_gen_seed is None or image_gen_seed < 0 else int(image_gen_seed)
    seeds = [(seed + k) % 2**64 for k in range(count)]
    *_, last = painter.sample(
        condition,
        size=size,
        seeds=seeds,
        num_steps=image_gen_steps,
        guidance=guidance,
        negative=negative,
        reference=reference,
    )
    images = to_images(painter.decode(last.latents))
    for image, used in zip(images, seeds, strict=True):
        image.info["seed"] = used
    return images[0] if len(images) == 1 else images
