"""A plan and a teacher -> shards of speech, 16 kHz, FLAC or Opus; stopped anywhere, it goes on where it stopped.

On a CPU each process speaks its own shards. A GPU takes many shards at once, sorted by length so that little is
padding, in batches as large as its memory likes, while other processes compress. Noise and rooms come in training.
"""

from __future__ import annotations

import io
import json
import statistics
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import asdict
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch

from ming_omni.data.shards import Sample, as_json, make_shards, read_shard, sweep, worker, write_shard
from ming_omni.data.speech import Clip, read_plan
from ming_omni.data.teacher import Teacher

SAMPLE_RATE_HZ, TEACHER_HZ = 16_000, 24_000
CLIPS_PER_SHARD = 256
SHARDS_AT_ONCE = 16
"""On a GPU: 4,096 clips, enough for every batch to hold one length only."""
BATCH_SYMBOLS = {"cpu": 200, "cuda": 16_000}
"""Phonemes of a batch with its padding; about 20 minutes of speech on a GPU, 40 GB."""
CODECS = {"flac": ("FLAC", "PCM_16", {}), "opus": ("OGG", "OPUS", {"compression_level": 0.9})}
"""Container, coding, options: about 24 kbit/s of speech. libsndfile numbers Opus streams at random, so bytes differ."""


Spoken = tuple[float, Future]
"""Seconds, and a compressed file to come."""


def speak_plan(
    folder: Path,
    teacher: Path,
    device: str = "cpu",
    codec: str = "flac",
    workers: int = 1,
    seconds: float = float("inf"),
) -> list[Path]:
    """Shards of `folder`/plan.jsonl, those already there left alone; returns those there at the end.

    workers   processes that speak on a CPU, that compress beside a GPU
    seconds   no new work is begun after that long
    """
    deadline = time.monotonic() + seconds
    sweep(folder)
    clips = read_plan(folder / "plan.jsonl")
    if device == "cpu":
        make_shards(folder, num_shards(clips), partial(speak_shard, folder, teacher, codec), workers, deadline)
    else:
        _speak_on_gpu(folder, clips, Teacher(teacher, device), codec, workers, deadline)
    return sorted(folder.glob("shard-*.tar"))


def speak_shard(folder: Path, teacher: Path, codec: str, number: int) -> Iterator[Sample]:
    clips = _part(read_plan(folder / "plan.jsonl"), number)
    with ThreadPoolExecutor(1) as pool:
        yield from _samples(number, clips, speak(_teacher(teacher), clips, codec, pool), codec)


def _speak_on_gpu(folder: Path, clips: list[Clip], voice: Teacher, codec: str, workers: int, deadline: float) -> None:
    """One block is compressed and written while the next is spoken."""
    missing = [n for n in range(num_shards(clips)) if not _path(folder, n).exists()]
    waiting: list[tuple[list[int], list[Spoken]]] = []
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=worker) as pool:
        for start in range(0, len(missing), SHARDS_AT_ONCE):
            if time.monotonic() > deadline:
                break
            numbers = missing[start : start + SHARDS_AT_ONCE]
            rows = [clip for number in numbers for clip in _part(clips, number)]
            waiting.append((numbers, speak(voice, rows, codec, pool)))
            if len(waiting) == 2:
                _write(folder, clips, codec, *waiting.pop(0))
        for numbers, spoken in waiting:
            _write(folder, clips, codec, numbers, spoken)


def _write(folder: Path, clips: list[Clip], codec: str, numbers: list[int], spoken: list[Spoken]) -> None:
    for number in numbers:
        rows = _part(clips, number)
        own, spoken = spoken[: len(rows)], spoken[len(rows) :]
        write_shard(_path(folder, number), _samples(number, rows, own, codec))


