"""Sentences and voices -> a plan of speech, a line for each clip, by the front ends.

The plan travels to a machine with a GPU and no network, where `speaking` makes it sound without them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from ming_omni.data.accents import BY_NAME, dialect_readings
from ming_omni.data.phonemes import Espeak, mandarin, phonemes, readings
from ming_omni.data.scenes import pick
from ming_omni.data.sentences import Sayings, sayings
from ming_omni.data.splits import generator
from ming_omni.data.utterances import Utterance, pick_kind, utterance
from ming_omni.speech.normalize import spoken

TEST_VOICES = {"af_nova", "am_puck", "bf_lily", "bm_lewis", "zf_xiaoyi", "zm_yunxia"}
DEV_VOICES = {"af_sky", "am_liam", "bf_alice", "zf_xiaoni"}
SPEEDS = (0.8, 1.25)
HELD_OUT = {"test": 1 / 15, "dev": 1 / 30}
"""Clips of a whole set's other splits for each clip of training."""
PLANNED_AT_ONCE = 2048


@dataclass(frozen=True)
class Clip:
    """One line of a plan: everything about a clip but its sound."""

    text: str  # as a transcript writes it
    spoken: str  # as the voice says it
    phonemes: str
    voices: dict[str, float]
    speed: float
    language: str
    kind: str
    context: list[str]
    name: str
    accent: str
    split: str = "train"

    @property
    def speaker(self) -> str:
        return "+".join(f"{name}*{weight}" for name, weight in self.voices.items())


def voice_split(name: str) -> str:
    return "test" if name in TEST_VOICES else "dev" if name in DEV_VOICES else "train"


def voices_of(names: Sequence[str], split: str, is_chinese: bool) -> list[str]:
    """English voices start with a or b, Mandarin ones with z."""
    return [name for name in names if name[0] in ("z" if is_chinese else "ab") and voice_split(name) == split]


def mixture(numbers: np.random.Generator, names: Sequence[str], strangers: Sequence[str] = ()) -> dict[str, float]:
    """One voice, or two in a proportion that makes a third person; a stranger (of another language) colours at most."""
    first = pick(numbers, names)
    kind = numbers.random()
    if strangers and kind < 0.3:
        share = round(float(numbers.integers(2, 8)) * 0.05, 2)
        return {first: round(1 - share, 2), pick(numbers, strangers): share}
    if len(names) == 1 or kind < 0.6:
        return {first: 1.0}
    second = pick(numbers, [name for name in names if name != first])
    share = round(float(numbers.integers(4, 17)) * 0.05, 2)
    return {first: share, second: round(1 - share, 2)}


def plan(
    voices: Sequence[str], espeak: Espeak, split: str, seed: int, indexes: Sequence[int], sayings: Sayings
) -> list[Clip]:
    """Clips for these indexes; each is the same whatever others are planned with it."""
    drafts = []
    for index in indexes:
        numbers = generator(seed, f"{split} speech", index)
        said = utterance(pick_kind(numbers), split, seed, index, sayings)
        is_chinese = said.language != "en"
        own = voices_of(voices, split, is_chinese)
        strangers = [name for name in voices if voice_split(name) == split and name not in own]
        mixed = mixture(numbers, own, strangers)
        drafts.append((said, spoken(said.text, is_chinese), mixed, round(float(numbers.uniform(*SPEEDS)), 2)))
    sounds = pronounce([(said, text, next(iter(mixed))) for said, text, mixed, _ in drafts], espeak)
    return [
        Clip(
            said.text,
            text,
            sound,
            mixed,
            speed,
            said.language,
            said.kind,
            list(said.context),
            said.name,
            said.accent,
            split,
        )
        for (said, text, mixed, speed), sound in zip(drafts, sounds, strict=True)
    ]


def plan_set(voices: Sequence[str], split: str, seed: int, count: int, cache_folder: Path | None = None) -> list[Clip]:
    """A plan of one split; of all three, the held-out ones first, so that a part of the set is worth something."""
    counts = {split: count}
    if split == "all":
        counts = {name: round(count * part) for name, part in HELD_OUT.items()} | {"train": count}
    espeak, clips = Espeak(cache_folder), []
    for name, number in counts.items():
        texts = sayings(name, cache_folder)
        for start in range(0, number, PLANNED_AT_ONCE):
            indexes = range(start, min(number, start + PLANNED_AT_ONCE))
            clips += plan(voices, espeak, name, seed, indexes, texts)
    return clips


def pronounce(drafts: Sequence[tuple[Utterance, str, str]], espeak: Espeak) -> list[str]:
    """(utterance, its spoken text, a voice) -> phonemes: British voices speak British, accents their accent."""
    found: list[str] = [""] * len(drafts)
    for accent in ("en-us", "en-gb"):
        rows = [
            i
            for i, (said, _, voice) in enumerate(drafts)
            if not said.accent and (voice[0] == "b") == (accent == "en-gb")
        ]
        for i, sound in zip(rows, phonemes([drafts[i][1] for i in rows], espeak, accent), strict=True):
            found[i] = sound
    for i, (said, text, _) in enumerate(drafts):
        if said.accent:
            found[i] = accented_phonemes(text, said.accent)
    return found


def accented_phonemes(text: str, accent: str) -> str:
    """Chinese only: readings, bent as the accent bends them; marks stay."""
    from ming_omni.data.phonemes import CHINESE, MARKS

    def say(match) -> str:
        return mandarin(dialect_readings(readings(match[0]), BY_NAME[accent]))

    return CHINESE.sub(say, text.translate(MARKS))


def write_plan(path: Path, clips: Sequence[Clip]) -> None:
    lines = [json.dumps(asdict(clip), ensure_ascii=False) for clip in clips]
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text("\n".join(lines) + "\n")
    part.replace(path)


def read_plan(path: Path) -> list[Clip]:
    return [Clip(**json.loads(line)) for line in path.read_text().splitlines()]
