"""Held-out conversations -> how well a model foresees their answers, beside its base: perplexity through the engine."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from ming_omni.engine.request import Request, read_prompt
from ming_omni.errors import InputError
from ming_omni.evaluate.score import Score, bootstrap
from ming_omni.inputs.messages import Message, Text

AT_ONCE = 16
MOST_CHARACTERS = 600
"""of an answer; the rest of a long one would outweigh many short ones"""


def conversations(data: Path, limit: int) -> list[tuple[str, str]]:
    """Questions and answers of the test, from packaged sets and from the base model in turns."""
    sources = []
    for path in sorted(data.glob("text/*.jsonl")):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        sources.append([(row["question"], row["answer"]) for row in rows if row["split"] == "test" and row["answer"]])
    if not any(sources):
        raise InputError(f"{data}/text holds no conversations of the test; make some: ming data text {data}/text")
    longest = max(map(len, sources))
    turns = [source[i] for i in range(longest) for source in sources if i < len(source)]
    return [(question, answer[:MOST_CHARACTERS]) for question, answer in turns[:limit]]


def surprises(ming: Any, pairs: Sequence[tuple[str, str]]) -> np.ndarray:
    """(n, 2): negative log-probability of each whole answer, and its tokens."""
    tokenizer = ming.processor.tokenizer

    def score(pair: tuple[str, str]) -> tuple[float, int]:
        question, answer = pair
        inputs = ming.processor.prepare(Message("user", [Text(question)]), answer_start=answer)
        count = len(tokenizer.encode(tokenizer.escape(answer)))
        request = Request(read_prompt(ming.model, inputs), max_tokens=0, score_prompt=True)
        with ming.engine.submit(request) as stream:
            for _ in stream:
                pass
        return -sum(token.logprob for token in stream.sequence.prompt_scores[-count:]), count

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return np.array(list(pool.map(score, pairs)), dtype=float)


def text_scores(ming: Any, base: Any, data: Path, limit: int) -> list[Score]:
    """The perplexity's growth over the base's, on the same tokens."""
    pairs = conversations(data, limit)
    mine, before = surprises(ming, pairs), surprises(base, pairs)
    grown = np.stack([mine[:, 0] - before[:, 0], mine[:, 1]], 1)  # log of the ratio, summed; tokens
    value, (low, high) = grown[:, 0].sum() / grown[:, 1].sum(), bootstrap(grown)
    perplexities = {"own": _perplexity(mine), "base": _perplexity(before)}
    growth = (math.expm1(number) for number in (value, low, high))
    bounds = (0.02, 0.005)
    return [
        Score("text perplexity above the base", *growth, len(pairs), *bounds, is_error=True, perplexities=perplexities)
    ]


def _perplexity(sums: np.ndarray) -> float:
    return float(math.exp(sums[:, 0].sum() / sums[:, 1].sum()))
