"""A model folder that speaks, and a folder of data -> how well it speaks, the teacher beside it, as JSON and a table.

    python -m benchmarks.speech FOLDER --data DATA --output speech.json --wavs WAVS      500 sentences, about an hour
    python -m benchmarks.speech FOLDER --data DATA --limit 20
    python -m benchmarks.speech FOLDER --data DATA --only speed        on a machine with nothing else to do
    python -m benchmarks.speech - --data DATA --limit 20               the teacher alone

Every sentence is one of the test, spoken as `Ming.speak` does without a stream, in a voice that training has never
heard: the prompt is another clip of the test, three to ten seconds long, with its transcript. Whisper-base listens,
DNSMOS judges, and Resemblyzer says whether the clone is nearer to its prompt than 19 others of that sex are. DATA holds
speech of the test (`ming data speech DATA/speech-test --split test`), whisper/ and venv-judges/
(benchmarks/{whisper,mos,likeness}.py).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from difflib import SequenceMatcher
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from ming_omni.errors import InputError
from ming_omni.evaluate.clips import Clip, kind_of
from ming_omni.evaluate.metrics import pinyin_errors, word_errors, words
from ming_omni.evaluate.normalize import chinese, syllables
from ming_omni.evaluate.score import Score, rate, share, table

KINDS = {"everyday": "en", "question": "en", "mandarin": "zh"}
"""Sentences whose transcript can only be written in one way."""
PROMPT_SECONDS = (3.2, 10.0)
OTHERS = 19
"""Of the same sex, from which a clone must stand out."""
PEOPLE = 80
"""Of either sex, from whom the others are drawn."""
UNLIKE = 0.5
"""Speakers whose mixtures differ by this much at least are others."""
WHOLE = 40
"""Sentences that one process speaks and hands back."""
LONGEST, SHORTEST = 2.0, 0.4
"""Of what the teacher takes: beyond them, a sentence has run away or was cut off."""
CUT_UNITS, CUT_SHARE = 3, 0.25
"""A sentence was cut off when that many of its last words, and that share of it, were not heard."""
FIRST_AUDIO_SENTENCES = 12
INDEXED = 64
"""Sentences on the page to listen to."""
ENGLISH, MANDARIN = "English WER by whisper-base", "Mandarin errors in toneless syllables by whisper-base"
QUALITY, FAULTS = "DNSMOS", "cut-offs, runaways, repeats"
CLONE = f"clone nearer to its prompt than {OTHERS} others of its sex"


@dataclass
class Spoken:
    """A clip of the teacher."""

    text: str
    language: str
    kind: str
    speaker: dict[str, float]
    samples: np.ndarray  # (n,) at 16 kHz

    @property
    def seconds(self) -> float:
        return len(self.samples) / 16_000

    @property
    def sex(self) -> str:
        return max(self.speaker, key=self.speaker.get)[1]


@dataclass
class Trial:
    """A sentence to be said in the voice of a prompt; `teacher` is how its teacher said it, in a voice of its own."""

    teacher: Spoken
    prompt: Spoken
    seed: int


@dataclass
class Said:
    samples: np.ndarray
    found_no_end: bool
    work_seconds: float


# What is said


def read_spoken(data: Path, splits: Sequence[str], count: int) -> Iterator[Spoken]:
    """The first `count` clips without an accent, and without sentences that training nearly has."""
    from ming_omni.data.speaking import read_clips

    leaks = {text for path in sorted(data.glob("*/held-leaks.json")) for text in json.loads(path.read_text())}
    for shard in sorted(data.glob("*/shard-*.tar")):
        for about, samples in read_clips(shard):
            if not isinstance(about, dict) or about.get("split") not in splits or about.get("accent"):
                continue
            if "voices" not in about or about["text"] in leaks or about["language"] not in ("en", "zh"):
                continue
            kind = kind_of(about["kind"], about["text"], None)
            yield Spoken(about["text"], about["language"], kind, about["voices"], samples.astype(np.float32))
            count -= 1
            if not count:
                return


def trials(spoken: Sequence[Spoken], limit: int) -> list[Trial]:
    """Half of them English; each sentence gets a prompt of its language, of which all are used about as often."""
    found = []
    for language in ("en", "zh"):
        sentences = [one for one in spoken if KINDS.get(one.kind) == language][: -(-limit // 2)]
        low, high = PROMPT_SECONDS
        prompts = [one for one in spoken if one.language == language and low <= one.seconds <= high and can_prompt(one)]
        for number, sentence in enumerate(sentences):
            others = [one for one in prompts if one.text != sentence.text]
            found.append(Trial(sentence, others[number % len(others)], number))
    return found


def can_prompt(one: Spoken) -> bool:
    """Whether a clip holds enough speech for a prompt."""
    try:
        clone(one)
    except InputError:
        return False
    return True


def clone(one: Spoken):
    import torch

    from ming_omni.speech.voices import Voice

    return Voice.clone("prompt", torch.from_numpy(one.samples), one.text, consent="synthetic, of the test")


def speak(folder: Path, part: Sequence[Trial]) -> list[Said]:
    """On one core, as `Ming.speak` does without a stream: what ran away is said once more."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    import torch

    from ming_omni.checkpoint.talker import load_speaker

    torch.set_num_threads(1)
    speaker, found = load_speaker(folder, device="cpu"), []
    for trial in part:
        voice = clone(trial.prompt)
        started = time.perf_counter()
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            sound = speaker.speak(trial.teacher.text, voice, seed=trial.seed, sample_rate_hz=16_000)
        found_no_end = any("found no end" in str(one.message) for one in told)
        found.append(Said(np.asarray(sound.samples, np.float32), found_no_end, time.perf_counter() - started))
    return found


