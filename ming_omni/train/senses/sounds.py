"""Shards of speech -> one store of samples and a line for each clip; clips -> batches of prompts with transcripts.

A shard holds clips one by one, or many in one sound with a list of where each lies. Decoding happens once, in several
processes; what they find is kept in files, so that a run that goes on finds it again.
"""

from __future__ import annotations

import io
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from ming_omni.data.augment import treatment
from ming_omni.data.shards import read_shard
from ming_omni.data.splits import generator
from ming_omni.errors import InputError
from ming_omni.train import words
from ming_omni.train.senses.rows import Batch, Row, Writer, collate
from ming_omni.train.senses.settings import SpeechSettings

SAMPLE_RATE_HZ = 16_000
LANGUAGES = {"en": "English", "zh": "Chinese", "mixed": "Chinese"}
ACCENTS = {
    "sichuan": "川渝", "dongbei": "东北", "henan": "河南", "shandong": "山东", "shaanxi": "陕西", "tianjin": "天津",
}  # fmt: skip
"""Accents of `data.accents` -> what the product writes before such a transcript (`transcribe.dialects`)."""
SPOKEN = [*dict.fromkeys(LANGUAGES.values()), *ACCENTS.values()]
"""All that may stand before a transcript."""


@dataclass(frozen=True)
class Clip:
    text: str
    language: str
    """What stands before the transcript."""
    kind: str
    context: tuple[str, ...]
    name: str
    start: int
    """In the store."""
    length: int

    @property
    def group(self) -> str:
        """What is averaged together when looking: a language, an accent, a set of real recordings."""
        return self.kind if self.kind.startswith("real") else self.language

    @property
    def answer(self) -> str:
        return f"{self.language}\t{self.text}"


# Shards -> store.


def load(folders: Sequence[Path], cache: Path, workers: int, split: str) -> tuple[np.ndarray, list[Clip]]:
    """What the folders' shards hold: all samples (n,) int16, one after another, and the clips of that split."""
    paths = decoded(folders, cache, workers)
    return np.concatenate([np.load(path.with_suffix(".npy"), mmap_mode="r") for path in paths]), clips(paths, split)


def clips(paths: Sequence[Path], split: str) -> list[Clip]:
    """Those of the split, whose samples lie one decoded shard after another."""
    found, start = [], 0
    for path in paths:
        found += [_clip(about, start) for about in lines(path, split)]
        start += len(np.load(path.with_suffix(".npy"), mmap_mode="r"))
    return found


def choose(folders: Sequence[Path], cache: Path, split: str, wanted: int) -> Iterator[tuple[Clip, np.ndarray]]:
    """At most `wanted` clips of the split for each group that is looked at, each with its samples."""
    counts: Counter[str] = Counter()
    for path in decoded(folders, cache, 0):
        samples = np.load(path.with_suffix(".npy"), mmap_mode="r")
        for about in lines(path, split):
            clip = _clip(about, 0)
            if counts[clip.group] < wanted:
                counts[clip.group] += 1
                yield clip, np.array(samples[clip.start : clip.start + clip.length])


def decoded(folders: Sequence[Path], cache: Path, workers: int) -> list[Path]:
    """Where the shards' samples and lines lie, as path.npy and path.json; what is missing is decoded."""
    shards = [shard for folder in folders for shard in sorted(Path(folder).rglob("*.tar"))]
    if not shards:
        raise InputError(f"there are no shards of speech in {', '.join(map(str, folders))}")
    cache.mkdir(parents=True, exist_ok=True)
    kept = [place(shard, cache) for shard in shards]
    missing = [pair for pair in zip(shards, kept, strict=True) if not pair[1].with_suffix(".json").exists()]
    if workers and missing:
        with ProcessPoolExecutor(min(workers, len(missing)), mp_context=get_context("spawn")) as pool:
            list(pool.map(decode, *zip(*missing, strict=True)))
    else:
        for pair in missing:
            decode(*pair)
    return kept


def place(shard: Path, cache: Path) -> Path:
    """Where a shard's samples and lines lie, less the suffix."""
    return cache / "-".join([*shard.parts[-3:-1], shard.stem])


def lines(path: Path, split: str) -> list[dict]:
    """Of a decoded shard, those of the split; a clip without one is for training."""
    return [
        about for about in json.loads(path.with_suffix(".json").read_text()) if about.get("split", "train") == split
    ]


