"""Clips through `Ming.transcribe` -> error rates, named entities with and without their list, dialect tags.

Both sides of every comparison pass through the same `normalize`. The other recogniser is told the language of each
clip; Ming finds it out by itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from ming_omni.evaluate.clips import RARE, SAMPLE_RATE_HZ, Clip
from ming_omni.evaluate.metrics import (
    Errors,
    Share,
    character_errors,
    entity_errors,
    false_insertions,
    word_errors,
    words,
)
from ming_omni.evaluate.score import Score, rate, share

AT_ONCE = 16
"""Recordings that the engine works on side by side."""
OTHER = "whisper-base"
UNLISTED = "whisper-base, no list"
TAGS = {"sichuan": "Chuanyu"}
"""Accents whose dialect is called otherwise; the others differ in their capital only."""
ENGLISH, MANDARIN = (0.08, 0.04), (0.12, 0.06)
"""Floor and goal of the error on synthetic voices."""


@dataclass(frozen=True)
class Heard:
    text: str
    dialect: str | None = None


def hear(ming: Any, clips: Sequence[Clip], lists: Sequence[Sequence[str]] | None = None) -> list[Heard]:
    """What Ming hears, with a list of words for each clip when there is one."""
    lists = lists or [()] * len(clips)

    def one(clip: Clip, listed: Sequence[str]) -> Heard:
        found = ming.transcribe((clip.samples, SAMPLE_RATE_HZ), context=list(listed) or None)
        return Heard(found.text, found.dialect)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(one, clips, lists))


# Recognition


def recognition(heard: Mapping[Clip, str], other: Mapping[Clip, str]) -> list[Score]:
    """other  what the other recogniser heard; a row stands beside it where it has heard all of the row's clips"""
    real = {clip: text for clip, text in heard.items() if clip.source != "synthetic"}
    made = {clip: text for clip, text in heard.items() if clip.source == "synthetic" and not clip.accent}
    english, mandarin = ({c: t for c, t in real.items() if c.language == language} for language in ("en", "zh"))
    found = [
        *_by_kind("English WER, synthetic unseen voices", made, "en", other, ENGLISH),
        _errors("English WER, real speech", english, other, 0.20, OTHER),
    ]
    for source in sorted({clip.source for clip in english}):
        found.append(_errors(f"- {source}", {c: t for c, t in english.items() if c.source == source}, other))
    mixed = {c: t for c, t in made.items() if _group(c) == "mixed"}
    found += [
        *_by_kind("Mandarin CER, synthetic unseen voices", made, "zh", other, MANDARIN),
        _errors("Mandarin CER, real words", mandarin, other, 0.35, 0.18),
        _errors("code-switching, synthetic unseen voices", mixed, other),
    ]
    return [score for score in found if score.count]


def _by_kind(
    ability: str, heard: Mapping[Clip, str], group: str, other: Mapping[Clip, str], bounds: tuple[float, float]
) -> list[Score]:
    """All of a language, all but its rare words, and each kind."""
    heard = {clip: text for clip, text in heard.items() if _group(clip) == group}
    usual = {clip: text for clip, text in heard.items() if clip.kind != RARE[group]}
    kinds = {kind: {c: t for c, t in heard.items() if c.kind == kind} for kind in sorted({c.kind for c in heard})}
    return [
        _errors(ability, heard, other, *bounds),
        _errors(f"{ability}, without rare words", usual, other, *bounds),
        *(_errors(f"- {kind}", chosen, other) for kind, chosen in kinds.items()),
    ]


def _group(clip: Clip) -> str:
    return "mixed" if clip.kind == "code switching" else clip.language


def _errors(
    ability: str,
    heard: Mapping[Clip, str],
    other: Mapping[Clip, str],
    floor: float | None = None,
    goal: float | str | None = None,
) -> Score:
    """goal  a name stands for the rate of the other recogniser"""
    beside = {}
    if heard and all(clip in other for clip in heard):
        beside[OTHER] = rate("", [clip_errors(clip, other[clip]) for clip in heard], None, None).value
    if isinstance(goal, str):
        goal = beside.get(goal)
    return rate(ability, [clip_errors(clip, text) for clip, text in heard.items()], floor, goal, **beside)


