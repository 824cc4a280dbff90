"""The language model alone: ids and ready-made media embeddings -> positions, routing, hidden states, greedy tokens."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from ming_omni.checkpoint import load
from ming_omni.config import MODALITIES, ThinkerConfig
from ming_omni.model.layers import KVCache
from ming_omni.model.positions import next_positions, positions
from ming_omni.model.thinker import Thinker
from tests.parity import Check, difference, keys, same, tensors

KEY = re.compile(r"(.+?)\.(logits|hidden\d+|layer\d+\.\w+|position_ids|rope_delta|greedy_\w+)")
SECONDS = re.compile(r"mm_video_start_abs_time_([\d.]+)s")
TOLERANCES = {"combine_weights": 1e-5, "logits": 1e-4, "hidden": 1e-4, "greedy_step_logits": 1e-4}
"""By the name's start; everything else is exact."""


def matches(folder: Path) -> bool:
    is_recorded = {"text_input_ids", "mm_input_ids", "image_embeds"} <= keys(folder / "inputs.safetensors")
    return is_recorded and "text.logits" in keys(folder / "outputs.safetensors")


def compare(folder: Path) -> Iterator[Check]:
    thinker = load(folder, dtype=torch.float32).thinker.eval()
    inputs, recorded = tensors(folder / "inputs.safetensors"), tensors(folder / "outputs.safetensors")
    yield from _positions(thinker.config, json.loads((folder / "positions.json").read_text()))
    for case, outputs in _cases(recorded).items():
        produced, real = _run(thinker, inputs, case, outputs)
        for name, expected in outputs.items():
            kind = name.rsplit(".", 1)[-1]
            tolerance = next((t for start, t in TOLERANCES.items() if kind.startswith(start)), 0.0)
            if name not in produced:
                yield Check(f"{case}.{name} is not produced", float("inf"), tolerance)
            elif kind == "logits" or kind.startswith("hidden"):
                yield difference(f"{case}.{name}", produced[name][real], expected[real], tolerance)
            elif name.startswith("layer"):
                rows = real.flatten()
                yield difference(f"{case}.{name}", produced[name][rows], expected[rows], tolerance)
            else:
                yield difference(f"{case}.{name}", produced[name], expected, tolerance)


def _cases(recorded: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Case -> name -> what was recorded of it."""
    found: dict[str, dict[str, Tensor]] = {}
    for key, expected in recorded.items():
        case, name = KEY.fullmatch(key).groups()
        found.setdefault(case, {})[name] = expected
    return found


def _positions(config: ThinkerConfig, recorded: dict[str, dict]) -> Iterator[Check]:
    for case, given in recorded.items():
        mask = torch.tensor(given["attention_mask"])
        grids = [None if g is None else torch.tensor(g) for g in (given["image_grid_thw"], given["video_grid_thw"])]
        placed, delta = positions(
            _variant(config, given["video_start_token"]),
            torch.tensor(given["input_ids"]),
            mask,
            *grids,
            given["second_per_grid_ts"],
        )
        real = mask.bool()
        yield same(f"{case}.position_ids", placed[:, real], torch.tensor(given["position_ids"])[:, real])
        yield same(f"{case}.rope_delta", delta[:, None], torch.tensor(given["rope_delta"]))


def _variant(config: ThinkerConfig, video_start_token: int) -> ThinkerConfig:
    config = copy.copy(config)
    config.video_positions, config.video_start_token = "published", video_start_token
    return config


def _run(
    thinker: Thinker, inputs: dict[str, Tensor], case: str, recorded: dict[str, Tensor]
) -> tuple[dict[str, Tensor], Tensor]:
    """What was recorded of one case, produced anew; and which tokens (B, T) are real."""
    config, is_media = thinker.config, case.startswith("mm_")
    ids = inputs["mm_input_ids" if is_media else f"{case}_input_ids"]
    mask = None if is_media else inputs.get(f"{case}_attention_mask")
    real = torch.ones_like(ids, dtype=torch.bool) if mask is None else mask.bool()
    embeddings, modality = _merge(thinker, ids, inputs) if is_media else (thinker.embed(ids), None)
    grids = (inputs["image_grid_thw"], inputs["video_grid_thw"]) if is_media else (None, None)
    if case.startswith("mm_video_start"):
        config = _variant(config, config.video_marker_token)
    timed = SECONDS.fullmatch(case)
    seconds = [float(timed[1])] * len(grids[1]) if timed else None
    placed, delta = positions(config, ids, mask, *grids, seconds)
    produced = {"position_ids": placed, "rope_delta": delta[:, None]}
    if recorded.keys() <= produced.keys():
        return produced, real

    cache = thinker.new_cache()
    out = thinker(
        embeddings,
        placed,
        modality=modality,
        mask=mask,
        cache=cache,
        collect_hidden_states=True,
        collect_routing=True,
    )
    produced["logits"] = thinker.logits(out.hidden)
    produced |= {f"hidden{i}": hidden for i, hidden in enumerate(out.hidden_states)}
    for layer, routing in enumerate(out.routing, config.num_dense_layers):
        produced[f"layer{layer}.topk_idx_sorted"] = routing.chosen.sort().values
        dense = torch.zeros_like(routing.logits).scatter(1, routing.chosen, routing.weights)
        produced[f"layer{layer}.combine_weights"] = dense
    if "greedy_tokens" in recorded:
        steps = _greedy(thinker, cache, delta, produced["logits"][:, -1], len(recorded["greedy_tokens"]))
        produced["greedy_tokens"], produced["greedy_step_logits"] = steps
    return produced, real


def _merge(thinker: Thinker, ids: Tensor, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Embeddings (B, T, D) with the recorded media in their places, and each token's modality (B, T)."""
    config, embeddings, modality = thinker.config, thinker.embed(ids), torch.zeros_like(ids)
    for patch, media in ((config.image_patch_token, "image_embeds"), (config.video_patch_token, "video_embeds")):
        place = ids == patch
        embeddings = embeddings.masked_scatter(place[..., None], inputs[media])
        modality[place] = MODALITIES.index("image")
    clips = inputs["audio_embeds"][0].split(inputs["audio_embeds_lengths"][0].tolist())
    for (start, length), clip in zip(inputs["audio_placeholder_loc_lens"][0].tolist(), clips, strict=True):
        embeddings[0, start : start + len(clip)] = clip
        modality[0, start : start + length] = MODALITIES.index("audio")
    return embeddings, modality


def _greedy(thinker: Thinker, cache: KVCache, delta: Tensor, logits: Tensor, num_steps: int) -> tuple[Tensor, Tensor]:
    """The first row's tokens (n,) and the logits (n, V) they came from, one cached token at a time."""
    ids, steps = [], []
    for _ in range(num_steps):
        steps.append(logits[0])
        ids.append(logits.argmax(-1))  # (1,)
        embeddings = thinker.embed(ids[-1][:, None])
        logits = thinker.logits(thinker(embeddings, next_positions(delta, cache.length), cache=cache).hidden[:, -1])
    return torch.cat(ids), torch.stack(steps)
