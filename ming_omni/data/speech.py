"""Sentences and voices -> a plan, a line for each clip, by the front ends; the plan -> shards of speech, without them.

The plan travels to a machine with a GPU and no network. Clips are 16 kHz, FLAC or Opus; noise and rooms come later.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np

from ming_omni.data.accents import BY_NAME, dialect_readings
from ming_omni.data.phonemes import Espeak, mandarin, phonemes, readings
from ming_omni.data.scenes import pick
from ming_omni.data.shards import Sample, as_json, make_shards, read_shard
from ming_omni.data.splits import generator
from ming_omni.data.teacher import Teacher
from ming_omni.data.utterances import KINDS, Utterance, utterance
from ming_omni.speech.normalize import spoken

SAMPLE_RATE_HZ, TEACHER_HZ = 16_000, 24_000
CLIPS_PER_SHARD = 256
BATCH = {"cpu": 4, "cuda": 32}
"""Clips spoken at once; sorted by length, so that little is padding."""
TEST_VOICES = {"af_nova", "am_puck", "bf_lily", "bm_lewis", "zf_xiaoyi", "zm_yunxia"}
DEV_VOICES = {"af_sky", "am_liam", "bf_alice", "zf_xiaoni"}
SPEEDS = (0.8, 1.25)
CODECS = {"flac": ("FLAC", "PCM_16"), "opus": ("OGG", "OPUS")}


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

    @property
    def speaker(self) -> str:
        return "+".join(f"{name}*{weight}" for name, weight in self.voices.items())


def voice_split(name: str) -> str:
    return "test" if name in TEST_VOICES else "dev" if name in DEV_VOICES else "train"


def voices_of(names: Sequence[str], split: str, is_chinese: bool) -> list[str]:
    """English voices start with a or b, Mandarin ones with z."""
    return [name for name in names if name[0] in ("z" if is_chinese else "ab") and voice_split(name) == split]


def mixture(numbers: np.random.Generator, names: Sequence[str]) -> dict[str, float]:
    """One voice, or two in a proportion that makes a third person."""
    if len(names) == 1 or numbers.random() < 0.4:
        return {pick(numbers, names): 1.0}
    first, second = (names[i] for i in numbers.choice(len(names), 2, replace=False))
    share = round(float(numbers.integers(4, 17)) * 0.05, 2)
    return {first: share, second: round(1 - share, 2)}


def plan(voices: Sequence[str], espeak: Espeak, split: str, seed: int, indexes: Sequence[int]) -> list[Clip]:
    """Clips for these indexes; each is the same whatever others are planned with it."""
    drafts = []
    for index in indexes:
        numbers = generator(seed, f"{split} speech", index)
        said = utterance(pick(numbers, KINDS), split, seed, index)
        is_chinese = said.language != "en"
        mixed = mixture(numbers, voices_of(voices, split, is_chinese))
        drafts.append((said, spoken(said.text, is_chinese), mixed, round(float(numbers.uniform(*SPEEDS)), 2)))
    sounds = pronounce([(said, text, next(iter(mixed))) for said, text, mixed, _ in drafts], espeak)
    return [
        Clip(said.text, text, sound, mixed, speed, said.language, said.kind, list(said.context), said.name, said.accent)
        for (said, text, mixed, speed), sound in zip(drafts, sounds, strict=True)
    ]


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


# Sound


def speak_plan(folder: Path, teacher: Path, device: str = "cpu", codec: str = "flac", workers: int = 1) -> list[Path]:
    """Shards of `folder`/plan.jsonl, those already there left alone."""
    count = -(-len(read_plan(folder / "plan.jsonl")) // CLIPS_PER_SHARD)
    return make_shards(folder, count, partial(speak_shard, folder, teacher, device, codec), workers)


def speak_shard(folder: Path, teacher: Path, device: str, codec: str, number: int) -> Iterator[Sample]:
    clips = read_plan(folder / "plan.jsonl")[number * CLIPS_PER_SHARD : (number + 1) * CLIPS_PER_SHARD]
    voice = _teacher(teacher, device)
    order = sorted(range(len(clips)), key=lambda i: len(clips[i].phonemes))
    sounds: dict[int, bytes] = {}
    with ThreadPoolExecutor(4) as pool:
        batch = BATCH[voice.device.type]
        for start in range(0, len(order), batch):
            rows = [clips[i] for i in order[start : start + batch]]
            spoken_rows = voice.speak([c.phonemes for c in rows], [c.voices for c in rows], [c.speed for c in rows])
            encoded = pool.map(partial(encode, codec=codec), [row.cpu().numpy() for row in spoken_rows])
            sounds |= dict(zip(order[start : start + batch], encoded, strict=True))
    for i, clip in enumerate(clips):
        yield (
            f"{number * CLIPS_PER_SHARD + i:08}",
            {"json": as_json(asdict(clip) | {"speaker": clip.speaker}), codec: sounds[i]},
        )


@cache
def _teacher(folder: Path, device: str) -> Teacher:
    return Teacher(folder, device)


def encode(samples: np.ndarray, codec: str, rate: int = TEACHER_HZ) -> bytes:
    """Samples (n) -> a compressed file at 16 kHz."""
    import soundfile
    import soxr

    samples = soxr.resample(samples, rate, SAMPLE_RATE_HZ)
    container, subtype = CODECS[codec]
    file = io.BytesIO()
    soundfile.write(file, np.clip(samples, -1, 1), SAMPLE_RATE_HZ, format=container, subtype=subtype)
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
