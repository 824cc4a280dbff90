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
    """consonants as they are spoken (metaphone), for scripts with Latin letters"""

    @classmethod
    def of(cls, units: Sequence[Unit]) -> Sound:
        return cls("".join(unit.letters for unit in units), "".join(_code(unit) for unit in units))

    @property
    def is_silent(self) -> bool:
        return not self.letters


def _code(unit: Unit) -> str:
    return _metaphone(unit.letters) if unit.letters.isascii() and unit.key == unit.letters else unit.letters


@lru_cache(maxsize=65_536)
def _metaphone(word: str) -> str:
    import jellyfish

    return jellyfish.metaphone(word) or word


def likeness(sound: Sound, other: Sound) -> float:
    """0 to 1 for two sounds as wholes."""
    if sound.is_silent or other.is_silent:
        return 0.0
    return float(_mixed(fuzz.ratio(sound.letters, other.letters), fuzz.ratio(sound.code, other.code)))


def best_likeness(sounds: Sequence[Sound], others: Sequence[Sound]) -> np.ndarray:
    """(n,) for each sound, how much the most alike of the others resembles it."""
    if not sounds or not others:
        return np.zeros(len(sounds))
    letters, code = (
        process.cdist([getattr(s, name) for s in sounds], [getattr(o, name) for o in others], scorer=fuzz.ratio)
        for name in ("letters", "code")
    )  # (n, m) each
    return np.where([s.is_silent for s in sounds], 0.0, _mixed(letters, code).max(1))


def windows(units: Sequence[Unit], most: int) -> list[Sound]:
    """All distinct sounds of 1 to `most` units in a row."""
    sizes = range(1, min(most, len(units)) + 1)
    return list({Sound.of(units[i : i + n]): None for n in sizes for i in range(len(units) - n + 1)})


def _mixed(letters, code):
    """Spelling and consonants both mislead, in different ways."""
    return np.maximum(letters, (letters + code) / 2) / 100
