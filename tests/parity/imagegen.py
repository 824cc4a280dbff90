"""The painter: condition, diffusion transformer, sampling in every guidance mode, autoencoder, and a whole picture.

The set stores no weights: recipe.json says how to draw them, and this file is our own reader of it. The thinker is the
`thinker` set beside it, found by its contents. Sizes and seeds are read from the tensors; the README, where there is
one, is asked only for the number of steps and the guidance, which no tensor tells.
"""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from torch import Tensor

from ming_omni import checkpoint
from ming_omni.buckets import bucket
from ming_omni.model.dit import DiT, rotary_table
from ming_omni.model.painter import Guidance, Painter, noise, sigmas
from ming_omni.model.painting import generate_image, last_grid, read_states, to_images, with_queries
from tests.parity import Check, difference, keys, same, tensors

CONDITION, FORWARD, LATENTS, DECODED = 1e-5, 2e-4, 2e-3, 5e-3


def matches(folder: Path) -> bool:
    return (folder / "recipe.json").is_file() and "dit_latents" in keys(folder / "inputs.safetensors")


def compare(folder: Path) -> Iterator[Check]:
    inputs, expected = tensors(folder / "inputs.safetensors"), tensors(folder / "outputs.safetensors")
    with tempfile.TemporaryDirectory() as release:
        materialise(folder, Path(release))
        thinker = find_thinker(folder, Path(release))
        if thinker is None:
            yield Check("the thinker set beside this one", float("inf"), 0.0)
            return
        for name in ("config.json", "model.safetensors"):
            (Path(release) / name).symlink_to((thinker / name).resolve())
        model = checkpoint.load(release, load_image_gen=True, dtype=torch.float32)
    painter = model.painter
    yield from check_schedule(painter, expected)
    yield from check_autoencoder(painter, inputs, expected)
    yield from check_transformer(painter, inputs, expected)
    yield from check_samples(painter, inputs, expected, folder)
    yield from check_conditions(model, inputs, expected)
    yield from check_whole(model, inputs, expected, folder)


def find_thinker(folder: Path, release: Path) -> Path | None:
    """The sibling folder that holds a language and a vision model in the published layout, as wide as the painter."""
    wanted = {"model.model.word_embeddings.weight", "vision.patch_embed.proj.weight", "linear_proj.0.weight"}
    width = tensors(release / "mlp/model.safetensors")["proj_in.weight"].shape[1]
    for path in sorted(path for path in folder.resolve().parent.iterdir() if path.is_dir()):
        file = path / "model.safetensors"
        if wanted <= keys(file):
            with safe_open(file, "pt") as stored:
                if stored.get_slice("model.model.word_embeddings.weight").get_shape()[1] == width:
                    return path
    return None


def materialise(folder: Path, release: Path) -> None:
    """Write the checkpoint folders that recipe.json describes; every file's digest is checked."""
    recipe = json.loads((folder / "recipe.json").read_text())
    stored_file = folder / "stored_tensors.safetensors"
    stored = load_file(stored_file) if stored_file.is_file() else {}
    for name, content in recipe["files"].items():
        drawn = {
            key: stored[how["stored"]] if "stored" in how else draw(**how) for key, how in content["tensors"].items()
        }
        digest = hashlib.sha256(b"".join(key.encode() + drawn[key].tobytes() for key in sorted(drawn))).hexdigest()
        assert digest == content["sha256"], f"{name}: the weights drawn from {folder} are not the recorded ones"
        (release / name).parent.mkdir(parents=True, exist_ok=True)
        save_file(drawn, release / name, metadata={"format": "pt"})
    for name, config in recipe["configs"].items():
        (release / name).parent.mkdir(parents=True, exist_ok=True)
        (release / name).write_text(json.dumps(config))


def draw(shape: list[int], seed: int, scale: float, offset: float) -> np.ndarray:
    """offset + scale * u, all in float32; u in [-1, 1) from the top 24 bits of a hash of (seed, flat index)."""
    u32 = np.uint32
    with np.errstate(over="ignore"):  # 32-bit arithmetic wraps, which is the recipe's mod 2^32
        h = np.arange(int(np.prod(shape, dtype=np.int64)), dtype=u32) * u32(2654435761)
        h += u32(seed * 2654435769 & 0xFFFFFFFF)
        for right, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
            h ^= h >> u32(right)
            h *= u32(factor)
        h ^= h >> u32(16)
    u = (h >> u32(8)).astype(np.float32) * np.float32(2.0**-23) - np.float32(1)
    return (np.float32(offset) + np.float32(scale) * u).reshape(shape)


