"""Before a run: requests, conditions and steps as the product would have them, for the same words and pictures."""

from __future__ import annotations

from copy import deepcopy

import torch
from PIL import Image as Pillow
from torch import Tensor

from ming_omni.data.render import render
from ming_omni.inputs.messages import Image, Message, Text
from ming_omni.model.painting import PROMPT_KEYS, add_text, read_reference, read_states
from ming_omni.train.painter.bench import Bench, make_planner
from ming_omni.train.painter.learner import Moved
from ming_omni.train.painter.pictures import as_edited
from ming_omni.train.painter.requests import Batch

TOLERANCE = {"cpu": 1e-4, "cuda": 0.12}
"""Of norms of differences, in norms: fp32, and bf16 against fp32."""
RESIZED = 0.12
"""The same where a picture has been resized by torch here and by Pillow there."""
PIXEL = 3 / 127.5
"""Three steps of 255: Pillow rounds between rows and columns, twice."""


@torch.no_grad()
def check(bench: Bench) -> dict[str, float]:
    """Differences, none of which may be large; the product runs on the CPU in fp32."""
    product, found = deepcopy(bench.model).float().cpu().eval(), {}
    for kind in bench.makers:
        planner = make_planner(bench.settings, kind)
        planner.counts = {"plain": 1, "lettered": 1}
        batch = planner.batch(0)
        moved = bench.move(batch)
        (states,) = bench.learner.reader(bench.learner.painter, [moved.prompts])
        for row in range(2):
            found |= _conditions(bench, product, batch, moved, states, row)
    return found | _steps(bench, product)


def _conditions(bench: Bench, product, batch: Batch, moved: Moved, states: Tensor, row: int) -> dict[str, float]:
    kind, request, found = batch.kind, batch.requests[row], {}
    content, painter = [Text(request.prompt)], product.painter
    if kind == "edit":
        drawn = render(bench.bank, [request.scenes[0]], painter.config.default_size).pictures
        content.insert(0, Image(Pillow.fromarray(drawn[0].permute(1, 2, 0).cpu().numpy())))
    inputs = bench.processor.prepare([Message("user", content)], painting=True)
    ids = batch.ids[row][batch.modality[row] >= 0]
    assert ids.tolist() == inputs["input_ids"][0].tolist(), "the run writes other ids than the processor"
    if kind == "edit":
        wanted = inputs["image_gen_pixel_values_reference"]
        size = (painter.config.default_size,) * 2
        pixels = as_edited(drawn, bench.sizes[0], size).cpu()
        resized = torch.nn.functional.interpolate(wanted, size, mode="bilinear", antialias=True).clamp(-1, 1)
        found["check/pixel"] = _below(float((pixels - resized).abs().max()), PIXEL, "pixels to edit")
        reference = moved.pictures.reference[row : row + 1].float().cpu()
        latents = read_reference(painter, wanted, size)
        found["check/reference"] = _near(reference, latents, RESIZED, "latents to edit")
    tolerance = TOLERANCE[bench.device.type]
    wanted = read_states(product, {key: inputs[key] for key in PROMPT_KEYS if key in inputs})
    tolerance = max(tolerance, RESIZED) if kind == "edit" else tolerance
    found[f"check/states/{kind}"] = _near(states[row : row + 1].float().cpu(), wanted, tolerance, "states")
    with bench.learner.autocast():
        condition = bench.learner.painter.condition(states[row : row + 1])
        if row == 1:
            letters = bench.learner.painter.glyphs(*moved.letters)
            condition = torch.cat([condition, letters.to(condition.dtype)], 1)
    expected = painter.condition(wanted)
    (text,) = inputs["image_gen_text"]
    assert bool(text and request.has_letters) == (row == 1), "the run draws letters where the product does not"
    if row == 1:
        expected, _ = add_text(painter, expected, None, [text])
    found[f"check/condition/{kind}"] = _near(condition.float().cpu(), expected, tolerance, "conditions")
    return found


def _steps(bench: Bench, product) -> dict[str, float]:
    """The network for training against the model's own, with and without a picture to edit; opened a little."""
    torch.manual_seed(bench.settings.seed)
    config = product.painter.config
    plain = deepcopy(product.painter)
    for parameter in plain.parameters():
        parameter.add_(0.02 * torch.randn_like(parameter))  # what starts closed would hide everything
    side = config.default_size // config.vae.downscale
    latents, reference = torch.randn(2, 1, config.vae.latent_channels, side, side)
    context, pooled = plain.context(torch.randn(1, 7, config.condition_width))
    time, found = torch.tensor([300.0]), {}
    own = deepcopy(plain).to(bench.device)
    for name, edited in (("paint", None), ("edit", reference)):
        inputs = latents, time, context, pooled, edited
        with bench.learner.autocast():
            made, _ = bench.learner.network(own.dit, *(t if t is None else t.to(bench.device) for t in inputs))
        expected = plain.dit(*inputs)
        found[f"check/step/{name}"] = _near(made.float().cpu(), expected, TOLERANCE[bench.device.type], "steps")
    return found


def _near(found: Tensor, expected: Tensor, limit: float, what: str) -> float:
    return _below(float((found - expected).norm() / expected.norm()), limit, what)


def _below(difference: float, limit: float, what: str) -> float:
    assert difference < limit, f"{what} differ from the product's by {difference}"
    return difference
