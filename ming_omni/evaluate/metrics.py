"""What was said and what was heard -> counts of errors; counts of many recordings add up, rates are never averaged.

Texts come as sequences of whatever is counted (words, characters, syllables); `normalize` makes them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ming_omni.evaluate.normalize import characters, chinese, english, syllables, units


@dataclass(frozen=True)
class Errors:
    """Of one recording, or summed over many."""

    substitutions: int = 0
    deletions: int = 0
    insertions: int = 0
    length: int = 0
    """of what was said"""

    def __add__(self, other: Errors) -> Errors:
        return Errors(
            self.substitutions + other.substitutions,
            self.deletions + other.deletions,
            self.insertions + other.insertions,
            self.length + other.length,
        )

    @property
    def total(self) -> int:
        return self.substitutions + self.deletions + self.insertions

    @property
    def rate(self) -> float:
        """May exceed 1; infinite when nothing was said and something heard."""
        if self.length:
            return self.total / self.length
        return math.inf if self.total else 0.0


@dataclass(frozen=True)
class Share:
    """Cases of a kind among all cases."""

    count: int = 0
    total: int = 0

    def __add__(self, other: Share) -> Share:
        return Share(self.count + other.count, self.total + other.total)

    @property
    def rate(self) -> float:
        return self.count / self.total if self.total else 0.0


def errors(said: Sequence[str], heard: Sequence[str]) -> Errors:
    """The fewest substitutions, deletions and insertions that turn what was said into what was heard."""
    from rapidfuzz.distance import Levenshtein

    kinds = Counter(edit.tag for edit in Levenshtein.editops(said, heard))
    return Errors(kinds["replace"], kinds["delete"], kinds["insert"], len(said))


def word_errors(said: str, heard: str, language: str = "en") -> Errors:
    """WER. In Chinese, and in text that mixes both, a word is one character (what some call MER)."""
    return errors(words(said, language), words(heard, language))


def character_errors(said: str, heard: str, language: str = "zh") -> Errors:
    """CER: letters and digits of the normal form, spaces not counted."""
    return errors(*(characters(" ".join(words(text, language))) for text in (said, heard)))


def pinyin_errors(said: str, heard: str) -> Errors:
    """Syllables without tones: what was misheard, as opposed to miswritten."""
    return errors(syllables(chinese(said)), syllables(chinese(heard)))


def words(text: str, language: str) -> list[str]:
    """The normal form in units: language is en or zh."""
    return units(chinese(text)) if language == "zh" else units(english(text))


# Named entities, as ContextASR-Bench counts them (arXiv 2507.05727 and its evaluation scripts).


def entity_misses(said: Sequence[str], heard: Sequence[str], entities: Iterable[Sequence[str]]) -> Share:
    """NE-FNR: of the entities that were said, each as often as it was said, those not heard letter by letter."""
    entities = _distinct(entities)
    spoken = Counter(entity for _, entity in _exact(said, entities))
    found = Counter(entity for _, entity in _exact(heard, entities))
    return Share((spoken - found).total(), spoken.total())


def entity_errors(said: Sequence[str], heard: Sequence[str], entities: Iterable[Sequence[str]]) -> Errors:
    """NE-WER: word errors over the entities alone, in the order they were said.

    From what was heard come the passages that resemble an entity: fewer than half of its words differ.
    """
    entities = _distinct(entities)
    spoken = [word for _, entity in _exact(said, entities) for word in entity]
    found = [word for _, passage in _alike(heard, entities) for word in passage]
    return errors(spoken, found)


def false_insertions(plain: Sequence[str], heard: Sequence[str], listed: Iterable[Sequence[str]]) -> Share:
    """Of the listed words that were not said, how many were heard all the same.

    plain   what was said
    heard   what was heard with the list in the prompt
    """
    listed = _distinct(listed)
    said = {entity for _, entity in _exact(plain, listed)}
    found = {entity for _, entity in _exact(heard, listed)}
    return Share(len(found - said), len(set(listed) - said))


Entity = tuple[str, ...]


def _distinct(entities: Iterable[Sequence[str]]) -> list[Entity]:
    return [entity for entity in dict.fromkeys(tuple(entity) for entity in entities) if entity]


def _exact(text: Sequence[str], entities: Sequence[Entity]) -> list[tuple[int, Entity]]:
    """Every place where an entity stands, from left to right, shorter ones first."""
    text = tuple(text)
    found = [(i, e) for e in entities for i in range(len(text) - len(e) + 1) if text[i : i + len(e)] == e]
    return sorted(found, key=lambda item: (item[0], len(item[1])))


def _alike(text: Sequence[str], entities: Sequence[Entity]) -> list[tuple[int, Entity]]:
    """Where an entity stands, and passages elsewhere that resemble one, from left to right.

    Passages of one entity do not overlap; of those that do, the one with fewer differences counts.
    """
    from rapidfuzz.distance import Levenshtein

    text = tuple(text)
    found = set(_exact(text, entities))
    for entity in entities:
        length, most = len(entity), math.ceil(len(entity) / 2) - 1
        taken = {i + k for i, e in found if e == entity for k in range(length)}
        passages = []
        for size in range(max(1, length - most), length + most + 1):
            for start in range(len(text) - size + 1):
                distance = Levenshtein.distance(entity, text[start : start + size], score_cutoff=most)
                if distance <= most:
                    passages.append((distance, abs(size - length), start, size))
        for _, _, start, size in sorted(passages):
            places = set(range(start, start + size))
            if not places & taken:
                taken |= places
                found.add((start, text[start : start + size]))
    return sorted(found, key=lambda item: (item[0], len(item[1])))