def check_schedule(painter: Painter, expected: dict[str, Tensor]) -> Iterator[Check]:
    for key, recorded in expected.items():
        if key.startswith("scheduler.sigmas_"):
            num_steps = len(recorded) - 1
            height, width = expected["sample.initial_noise"].shape[2:]
            num_tokens = height * width // painter.config.dit.patch_size**2
            levels = sigmas(painter.config.flow, num_steps, num_tokens)
            yield difference(key, levels, recorded, 1e-6)
            times = f"scheduler.timesteps_{num_steps}"
            yield difference(times, levels[:-1] * painter.config.flow.num_train_steps, expected[times], 1e-3)


def check_autoencoder(painter: Painter, inputs: dict[str, Tensor], expected: dict[str, Tensor]) -> Iterator[Check]:
    vae = painter.vae
    latents = vae.unscale(vae.encode(inputs["sample_ref_pixels"]))
    yield difference("vae_encode_mode", latents, expected["vae_encode_mode"], FORWARD)
    pixels = vae.decode(vae.scale(inputs["vae_decode_latent"]))
    yield difference("vae_decode", pixels, expected["vae_decode"], DECODED)


def check_transformer(painter: Painter, inputs: dict[str, Tensor], expected: dict[str, Tensor]) -> Iterator[Check]:
    context, pooled = painter.context(inputs["dit_encoder_hidden_states"])
    yield difference("toclip_mlp_first64", context[..., :64], expected["toclip_mlp_first64"], FORWARD)
    yield difference("pooled_projection", pooled, expected["pooled_projection"], FORWARD)
    for key, recorded in expected.items():
        if key.startswith("rope_"):
            shape, text = key.removeprefix("rope_").split("_text")
            turns = rotary_table(painter.config.dit, *map(int, shape.split("x")), int(text), torch.device("cpu"))
            yield difference(key, torch.view_as_real(turns), recorded, FORWARD)
    arguments = inputs["dit_latents"], inputs["dit_timestep"], context, pooled
    yield difference("dit_no_ref", painter.dit(*arguments), expected["dit_no_ref"], FORWARD)
    edited = painter.dit(*arguments, inputs["dit_ref_latents"])
    yield difference("dit_ref", edited, expected["dit_ref"], FORWARD)
    config = deepcopy(painter.config.dit)
    config.num_refiner_layers, config.use_rotary = 0, False
    bare = DiT(config).eval()
    bare.load_state_dict(painter.dit.state_dict(), strict=False)  # all but the refiners
    key = "dit_no_ref_no_refiner_no_rope"
    yield difference(key, bare(*arguments), expected[key], FORWARD)


def check_samples(
    painter: Painter, inputs: dict[str, Tensor], expected: dict[str, Tensor], folder: Path
) -> Iterator[Check]:
    condition, pixels = inputs["sample_prompt_embeds"], inputs["sample_ref_pixels"]
    first = expected["sample.initial_noise"]
    steps, guidance = told(folder, expected)[0]
    seed = find_seed(first, folder)
    yield difference("sample.initial_noise", noise([seed], first.shape[1:], torch.float32), first, 0.0)
    for case in sorted({key.split(".")[1] for key in expected if key.startswith("sample.") and key.count(".") == 2}):
        match = re.fullmatch(r"t2i_(zero|given)_negative|edit_image_cfg([\d.]+)(?:_mode(\d))?", case)
        if match is None:
            yield Check(f"sample.{case} is of no known kind", float("inf"), 0.0)
            continue
        negative, image_guidance, mode = match.groups()
        *_, last = painter.sample(
            condition,
            size=tuple(side * painter.config.vae.downscale for side in first.shape[2:]),
            seeds=[seed],
            num_steps=steps,
            guidance=Guidance(guidance, float(image_guidance or 1), int(mode or 1)),
            negative=inputs["sample_negative_embeds"] if negative == "given" else None,
            reference=painter.vae.encode(pixels) if image_guidance else None,
        )
        key = f"sample.{case}"
        yield difference(f"{key}.vae_input", painter.vae.unscale(last.latents), expected[f"{key}.vae_input"], LATENTS)
        decoded = painter.vae.decode(last.latents)
        yield difference(f"{key}.decoded", decoded, expected[f"{key}.decoded"], DECODED)
        yield from check_levels(f"{key}.uint8", to_images(painter.decode(last.latents))[0], expected[f"{key}.uint8"])


def told(folder: Path, expected: dict[str, Tensor]) -> tuple[tuple[int, float], tuple[int, float]]:
    """Steps and guidance of the samples and of the whole picture: what the README says, or else what is usual.

    A schedule is recorded for the samples' steps, which are the fewest; the published guidance is the default.
    """
    pattern = r"(\d+) steps, seed \d+, guidance (\d+(?:\.\d+)?)"
    found = [(int(steps), float(guidance)) for steps, guidance in re.findall(pattern, readme(folder))]
    schedules = [len(levels) - 1 for key, levels in expected.items() if key.startswith("scheduler.sigmas_")]
    found = found or [(min(schedules, default=30), Guidance().text)]
    return found[0], found[-1]