def speak_all(folder: Path, chosen: Sequence[Trial], workers: int) -> list[Said]:
    if not workers:
        return speak(folder, chosen)
    parts = [chosen[start : start + WHOLE] for start in range(0, len(chosen), WHOLE)]
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        return [said for part in pool.map(partial(speak, folder), parts) for said in part]


# How it is judged


def heard(data: Path, samples: Sequence[np.ndarray], languages: Sequence[str], threads: int) -> list[str]:
    from benchmarks import judges

    letter = {"en": "a", "zh": "一"}  # a clip's language is that of its text
    clips = [Clip("", "", "", one, letter[language]) for one, language in zip(samples, languages, strict=True)]
    return [row["text"] for row in judges.heard(data, clips, threads)]


def quality(data: Path, samples: Sequence[np.ndarray]) -> list[float]:
    with tempfile.TemporaryDirectory() as scratch:
        sounds, output = Path(scratch) / "clips.npz", Path(scratch) / "mos.json"
        np.savez(sounds, **{str(i): one for i, one in enumerate(samples)})
        _judge(data, "mos.py", sounds, output)
        return [row["overall"] for row in json.loads(output.read_text())]


def likeness(data: Path, samples: Sequence[np.ndarray]) -> np.ndarray:
    """(n, 256), each of length 1"""
    import torch

    with tempfile.TemporaryDirectory() as scratch:
        sounds, output = Path(scratch) / "clips.npz", Path(scratch) / "likeness.npy"
        np.savez(sounds, **{str(i): one for i, one in enumerate(samples)})
        _judge(data, "likeness.py", sounds, output, "--torch", Path(torch.__file__).parent.parent)
        return np.load(output)


def _judge(data: Path, script: str, *arguments: Path | str) -> None:
    command = [data / "venv-judges" / "bin" / "python", Path(__file__).parent / script, *arguments]
    subprocess.run([str(part) for part in command], check=True)


def fault(text: str, transcript: str, language: str, seconds: float, usual: float, found_no_end: bool) -> str:
    """What went wrong with a sentence, or nothing; `usual` is how long the teacher takes."""
    said, heard = (syllables(chinese(t)) if language == "zh" else words(t, "en") for t in (text, transcript))
    if found_no_end or seconds > LONGEST * usual + 1:
        return "runaway"
    if len(heard) > len(said) + 2 and repeats(heard) > repeats(said):
        return "repeat"
    blocks = [block for block in SequenceMatcher(None, said, heard, autojunk=False).get_matching_blocks() if block.size]
    unheard = len(said) - (blocks[-1].a + blocks[-1].size if blocks else 0)
    if seconds < SHORTEST * usual or (unheard >= CUT_UNITS and unheard >= CUT_SHARE * len(said)):
        return "cut-off"
    return ""


