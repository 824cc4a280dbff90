r"""A plan of speech -> a script: who says what, the same speaker several times, each sentence ready to be read.

    python -m ming_omni.train.talker.script plan.jsonl --words words.tsv.xz --voices voices.safetensors \
        --output script.xz

The plan's sentences stay, with their phonemes for the teacher; its voices are cast anew. A machine that trains needs
nothing else: no front end, no dictionary. Accented lines are left out, since the talker reads standard pinyin.
"""

from __future__ import annotations

import argparse
import json
import lzma
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from ming_omni.data.scenes import pick
from ming_omni.data.speech import Clip, read_plan, voice_split
from ming_omni.data.splits import generator
from ming_omni.speech.reading import Reader, read_words

CLIPS_PER_SPEAKER = 6
SPEEDS = (0.85, 1.2)
"""A speaker's own pace, kept in all they say: the talker takes it over from the prompt."""
CROSSING = 0.15
"""Share of speakers who say half of their sentences in the other language."""
CLASSES = {"a": "american", "b": "british", "z": "mandarin"}
"""By a voice's first letter. Phonemes were made for one of them, and only its voices may say them."""


@dataclass(frozen=True)
class Line:
    """One sentence by one speaker."""

    text: str
    language: str
    phonemes: str
    voices: dict[str, float]
    speed: float
    speaker: int
    split: str
    sounds: list[list[int]]
    """Ids of each unit, see `speech.reading`."""
    letters: list[list[int] | None]
    """Of English words, read by their letters."""


@dataclass
class Role:
    """A speaker and what they say."""

    split: str
    kind: str
    """american, british or mandarin"""
    voices: dict[str, float]
    speed: float
    clips: list[Clip]


def cast(numbers: np.random.Generator, own: Sequence[str], others: Sequence[str]) -> dict[str, float]:
    """A person: one voice, a mixture of some, or one that differs from another more than it really does.

    own     voices that speak the language; others only colour
    """
    kind = numbers.random()
    first = pick(numbers, own)
    rest = [name for name in own if name != first]
    if kind < 0.15 or not rest:
        return {first: 1.0}
    if kind < 0.35 and others:
        share = round(float(numbers.uniform(0.1, 0.35)), 2)
        return {first: round(1 - share, 2), pick(numbers, others): share}
    if kind < 0.45:
        away = round(float(numbers.uniform(0.05, 0.15)), 2)  # further away, words begin to suffer
        return {first: round(1 + away, 2), pick(numbers, rest): -away}
    count = min(len(own), int(numbers.integers(2, 5)))
    names = [first, *numbers.permutation(rest)[: count - 1].tolist()]
    shares = numbers.dirichlet([1.0] * count).round(2)
    return {name: float(share) for name, share in zip(names, shares, strict=True) if share > 0}


def script(clips: Iterable[Clip], reader: Reader, names: Sequence[str], each: int, seed: int) -> Iterator[Line]:
    """Lines of speakers who say up to `each` sentences, all of one speaker one after another."""
    groups: dict[tuple[str, str], list[Clip]] = {}
    for clip in clips:
        first = next(iter(clip.voices))
        if not clip.accent and first[0] in CLASSES:
            groups.setdefault((clip.split, CLASSES[first[0]]), []).append(clip)
    casting: list[Role] = []
    for (split, kind), members in groups.items():
        mine = [name for name in names if voice_split(name) == split and name[0] in CLASSES]
        own = [name for name in mine if CLASSES[name[0]] == kind]
        order = generator(seed, f"{split} {kind} order", 0).permutation(len(members))
        for start in range(0, len(members), each):
            numbers = generator(seed, f"{split} {kind} speaker", start)
            voices = cast(numbers, own, [name for name in mine if name not in own])
            speed = round(float(numbers.uniform(*SPEEDS)), 2)
            casting.append(Role(split, kind, voices, speed, [members[i] for i in order[start : start + each]]))
    for split in {role.split for role in casting}:
        cross([role for role in casting if role.split == split])
    # Any part of the script holds all kinds of speakers; what is only looked at comes first.
    casting = [casting[i] for i in generator(seed, "speakers", 0).permutation(len(casting))]
    casting.sort(key=lambda role: role.split == "train")
    for number, role in enumerate(casting):
        for clip in role.clips:
            # As `Speaker` does, so that every sentence has an end that can be seen.
            units = reader.units(clip.spoken + "." * clip.spoken[-1].isalnum())
            sounds = [reader.ids(unit.symbols) for unit in units]
            letters = [None if unit.letters is None else reader.ids(unit.letters) for unit in units]
            yield Line(
                clip.spoken, clip.language, clip.phonemes, role.voices, role.speed, number, role.split, sounds, letters
            )  # fmt: skip


def cross(roles: list[Role]) -> None:
    """Some speakers say the second half of their sentences in the other language, so that any voice can speak both."""
    mandarin, american = ([role for role in roles if role.kind == kind] for kind in ("mandarin", "american"))
    count = round(CROSSING * min(len(mandarin), len(american)))
    for one, other in zip(mandarin[:count], american[:count], strict=True):
        half = min(len(one.clips), len(other.clips)) // 2
        one.clips[half:], other.clips[half:] = other.clips[half:], one.clips[half:]


def write_script(path: Path, lines: Iterable[Line]) -> None:
    with lzma.open(path, "wt", preset=6) as file:
        for line in lines:
            file.write(json.dumps(asdict(line), ensure_ascii=False) + "\n")


def read_script(path: Path) -> list[Line]:
    with lzma.open(path, "rt") as file:
        return [Line(**json.loads(row)) for row in file]


def main(arguments: list[str] | None = None) -> None:
    from safetensors import safe_open

    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("plan", type=Path)
    parser.add_argument("--words", type=Path, required=True, help="what `ming data words` made")
    parser.add_argument("--voices", type=Path, required=True, help="the teacher's voices.safetensors")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--clips-per-speaker", type=int, default=CLIPS_PER_SPEAKER)
    parser.add_argument("--splits", nargs="+", default=["train", "dev"])
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    with safe_open(given.voices, "pt") as file:
        names = sorted(file.keys())
    clips = [clip for clip in read_plan(given.plan) if clip.split in given.splits]
    lines = list(script(clips, Reader(read_words(given.words)), names, given.clips_per_speaker, given.seed))
    write_script(given.output, lines)
    print(json.dumps({"lines": len(lines), "speakers": lines[-1].speaker + 1, "splits": given.splits}))


if __name__ == "__main__":
    main()
