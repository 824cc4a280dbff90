"""The first lines of each training set -> what the model makes of them now: text, PNG, WAV."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch import Tensor

from ming_omni.model.omni import MingForConditionalGeneration
from ming_omni.model.painter import Guidance
from ming_omni.model.painting import read_states, to_images
from ming_omni.train.batches import DataSet
from ming_omni.train.examples import Answer, Example, Painting, Picture, Sound, Speech
from ming_omni.train.folder import BadExample
from ming_omni.train.losses import IGNORE

NUM_SAMPLES = 2
NEW_TOKENS = 48
PAINTING_STEPS = 10
SECONDS = 8


@torch.inference_mode()
def write(folder: Path, sets: list[DataSet], model: MingForConditionalGeneration) -> list[Path]:
    """One file a sample; training goes on as if nothing had happened."""
    folder.mkdir(parents=True, exist_ok=True)
    was_training = model.training
    model.eval()
    written = []
    for data in sets:
        for number, line in enumerate(data.lines[:NUM_SAMPLES]):
            try:
                example = data.reader.read(line, number)
            except BadExample:
                if data.policy == "stop":
                    raise
                continue  # the log names it when its turn comes
            written.append(_write(folder / f"{data.name}-{number}", example, model, data.reader.processor))
    model.train(was_training)
    return written


def _write(path: Path, example: Example, model: MingForConditionalGeneration, processor) -> Path:
    match example:
        case Answer():
            path = path.with_suffix(".txt")
            path.write_text(_answer(example, model, processor))
        case Painting() | Picture():
            path = path.with_suffix(".png")
            pixels = _painting(example, model) if isinstance(example, Painting) else _recoded(example, model)
            to_images(pixels)[0].save(path)
        case Speech() | Sound():
            import soundfile

            path = path.with_suffix(".wav")
            talker = model.talker
            samples = _speech(example, talker) if isinstance(example, Speech) else _resounded(example, talker)
            soundfile.write(path, samples.float().clamp(-1, 1).cpu().numpy(), talker.config.vae.sample_rate_hz)
    return path


def _answer(example: Answer, model: MingForConditionalGeneration, processor) -> str:
    """Question, wanted and given answer: the prompt ends where the last answer begins."""
    asked = (example.targets != IGNORE).nonzero()[:, 0].tolist()
    start = next(place for place in reversed(asked) if place - 1 not in asked)
    inputs = {name: value.to(model.device) for name, value in example.inputs.items()}
    inputs["input_ids"] = inputs["input_ids"][:, : start + 1]
    inputs.pop("attention_mask", None)
    ends = processor.gen_terminator
    ids = model.generate(**inputs, max_new_tokens=NEW_TOKENS, eos_token_id=ends)[0].cpu()
    parts = (ids[: start + 1], example.targets[start:-1], ids[start + 1 :])
    texts = [re.sub(r"(<[^<>]+>)\1+", _times, processor.decode(part)) for part in parts]
    return "\n".join(f"{name}: {text}" for name, text in zip(("prompt", "wanted", "given"), texts, strict=True))


def _times(run: re.Match) -> str:
    """Hundreds of placeholders of one picture say no more than their number."""
    return f"{run[1]} x {len(run[0]) // len(run[1])} "


def _painting(example: Painting, model: MingForConditionalGeneration) -> Tensor:
    painter = model.painter
    condition = painter.condition(read_states(model, example.inputs))
    if example.text and painter.glyphs is not None:
        condition = torch.cat([condition, painter.spell([example.text])], 1)
    reference = None if example.reference is None else painter.vae.encode(example.reference[None].to(painter.device))
    *_, last = painter.sample(
        condition,
        size=tuple(example.pixels.shape[1:]),
        seeds=[0],
        num_steps=PAINTING_STEPS,
        guidance=Guidance(3.0, 1.0),
        reference=reference,
    )
    return painter.decode(last.latents)


def _recoded(example: Picture, model: MingForConditionalGeneration) -> Tensor:
    """The picture, and beside it what the autoencoder makes of it."""
    pixels = example.pixels[None].to(model.painter.device)
    return torch.cat([pixels / 2 + 0.5, model.painter.decode(model.painter.vae.encode(pixels))], 3)


def _speech(example: Speech, talker) -> Tensor:
    """Patch by patch, as `Talker.step` does for many."""
    from ming_omni.model.talker import TalkerState

    config, state = talker.config, TalkerState(talker, 1)
    draw, grid = torch.Generator().manual_seed(0), talker.time_grid()
    talker.prefill(state, 0, example.ids.to(talker.device))
    slot, pieces = torch.tensor([0], device=talker.device), []
    most = min(config.max_patches, round(SECONDS / config.patch_seconds))
    for number in range(1, most + 1):
        noise = torch.randn(1, config.patch_frames, config.vae.latent_dim, generator=draw).to(
            talker.device, talker.dtype
        )
        step = talker.step(state, slot, noise, len(example.ids) + number, number * config.patch_frames, grid)
        pieces.append(step.samples[0])
        if number >= config.min_patches and step.stop[0] > 0.5:
            break
    return torch.cat([*pieces, step.rest[0]])[talker.vae.trim :]


def _resounded(example: Sound, talker) -> Tensor:
    """What the autoencoder makes of a sound, from its likeliest latents."""
    return talker.vae.decode(talker.vae.encode(example.samples[None].to(talker.device)).mean)[0]
