"""The whole way is trainable: words -> query tokens -> thinker -> painter -> pixels, on a handful of pictures."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from ming_omni.config import tiny, tiny_painter
from ming_omni.inputs.messages import conversation
from ming_omni.inputs.processor import MingProcessor
from ming_omni.inputs.tiny import tiny_tokenizer
from ming_omni.model.flow import logit_normal
from ming_omni.model.omni import MingForConditionalGeneration
from ming_omni.model.painter import Painter
from ming_omni.model.painting import read_reference, read_states, to_images
from ming_omni.paint import edit, paint

SIDE = 32
SCENES = {"a red disc": ("red", "ellipse"), "a blue box": ("blue", "rectangle"), "a green disc": ("green", "ellipse")}


def scene(color: str, shape: str) -> Image.Image:
    image = Image.new("RGB", (SIDE, SIDE), "white")
    getattr(ImageDraw.Draw(image), shape)((6, 6, 25, 25), color)
    return image


def to_pixels(images: list[Image.Image]) -> Tensor:
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 127.5 - 1


def new_model() -> tuple[MingForConditionalGeneration, MingProcessor]:
    torch.manual_seed(0)
    whole, config = tiny(), tiny_painter()
    whole.thinker.initializer_range = 0.3  # a thinker that has learned nothing, yet tells prompts apart
    model = MingForConditionalGeneration(whole)
    config.default_size = SIDE
    config.vae.block_channels = (16, 16, 32, 32)
    config.dit.num_hidden_layers, config.dit.num_refiner_layers, config.dit.dual_attention_layers = 2, 1, (0,)
    model.painter = Painter(config)
    return model, MingProcessor.from_config(model.config, tiny_tokenizer())


def train(parameters, loss_of, num_steps: int, rate: float) -> float:
    optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=num_steps, pct_start=0.1)
    for _ in range(num_steps):
        loss = loss_of()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
    return loss.item()


def learn_to_code(painter: Painter, pixels: Tensor, num_steps: int) -> None:
    """Overfit the autoencoder, then give its latents unit variance."""
    generator = torch.Generator().manual_seed(0)

    def loss_of() -> Tensor:
        reconstruction, posterior = painter.vae(pixels, generator)
        return (reconstruction - pixels).square().mean() + 1e-6 * posterior.kl().mean()

    train([*painter.vae.parameters()], loss_of, num_steps, 4e-3)
    painter.config.vae.shift_factor, painter.config.vae.scaling_factor = 0.0, 1.0
    with torch.no_grad():
        latents = painter.vae.encode(pixels)
    painter.config.vae.shift_factor = latents.mean().item()
    painter.config.vae.scaling_factor = 1 / latents.std().item()


def learn_to_paint(
    model, inputs, latents: Tensor, num_steps: int, reference: Tensor | None = None, texts: list[str] | None = None
) -> None:
    """Everything of the painter that is not the autoencoder; the thinker is frozen, its queries are not."""
    painter = model.painter
    model.thinker.requires_grad_(False)
    parameters = [p for name, p in painter.named_parameters() if not name.startswith("vae.")]
    generator = torch.Generator().manual_seed(1)

    def loss_of() -> Tensor:
        states = read_states(model, inputs).repeat(4, 1, 1)
        target = latents.repeat(4, 1, 1, 1)
        # Mostly noise: with so few pictures, any trace of one tells which it is, and the prompt would not be read.
        sigma = logit_normal(len(target), generator, mean=2.0, std=1.5)
        grain = torch.randn(target.shape, generator=generator)
        edited = None if reference is None else reference.repeat(4, 1, 1, 1)
        return painter(states, target, sigma, grain, texts=None if texts is None else texts * 4, reference=edited)

    train(parameters, loss_of, num_steps, 3e-3)


def nearest(painted: list[Image.Image], wanted: list[Image.Image]) -> list[int]:
    return torch.cdist(to_pixels(painted).flatten(1), to_pixels(wanted).flatten(1)).argmin(1).tolist()


def test_prompts_come_to_paint_their_own_pictures():
    model, processor = new_model()
    wanted = [scene(*how) for how in SCENES.values()]
    pixels = to_pixels(wanted)
    learn_to_code(model.painter, pixels, 200)
    with torch.no_grad():
        latents = model.painter.vae.encode(pixels)
        coded = to_images(model.painter.decode(latents))
    assert nearest(coded, wanted) == [0, 1, 2]
    learn_to_paint(model, processor.prepare([conversation(prompt) for prompt in SCENES]), latents, 250)
    model.eval()
    pictures = paint(model, processor, list(SCENES), n=2, steps=10, guidance=1.0, seed=3)
    assert nearest([p.image for p in pictures], wanted) == [0, 0, 1, 1, 2, 2]
    errors = (to_pixels([p.image for p in pictures[::2]]) - pixels).square().mean((1, 2, 3))
    assert errors.max() < 0.5 * (pixels[0] - pixels[2]).square().mean()


@pytest.mark.slow
def test_an_instruction_comes_to_edit_pictures_it_was_shown():
    """One instruction, three pictures: only the reference latents tell what has to be painted."""
    model, processor = new_model()
    before = [scene(*how) for how in SCENES.values()]
    after = [Image.eval(image, lambda level: 255 - level) for image in before]
    learn_to_code(model.painter, to_pixels(before + after), 300)
    with torch.no_grad():
        latents = model.painter.vae.encode(to_pixels(after))
        reference = read_reference(model.painter, to_pixels(before), (SIDE, SIDE))
    inputs = processor.prepare([conversation("turn light into dark")] * 3)
    learn_to_paint(model, inputs, latents, 300, reference)
    model.eval()
    edited = [
        edit(model, processor, image, "turn light into dark", steps=10, guidance=1.0, image_guidance=1.0, seed=5)
        for image in before
    ]
    assert nearest([pictures[0].image for pictures in edited], after) == [0, 1, 2]


@pytest.mark.slow
def test_letters_come_to_decide_the_picture_through_the_glyph_branch():
    """One prompt, three texts: only the glyph branch tells which picture is meant."""
    model, processor = new_model()
    wanted = [scene(*how) for how in SCENES.values()]
    learn_to_code(model.painter, to_pixels(wanted), 200)
    with torch.no_grad():
        latents = model.painter.vae.encode(to_pixels(wanted))
    inputs = processor.prepare([conversation("a sign")] * 3)
    learn_to_paint(model, inputs, latents, 300, texts=[f'Text "{letter}". ' for letter in "ABC"])
    model.eval()
    painted = [paint(model, processor, "a sign", text=x, steps=10, guidance=1.0, seed=5)[0].image for x in "ABC"]
    assert nearest(painted, wanted) == [0, 1, 2]