def decode(shard: Path, path: Path) -> None:
    """One shard -> path.npy and path.json, the second only when the first is whole."""
    samples, clips, start = [], [], 0
    for about, sound in read_sounds(shard):
        samples.append((np.clip(sound, -1, 1) * 32767).round().astype(np.int16))
        clips.append(about | {"start": start, "length": len(sound)})
        start += len(sound)
    np.save(path.with_suffix(".npy"), np.concatenate(samples))
    path.with_suffix(".json").write_text(json.dumps(clips, ensure_ascii=False))


def read_sounds(shard: Path) -> Iterator[tuple[dict, np.ndarray]]:
    """Each clip's line and its samples (n) at 16 kHz."""
    import soundfile

    for _, files in read_shard(shard):
        about = json.loads(files.pop("json"))
        (coded,) = files.values()
        sound, rate = soundfile.read(io.BytesIO(coded), dtype="float32")
        assert rate == SAMPLE_RATE_HZ, f"{shard} holds sound at {rate} Hz"
        if isinstance(about, dict):
            yield about, sound
        else:
            for one in about:
                yield one, sound[one["start"] : one["start"] + one["length"]]


def _clip(about: dict, offset: int) -> Clip:
    language = ACCENTS.get(about.get("accent", "")) or LANGUAGES[about["language"]]
    return Clip(
        about["text"], language, about["kind"], tuple(about.get("context", ())), about.get("name", ""),
        offset + about["start"], about["length"],
    )  # fmt: skip


# Clips -> batches.


