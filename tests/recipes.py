"""A short recipe -> what a processor returns: text, pictures and sounds for the tiny model, made in code."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from ming_omni.config import tiny
from ming_omni.model.omni import MingForConditionalGeneration

GRIDS = ((1, 4, 4), (1, 2, 6), (1, 8, 4))
FRAMES = (9, 23, 14)
"""Sizes of the pictures and clips that a recipe may name, by their number."""

Recipe = tuple[tuple[str, int], ...]


@cache
def tiny_model() -> MingForConditionalGeneration:
    """Weights large enough that every token, position and picture changes what comes after."""
    torch.manual_seed(0)
    config = tiny()
    config.thinker.initializer_range = 0.12
    return MingForConditionalGeneration(config).eval()


def tiny_inputs(recipe: Recipe) -> dict[str, Tensor]:
    """("text", seed), ("image", number) and ("audio", number) in any order -> one request under the published keys."""
    config = tiny()
    ids, pictures, grids, clips, spans = [], [], [], [], []
    for kind, number in recipe:
        generator = torch.Generator().manual_seed(number)
        if kind == "text":
            ids += torch.randint(40, 280, (3 + number % 9,), generator=generator).tolist()
        elif kind == "image":
            grid = GRIDS[number % len(GRIDS)]
            num_patches = grid[0] * grid[1] * grid[2]
            start = config.thinker.image_start_token
            ids += [start] + [config.thinker.image_patch_token] * (num_patches // 4) + [start + 1]
            pictures.append(torch.randn(num_patches, 1176, generator=generator))
            grids.append(grid)
        else:
            num_frames = FRAMES[number % len(FRAMES)]
            num_tokens = ((num_frames - 1) // 2) // 2 + 1
            start = config.thinker.audio_start_token
            spans.append((len(ids) + 1, num_tokens))
            ids += [start] + [config.thinker.audio_patch_token] * num_tokens + [start + 1]
            clips.append(torch.randn(num_frames, 128, generator=generator))
    inputs = {"input_ids": torch.tensor([ids])}
    if pictures:
        inputs |= {"pixel_values": torch.cat(pictures), "image_grid_thw": torch.tensor(grids)}
    if clips:
        inputs |= {
            "audio_feats": torch.cat(clips)[None],
            "audio_feats_lengths": torch.tensor([[len(c) for c in clips]]),
            "audio_placeholder_loc_lens": torch.tensor([spans]),
        }
    return inputs
