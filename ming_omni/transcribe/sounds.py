"""Text -> how it sounds, roughly, and how much one sound resembles another: the ear of narrowing and leak guard."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from rapidfuzz import fuzz, process

from ming_omni.evaluate.normalize import HAN, pinyin

_RUN = re.compile(rf"[{HAN}]+|[^\W_{HAN}]+(?:['’][^\W_{HAN}]+)*")


@dataclass(frozen=True)
class Unit:
    """A Chinese character, or a word of another script."""

    key: str
    """how it is compared: without case, width or apostrophes"""
    letters: str
    """pinyin without tone, or the letters themselves without accents"""
    start: int
    stop: int
    """where it stands in the text"""


def units(text: str) -> list[Unit]:
    found = []
    for match in _RUN.finditer(text):
        run, start = match[0], match.start()
        if re.match(rf"[{HAN}]", run):
            syllables = pinyin(run)
            found += [
                Unit(letter, sound, start + i, start + i + 1)
                for i, (letter, sound) in enumerate(zip(run, syllables, strict=True))
            ]
        else:
            key = re.sub("['’]", "", unicodedata.normalize("NFKC", run).casefold())
            found.append(Unit(key, _unaccented(key), start, match.end()))
    return found


def _unaccented(text: str) -> str:
    return "".join(letter for letter in unicodedata.normalize("NFKD", text) if not unicodedata.combining(letter))


@dataclass(frozen=True)
class Sound:
    """Of several units in a row, without the borders between them: people pause elsewhere than writers do."""

    letters: str
    code: str
    """what is spoken: consonants (metaphone) of Latin words, initials and finals of Chinese syllables"""
    is_chinese: bool
    """all of it"""

    @classmethod
    def of(cls, units: Sequence[Unit]) -> Sound:
        letters, code = "".join(unit.letters for unit in units), "".join(_code(unit) for unit in units)
        return cls(letters, code, all(_is_chinese(unit) for unit in units))

    @property
    def is_silent(self) -> bool:
        return not self.letters


def _is_chinese(unit: Unit) -> bool:
    return unit.letters != unit.key and unit.letters.isascii() and len(unit.key) == 1


def _code(unit: Unit) -> str:
    if _is_chinese(unit):
        return _syllable(unit.letters)
    return _metaphone(unit.letters) if unit.letters.isascii() else unit.letters


@lru_cache(maxsize=2048)
def _syllable(pinyin: str) -> str:
    """Initial and final, a letter each. Many speakers do not tell zh from z, or -ng from -n: here they are the same."""
    initial = re.match("[^aeiouv]*", pinyin)[0]
    final = re.sub("ng$", "n", pinyin[len(initial) :])
    number = 0
    for letter in final:
        number = number * 27 + ord(letter) - ord("a") + 1
    return initial[:1].upper() + chr(0x10000 + number)


@lru_cache(maxsize=65_536)
def _metaphone(word: str) -> str:
    import jellyfish

    return jellyfish.metaphone(word) or word


def likeness(sound: Sound, other: Sound) -> float:
    """0 to 1 for two sounds as wholes."""
    return float(likenesses([sound], [other])[0, 0])


def likenesses(sounds: Sequence[Sound], others: Sequence[Sound]) -> np.ndarray:
    """(n, m) for each sound and each of the others."""
    if not sounds or not others:
        return np.zeros((len(sounds), len(others)))
    letters, code = (
        process.cdist([getattr(s, name) for s in sounds], [getattr(o, name) for o in others], scorer=fuzz.ratio) / 100
        for name in ("letters", "code")
    )
    # Pinyin has so few letters that any two names share half of them.
    are_chinese = np.outer([s.is_chinese for s in sounds], [o.is_chinese for o in others])
    # Spelling and consonants both mislead, in different ways.
    found = np.where(are_chinese, code, np.maximum(letters, (letters + code) / 2))
    are_silent = np.array([s.is_silent for s in sounds])[:, None] | np.array([o.is_silent for o in others])
    return np.where(are_silent, 0.0, found)


def windows(units: Sequence[Unit], most: int) -> list[Sound]:
    """All distinct sounds of 1 to `most` units in a row."""
    sizes = range(1, min(most, len(units)) + 1)
    return list({Sound.of(units[i : i + n]): None for n in sizes for i in range(len(units) - n + 1)})
