"""The glyph branch: byte ids of two texts, the T5 encoder, the mapper.

The set keeps encoder and mapper in one file; it is laid out as the release has it, and read by the public loader.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch

from ming_omni.checkpoint.painter import load_glyphs
from ming_omni.model.glyphs import GlyphEncoder, spell
from tests.parity import Check, difference, keys, same, tensors

TOLERANCE = 1e-4


def matches(folder: Path) -> bool:
    return "byt5_mapper.channel_mapper.weight" in keys(folder / "model.safetensors")


def compare(folder: Path) -> Iterator[Check]:
    config = json.loads((folder / "config.json").read_text())
    inputs, expected = tensors(folder / "inputs.safetensors"), tensors(folder / "outputs.safetensors")
    with tempfile.TemporaryDirectory() as release:
        lay_out(folder, config, Path(release))
        glyphs = load_glyphs(Path(release))
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    if "texts" in config:
        spelled, shown = spell(config["texts"], glyphs.config.max_length)
        yield same("input_ids", spelled, ids)
        yield same("attention_mask", shown, mask)
    states = glyphs.encode(ids, mask)
    yield difference("encoder_out", states, expected["encoder_out"], TOLERANCE)
    mapped = glyphs.map(states, mask)
    yield difference(
        "mapper_out_padded_rows_first64", mapped[..., :64], expected["mapper_out_padded_rows_first64"], TOLERANCE
    )
    yield from check_rows(glyphs, ids, mask, expected["mapper_out_valid_rows"])


def check_rows(glyphs: GlyphEncoder, ids: torch.Tensor, mask: torch.Tensor, valid: torch.Tensor) -> Iterator[Check]:
    rows = glyphs(ids, mask)
    yield difference("mapper_out_valid_rows", rows[mask.bool()], valid, TOLERANCE)
    yield difference("padded rows are zero", rows[~mask.bool()], torch.zeros_like(rows[~mask.bool()]), 0.0)


def lay_out(folder: Path, config: dict, byt5: Path) -> None:
    """config.json and model.safetensors -> byt5.json, the T5 folder and the two .pt files of a release."""
    for name in ("byt5_model", "byt5_mapper", "google__byt5-smal"):
        (byt5 / name).mkdir()
    weights = tensors(folder / "model.safetensors")
    for name in ("byt5_model", "byt5_mapper"):
        part = {key.removeprefix(f"{name}."): value for key, value in weights.items() if key.startswith(f"{name}.")}
        torch.save(part, byt5 / name / f"{name}.pt")
    (byt5 / "google__byt5-smal/config.json").write_text(json.dumps(config["byt5_config"]))
    (byt5 / "byt5.json").write_text(json.dumps(config))