def readme(folder: Path) -> str:
    return (folder / "README.md").read_text() if (folder / "README.md").is_file() else ""


def find_seed(recorded: Tensor, folder: Path) -> int:
    """The seed that draws this noise: one of those the README names, or any below 2^16; 0 when none does.

    The first 16 values tell, however large the picture is.
    """
    first = recorded.flatten()[:16]
    named = map(int, re.findall(r"seed (\d+)", readme(folder)))
    return next((seed for seed in (*named, *range(2**16)) if noise([seed], (16,), first.dtype)[0].equal(first)), 0)


def check_levels(key: str, image: Image.Image, recorded: Tensor) -> Iterator[Check]:
    """Pictures agree within 2 levels everywhere, and within 1 in 999 of 1000 values."""
    actual = torch.from_numpy(np.array(image)).short()
    yield difference(key, actual, recorded.short(), 2.0)
    share = (actual - recorded.short()).abs().gt(1).double().mean() if actual.shape == recorded.shape else 1.0
    yield Check(f"{key} off by more than one level", float(share), 0.001)


def check_conditions(model, inputs: dict[str, Tensor], expected: dict[str, Tensor]) -> Iterator[Check]:
    painter = model.painter
    for name in sorted(key.removesuffix("_input_ids") for key in inputs if key.endswith("_input_ids")):
        arguments = {"input_ids": inputs[f"{name}_input_ids"]}
        grid = painter.query_grid()
        if f"{name}_pixel_values" in inputs:
            arguments["pixel_values"] = inputs[f"{name}_pixel_values"]
            arguments["image_grid_thw"] = inputs[f"{name}_grid_thw"]
            grid = torch.cat([inputs[f"{name}_grid_thw"], grid])
        prompt = with_queries(model, model.prepare(arguments))
        yield same(f"{name}.expanded_input_ids", prompt.ids, expected[f"{name}.expanded_input_ids"])
        yield same(f"{name}.expanded_grid_thw", grid, expected[f"{name}.expanded_grid_thw"])
        output = model.thinker(prompt.embeddings, prompt.positions, modality=prompt.modality, mask=prompt.mask)
        states = last_grid(painter, output.hidden[:, :-1])
        key = f"{name}.llm_hidden_last_scale_rows"
        # Hidden states are not unit vectors; the thinker's own tolerance is that of its logits.
        yield difference(key, states[0], expected[key], 1e-4)
        condition = painter.condition(states)[0]
        yield difference(f"{name}.rows_0_8_16", condition[::8], expected[f"{name}.rows_0_8_16"], CONDITION)
        yield difference(f"{name}.first32cols", condition[:, :32], expected[f"{name}.first32cols"], CONDITION)


def check_whole(model, inputs: dict[str, Tensor], expected: dict[str, Tensor], folder: Path) -> Iterator[Check]:
    """The published call: prompt ids -> picture. The file of the picture is named after its size and steps."""
    for name in sorted(key.removesuffix(".vae_input") for key in expected if re.match(r"generate_.*\.vae_input$", key)):
        file = next(folder.glob(f"{name}_*.png"), None)
        steps, guidance = told(folder, expected)[1]
        if file and (named := re.search(r"_(\d+)steps", file.name)):
            steps = int(named[1])
        recorded, first = expected[f"{name}.vae_input"], expected[f"{name}.initial_noise_first_channel"]
        height, width = (side * model.painter.config.vae.downscale for side in recorded.shape[2:])
        table = next((table for table in (False, 672, True) if bucket(height, width, table) == (height, width)), False)
        seed = find_seed(first, folder)
        drawn = noise([seed], recorded.shape[1:], torch.float32)
        yield difference(f"{name}.initial_noise_first_channel", drawn[:, :1], first, 0.0)
        condition = model.painter.condition(read_states(model, {"input_ids": inputs["cond_text_input_ids"]}))
        *_, last = model.painter.sample(
            condition, size=(height, width), seeds=[seed], num_steps=steps, guidance=Guidance(guidance)
        )
        yield difference(f"{name}.vae_input", model.painter.vae.unscale(last.latents), recorded, LATENTS)
        image = generate_image(
            model,
            input_ids=inputs["cond_text_input_ids"],
            image_gen_steps=steps,
            image_gen_seed=seed,
            image_gen_cfg=guidance,
            image_gen_height=height,
            image_gen_width=width,
            image_gen_highres=table,
        )
        if file:
            yield from check_levels(file.name, image, torch.from_numpy(np.array(Image.open(file).convert("RGB"))))
