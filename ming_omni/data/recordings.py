"""A folder of real recordings with a manifest -> labelled clips at 16 kHz; an optional extra that nothing depends on.

`manifest.jsonl` has a line for each clip: the tar it is in, its file there, and what is said. The folder's README.md
names the licences. Where a file names its speaker (`0_george_1.wav`), speakers are split; the other sets have one or
two speakers each, too few to hold any out, so that there the labels are split.
"""

from __future__ import annotations

import io
import json
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ming_omni.data.splits import split_of
from ming_omni.errors import InputError

SAMPLE_RATE_HZ = 16_000
SPEAKER = re.compile(r"\d+_([a-z]+)_\d+\.wav")


@dataclass(frozen=True)
class Recording:
    tar: str
    file: str
    label: str

    @property
    def split(self) -> str:
        speaker = SPEAKER.fullmatch(Path(self.file).name)
        return split_of("speaker", speaker[1]) if speaker else split_of("recording", f"{self.tar}:{self.label}")


def read_manifest(folder: Path) -> list[Recording]:
    path = Path(folder) / "manifest.jsonl"
    if not path.exists():
        raise InputError(f"{folder} holds no manifest.jsonl; recordings are an optional extra, leave the option out")
    rows = [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
    return [Recording(row["tar"], row["file"], str(row["label"])) for row in rows]


def read_recordings(folder: Path, split: str = "train") -> Iterator[tuple[Recording, np.ndarray]]:
    """Clips of that split, tar by tar, each read once from front to back."""
    import soundfile
    import soxr

    wanted = {(r.tar, r.file): r for r in read_manifest(folder) if r.split == split}
    for name in dict.fromkeys(name for name, _ in wanted):
        with tarfile.open(Path(folder) / name) as tar:
            for entry in tar:
                recording = wanted.get((name, entry.name.removeprefix("./")))
                if recording is None:
                    continue
                samples, rate = soundfile.read(
                    io.BytesIO(tar.extractfile(entry).read()), dtype="float32", always_2d=True
                )
                yield recording, soxr.resample(samples.mean(1), rate, SAMPLE_RATE_HZ)
