"""What a transcription returns: text, language, times, and which context words were doubted."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from ming_omni.evaluate.normalize import HAN

_UNSPACED = re.compile(rf"[{HAN}\u3000-\u30ff\uff00-\uffef]")
"""Scripts that put no space between words, and their marks."""


@dataclass(frozen=True)
class Leak:
    """A word of the context that stood in the answer without sounding like what was said there."""

    word: str
    verdict: Literal["removed", "flagged"]
    """flagged: it sounds a little like it, and was left where it stood"""
    instead: str
    """what the model hears at this place when it does not know the context"""


@dataclass(frozen=True)
class Segment:
    start: float
    """seconds"""
    end: float
    text: str
    language: str | None = None
    dialect: str | None = None
    confidence: float | None = None
    """probability of the word that names the language or dialect; None: the model named none"""
    speech: float = 1.0
    """probability that somebody speaks, on average"""
    logprob: float | None = None
    """of the answer, on average over its tokens"""
    is_cut: bool = False
    """the answer did not end by itself, but was longer than anybody can speak in this time"""
    leaks: tuple[Leak, ...] = ()


@dataclass(frozen=True)
class Transcript:
    text: str
    segments: tuple[Segment, ...]
    seconds: float
    """how long the sound is"""
    language: str | None = None
    """of most of the speech"""
    dialect: str | None = None
    confidence: float | None = None
    """mean over the segments in this language and dialect, by their length"""

    @classmethod
    def of(cls, segments: Sequence[Segment], seconds: float) -> Transcript:
        spoken: dict[tuple[str | None, str | None], float] = defaultdict(float)
        for segment in segments:
            spoken[segment.language, segment.dialect] += segment.end - segment.start
        language, dialect = max(spoken, key=spoken.__getitem__, default=(None, None))
        confidence = None
        if language is not None:
            same = [s for s in segments if (s.language, s.dialect) == (language, dialect) and s.confidence is not None]
            lengths = sum(s.end - s.start for s in same)
            if lengths:
                confidence = sum(s.confidence * (s.end - s.start) for s in same) / lengths
        text = joined(segment.text for segment in segments)
        return cls(text, tuple(segments), seconds, language, dialect, confidence)

    @property
    def leaks(self) -> tuple[Leak, ...]:
        return tuple(leak for segment in self.segments for leak in segment.leaks)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def joined(texts: Iterable[str]) -> str:
    """Texts one after another, with a space where their scripts have one."""
    whole = ""
    for text in filter(None, texts):
        whole += gap(whole, text) + text
    return whole


def gap(before: str, after: str) -> str:
    if not before or not after or before[-1].isspace() or after[0].isspace():
        return ""
    return "" if _UNSPACED.match(before[-1]) or _UNSPACED.match(after[0]) else " "
