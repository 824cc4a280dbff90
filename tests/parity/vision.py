"""The vision encoder alone: patches and grids -> windows, rotary angles, merged rows, unit vectors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from ming_omni.checkpoint import load_part
from ming_omni.model.vision_encoder import VisionEncoder
from tests.parity import Check, difference, keys, same, tensors

EMBEDDINGS, TOWER, ANGLES = 1e-5, 1e-4, 1e-6
"""Tolerances: of unit vectors and angles absolute; of tower rows relative to the row."""
MEDIA = {"image": ("pixel_values", "image_grid_thw"), "video": ("pixel_values_videos", "video_grid_thw")}


def matches(folder: Path) -> bool:
    return any(f"{name}_window_index" in keys(folder / "outputs.safetensors") for name in MEDIA)


def compare(folder: Path) -> Iterator[Check]:
    encoder = load_part(folder, "vision", dtype=torch.float32)
    inputs, recorded = tensors(folder / "inputs.safetensors"), tensors(folder / "outputs.safetensors")
    for name, (patches, grid) in MEDIA.items():
        if patches in inputs:
            yield from _medium(encoder, name, inputs[patches].float(), inputs[grid], recorded)
    yield same("outputs without a check", sorted(recorded), [])


def _medium(encoder: VisionEncoder, name: str, patches: Tensor, grid: Tensor, recorded: dict) -> Iterator[Check]:
    """Checks of pictures or of videos; each recorded tensor is taken out once it is compared."""
    grids = [tuple(row) for row in grid.tolist()]
    order, sizes = encoder.windows(grids)
    ends = torch.tensor([0, *sizes]).cumsum(0) * encoder.config.spatial_merge_size**2
    yield same(f"{name}_window_index", order, recorded.pop(f"{name}_window_index"))
    yield same(f"{name}_cu_window_seqlens", ends, recorded.pop(f"{name}_cu_window_seqlens"))
    angles = recorded.pop(f"{name}_rotary_angles")
    yield difference(f"{name}_rotary_angles", encoder.angles(grids), angles, ANGLES)

    rows = encoder.tower(patches, grid)
    first = recorded.pop(f"{name}_tower_first64")
    size = first.abs().amax(-1, keepdim=True)
    yield difference(f"{name}_tower_first64", rows[:, : first.shape[1]] / size, first / size, TOWER)
    norm = recorded.pop(f"{name}_tower_row_norm")
    yield difference(f"{name}_tower_row_norm", rows.norm(dim=-1) / norm, torch.ones_like(norm), TOWER)
    yield difference(f"{name}_embeds", encoder(patches, grid), recorded.pop(f"{name}_embeds"), EMBEDDINGS)
