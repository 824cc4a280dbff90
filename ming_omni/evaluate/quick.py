"""Prompts and right answers -> shares right and error rates, decoded greedily in batches: for a look during training.

Works on any device, for the unpacked model, with torch and tokenizers alone. Scores to be shown come from `suite`, by
the product's own path.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from ming_omni.evaluate.normalize import units
from ming_omni.inputs.processor import MingProcessor
from ming_omni.inputs.tokenizer import MEDIA_TOKENS
from ming_omni.model.omni import MingForConditionalGeneration
from ming_omni.model.sampling import Sampling

BATCH = 64
SPARE_TOKENS = 8
"""Room after the right answer: a longer one is wrong, how long it would become does not matter here."""
_TRANSCRIPT = re.compile(r"[^\t]{1,32}\t")


@dataclass(frozen=True)
class Case:
    kind: str
    """what is averaged together: `how many en`, `mandarin`, `sichuan`"""
    inputs: Mapping[str, Tensor]
    """the processor's keys, one row, up to where the answer begins"""
    answer: str
    """a transcript begins with its language and a tab, and is counted by errors; all else is right or wrong"""


def quick_scores(
    model: MingForConditionalGeneration, processor: MingProcessor, examples: Sequence[Case], batch: int = BATCH
) -> dict[str, float]:
    """`KIND` is the share of right answers; of transcripts `KIND/language` is, and `KIND/errors` the error rate.

    Errors are counted in words or Chinese characters, without marks and capitals, but with numbers as written: a
    little stricter than the scores proper.
    """
    totals: Counter[str] = Counter()
    hits: Counter[str] = Counter()
    for case, heard in zip(examples, answers(model, processor, examples, batch), strict=True):
        if language := _TRANSCRIPT.match(case.answer):
            said = plain(case.answer[language.end() :])
            named = _TRANSCRIPT.match(heard)
            text = plain(heard[named.end() :] if named else heard)
            totals[f"{case.kind}/language"] += 1
            hits[f"{case.kind}/language"] += bool(named) and named[0] == language[0]
            totals[f"{case.kind}/errors"] += max(1, len(said))
            hits[f"{case.kind}/errors"] += num_edits(said, text)
        else:
            totals[case.kind] += 1
            hits[case.kind] += is_right(case.answer, heard)
    return {name: hits[name] / count for name, count in sorted(totals.items())}


@torch.no_grad()
def answers(
    model: MingForConditionalGeneration, processor: MingProcessor, examples: Sequence[Case], batch: int = BATCH
) -> list[str]:
    """What the model says to each, in the order given."""
    tokenizer, ends = processor.tokenizer, processor.gen_terminator
    lengths = [len(tokenizer.encode(case.answer)) for case in examples]
    order = sorted(range(len(examples)), key=lambda i: (lengths[i], examples[i].inputs["input_ids"].shape[1]))
    found = [""] * len(examples)
    sampling = Sampling(banned=tuple(tokenizer.added_ids[name] for name in MEDIA_TOKENS if name in tokenizer.added_ids))
    was_training = model.training
    model.eval()
    try:
        for start in range(0, len(order), batch):
            chosen = order[start : start + batch]
            inputs = joined([examples[i].inputs for i in chosen], tokenizer.pad_token_id or 0)
            inputs = {name: value.to(model.device) for name, value in inputs.items()}
            limit = max(lengths[i] for i in chosen) + SPARE_TOKENS
            steps = model.steps(inputs, sampling, max_new_tokens=limit, eos_token_id=ends)
            rows = torch.stack([step.ids for step in steps], 1).tolist()  # (B, new)
            for i, row in zip(chosen, rows, strict=True):
                end = min((row.index(stop) for stop in ends if stop in row), default=len(row))
                found[i] = tokenizer.decode(row[:end])
    finally:
        model.train(was_training)
    return found


def joined(rows: Sequence[Mapping[str, Tensor]], filler: int) -> dict[str, Tensor]:
    """Inputs of single prompts -> one batch, the shorter prompts filled up on the left."""
    longest = max(row["input_ids"].shape[1] for row in rows)
    gaps = [longest - row["input_ids"].shape[1] for row in rows]
    ids = [row["input_ids"] for row in rows]
    inputs = {
        "input_ids": torch.cat([pad(x, (gap, 0), value=filler) for x, gap in zip(ids, gaps, strict=True)]),
        "attention_mask": torch.cat([pad(torch.ones_like(x), (gap, 0)) for x, gap in zip(ids, gaps, strict=True)]),
    }
    for name in ("pixel_values", "image_grid_thw", "pixel_values_videos", "video_grid_thw"):
        if present := [row[name] for row in rows if row.get(name) is not None]:
            inputs[name] = torch.cat(present)
    heard = [row for row in rows if row.get("audio_feats") is not None]
    if heard:
        for name in ("audio_feats", "audio_feats_lengths"):
            inputs[name] = torch.cat([row[name] for row in heard], 1)
        inputs["audio_placeholder_loc_lens"] = _spans(rows, gaps)
    return inputs


def _spans(rows: Sequence[Mapping[str, Tensor]], gaps: Sequence[int]) -> Tensor:
    """(B, n, 2) where the sounds of each row stand, once it is filled up; a length of 0 is filler."""
    none = torch.zeros(1, 0, 2, dtype=torch.long)
    spans = [row.get("audio_placeholder_loc_lens", none) for row in rows]
    most = max(x.shape[1] for x in spans)
    return torch.cat(
        [pad(x + torch.tensor([gap, 0]), (0, 0, 0, most - x.shape[1])) for x, gap in zip(spans, gaps, strict=True)]
    )


def is_right(right: str, said: str) -> bool:
    """The same words, whatever their case and marks."""
    return plain(right) == plain(said)


def plain(text: str) -> list[str]:
    """Words, and Chinese characters one by one, without case and marks."""
    return units(text.casefold())


def num_edits(said: Sequence[str], heard: Sequence[str]) -> int:
    """The fewest words to replace, drop or put in."""
    row = list(range(len(heard) + 1))
    for i, word in enumerate(said, 1):
        row, before = [i], row
        for j, other in enumerate(heard, 1):
            row.append(min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (word != other)))
    return row[-1]