class Sounds:
    """Batches of clips of like length, each asked for as the product asks, with lists of words that help or mislead."""

    def __init__(self, clips: Sequence[Clip], writer: Writer, settings: SpeechSettings, tokens: int, seed: int):
        """tokens: of a batch."""
        self.clips, self.writer, self.settings, self.tokens, self.seed = clips, writer, settings, tokens, seed
        self.kind = "speech"
        chances = np.array([settings.weights.get(clip.kind, 1.0) for clip in clips])
        self.chances = np.cumsum(chances / chances.sum())
        self.names = sorted({clip.name for clip in clips if clip.name})
        self.letters = alphabet(clips)
        self.buckets = sorted(settings.lengths)
        self.waiting: dict[int, list[tuple]] = {length: [] for length in self.buckets}
        self.processor = writer.processor.audio_processor

    def batch(self, number: int) -> Batch:
        """The number decides what is drawn; what was drawn and did not fit yet waits for the next batch."""
        numbers = generator(self.seed, "speech", number)
        while True:
            for length, waiting in self.waiting.items():
                if len(waiting) >= self.tokens // length:
                    return self._collate(length)
            found = self.example(numbers)
            if found is not None:
                self.waiting[found[0]].append(found[1:])

    def example(self, numbers: np.random.Generator) -> tuple[int, Row, int, dict, list[int]] | None:
        """-> the bucket it fits, its row, which clip, how it is treated, and the letters that are heard."""
        index = int(np.searchsorted(self.chances, numbers.random()))
        clip = self.clips[min(index, len(self.clips) - 1)]
        chosen = treatment(int(numbers.integers(2**31)))
        is_plain = numbers.random() < self.settings.plain
        speed = 1.0 if is_plain else chosen.speed
        length = round(clip.length / speed)
        if length > self.settings.seconds * SAMPLE_RATE_HZ:
            return None
        count = self.processor.num_tokens(max(length, 201) // 160)
        row = self.writer.listening(words.prompt(self.listed(clip, numbers)), count, clip.answer)
        letters = spelled(clip.text, self.letters)
        bucket = next((length for length in self.buckets if len(row) <= length), None)
        if bucket is None or not letters:
            return None
        treated = {
            "speed": speed,
            "length": length,
            "tokens": count,
            "reverberation_seconds": 0.0 if is_plain else chosen.reverberation_seconds,
            "snr_db": np.inf if is_plain else chosen.snr_db,
            "noise_colour": chosen.noise_colour,
            "is_telephone": not is_plain and chosen.is_telephone,
            "level_db": chosen.level_db,
        }
        return bucket, row, index, treated, letters

    def listed(self, clip: Clip, numbers: np.random.Generator) -> list[str]:
        """Words for the prompt: the clip's own list, thinned; or names nobody says; or none."""
        settings = self.settings
        luck = numbers.random()
        if clip.name:
            if luck < settings.without_list:
                return []
            own = list(clip.context)
            if luck < settings.without_list + settings.only_absent:
                own = [name for name in own if name != clip.name]
            elif clip.name not in own and luck > 1 - settings.with_name:
                own.append(clip.name)
            numbers.shuffle(own)
            return own
        if luck < settings.misleading and self.names:
            count = int(numbers.integers(1, settings.distractors + 1))
            drawn = [self.names[i] for i in numbers.integers(len(self.names), size=count)]
            return [name for name in dict.fromkeys(drawn) if name not in clip.text]
        return []

    def _collate(self, length: int) -> Batch:
        num_rows = self.tokens // length
        chosen, self.waiting[length] = self.waiting[length][:num_rows], self.waiting[length][num_rows:]
        rows, indexes, treated, letters = zip(*chosen, strict=True)
        batch = collate(self.kind, rows, length, self.writer.tokenizer.pad_token_id or 0, num_rows)
        misread(batch, self.settings.misread, generator(self.seed, "misread", indexes[0], len(rows[0])))
        clips = [self.clips[min(i, len(self.clips) - 1)] for i in indexes]
        batch.media = {name: np.array([row[name] for row in treated]) for name in treated[0]}
        batch.media["starts"] = np.array([clip.start for clip in clips])
        batch.media["lengths"] = np.array([clip.length for clip in clips])
        batch.media["letters"] = np.concatenate([np.array(row, np.int64) for row in letters])
        batch.media["num_letters"] = np.array([len(row) for row in letters])
        batch.media["spoken"] = np.array([SPOKEN.index(clip.language) for clip in clips])
        return batch


def misread(batch: Batch, share: float, numbers: np.random.Generator) -> None:
    """Give some tokens of the answers, as they are read, to each other's places; what is to be said stays."""
    inside = batch.asked[1:][np.diff(batch.asked) == 1]  # the first is what stands before an answer
    chosen = inside[numbers.random(len(inside)) < share]
    ids = batch.ids.reshape(-1)
    ids[chosen] = numbers.permutation(ids[chosen])


def alphabet(clips: Sequence[Clip]) -> dict[str, int]:
    """Letters that are heard -> 1, 2, ...; 0 is the blank between them."""
    return {letter: i for i, letter in enumerate(sorted(set("".join(heard(clip.text) for clip in clips))), 1)}


def heard(text: str) -> str:
    """What of a transcript has a sound: letters, figures and the gaps between words."""
    return re.sub(r"[^\w]+", " ", text.casefold()).strip()


def spelled(text: str, letters: dict[str, int]) -> list[int]:
    return [letters[letter] for letter in heard(text)]


def pack_recordings(folder: Path, output: Path, split: str = "train", bytes_a_shard: int = 15 << 20) -> list[Path]:
    """Real recordings whose labels are words -> shards of Opus, many clips in one sound, to be carried elsewhere."""
    import soundfile

    from ming_omni.data.recordings import read_recordings
    from ming_omni.data.shards import as_json, write_shard

    output.mkdir(parents=True, exist_ok=True)
    gap = np.zeros(SAMPLE_RATE_HZ // 10, np.float32)
    groups, sounds, told, size = [], [], [], 0

    def close() -> None:
        nonlocal sounds, told, size
        if told:
            file = io.BytesIO()
            soundfile.write(file, np.concatenate(sounds), SAMPLE_RATE_HZ, format="OGG", subtype="OPUS")
            groups.append((f"{len(groups):06}", {"json": as_json(told), "opus": file.getvalue()}))
        sounds, told, size = [], [], 0

    for recording, samples in read_recordings(folder, split):
        is_chinese = bool(re.fullmatch(r"[\u4e00-\u9fff]+", recording.label))
        if not is_chinese and not re.fullmatch(r"[a-z]+", recording.label):
            continue  # a syllable with its tone is no word
        text = f"{recording.label}。" if is_chinese else f"{recording.label.capitalize()}."
        kind, language = ("real mandarin", "zh") if is_chinese else ("real digit", "en")
        about = {"text": text, "language": language, "kind": kind, "split": split}
        told.append(about | {"start": size, "length": len(samples)})
        sounds += [samples.astype(np.float32), gap]
        size += len(samples) + len(gap)
        if size > 60 * SAMPLE_RATE_HZ:
            close()
    close()
    paths, shard, total = [], [], 0
    for group in groups:
        shard.append(group)
        total += len(group[1]["opus"]) + len(group[1]["json"])
        if total > bytes_a_shard or group is groups[-1]:
            paths.append(output / f"shard-{len(paths):05}.tar")
            write_shard(paths[-1], shard)
            shard, total = [], 0
    return paths