def clip_errors(clip: Clip, heard: str) -> Errors:
    """Words in English, characters in Chinese, both where both are spoken."""
    match _group(clip):
        case "en":
            return word_errors(clip.text, heard)
        case "zh":
            return character_errors(clip.text, heard)
        case _:
            return word_errors(clip.text, heard, "zh")


# Named entities


def with_lists(ming: Any, clips: Sequence[Clip]) -> list[tuple[str, str]]:
    """What is heard with the list that holds the name, and with the one that does not."""
    right = [clip.context if clip.entity in clip.context else (*clip.context, clip.entity) for clip in clips]
    wrong = [wrong_list(clip) for clip in clips]
    both = [[heard.text for heard in hear(ming, clips, lists)] for lists in (right, wrong)]
    return list(zip(*both, strict=True))


def wrong_list(clip: Clip) -> tuple[str, ...]:
    return tuple(word for word in clip.context if word != clip.entity)


def entities(
    heard: Mapping[Clip, str], listed: Mapping[Clip, tuple[str, str]], other: Mapping[Clip, str]
) -> list[Score]:
    """heard   without a list
    listed  with the list that holds the name, and with one that does not
    """
    clips = [clip for clip in listed if clip in heard]
    if not clips:
        return []
    base, chance = {}, {}
    if all(clip in other for clip in clips):
        base = {OTHER: rate("", [name_errors(clip, other[clip]) for clip in clips], None, None).value}
        chance = {UNLISTED: rate("", [inserted(clip, other[clip]) for clip in clips], None, None).value}
    without = [name_errors(clip, heard[clip]) for clip in clips]
    plain = rate("named entities: NE-WER without list", without, base.get(OTHER), None, **base)
    right = [name_errors(clip, listed[clip][0]) for clip in clips]
    wrong = [inserted(clip, listed[clip][1]) for clip in clips]
    unlisted = {UNLISTED: base[OTHER]} if base else {}
    return [
        plain,
        rate("named entities: NE-WER with list", right, plain.value / 2, plain.value / 3, **unlisted),
        rate("false insertions from a wrong list", wrong, 0.01, 0.002, **chance),
    ]


def name_errors(clip: Clip, heard: str) -> Errors:
    said, text, name = (words(x, clip.language) for x in (clip.text, heard, clip.entity))
    return entity_errors(said, text, [name])


def inserted(clip: Clip, heard: str) -> Share:
    said, text = (words(x, clip.language) for x in (clip.text, heard))
    return false_insertions(said, text, [words(word, clip.language) for word in wrong_list(clip)])


# Dialects


def dialects(heard: Mapping[Clip, Heard], other: Mapping[Clip, str]) -> list[Score]:
    """Tags and errors of synthetic accents; and how often plain Mandarin is left without a tag."""
    accented = {clip: found for clip, found in heard.items() if clip.accent}
    tags = [found.dialect == TAGS.get(clip.accent, clip.accent.title()) for clip, found in accented.items()]
    plain = [found.dialect is None for clip, found in heard.items() if _is_plain(clip)]
    found = [
        share("dialect tag, synthetic accents", tags, 0.85, 0.97),
        share("- plain Mandarin left untagged, synthetic", plain, None, None),
        _errors("- Mandarin CER in synthetic accents", {c: x.text for c, x in accented.items()}, other),
    ]
    return [score for score in found if score.count]


def _is_plain(clip: Clip) -> bool:
    return clip.source == "synthetic" and clip.kind in ("mandarin", RARE["zh"])


def speech_scores(
    heard: Mapping[Clip, Heard], listed: Mapping[Clip, tuple[str, str]], other: Mapping[Clip, str]
) -> list[Score]:
    """Every row that these clips allow; `listed` as in `entities`, `other` as in `recognition`."""
    texts = {clip: found.text for clip, found in heard.items()}
    return [*recognition(texts, other), *entities(texts, listed, other), *dialects(heard, other)]
