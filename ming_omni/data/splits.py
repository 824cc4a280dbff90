"""A unit of material (a sprite, a font, a word, a speaker, a sentence) -> train, dev or test, for ever the same.

The unit decides, never the example: whatever is made of it later lands on one side.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np

SPLITS = ("train", "dev", "test")
DEV, TEST = 0.05, 0.10
"""Parts of all units that training never sees."""


def fraction(unit: str) -> float:
    """A number in [0, 1) that depends on nothing but the name."""
    return int.from_bytes(hashlib.blake2s(unit.encode(), digest_size=6).digest(), "big") / 2**48


def split_of(kind: str, unit: str) -> str:
    """`split_of("word", "HELLO")`; the kind keeps a word and a sprite of the same name independent."""
    place = fraction(f"{kind}:{unit}")
    return "test" if place < TEST else "dev" if place < TEST + DEV else "train"


def generator(*parts: int | str) -> np.random.Generator:
    """Random numbers for one example, named by its seed, kind and index: no example depends on its neighbours."""
    words = [part if isinstance(part, int) else int(fraction(part) * 2**48) for part in parts]
    return np.random.default_rng(words)


def leaks(train: Iterable[str], held_out: Iterable[str]) -> set[str]:
    """Units that occur on both sides; empty, or the scores are worth nothing."""
    return set(train) & set(held_out)
