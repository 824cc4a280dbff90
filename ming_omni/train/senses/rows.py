"""Questions, answers and numbers of media tokens -> rows of ids as the processor writes them; rows -> batches (B, T).

A picture's row holds many turns. Each turn sees the beginning, the picture and itself, never another turn, and its
positions go on where the picture ends: so every turn is learned exactly as if it had been asked alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from ming_omni.config import ThinkerConfig
from ming_omni.inputs.messages import Audio, Image, Video
from ming_omni.inputs.processor import MingProcessor
from ming_omni.inputs.templates import PLACEHOLDERS
from ming_omni.model.positions import positions
from ming_omni.train.losses import IGNORE

PADDING = -1
"""Modality of a place that holds no token, and source of a token that comes from no medium."""
IMAGE, AUDIO = 1, 2


@dataclass
class Row:
    """One prompt, token by token."""

    ids: list[int]
    source: list[int]
    """Number of the media token that stands there, PADDING for text."""
    places: np.ndarray
    """(3, T) positions"""
    modality: int = IMAGE
    """Of its media tokens."""
    targets: list[int] = field(default_factory=list)
    """The id that follows each token, IGNORE where nothing is learned."""
    segment: list[int] = field(default_factory=list)
    """0 for what every token may see, then the number of the turn."""
    end: int = 0
    """Position of what follows the media."""

    def __len__(self) -> int:
        return len(self.ids)


class Writer:
    """Writes rows for one model; everything about its format comes from the processor."""

    def __init__(self, processor: MingProcessor, config: ThinkerConfig):
        self.processor, self.tokenizer, self.config = processor, processor.tokenizer, config
        (self.end_id,) = processor.gen_terminator
        before, self.after = processor.around_question()
        self.before = self.encode(before)
        self.patch_ids = {
            Image: self.tokenizer.token_id("<imagePatch>"),
            Video: self.tokenizer.token_id("<framePatch>"),
            Audio: self.tokenizer.token_id("<audioPatch>"),
        }

    def encode(self, text: str) -> list[int]:
        return self.tokenizer.encode(text)

    def escape(self, text: str) -> str:
        return self.tokenizer.escape(text, *PLACEHOLDERS.values())

    def looking(self, kind: type, grid: tuple[int, int, int]) -> Row:
        """The beginning of a row about a picture or a film: up to where the first question stands."""
        processor = self.processor
        (medium,) = processor._visual("image" if kind is Image else "video", [grid])
        ids = self.before + self.encode(medium)
        grids = torch.tensor([grid])
        pair = (grids, None) if kind is Image else (None, grids)
        placed, delta = positions(self.config, torch.tensor([ids]), None, *pair)
        source = number(ids, self.patch_ids[kind])
        row = Row(ids, source, placed[:, 0].numpy(), IMAGE, [IGNORE] * len(ids), [0] * len(ids))
        row.end = len(ids) + int(delta)
        return row

    def turn(self, question: str, answer: str) -> tuple[list[int], list[int]]:
        """Ids and targets of a question and its answer, without the end mark, after which nothing is asked."""
        asked = self.encode(self.escape(question) + self.after)
        said = self.encode(self.tokenizer.escape(answer))
        return asked + said, [IGNORE] * (len(asked) - 1) + [*said, self.end_id]

    def with_turns(self, beginning: Row, turns: Sequence[tuple[list[int], list[int]]], limit: int) -> Row:
        """As many turns as fit into `limit` tokens; one that does not is left out."""
        row = Row(list(beginning.ids), list(beginning.source), beginning.places, IMAGE)
        row.targets, row.segment = list(beginning.targets), list(beginning.segment)
        placed = [beginning.places]
        for i, (ids, targets) in enumerate(turns, 1):
            if len(row) + len(ids) > limit:
                continue
            row.ids += ids
            row.targets += targets
            row.source += [PADDING] * len(ids)
            row.segment += [i] * len(ids)
            placed.append(np.broadcast_to(beginning.end + np.arange(len(ids)), (3, len(ids))))
        row.places = np.concatenate(placed, 1)
        return row

    def listening(self, question: str, num_tokens: int, answer: str) -> Row:
        """The question, then the sound, as the product asks for a transcript."""
        sound = f"<audio>{'<audioPatch>' * num_tokens}</audio>"
        asked = self.before + self.encode(self.escape(question) + sound + self.after)
        return self._plain(asked, answer, number(asked, self.patch_ids[Audio]), AUDIO)

    def chat(self, question: str, answer: str) -> Row:
        asked = self.before + self.encode(self.escape(question) + self.after)
        return self._plain(asked, answer, [PADDING] * len(asked), AUDIO)

    def _plain(self, asked: list[int], answer: str, source: list[int], modality: int) -> Row:
        said = self.encode(self.tokenizer.escape(answer))
        ids = asked + said
        targets = [IGNORE] * (len(asked) - 1) + [*said, self.end_id]
        places = np.broadcast_to(np.arange(len(ids)), (3, len(ids)))
        return Row(ids, source + [PADDING] * len(said), places, modality, targets)


def number(ids: Sequence[int], patch_id: int) -> list[int]:
    """0, 1, 2, ... where the patch id stands, PADDING elsewhere."""
    found, count = [], 0
    for i in ids:
        found.append(count if i == patch_id else PADDING)
        count += i == patch_id
    return found


@dataclass
class Batch:
    """Rows of one kind, filled up on the right to T tokens, and the media that they look at or listen to."""

    kind: str
    ids: np.ndarray
    """(B, T) int32"""
    source: np.ndarray
    """(B, T) int32, which of the row's media tokens stands there"""
    places: np.ndarray
    """(3, B, T) int32"""
    modality: np.ndarray
    """(B, T) int8, PADDING where no token is"""
    asked: np.ndarray
    """(K,) places in the flat rows whose next token is learned"""
    answers: np.ndarray
    """(K,) that token"""
    segment: np.ndarray | None = None
    """(B, T) int8, where turns are kept apart"""
    media: dict[str, np.ndarray] = field(default_factory=dict)
    """Pictures (n, 3, S, S) and what their cells show, or which sounds and how they are treated."""
    notes: Any = None
    """For a look at it: whatever the maker wants to keep."""


def collate(kind: str, rows: Sequence[Row], length: int, filler: int, num_rows: int) -> Batch:
    """Rows, at most `num_rows` of at most `length` tokens -> a batch of exactly these sizes."""
    shape = (num_rows, length)
    ids, source = np.full(shape, filler, np.int32), np.full(shape, PADDING, np.int32)
    places, modality = np.zeros((3, *shape), np.int32), np.full(shape, PADDING, np.int8)
    targets = np.full(shape, IGNORE, np.int32)
    segment = np.full(shape, PADDING, np.int8) if rows[0].segment else None
    for i, row in enumerate(rows):
        n = len(row)
        ids[i, :n], source[i, :n], targets[i, :n] = row.ids, row.source, row.targets
        places[:, i, :n] = row.places
        modality[i, :n] = np.where(source[i, :n] >= 0, row.modality, 0)
        if segment is not None:
            segment[i, :n] = row.segment
    flat = targets.reshape(-1)
    asked = np.flatnonzero(flat != IGNORE)
    return Batch(kind, ids, source, places, modality, asked, flat[asked].astype(np.int64), segment)
