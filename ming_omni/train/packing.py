"""Sequences of any length -> one row (1, T) of all of them, and the attention that keeps them apart.

Nothing is padded: everything in the thinker but attention looks at one token at a time, and attention is given the
boundaries. A packed row therefore gives exactly what its sequences give one by one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ming_omni.config import MODALITIES, ThinkerConfig
from ming_omni.model.layers import attend
from ming_omni.model.positions import positions

GRIDS = {"pixel_values": "image_grid_thw", "pixel_values_videos": "video_grid_thw"}


class PackedAttention:
    """Stands where a cache would, keeps nothing, and attends within each sequence."""

    def __init__(self, lengths: Sequence[int], implementation: str | None = None):
        self.lengths, self.implementation = list(lengths), implementation

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        """q (1, H, T, C), k and v (1, K, T, C) -> (1, H, T, C)"""
        count, length = len(self.lengths), self.lengths[0]
        if all(n == length for n in self.lengths):  # one call for all
            rows = (x.unflatten(2, (count, length))[0].transpose(0, 1) for x in (q, k, v))  # (n, H, t, C)
            mixed = attend(*rows, None, self.implementation)
            return mixed.transpose(0, 1).flatten(1, 2)[None]
        pieces = zip(*(x.split(self.lengths, 2) for x in (q, k, v)), strict=True)
        return torch.cat([attend(*piece, None, self.implementation) for piece in pieces], 2)


@dataclass
class Packed:
    inputs: dict[str, Tensor]
    """The processor's keys, one row: all sequences one after another."""
    lengths: list[int]
    positions: Tensor
    """(3, 1, T) each sequence counts from its own start"""
    deltas: list[int]
    """What a token after the end of a sequence adds to its length to find its position."""


def pack(rows: Sequence[Mapping[str, Tensor]], config: ThinkerConfig) -> Packed:
    """Inputs of single prompts, without padding -> one packed row."""
    ids = [row["input_ids"] for row in rows]
    inputs = {"input_ids": torch.cat(ids, 1)}
    for patches, grid in GRIDS.items():
        for name in (patches, grid):
            if found := [row[name] for row in rows if row.get(name) is not None]:
                inputs[name] = torch.cat(found)
    heard = [row for row in rows if row.get("audio_feats") is not None]
    if heard:
        for name in ("audio_feats", "audio_feats_lengths"):
            inputs[name] = torch.cat([row[name] for row in heard], 1)
    spans, placed, deltas, start = [], [], [], 0
    for row, row_ids in zip(rows, ids, strict=True):
        place, delta = positions(config, row_ids, None, row.get("image_grid_thw"), row.get("video_grid_thw"))
        placed.append(place)
        deltas.append(int(delta))
        if row.get("audio_feats") is not None:
            moved = row["audio_placeholder_loc_lens"][0]
            spans.append(moved[moved[:, 1] > 0] + torch.tensor([start, 0]))
        start += row_ids.shape[1]
    if heard:
        inputs["audio_placeholder_loc_lens"] = torch.cat(spans)[None]
    return Packed(inputs, [row.shape[1] for row in ids], torch.cat(placed, 2), deltas)


def presence(rows: Sequence[Mapping[str, Tensor]]) -> Tensor:
    """(3,) how many of the prompts hold tokens of each modality; all hold text."""
    seen = sum(any(row.get(name) is not None for name in GRIDS) for row in rows)
    heard = sum(row.get("audio_feats") is not None for row in rows)
    counts = {"text": len(rows), "image": seen, "audio": heard}
    return torch.tensor([counts[name] for name in MODALITIES], dtype=torch.float32)
