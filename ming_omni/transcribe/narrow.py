"""Long lists of words, and a first answer without them -> the few that the sound may hold."""

from __future__ import annotations

from collections.abc import Sequence

from ming_omni.transcribe.sounds import Sound, likenesses, units, windows

MOST_WORDS = 40
"""A shorter list goes into the prompt as it is; the published examples have fewer than ten."""
PLAUSIBLE = 0.7
"""Likeness from which on a word may have been misheard. Of 1,000 words about five are kept, and the right one is among
them 95 times of 100; at 0.55 it is 99 times, among forty (benchmarks/transcribe.py)."""


class Lexicon:
    """A list of words whose sounds are computed once, for all segments of a recording."""

    def __init__(self, words: Sequence[str], most: int = MOST_WORDS):
        self.words, self.most = tuple(words), most
        if len(self.words) > most:
            spelled = [units(word) for word in self.words]
            self._sounds = [Sound.of(word) for word in spelled]
            self._longest = max(map(len, spelled))

    def plausible(self, answer: str) -> tuple[str, ...]:
        """The words that sound like some passage of the answer, the most alike if there are too many, in list order."""
        if len(self.words) <= self.most:
            return self.words
        # A name is often written as more words than it has: `cooper netties`.
        passages = windows(units(answer), min(self._longest, 6) + 2)
        likeness = likenesses(self._sounds, passages).max(1, initial=0.0)
        order = sorted(range(len(self.words)), key=lambda i: (-likeness[i], -len(self._sounds[i].letters), i))
        kept = [i for i in order[: self.most] if likeness[i] >= PLAUSIBLE]
        return tuple(self.words[i] for i in sorted(kept))