def repeats(heard: Sequence[str]) -> int:
    """How many stretches of two units or more are said twice in a row."""
    count = 0
    for size in range(2, len(heard) // 2 + 1):
        count += sum(heard[i : i + size] == heard[i + size : i + 2 * size] for i in range(len(heard) - 2 * size + 1))
    return count


def people(spoken: Sequence[Spoken]) -> list[Spoken]:
    """One clip of each speaker, as many of either sex."""
    found: dict[str, dict[str, Spoken]] = {"f": {}, "m": {}}
    for one in spoken:
        own = found[one.sex]
        if len(own) < PEOPLE:
            own.setdefault(str(sorted(one.speaker.items())), one)
    return [one for own in found.values() for one in own.values()]


def is_other(one: dict[str, float], two: dict[str, float]) -> bool:
    """Whether two mixtures are different people: half the sum of differences of their shares."""
    names = one.keys() | two.keys()
    return sum(abs(one.get(name, 0) - two.get(name, 0)) for name in names) / 2 >= UNLIKE


def stands_out(own: np.ndarray, prompt: np.ndarray, others: np.ndarray) -> bool:
    return bool(own @ prompt > (others @ own).max())


def clones(chosen: Sequence[Trial], own: np.ndarray, prompts: np.ndarray, pool: Sequence[Spoken], told: np.ndarray):
    """Whether each clone is nearer to its prompt than to 19 others of that sex; told (n, 256) is of the pool."""
    found = []
    for number, trial in enumerate(chosen):
        numbers = np.random.default_rng(number)
        others: list[int] = []
        for i in numbers.permutation(len(pool)):
            kept = [pool[j].speaker for j in others]
            is_new = pool[i].sex == trial.prompt.sex and is_other(pool[i].speaker, trial.prompt.speaker)
            if is_new and pool[i].speaker not in kept:
                others.append(int(i))
            if len(others) == OTHERS:
                break
        found.append(stands_out(own[number], prompts[number], told[others]))
    return found


# Scores


def scores(
    chosen: Sequence[Trial],
    sounds: Sequence[np.ndarray],
    ends: Sequence[bool],
    likes: Sequence[bool],
    beside: dict[str, float],
    data: Path,
    threads: int,
) -> tuple[list[Score], list[dict]]:
    """Scores of one speaker, and a row for each sentence.

    ends     whether each sentence found no end
    likes    whether each clone stands out
    beside   the teacher's values by ability
    """
    languages = [trial.teacher.language for trial in chosen]
    texts = heard(data, sounds, languages, threads)
    mos = quality(data, sounds)
    english, mandarin, faults = [], [], []
    for trial, sound, text, is_endless in zip(chosen, sounds, texts, ends, strict=True):
        teacher = trial.teacher
        (english if teacher.language == "en" else mandarin).append(
            (word_errors if teacher.language == "en" else pinyin_errors)(teacher.text, text)
        )
        faults.append(fault(teacher.text, text, teacher.language, len(sound) / 16_000, teacher.seconds, is_endless))

    def compared(ability: str) -> dict[str, float]:
        return {"teacher": beside[ability]} if ability in beside else {}

    def near(ability: str, points: float) -> float | None:
        return beside[ability] + points if ability in beside else None

    found = [
        rate(ENGLISH, english, 0.10, near(ENGLISH, 0.02), **compared(ENGLISH)),
        rate(MANDARIN, mandarin, near(MANDARIN, 0.08), near(MANDARIN, 0.02), **compared(MANDARIN)),
        Score(
            "DNSMOS",
            statistics.mean(mos),
            *_interval(mos),
            len(mos),
            2.9,
            3.3,
            beside=compared("DNSMOS"),
            is_ratio=True,
        ),
        _faults(faults, compared(FAULTS)),
    ]
    if likes:
        found.append(share(CLONE, likes, 0.75, 0.95, **compared(CLONE)))
    rows = [
        {"text": trial.teacher.text, "heard": text, "fault": wrong, "dnsmos": value, "seconds": len(sound) / 16_000}
        for trial, text, wrong, value, sound in zip(chosen, texts, faults, mos, sounds, strict=True)
    ]
    return found, rows


def _faults(faults: Sequence[str], beside: dict[str, float]) -> Score:
    right = share(FAULTS, [not wrong for wrong in faults], None, None)
    return Score(FAULTS, 1 - right.value, 1 - right.high, 1 - right.low, len(faults), 0.01, 0.0, True, beside)


def _interval(values: Sequence[float]) -> tuple[float, float]:
    half = 1.96 * (statistics.stdev(values) if len(values) > 1 else 0.0) / len(values) ** 0.5
    return statistics.mean(values) - half, statistics.mean(values) + half


def speed(folder: Path, chosen: Sequence[Trial], threads: int) -> dict:
    """Times real time, and seconds to the first samples, with a built-in voice where there is one."""
    import torch

    from ming_omni.checkpoint.talker import load_speaker

    torch.set_num_threads(threads)
    speaker = load_speaker(folder, device="cpu")
    voice = next(iter(speaker.shelf.names()), None)
    made, took, first = 0.0, 0.0, []
    for number, trial in enumerate(chosen[: FIRST_AUDIO_SENTENCES + 1]):
        started, samples, heard_at = time.perf_counter(), 0, None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for chunk in speaker.speak(trial.teacher.text, voice, seed=number, stream=True):
                heard_at = heard_at or time.perf_counter() - started
                samples += len(chunk)
        if number:  # the first sentence loads what is loaded once
            first.append(heard_at)
            made, took = made + samples / speaker.sample_rate_hz, took + time.perf_counter() - started
    times, seconds = made / took, statistics.median(first)
    return {
        "threads": threads,
        "voice": voice,
        "sentences": len(first),
        "times_real_time": round(times, 2),
        "first_audio_ms": round(1000 * seconds),
        "reached": {
            "times_real_time": "goal" if times >= 5 else "floor" if times >= 2 else "below",
            "first_audio_ms": "goal" if seconds <= 0.3 else "floor" if seconds <= 0.6 else "below",
        },
    }


def run(given: argparse.Namespace) -> dict:
    data, alone = given.data, str(given.folder) == "-"
    spoken = list(read_spoken(data, ("test",), 6 * given.limit + 400))
    chosen = trials(spoken, given.limit)
    report: dict = {"model": given.folder.name, "sentences": len(chosen)}
    report["machine"] = f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"
    if given.only != "speed":
        pool = people([*read_spoken(data, ("dev", "train"), 400), *spoken])
        told = likeness(data, [one.samples for one in pool])
        prompts = likeness(data, [trial.prompt.samples for trial in chosen])
        originals = [trial.teacher.samples for trial in chosen]
        # The teacher itself is compared with another clip in its voice where the test has one.
        matched = [(t, p) for t in chosen if (p := _same_voice(t.teacher, spoken))]
        pairs = [Trial(t.teacher, p, t.seed) for t, p in matched]
        likes = []
        if pairs:
            own = likeness(data, [t.teacher.samples for t in pairs])
            likes = clones(pairs, own, likeness(data, [t.prompt.samples for t in pairs]), pool, told)
        teacher, rows = scores(chosen, originals, [False] * len(chosen), likes, {}, data, given.threads)
        report["teacher"] = [asdict(score) | {"reached": score.verdict} for score in teacher]
        report["teacher_rows"], report["table"] = rows, table(teacher)
        if not alone:
            said = speak_all(given.folder, chosen, given.workers)
            sounds = [one.samples for one in said]
            if given.wavs:
                _keep(given.wavs, chosen, said)
            beside = {score.ability: score.value for score in teacher}
            likes = clones(chosen, likeness(data, sounds), prompts, pool, told)
            ends = [one.found_no_end for one in said]
            found, rows = scores(chosen, sounds, ends, likes, beside, data, given.threads)
            report["scores"] = [asdict(score) | {"reached": score.verdict} for score in found]
            report["rows"], report["table"] = rows, table(found)
            made = sum(len(one.samples) for one in said) / 16_000
            report["times_real_time_one_core"] = round(made / sum(one.work_seconds for one in said), 2)
    if given.only != "quality" and not alone:
        report["speed"] = speed(given.folder, chosen, 2)
    return report


def _same_voice(one: Spoken, spoken: Sequence[Spoken]) -> Spoken | None:
    low, high = PROMPT_SECONDS
    same = (other for other in spoken if other.speaker == one.speaker and other.text != one.text)
    return next((other for other in same if low <= other.seconds <= high), None)


def _keep(folder: Path, chosen: Sequence[Trial], said: Sequence[Said]) -> None:
    """WAV files, and a page with the first of them, unpicked, beside their prompts."""
    import html

    import soundfile

    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for number, (trial, one) in enumerate(zip(chosen, said, strict=True)):
        names = f"{number:03}.wav", f"{number:03}-prompt.wav"
        for name, samples in zip(names, (one.samples, trial.prompt.samples), strict=True):
            soundfile.write(folder / name, samples, 16_000)
        players = "".join(f'<td><audio controls preload="none" src="{name}"></audio></td>' for name in names)
        rows.append(f"<tr>{players}<td>{html.escape(trial.teacher.text)}</td></tr>")
    half = INDEXED // 2  # of either language; the second begins in the middle
    middle = len(rows) // 2
    shown = rows if len(rows) <= INDEXED else rows[:half] + rows[middle : middle + half]
    head = "<tr><th>nano</th><th>the voice it was given</th><th>text</th></tr>"
    page = f'<!doctype html><meta charset="utf-8"><title>Nano speaks</title><table>{head}{"".join(shown)}</table>\n'
    (folder / "index.html").write_text(page)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="a model that speaks, or - for the teacher alone")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--limit", type=int, default=500, help="sentences")
    parser.add_argument("--only", choices=("quality", "speed"))
    parser.add_argument("--output", type=Path, help="a JSON file; a table is written beside it")
    parser.add_argument("--wavs", type=Path, help="a folder for what was spoken and its prompts")
    parser.add_argument("--workers", type=int, default=2, help="processes that speak; 0: this one")
    parser.add_argument("--threads", type=int, default=2, help="of the judges")
    given = parser.parse_args(arguments)
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # as the command line does, before torch is there
    report = run(given)
    print(report.get("table", "") + json.dumps(report.get("speed", {})))
    if given.output:
        given.output.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")
        given.output.with_suffix(".md").write_text(report.get("table", ""))


if __name__ == "__main__":
    main()
