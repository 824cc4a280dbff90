"""Merged features of pictures (n, M, E) -> what each cell shows: the thing, its colour, the letters in its halves.

Helps the vision encoder to learn, and is thrown away afterwards.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NOTHING = -1
"""A cell that is not judged."""
EMPTY = 0.2
"""What a cell that shows nothing of the kind counts: most do."""


class Cells(nn.ModuleDict):
    def __init__(self, width: int, sizes: dict[str, int]):
        """sizes: of `pictures.Labels`, in the order of its labels."""
        super().__init__({name: nn.Linear(width, size) for name, size in sizes.items()})
        for name, size in sizes.items():
            weight = torch.ones(size)
            weight[0] = 1.0 if name == "colour" else EMPTY
            self.register_buffer(f"{name}_weight", weight)

    def forward(self, merged: Tensor) -> dict[str, Tensor]:
        """(n, M, E) -> for each kind of label logits (n M, labels)"""
        return {name: head(merged).flatten(0, 1) for name, head in self.items()}

    def losses(self, shown: dict[str, Tensor], labels: Tensor) -> dict[str, Tensor]:
        """labels (n, ..., 4): cross-entropies, each a mean over the cells that are judged."""
        found = {}
        for wanted, (name, logits) in zip(labels.flatten(0, -2).unbind(1), shown.items(), strict=True):
            weight = getattr(self, f"{name}_weight")
            loss = F.cross_entropy(logits.float(), wanted, weight, ignore_index=NOTHING, reduction="sum")
            found[name] = loss / (weight[wanted.clamp(min=0)] * (wanted != NOTHING)).sum().clamp(min=1)
        return found
