"""Mandarin readings -> the same in a synthetic accent of the Mandarin family; never to be called a recording of one.

Tones are mapped to the standard tone whose contour is nearest, sounds are merged as those speakers merge them, and
a few words are the dialect's own. The tables are coarse by design: they teach a tag and robustness, not a dialect.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Accent:
    name: str  # as the dialect tag says it
    chinese: str
    tones: dict[str, str]
    initials: dict[str, str] = field(default_factory=dict)
    finals: dict[str, str] = field(default_factory=dict)
    words: dict[str, str] = field(default_factory=dict)


# Contours (level, rising, dipping, falling) from the usual descriptions of each city's citation tones.
ACCENTS = (
    Accent(
        "sichuan", "四川话", {"2": "4", "3": "1", "4": "2", "1": "1"},
        {"zh": "z", "ch": "c", "sh": "s", "n": "l"}, {"eng": "en", "ing": "in"},
        {"什么": "啥子", "没有": "莫得", "知道": "晓得", "聊天": "摆龙门阵", "怎么": "咋个", "孩子": "娃儿"},
    ),
    Accent(
        "dongbei", "东北话", {"1": "1", "2": "2", "3": "3", "4": "4"},
        {"z": "zh", "c": "ch", "s": "sh", "r": "y"}, {"o": "e"},
        {"什么": "啥", "非常": "老", "怎么": "咋", "聊天": "唠嗑", "地方": "嘎达", "很": "贼", "我们": "俺们"},
    ),
    Accent(
        "henan", "河南话", {"1": "2", "2": "4", "3": "1", "4": "3"},
        {}, {}, {"好的": "中", "可以吗": "中不中", "什么": "啥", "怎么": "咋", "我": "俺", "没有": "冇"},
    ),
    Accent(
        "shandong", "山东话", {"1": "3", "2": "4", "3": "1", "4": "2"},
        {"r": "l"}, {}, {"我": "俺", "什么": "么", "怎么": "咋"},
    ),
    Accent(
        "shaanxi", "陕西话", {"1": "4", "2": "2", "3": "4", "4": "1"},
        {}, {"en": "ei"}, {"我": "额", "什么": "啥", "很好": "嘹得很", "怎么": "咋", "没有": "么", "吃饭": "咥饭"},
    ),
    Accent(
        "tianjin", "天津话", {"1": "3", "2": "2", "3": "3", "4": "4"},
        {"zh": "z", "ch": "c", "sh": "s"}, {}, {"什么": "嘛", "怎么": "咋"},
    ),
)  # fmt: skip
BY_NAME = {accent.name: accent for accent in ACCENTS}


def dialect_text(text: str, accent: Accent) -> str:
    """The sentence with the dialect's own words."""
    pattern = "|".join(map(re.escape, sorted(accent.words, key=len, reverse=True)))
    return re.sub(pattern, lambda match: accent.words[match[0]], text) if pattern else text


def dialect_readings(syllables: Sequence[str], accent: Accent) -> list[str]:
    """["zhong1", ...] -> the same, as said there."""
    from ming_omni.data.phonemes import split_syllable

    found = []
    for syllable in syllables:
        initial, final, tone = split_syllable(syllable)
        plain = syllable.rstrip("12345")
        if initial in accent.initials:
            plain = accent.initials[initial] + plain[len(initial) :]
        if final in accent.finals and plain.endswith(final):
            plain = plain.removesuffix(final) + accent.finals[final]
        found.append(plain + accent.tones.get(tone, tone))
    return found


def num_changes(text: str, accent: Accent) -> int:
    """Syllables of a Mandarin sentence that are said otherwise there; with none, nobody could tell the accent."""
    from ming_omni.data.phonemes import CHINESE, readings

    pieces = [readings(piece) for piece in CHINESE.findall(text)]
    return sum(
        plain != bent
        for syllables in pieces
        for plain, bent in zip(syllables, dialect_readings(syllables, accent), strict=True)
    )
