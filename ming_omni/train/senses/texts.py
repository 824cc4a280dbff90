"""Dialogues the base itself wrote -> batches of chat: what keeps a model that learns to see talking as before."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from ming_omni.data.splits import generator
from ming_omni.errors import InputError
from ming_omni.train.senses.rows import Batch, Writer, collate


def read(files: Sequence[Path], split: str) -> list[tuple[str, str]]:
    """Questions and answers of that split."""
    found = []
    for path in files:
        for line in Path(path).read_text(encoding="utf-8").splitlines():
            exchange = json.loads(line)
            if exchange["split"] == split and exchange["answer"]:
                found.append((exchange["question"], exchange["answer"]))
    if not found:
        raise InputError(f"there is no dialogue for {split} in {', '.join(map(str, files))}")
    return found


class Texts:
    def __init__(self, exchanges: Sequence[tuple[str, str]], writer: Writer, length: int, tokens: int, seed: int):
        """length: of a row; tokens: of a batch."""
        self.exchanges, self.writer, self.length, self.seed = exchanges, writer, length, seed
        self.kind, self.num_rows = "texts", tokens // length

    def batch(self, number: int) -> Batch:
        numbers = generator(self.seed, "texts", number)
        rows = []
        for i in numbers.integers(len(self.exchanges), size=self.num_rows):
            row = self.writer.chat(*self.exchanges[i])
            cut = slice(self.length)
            row.ids, row.source, row.targets = row.ids[cut], row.source[cut], row.targets[cut]
            row.places = row.places[:, cut]
            rows.append(row)
        return collate(self.kind, rows, self.length, self.writer.tokenizer.pad_token_id or 0, self.num_rows)
