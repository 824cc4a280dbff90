"""A table of clips -> batches of rows: a clip, mostly behind another one of the same speaker, as a prompt comes.

A row is [text of the prompt] [text] [end] [patches of the prompt] [patches], all of which the talker learns to speak.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ming_omni.data.splits import generator
from ming_omni.train.talker.settings import RowSettings
from ming_omni.train.talker.store import Clip, clips

END = 0


@dataclass
class Batch:
    """B rows of one shape (T, N), as arrays."""

    ids: np.ndarray  # (B, T) int16
    text_lengths: np.ndarray  # (B,)
    firsts: np.ndarray  # (B, 2) first patch of the prompt and of the clip, in the store
    counts: np.ndarray  # (B, 2) how many they have; a prompt may have none
    silent: np.ndarray  # (B,) bool: the prompt's transcript is not told
    num_patches: int  # N


class Rows:
    """`batch(number)`, as `senses.workers.Feed` asks for it."""

    def __init__(self, table: Sequence[Clip], settings: RowSettings, seed: int):
        self.table, self.settings, self.seed = list(table), settings, seed
        self.shapes = [tuple(shape) for shape in sorted(settings.shapes)]
        self.waiting: dict[tuple[int, int], list[tuple]] = {shape: [] for shape in self.shapes}
        by_speaker: dict[int, list[int]] = {}
        for i, clip in enumerate(self.table):
            by_speaker.setdefault(clip.speaker, []).append(i)
        self.others = [by_speaker[clip.speaker] for clip in self.table]

    def batch(self, number: int) -> Batch:
        """The number decides what is drawn; what was drawn and did not fit yet waits for the next batch."""
        numbers = generator(self.seed, "talker", number)
        while True:
            for shape, waiting in self.waiting.items():
                count = self.settings.patches // shape[1]
                if len(waiting) >= count:
                    self.waiting[shape] = waiting[count:]
                    return collate(waiting[:count], shape)
            self.draw(numbers)

    def draw(self, numbers: np.random.Generator) -> None:
        """One more clip, with or without another before it, goes where it fits; one that is too long is left out."""
        index = int(numbers.integers(len(self.table)))
        others = self.others[index]
        prompt = None
        if len(others) > 1 and numbers.random() >= self.settings.alone:
            chosen = int(numbers.integers(len(others) - 1))
            prompt = self.table[others[chosen + (others[chosen] >= index)]]
        is_silent = prompt is not None and numbers.random() < self.settings.silent
        clip = self.table[index]
        for before in (prompt, None):
            row = self.row(before, clip, is_silent and before is not None, numbers)
            for shape in self.shapes:
                if len(row[0]) <= shape[0] and sum(row[2]) <= shape[1]:
                    self.waiting[shape].append(row)
                    return

    def row(self, prompt: Clip | None, clip: Clip, is_silent: bool, numbers: np.random.Generator) -> tuple:
        told = [part for part in (None if is_silent else prompt, clip) if part is not None]
        ids = [i for part in told for i in self.read(part, numbers)]
        firsts = (prompt.first if prompt else 0, clip.first)
        counts = (prompt.num_patches if prompt else 0, clip.num_patches)
        return [*ids, END], firsts, counts, is_silent

    def read(self, clip: Clip, numbers: np.random.Generator) -> list[int]:
        """Its symbols; some of its English words by their letters."""
        luck = numbers.random(len(clip.sounds))
        found: list[int] = []
        for sounds, letters, chance in zip(clip.sounds, clip.letters, luck, strict=True):
            found += letters if letters is not None and chance < self.settings.spelled else sounds
        return found


def collate(rows: Sequence[tuple], shape: tuple[int, int]) -> Batch:
    ids = np.zeros((len(rows), shape[0]), np.int16)
    for place, row in zip(ids, rows, strict=True):
        place[: len(row[0])] = row[0]
    lengths, firsts, counts, silent = (
        np.array([function(row) for row in rows])
        for function in (lambda r: len(r[0]), lambda r: r[1], lambda r: r[2], lambda r: r[3])
    )
    return Batch(ids, lengths, firsts, counts, silent, shape[1])


def make_rows(paths: Sequence[Path], split: str, patch_samples: int, settings: RowSettings, seed: int) -> Rows:
    """In the process that uses it: from the same parts, in the same order, as the store."""
    return Rows([clip for _, _, clip in clips(paths, split, patch_samples)], settings, seed)
