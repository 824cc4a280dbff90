"""English sentences -> shards of speech by flite and espeak-ng: other accents, coarser voices, for recognition alone.

No talker may learn from these; `purpose` in each label says so. Voices belong to one split each, as the teacher's do.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np

from ming_omni.data import packages
from ming_omni.data.phonemes import Espeak
from ming_omni.data.scenes import pick
from ming_omni.data.sentences import Sayings, sayings
from ming_omni.data.shards import Sample, as_json
from ming_omni.data.speaking import CLIPS_PER_SHARD, encode
from ming_omni.data.splits import generator
from ming_omni.data.utterances import SHARES, utterance
from ming_omni.errors import InputError
from ming_omni.speech.normalize import spoken

VOICES = {
    "train": (
        "flite/slt", "flite/kal16", "espeak/en-us", "espeak/en-gb", "espeak/en-gb-x-rp", "espeak/en-029",
        "espeak/en-gb-x-gbclan",
    ),
    "dev": ("flite/awb", "espeak/en-gb-x-gbcwmd"),
    "test": ("flite/rms", "espeak/en-gb-scotland"),
}  # fmt: skip
"""Engine and voice; awb is Scottish, en-029 Caribbean, gbclan Lancashire, gbcwmd the West Midlands."""
KINDS = ("everyday", "question", "number", "name")
SPEEDS = (0.85, 1.2)
ESPEAK_WORDS_A_MINUTE = 165


class Flite:
    """The program, wherever it is."""

    def __init__(self, cache_folder: Path | None = None):
        self.program, self.environment = shutil.which("flite"), dict(os.environ)
        if self.program:
            return
        folders = [packages.fetch(package, cache_folder) for package in packages.FLITE]
        self.program = next((str(path) for folder in folders for path in folder.glob("usr/bin/flite")), None)
        libraries = {str(path.parent) for folder in folders for path in folder.glob("usr/lib/*/lib*.so.*")}
        if self.program is None:
            raise InputError("flite is missing; install it with the system's package manager")
        self.environment |= {"LD_LIBRARY_PATH": ":".join(sorted(libraries))}


def say(text: str, voice: str, speed: float, flite: Flite, espeak: Espeak) -> tuple[np.ndarray, int]:
    """Samples (n) and their rate."""
    import soundfile

    engine, _, name = voice.partition("/")
    with tempfile.NamedTemporaryFile(suffix=".wav") as file:
        if engine == "flite":
            tool, stretch = flite, f"duration_stretch={1 / speed:.3f}"
            command = [tool.program, "-voice", name, "--setf", stretch, "-t", text, "-o", file.name]
        else:
            tool, rate = espeak, str(round(ESPEAK_WORDS_A_MINUTE * speed))
            command = [tool.program, "-v", name, "-s", rate, "-w", file.name, text]
        done = subprocess.run(command, capture_output=True, text=True, env=tool.environment)
        if done.returncode or not os.path.getsize(file.name):
            raise InputError(f"{voice} could not speak: {done.stderr.strip()}")
        return soundfile.read(file.name, dtype="float32")


def draft(split: str, seed: int, index: int, texts: Sayings) -> dict:
    """Everything about a clip but its sound; the same alone and among others."""
    numbers = generator(seed, f"{split} engines", index)
    shares = np.array([SHARES[kind] for kind in KINDS])
    said = utterance(str(numbers.choice(KINDS, p=shares / shares.sum())), split, seed + 1, index, texts)
    return {
        "text": said.text,
        "spoken": re.sub(r"^-", "", spoken(said.text)),  # a dash in front would be an option
        "language": "en",
        "kind": said.kind,
        "context": list(said.context),
        "name": said.name,
        "accent": "",
        "split": split,
        "speaker": pick(numbers, VOICES[split]),
        "speed": round(float(numbers.uniform(*SPEEDS)), 2),
        "purpose": "recognition",
    }


def speak_shard(
    split: str, seed: int, count: int, codec: str, cache_folder: Path | None, number: int
) -> Iterator[Sample]:
    flite, espeak = _tools(cache_folder)
    texts = sayings(split, cache_folder)
    for index in range(number * CLIPS_PER_SHARD, min(count, (number + 1) * CLIPS_PER_SHARD)):
        about = draft(split, seed, index, texts)
        samples, rate = say(about["spoken"], about["speaker"], about["speed"], flite, espeak)
        about["seconds"] = round(len(samples) / rate, 3)
        yield f"{index:08}", {"json": as_json(about), codec: encode(samples, codec, rate)}


@cache
def _tools(cache_folder: Path | None) -> tuple[Flite, Espeak]:
    return Flite(cache_folder), Espeak(cache_folder)
