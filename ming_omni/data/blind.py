"""How far guessing goes without looking or listening: the best answer to each wording, learned from training."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable

from ming_omni.data.examples import Example


def blind_accuracy(train: Iterable[Example], test: Iterable[Example]) -> dict[str, float]:
    """Accuracy for each template of always answering what training answered most often to that wording.

    Three guessers compete for each template, and the best one counts: one that knows the template alone, one that knows
    the exact words of the question, and one that picks the first name in a question between two.
    """
    by_template: dict[str, Counter] = defaultdict(Counter)
    by_prompt: dict[str, Counter] = defaultdict(Counter)
    for example in train:
        by_template[example.facts["template"]][example.answer] += 1
        by_prompt[example.prompt][example.answer] += 1
    hits: dict[str, list[tuple[int, int, int]]] = defaultdict(list)
    for example in test:
        template = example.facts["template"]
        usual = _first(by_template[template])
        exact = _first(by_prompt[example.prompt]) or usual
        first_named = example.facts.get("options") == [0]
        hits[template].append((example.answer == usual, example.answer == exact, first_named))
    return {
        template: max(sum(column) for column in zip(*rows, strict=True)) / len(rows) for template, rows in hits.items()
    }


def transcript_prior(train: Iterable[str], test: Iterable[str]) -> float:
    """Part of the test's transcripts that are known from training word for word: what a deaf parrot would get right."""
    known, test = set(train), list(test)
    return sum(text in known for text in test) / len(test)


def _first(counts: Counter) -> str | None:
    return counts.most_common(1)[0][0] if counts else None
