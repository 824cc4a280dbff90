"""The whole understanding model: a prompt with picture, video, sound and text -> media tokens, logits, answer."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from ming_omni.checkpoint import load
from ming_omni.config import ThinkerConfig
from ming_omni.model.omni import MEDIA_KEYS, MingForConditionalGeneration
from tests.parity import Check, difference, keys, same, tensors

EMBEDDINGS, LOGITS = 1e-5, 1e-4
KEY = re.compile(r"(.+)\.(last_logits|greedy_tokens|greedy_step_logits)")
VIDEO_POSITIONS = {"shipped_cfg": "published", "video_start": "3d"}
"""Runs of the whole prompt, and how each lays out videos; any other run has one medium only."""


def matches(folder: Path) -> bool:
    is_recorded = {"input_ids", *MEDIA_KEYS} <= keys(folder / "inputs.safetensors")
    return is_recorded and "shipped_cfg.last_logits" in keys(folder / "outputs.safetensors")


def compare(folder: Path) -> Iterator[Check]:
    model = load(folder, dtype=torch.float32).eval()
    inputs, recorded = tensors(folder / "inputs.safetensors"), tensors(folder / "outputs.safetensors")
    produced = _media_tokens(model, inputs)
    for run, num_steps in _runs(recorded).items():
        model.config.thinker.video_positions = VIDEO_POSITIONS.get(run, "published")
        steps = list(model.steps(_prompt(model, inputs, run), max_new_tokens=num_steps, eos_token_id=[]))
        produced[f"{run}.last_logits"] = steps[0].logits[0]
        produced[f"{run}.greedy_tokens"] = torch.cat([step.ids for step in steps])
        produced[f"{run}.greedy_step_logits"] = torch.cat([step.logits for step in steps])
    for key, expected in recorded.items():
        if key not in produced:
            yield Check(f"{key} is not produced", float("inf"), 0.0)
        elif not expected.is_floating_point():
            yield same(key, produced[key], expected)
        else:
            yield difference(key, produced[key], expected, EMBEDDINGS if key.endswith("_embeds") else LOGITS)


def _media_tokens(model: MingForConditionalGeneration, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    tokens, counts = model.audio(inputs["audio_feats"].float(), inputs["audio_feats_lengths"])
    return {
        "image_embeds": model.see(inputs["pixel_values"].float(), inputs["image_grid_thw"]),
        "video_embeds": model.see(inputs["pixel_values_videos"].float(), inputs["video_grid_thw"]),
        "audio_embeds": tokens[None],
        "audio_embeds_lengths": counts,
    }


def _runs(recorded: dict[str, Tensor]) -> dict[str, int]:
    """Run -> how many tokens were answered."""
    runs: dict[str, int] = {}
    for key, expected in recorded.items():
        if match := KEY.fullmatch(key):
            runs[match[1]] = max(runs.get(match[1], 1), len(expected) if match[2] == "greedy_tokens" else 1)
    return runs


def _prompt(model: MingForConditionalGeneration, inputs: dict[str, Tensor], run: str) -> dict[str, Tensor]:
    """The recorded prompt of a run; one medium alone reuses the tensors of the whole prompt."""
    if run in VIDEO_POSITIONS:
        return {key: inputs[key] for key in ("input_ids", "attention_mask", *MEDIA_KEYS)}
    config: ThinkerConfig = model.config.thinker
    ids = inputs[f"{run}_input_ids"]
    prompt = {"input_ids": ids}
    if (ids == config.image_patch_token).any():
        prompt |= {key: inputs[key] for key in MEDIA_KEYS[:2]}
    if (ids == config.video_patch_token).any():
        prompt |= {key: inputs[key] for key in MEDIA_KEYS[2:4]}
    place = (ids[0] == config.audio_patch_token).nonzero().flatten()
    if len(place):  # the first clip
        length = inputs["audio_feats_lengths"][:, :1]
        prompt["audio_feats"] = inputs["audio_feats"][:, : length.item()]
        prompt["audio_feats_lengths"] = length
        prompt["audio_placeholder_loc_lens"] = torch.tensor([[[place[0], len(place)]]])
    return prompt
