"""A folder of data -> labelled clips that no training has heard: synthetic voices of the test, and real recordings."""

from __future__ import annotations

import io
import json
import re
from collections import Counter
from collections.abc import Container, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ming_omni.data.recordings import SAMPLE_RATE_HZ, read_manifest, read_recordings
from ming_omni.data.sentences import bare
from ming_omni.data.shards import read_shard
from ming_omni.data.splits import SPLITS, fraction
from ming_omni.errors import InputError

__all__ = ["SAMPLE_RATE_HZ", "Clip", "real_clips", "synthetic_clips"]


@dataclass(frozen=True, eq=False)
class Clip:
    name: str
    source: str
    """`synthetic`, or the folder of the recordings"""
    kind: str
    """as the sentences' makers call it, or one of RARE; of recordings `english` or `mandarin`"""
    samples: np.ndarray
    """(n,) at 16 kHz"""
    text: str
    context: tuple[str, ...] = ()
    entity: str = ""
    """the name that is said"""
    accent: str = ""

    @property
    def language(self) -> str:
        return "en" if self.text.isascii() else "zh"


PARTS = {
    "everyday": 2, "question": 1, "number": 0.5, "name": 1, "mandarin": 2, "mandarin number": 0.5,
    "mandarin name": 0.75, "code switching": 0.5, "accented": 1,
}  # fmt: skip
"""Clips of each kind, in limits: about as often as the plan has them, but enough numbers and names to judge."""
RARE = {"en": "rare words", "zh": "mandarin rare words"}
"""What plain sentences are called whose words few people say."""
_LIST = re.compile(r"(?:[\u4e00-\u9fff]{2,4}[，。]){3,5}")


def synthetic_clips(data: Path, limit: int, common: Container[str] | None = None) -> list[Clip]:
    """The first of each kind that belong to the test, from all shards in folders of `data` that hold such speech.

    common   English words that are not rare; None: all are common
    returns  none whose text stands in a `data/*/held-leaks.json`: training may have a sentence that differs from it
             by a name alone
    """
    leaks = {text for path in sorted(data.glob("*/held-leaks.json")) for text in json.loads(path.read_text())}
    left = {kind: round(limit * part) for kind, part in PARTS.items()}
    found = []
    for shard in sorted(data.glob("*/shard-*.tar")):
        if not any(left.values()):
            break
        for number, files in read_shard(shard):
            about = json.loads(files.pop("json"))
            is_test = isinstance(about, dict) and "accent" in about and about["split"] == "test"
            if is_test and left.get(about["kind"], 0) and about["text"] not in leaks:
                left[about["kind"]] -= 1
                kind = kind_of(about["kind"], about["text"], common)
                told = about["text"], tuple(about["context"]), about["name"], about["accent"]
                found.append(Clip(f"{shard.parent.name}/{number}", "synthetic", kind, _decoded(*files.values()), *told))
    if not found:
        raise InputError(f"{data} holds no test speech; make some: ming data speech {data}/speech-test --split test")
    return found


def kind_of(kind: str, text: str, common: Container[str] | None) -> str:
    """As the plan calls it, unless one of an English sentence's words is rare, or a Mandarin one is a list of words.

    The plan draws such lists evenly from a dictionary of 100,000 words.
    """
    if kind in ("everyday", "question") and common is not None and any(w not in common for w in bare(text).split()):
        return RARE["en"]
    return RARE["zh"] if kind == "mandarin" and _LIST.fullmatch(text) else kind


def _decoded(sound: bytes) -> np.ndarray:
    import soundfile

    samples, rate = soundfile.read(io.BytesIO(sound), dtype="float32")
    assert rate == SAMPLE_RATE_HZ, f"clips are stored at {SAMPLE_RATE_HZ} Hz, not {rate}"
    return samples


def real_clips(data: Path, limit: int) -> list[Clip]:
    """At most `limit` of each archive, chosen by the hash of their names.

    data/real      folders of recordings, split as data/recordings.py says
    data/held-out  folders that training leaves alone altogether
    """
    folders = [(path.parent, ("test",)) for path in sorted(data.glob("real/*/manifest.jsonl"))]
    folders += [(path.parent, SPLITS) for path in sorted(data.glob("held-out/*/manifest.jsonl"))]
    return [clip for folder, splits in folders for clip in _recordings(folder, splits, limit)]


def _recordings(folder: Path, splits: tuple[str, ...], limit: int) -> Iterator[Clip]:
    """A syllable with its tone (`ma1`) is no word, and left out."""
    rows = [row for row in read_manifest(folder) if row.split in splits and not row.label[-1:].isdigit()]
    wanted, taken = set(), Counter()
    for row in sorted(rows, key=lambda row: fraction(f"{row.tar} {row.file}")):
        if taken[row.tar] < limit:
            taken[row.tar] += 1
            wanted.add((row.tar, row.file))
    for split in splits:
        for row, samples in read_recordings(folder, split):
            if (row.tar, row.file) in wanted:
                kind = "english" if row.label.isascii() else "mandarin"
                yield Clip(f"{row.tar}/{row.file}", row.tar.removesuffix(".tar"), kind, samples, row.label)
