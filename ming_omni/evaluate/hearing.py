"""Clips through `Ming.transcribe` -> error rates, named entities with and without their list, dialect tags.

Both sides of every comparison pass through the same `normalize`. The other recogniser is told the language of each
clip; Ming finds it out by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ming_omni.evaluate.clips import SAMPLE_RATE_HZ, Clip
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
Judge = Callable[[Sequence[Clip]], list[str]]
"""Another recogniser: clips -> what it heard."""
OTHER = "whisper-base"
TAGS = {"sichuan": "Chuanyu"}
"""Accents whose dialect is called otherwise; the others differ in their capital only."""


def transcripts(ming: Any, clips: Sequence[Clip], lists: Sequence[Sequence[str]] | None = None) -> list[Any]:
    """What Ming hears, with a list of words for each clip when there is one."""
    lists = lists or [()] * len(clips)

    def hear(clip: Clip, listed: Sequence[str]) -> Any:
        return ming.transcribe((clip.samples, SAMPLE_RATE_HZ), context=list(listed) or None)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(hear, clips, lists))


def speech_scores(ming: Any, clips: Sequence[Clip], kinds: Iterable[str], judge: Judge | None = None) -> list[Score]:
    """kinds  which of `speech`, `entities`, `dialect` to measure; a clip is heard once for all of them"""
    kinds = set(kinds)
    clips = [clip for clip in clips if kinds & _uses(clip)]
    with ThreadPoolExecutor(1) as aside:
        compared = [clip for clip in clips if not clip.accent]
        judging = aside.submit(judge, compared) if judge else None
        heard = dict(zip(clips, transcripts(ming, clips), strict=True))
        found = []
        if "dialect" in kinds:
            found += dialect(heard)
        texts = {clip: transcript.text for clip, transcript in heard.items()}
        listed = with_lists(ming, [clip for clip in clips if clip.entity]) if "entities" in kinds else None
        other = dict(zip(compared, judging.result(), strict=True)) if judging else {}
    if listed is not None:
        found = entities(texts, *listed, other) + found
    if "speech" in kinds:
        found = recognition(texts, other) + found
    return found


def _uses(clip: Clip) -> set[str]:
    uses = {"entities"} if clip.entity else set()
    uses |= {"dialect"} if clip.accent or (clip.source == "synthetic" and clip.kind == "mandarin") else set()
    return uses if clip.accent else uses | {"speech"}


# Recognition


def recognition(heard: dict[Clip, str], other: dict[Clip, str]) -> list[Score]:
    found = [
        _errors("English WER, synthetic unseen voices", _select(heard, "synthetic", "en"), other, 0.08, 0.04),
        _errors("English WER, real speech", _select(heard, "real", "en"), other, 0.20, OTHER),
    ]
    for source in sorted({clip.source for clip in _select(heard, "real", "en")}):
        chosen = {clip: text for clip, text in _select(heard, "real", "en").items() if clip.source == source}
        found.append(_errors(f"- {source}", chosen, other))
    found += [
        _errors("Mandarin CER, synthetic unseen voices", _select(heard, "synthetic", "zh"), other, 0.12, 0.06),
        _errors("Mandarin CER, real words", _select(heard, "real", "zh"), other, 0.35, 0.18),
        _errors("code-switching, synthetic unseen voices", _select(heard, "synthetic", "mixed"), other),
    ]
    return [score for score in found if score.count]


def _select(heard: dict[Clip, str], source: str, group: str) -> dict[Clip, str]:
    return {
        clip: text
        for clip, text in heard.items()
        if (clip.source == "synthetic") == (source == "synthetic") and _group(clip) == group
    }


def _group(clip: Clip) -> str:
    if clip.accent:
        return "accented"
    return "mixed" if clip.kind == "code switching" else clip.language


def _errors(
    ability: str,
    heard: dict[Clip, str],
    other: dict[Clip, str],
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


def with_lists(ming: Any, clips: Sequence[Clip]) -> tuple[list[str], list[str]]:
    """What is heard with the list that holds the name, and with the one that does not."""
    right = [clip.context if clip.entity in clip.context else (*clip.context, clip.entity) for clip in clips]
    wrong = [wrong_list(clip) for clip in clips]
    return tuple([t.text for t in transcripts(ming, clips, lists)] for lists in (right, wrong))


def wrong_list(clip: Clip) -> tuple[str, ...]:
    return tuple(word for word in clip.context if word != clip.entity)


def entities(heard: dict[Clip, str], right: Sequence[str], wrong: Sequence[str], other: dict[Clip, str]) -> list[Score]:
    """heard without a list; right and wrong: with the list that holds the name, and with one that does not."""
    clips = [clip for clip in heard if clip.entity]
    without = [name_errors(clip, heard[clip]) for clip in clips]
    beside = {}
    if clips and all(clip in other for clip in clips):
        beside[OTHER] = rate("", [name_errors(clip, other[clip]) for clip in clips], None, None).value
    plain = rate("named entities: NE-WER without list", without, beside.get(OTHER), None, **beside)
    found = [
        plain,
        rate(
            "named entities: NE-WER with list",
            [name_errors(clip, text) for clip, text in zip(clips, right, strict=True)],
            plain.value / 2,
            plain.value / 3,
        ),
        rate(
            "false insertions from a wrong list",
            [inserted(clip, text) for clip, text in zip(clips, wrong, strict=True)],
            0.01,
            0.002,
        ),
    ]
    return found if clips else []


def name_errors(clip: Clip, heard: str) -> Errors:
    said, text, name = (words(x, clip.language) for x in (clip.text, heard, clip.entity))
    return entity_errors(said, text, [name])


def inserted(clip: Clip, heard: str) -> Share:
    said, text = (words(x, clip.language) for x in (clip.text, heard))
    return false_insertions(said, text, [words(word, clip.language) for word in wrong_list(clip)])


# Dialects


def dialect(heard: dict[Clip, Any]) -> list[Score]:
    """Tags of synthetic accents; and how often plain Mandarin is left without one."""
    accented = [t.dialect == TAGS.get(c.accent, c.accent.title()) for c, t in heard.items() if c.accent]
    plain = [
        t.dialect is None for c, t in heard.items() if not c.accent and c.source == "synthetic" and c.kind == "mandarin"
    ]
    found = [
        share("dialect tag, synthetic accents", accented, 0.85, 0.97),
        share("- plain Mandarin left untagged, synthetic", plain, None, None),
    ]
    return [score for score in found if score.count]
