"""Merged features of pictures (n, M, E) -> what each cell shows: the thing, its colour, the letters in its halves.

Two helpers, thrown away afterwards. `Cells` teaches the encoder what to see. `Words` teaches the projector to say it as
the thinker would: a token that shows a dog points the way of the word dog, so that whoever looks for a word finds it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NOTHING = -1
"""A cell that is not judged."""
EMPTY = 0.2
"""What a cell that shows nothing of the kind counts: most do."""


SHOWN = {"thing": "thing", "colour": "colour", "left": "letter", "right": "letter"}
"""Labels in their order, and of which kind their words are."""


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


class Words(nn.Module):
    def __init__(self, embedding: Tensor, encode: Callable[[str], list[int]], names: dict[str, Sequence[str]]):
        """embedding (V, D) of the thinker; names: for each kind of label, those from 1 on (`pictures.Labels.names`)"""
        super().__init__()
        middle = embedding.float().mean(0)
        for kind, own in names.items():
            rows = torch.stack([embedding[encode(f" {name}")].float().mean(0) - middle for name in own])
            self.register_buffer(kind, F.normalize(rows, dim=-1))
        self.sharpness = nn.Parameter(torch.tensor(3.0))

    def losses(self, tokens: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """tokens (n, M, D), labels (n, ..., 4): a cross-entropy for each kind of word, over the cells that show one"""
        labels = labels.flatten(0, -2)
        direction = F.normalize(tokens.float(), dim=-1).flatten(0, 1) * self.sharpness.exp()
        found = {}
        for column, (name, kind) in enumerate(SHOWN.items()):
            wanted = labels[:, column].clamp(min=0) - 1
            loss = F.cross_entropy(direction @ getattr(self, kind).T, wanted, ignore_index=-1, reduction="sum")
            found[name] = loss / (wanted >= 0).sum().clamp(min=1)
        return found