def num_shards(clips: Sequence[Clip]) -> int:
    return -(-len(clips) // CLIPS_PER_SHARD)


def _path(folder: Path, number: int) -> Path:
    return folder / f"shard-{number:05}.tar"


def _part(clips: list[Clip], number: int) -> list[Clip]:
    return clips[number * CLIPS_PER_SHARD : (number + 1) * CLIPS_PER_SHARD]


def _samples(number: int, clips: Sequence[Clip], spoken: Sequence[Spoken], codec: str) -> Iterator[Sample]:
    for i, (clip, (seconds, sound)) in enumerate(zip(clips, spoken, strict=True)):
        about = asdict(clip) | {"speaker": clip.speaker, "seconds": seconds}
        yield f"{number * CLIPS_PER_SHARD + i:08}", {"json": as_json(about), codec: sound.result()}


def speak(voice: Teacher, clips: Sequence[Clip], codec: str, pool: Executor) -> list[Spoken]:
    """All clips, in their order; the pool compresses."""
    spoken: list[Spoken | None] = [None] * len(clips)
    for rows in batches([len(clip.phonemes) / clip.speed for clip in clips], BATCH_SYMBOLS[voice.device.type]):
        chosen = [clips[i] for i in rows]
        sounds = voice.speak([c.phonemes for c in chosen], [c.voices for c in chosen], [c.speed for c in chosen])
        for i, sound in zip(rows, sounds, strict=True):
            # Half the bytes of a float are enough to travel to another process.
            integers = (sound.clamp(-1, 1) * 32767).to(torch.int16).cpu().numpy()
            spoken[i] = round(len(sound) / TEACHER_HZ, 3), pool.submit(encode, integers, codec)
    return spoken


def batches(lengths: Sequence[float], symbols: int) -> Iterator[list[int]]:
    """Indexes of rows of like length, longest first, so that a batch too large for the memory fails at once."""
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    while order:
        count = max(1, int(symbols // max(1.0, lengths[order[0]])))
        yield order[:count]
        order = order[count:]


@cache
def _teacher(folder: Path) -> Teacher:
    return Teacher(folder)


def seconds_of(shards: Sequence[Path]) -> float:
    return sum(json.loads(files["json"])["seconds"] for shard in shards for _, files in read_shard(shard))


def difference_from_cpu(teacher: Path, device: str, clips: Sequence[Clip]) -> float:
    """dB between log spectra of the same clips spoken here and on the CPU; the median leaves out a flipped rounding."""
    here, there, window = Teacher(teacher), Teacher(teacher, device), torch.hann_window(512)
    differences = []
    for clip in clips:
        sounds = [voice.speak([clip.phonemes], [clip.voices], [clip.speed])[0].cpu() for voice in (here, there)]
        spectra = [
            torch.stft(sound[: min(map(len, sounds))], 512, 128, window=window, return_complex=True).abs().square()
            for sound in sounds
        ]
        one, other = (10 * spectrum.add(1e-6).log10() for spectrum in spectra)
        differences.append(float((one - other).square().mean().sqrt()))
    return statistics.median(differences)


def encode(samples: np.ndarray, codec: str, rate: int = TEACHER_HZ) -> bytes:
    """Samples (n), float or int16 -> a compressed file at 16 kHz."""
    import soundfile
    import soxr

    if samples.dtype == np.int16:
        samples = samples.astype(np.float32) / 32768
    samples = soxr.resample(samples, rate, SAMPLE_RATE_HZ)
    container, coding, options = CODECS[codec]
    file = io.BytesIO()
    soundfile.write(file, np.clip(samples, -1, 1), SAMPLE_RATE_HZ, format=container, subtype=coding, **options)
    return file.getvalue()


def read_clips(path: Path) -> Iterator[tuple[dict, np.ndarray]]:
    """A shard's clips: what is known of each, and its samples (n) at 16 kHz."""
    import soundfile

    for _, files in read_shard(path):
        about = json.loads(files.pop("json"))
        (sound,) = files.values()
        yield about, soundfile.read(io.BytesIO(sound), dtype="float32")[0]


def write_index(folder: Path, shards: Sequence[Path], count: int = 64) -> Path:
    """The first clips, unpicked, as WAV files beside a page with their texts, for a person to listen to."""
    import html

    import soundfile

    listen = folder / "listen"
    listen.mkdir(parents=True, exist_ok=True)
    rows = []
    for shard in shards:
        for about, samples in read_clips(shard):
            if len(rows) == count:
                break
            name = f"{len(rows):03}.wav"
            soundfile.write(listen / name, samples, SAMPLE_RATE_HZ)
            accent = f"{about['accent']}, synthetic" if about["accent"] else ""
            cells = (about["text"], about["speaker"], about["speed"], about["kind"], accent)
            told = "".join(f"<td>{html.escape(str(cell))}</td>" for cell in cells)
            rows.append(f'<tr><td><audio controls preload="none" src="{name}"></audio></td>{told}</tr>')
    head = "".join(f"<th>{title}</th>" for title in ("sound", "text", "speaker", "speed", "kind", "accent"))
    page = f'<!doctype html><meta charset="utf-8"><title>Speech</title><table><tr>{head}</tr>{"".join(rows)}</table>\n'
    (listen / "index.html").write_text(page)
    return listen / "index.html"
