"""A model folder and a folder of data -> every score of what the model hears, sees and reads, as JSON and a table.

    python -m benchmarks.scores FOLDER --data DATA --output scores.json
    python -m benchmarks.scores FOLDER --data DATA --only words video --limit 20
    python -m benchmarks.scores FOLDER --data DATA --only speed        on a machine with nothing else to do

What is asked goes the product's own way, `Ming.ask` and `Ming.transcribe`, greedily, through the engine. DATA holds

    bank/sprites.safetensors         ming data sprites DATA/bank
    */ with speech of the test       ming data speech DATA/speech-test --split test --count 600
    text/*.jsonl                     ming data text DATA/text
    real/*, held-out/*               recordings, see ming_omni/evaluate/clips.py; may be missing
    base-nano/                       ming build nano-base --output DATA/base-nano
    whisper/, venv-judges/           see benchmarks/judges.py; without them nothing stands beside the speech scores
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from functools import partial
from multiprocessing import get_context
from pathlib import Path

JOBS = {"hearing": ("speech", "entities", "dialect"), "seeing": ("scenes", "words", "video"), "talking": ("text",)}
"""What one process measures in one go."""
ABILITIES = (*(ability for job in JOBS.values() for ability in job), "balance", "speed")
LIMITS = {"hearing": 25, "seeing": 100, "talking": 150}
"""Cases of each kind, more or less: each row has its part or its multiple."""
SPEED_CLIPS = 12


def measure(job: str, kinds: Sequence[str], folder: Path, base: Path, data: Path, limit: int, threads: int):
    """-> the scores of one job, how often each expert was chosen meanwhile, and the seconds it took."""
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    import torch

    from ming_omni import Ming
    from ming_omni.evaluate.routing import watched

    torch.set_num_threads(threads)
    ming, started = Ming.load(folder), time.perf_counter()
    with watched(ming.model.thinker) as watch:
        scores = _run(job, kinds, ming, base, data, limit)
    ming.engine.stop()
    return scores, None if watch.counts is None else watch.counts.tolist(), time.perf_counter() - started


def _run(job: str, kinds: Sequence[str], ming, base: Path, data: Path, limit: int) -> list:
    if job == "hearing":
        from benchmarks.judges import whisper
        from ming_omni.evaluate.clips import real_clips, synthetic_clips
        from ming_omni.evaluate.hearing import speech_scores

        clips = [*synthetic_clips(data, limit), *(real_clips(data, 2 * limit) if "speech" in kinds else [])]
        return speech_scores(ming, clips, kinds, whisper(data))
    if job == "seeing":
        from ming_omni.evaluate import seeing

        measures = {"scenes": seeing.scene_scores, "words": seeing.word_scores, "video": seeing.video_scores}
        bank = data / "bank" / "sprites.safetensors"
        return [score for kind in measures if kind in kinds for score in measures[kind](ming, bank, limit)]
    from ming_omni import Ming
    from ming_omni.evaluate.talking import text_scores

    return text_scores(ming, Ming.load(base), data, limit)


# Speed


def speed(folder: Path, data: Path, limit: int) -> dict:
    """Clips one after another, and nano's several at once, beside faster-whisper int8 with both cores."""
    from benchmarks import judges
    from ming_omni import Ming
    from ming_omni.evaluate.clips import SAMPLE_RATE_HZ, synthetic_clips
    from ming_omni.evaluate.hearing import transcripts

    clips = [clip for clip in synthetic_clips(data, limit) if not clip.accent][:limit]
    ming = Ming.load(folder)
    transcripts(ming, clips[:2])  # everything is loaded
    seconds, first = [], []
    for clip in clips:
        started, shown = time.perf_counter(), None
        for update in ming.transcribe((clip.samples, SAMPLE_RATE_HZ), stream=True):
            shown = shown or (time.perf_counter() - started if update.text else None)
        seconds.append(time.perf_counter() - started)
        first.append(shown or seconds[-1])
    started = time.perf_counter()
    transcripts(ming, clips)
    together = time.perf_counter() - started
    found = {
        "clips": len(clips),
        "seconds_of_sound": sum(len(clip.samples) for clip in clips) / SAMPLE_RATE_HZ,
        "nano": {
            "clips_a_second": len(clips) / sum(seconds),
            "clips_a_second_side_by_side": len(clips) / together,
            "first_word_seconds": statistics.median(first),
        },
    }
    ming.engine.stop()
    if judges.whisper(data):
        rows = judges.heard(data, clips[:1] + clips, 2)[1:]
        found["faster-whisper base int8"] = {
            "clips_a_second": len(clips) / sum(row["seconds"] for row in rows),
            "first_word_seconds": statistics.median(row["first_word_seconds"] for row in rows),
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="a model")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--output", type=Path, help="a JSON file; a table is written beside it")
    parser.add_argument("--only", nargs="*", choices=ABILITIES, default=[a for a in ABILITIES if a != "speed"])
    parser.add_argument("--limit", type=int, help="cases of each kind")
    parser.add_argument("--base", type=Path, help="what the text is compared with; unless given, DATA/base-nano")
    parser.add_argument("--workers", type=int, default=2, help="processes side by side")
    given = parser.parse_args()
    report = run(given)
    text = json.dumps(report["figures"], indent=1, ensure_ascii=False)
    print(text if not report["scores"] else report["table"])
    if given.output:
        given.output.write_text(text + "\n")
        given.output.with_suffix(".md").write_text(report["table"])


def run(given: argparse.Namespace) -> dict:
    from ming_omni.evaluate.score import table

    started = time.perf_counter()
    jobs = {job: [k for k in kinds if k in given.only] for job, kinds in JOBS.items()}
    if "balance" in given.only and not any(jobs.values()):
        jobs = {job: list(kinds[:1]) for job, kinds in JOBS.items()}  # something must be read
    jobs = {job: kinds for job, kinds in jobs.items() if kinds}
    base = given.base or given.data / "base-nano"
    scores, seconds, counts = [], {}, []
    with ProcessPoolExecutor(given.workers, mp_context=get_context("spawn")) as pool:
        ask = partial(pool.submit, measure)
        tasks = {
            job: ask(job, kinds, given.folder, base, given.data, given.limit or LIMITS[job], 1)
            for job, kinds in jobs.items()
        }
        for job, task in tasks.items():
            found, chosen, seconds[job] = task.result()
            scores += found
            counts += [] if chosen is None else [chosen]
            print(table(found), file=sys.stderr, flush=True)
    if "balance" in given.only and counts:
        import torch

        from ming_omni.evaluate.routing import balance_scores

        scores += balance_scores(torch.tensor(counts).sum(0))
    figures = {
        "model": given.folder.name,
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "seconds": {job: round(value) for job, value in seconds.items()},
        "scores": [asdict(score) | {"reached": score.verdict} for score in scores],
    }
    if "speed" in given.only:
        figures["speed"] = speed(given.folder, given.data, given.limit or SPEED_CLIPS)
    figures["total_seconds"] = round(time.perf_counter() - started)
    return {"figures": figures, "scores": scores, "table": table(scores)}


if __name__ == "__main__":
    main()
