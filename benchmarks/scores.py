"""A model folder and a folder of data -> every score of what the model hears, sees and reads, as JSON and tables.

    python -m benchmarks.scores FOLDER --data DATA --output scores.json
    python -m benchmarks.scores FOLDER --data DATA --output scores.json --only words video
    python -m benchmarks.scores FOLDER --data DATA --only speed        on a machine with nothing else to do

What is asked goes the product's own way, `Ming.ask` and `Ming.transcribe`, greedily, through the engine. Each part that
is done lies in scores.parts/, and the tables show all that lie there; the same command goes on where it was stopped.
Another model or limit begins anew. DATA holds

    bank/sprites.safetensors         ming data sprites DATA/bank
    */ with speech of the test       ming data speech DATA/speech-test --split test --count 600
    text/*.jsonl                     ming data text DATA/text
    real/*, held-out/*               recordings, see ming_omni/evaluate/clips.py; may be missing
    base-nano/                       ming build nano-base --output DATA/base-nano
    whisper-scores.json              python -m benchmarks.judges --data DATA; without it the speech scores stand alone
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, fields
from functools import partial
from hashlib import blake2b
from multiprocessing import get_context
from pathlib import Path

from benchmarks.judges import key, known

LIMITS = {
    "lists": 60, "english": 60, "mandarin": 60, "scenes": 100, "words": 100, "video": 100, "text": 150,
    "accents": 60, "speed": 12,
}  # fmt: skip
"""The parts, the longest first, and the cases of each kind: each row has its share or its multiple."""
READ_BYTES = 1 << 26


# Parts


def measure(part: str, folder: Path, base: Path, data: Path, limit: int) -> dict:
    """What one part found, how often each expert was chosen meanwhile, and the seconds it took."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    import torch

    from ming_omni import Ming
    from ming_omni.evaluate.routing import watched

    torch.set_num_threads(1)
    ming, started = Ming.load(folder), time.perf_counter()
    with watched(ming.model.thinker) as watch:
        found = _found(part, ming, base, data, limit)
    ming.engine.stop()
    counts = None if watch.counts is None else watch.counts.tolist()
    return found | {"counts": counts, "seconds": time.perf_counter() - started}


def _found(part: str, ming, base: Path, data: Path, limit: int) -> dict:
    """`scores`, or of what was heard: `clips`, with what is said in them; of lists `listed`, by the clips' names."""
    if part == "text":
        from ming_omni import Ming
        from ming_omni.evaluate.talking import text_scores

        return {"scores": [asdict(score) for score in text_scores(ming, Ming.load(base), data, limit)]}
    if part in ("scenes", "words", "video"):
        from ming_omni.evaluate import seeing

        scores = {"scenes": seeing.scene_scores, "words": seeing.word_scores, "video": seeing.video_scores}[part]
        return {"scores": [asdict(score) for score in scores(ming, data / "bank" / "sprites.safetensors", limit)]}
    from ming_omni.evaluate.hearing import hear, with_lists

    clips = clips_of(part, data, limit)
    if part == "lists":
        return {"listed": dict(zip((clip.name for clip in clips), with_lists(ming, clips), strict=True))}
    pairs = zip(clips, hear(ming, clips), strict=True)
    return {"clips": [_told(clip) | {"key": key(clip), "heard": asdict(heard)} for clip, heard in pairs]}


def clips_of(part: str, data: Path, limit: int) -> list:
    """What is listened to in a part; lists are given with the names of the other two."""
    from ming_omni.data.sentences import common_words
    from ming_omni.evaluate.clips import real_clips, synthetic_clips

    clips = synthetic_clips(data, limit, common_words())
    if part == "accents":
        return [clip for clip in clips if clip.accent]
    if part == "lists":
        return [clip for clip in clips if clip.entity]
    language = {"english": "en", "mandarin": "zh"}[part]
    plain = [clip for clip in clips if not clip.accent]
    return [clip for clip in (*plain, *real_clips(data, limit)) if clip.language == language]


def _told(clip) -> dict:
    return {field.name: getattr(clip, field.name) for field in fields(clip) if field.name != "samples"}


# Scores


def scores_of(parts: dict[str, dict], other: dict[str, str]) -> list:
    """other  what whisper-base heard, by key"""
    import numpy as np
    import torch

    from ming_omni.evaluate.clips import Clip
    from ming_omni.evaluate.hearing import Heard, speech_scores
    from ming_omni.evaluate.routing import balance_scores
    from ming_omni.evaluate.score import Score

    heard, judged, named = {}, {}, {}
    for row in (row for part in parts.values() for row in part.get("clips", ())):
        told = {name: value for name, value in row.items() if name not in ("key", "heard")}
        clip = Clip(**told | {"context": tuple(row["context"]), "samples": np.zeros(0)})
        heard[clip], named[clip.name] = Heard(**row["heard"]), clip
        if row["key"] in other:
            judged[clip] = other[row["key"]]
    listed = parts.get("lists", {}).get("listed", {})
    is_whole = all(name in named for name in listed)  # half of the names would pass for all
    found = speech_scores(heard, {named[name]: pair for name, pair in listed.items()} if is_whole else {}, judged)
    found += [Score(**score) for part in LIMITS for score in parts.get(part, {}).get("scores", ())]
    if counts := [part["counts"] for part in parts.values() if part.get("counts")]:
        found += balance_scores(torch.tensor(counts).sum(0))
    return found


# Speed


def speed(folder: Path, data: Path, limit: int) -> dict:
    """Clips one after another, and nano's several at once, beside faster-whisper int8 with both cores."""
    from benchmarks import judges
    from ming_omni import Ming
    from ming_omni.evaluate.clips import SAMPLE_RATE_HZ, synthetic_clips
    from ming_omni.evaluate.hearing import hear

    clips = [clip for clip in synthetic_clips(data, limit) if not clip.accent][:limit]
    ming = Ming.load(folder)
    hear(ming, clips[:2])  # everything is loaded
    seconds, first = [], []
    for clip in clips:
        started, shown = time.perf_counter(), None
        for update in ming.transcribe((clip.samples, SAMPLE_RATE_HZ), stream=True):
            shown = shown or (time.perf_counter() - started if update.text else None)
        seconds.append(time.perf_counter() - started)
        first.append(shown or seconds[-1])
    started = time.perf_counter()
    hear(ming, clips)
    together = time.perf_counter() - started
    found = {
        "num_clips": len(clips),
        "seconds_of_sound": sum(len(clip.samples) for clip in clips) / SAMPLE_RATE_HZ,
        "nano": {
            "clips_a_second": len(clips) / sum(seconds),
            "clips_a_second_side_by_side": len(clips) / together,
            "first_word_seconds": statistics.median(first),
        },
    }
    ming.engine.stop()
    if judges.is_installed(data):
        rows = judges.heard(data, clips[:1] + clips, 2)[1:]
        found["faster-whisper base int8"] = {
            "clips_a_second": len(clips) / sum(row["seconds"] for row in rows),
            "first_word_seconds": statistics.median(row["first_word_seconds"] for row in rows),
        }
    return found


# The command


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="a model")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--output", type=Path, help="a JSON file; tables are written beside it")
    parser.add_argument("--only", nargs="*", choices=LIMITS, default=[part for part in LIMITS if part != "speed"])
    parser.add_argument("--limit", type=int, help="cases of each kind")
    parser.add_argument("--base", type=Path, help="what the text is compared with; unless given, DATA/base-nano")
    parser.add_argument("--workers", type=int, default=2, help="processes side by side")
    given = parser.parse_args()
    if given.output:
        run(given, given.output.with_suffix(".parts"))
    else:
        with tempfile.TemporaryDirectory() as scratch:
            run(given, Path(scratch))


def run(given: argparse.Namespace, kept: Path) -> None:
    """kept  the folder of parts: those of this model and limit are not measured again"""
    started, model = time.perf_counter(), digest(given.folder)
    kept.mkdir(parents=True, exist_ok=True)
    limits = {part: given.limit or limit for part, limit in LIMITS.items()}
    parts = {}
    for path in sorted(kept.glob("*.json")):
        part = json.loads(path.read_text())
        if (part["model"], part["limit"]) == (model, limits.get(path.stem)):
            parts[path.stem] = part

    def keep(part: str, found: dict) -> None:
        parts[part] = {"model": model, "limit": limits[part]} | found
        path = kept / f"{part}.json"
        path.with_suffix(".new").write_text(json.dumps(parts[part], ensure_ascii=False, indent=1))
        path.with_suffix(".new").rename(path)
        print(f"{part}: {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)

    missing = [part for part in given.only if part not in parts]
    base = given.base or given.data / "base-nano"
    side_by_side(
        {part: partial(measure, part, given.folder, base, given.data, limits[part]) for part in LIMITS
         if part in missing and part != "speed"},
        given.workers, keep,
    )  # fmt: skip
    if "speed" in missing:
        keep("speed", speed(given.folder, given.data, limits["speed"]))
    show(given, parts)


def side_by_side(tasks: dict[str, Callable[[], dict]], workers: int, keep: Callable[[str, dict], None]) -> None:
    """What is found is kept at once; the first failure is raised after the others are done."""
    failed = None
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        running = {pool.submit(task): part for part, task in tasks.items()}
        for future in as_completed(running):
            if future.exception() is None:
                keep(running[future], future.result())
            failed = failed or future.exception()
    if failed:
        raise failed


def show(given: argparse.Namespace, parts: dict[str, dict]) -> None:
    from ming_omni.evaluate.score import table, targets

    scores = scores_of(parts, known(given.data))
    tables = f"{table(scores)}\n{targets(scores)}"
    if missing := [part for part in LIMITS if part not in parts]:
        tables += f"\nNot measured: {', '.join(missing)}.\n"
    figures = {
        "model": given.folder.name,
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "seconds": {name: round(part["seconds"]) for name, part in parts.items() if "seconds" in part},
        "scores": [asdict(score) | {"reached": score.verdict} for score in scores],
    }
    if "speed" in parts:
        figures["speed"] = {name: value for name, value in parts["speed"].items() if name not in ("model", "limit")}
        tables += f"\nSpeed: {json.dumps(figures['speed'])}\n"
    print(tables)
    if given.output:
        given.output.write_text(json.dumps(figures, indent=1, ensure_ascii=False) + "\n")
        given.output.with_suffix(".md").write_text(tables)


def digest(folder: Path) -> str:
    """Of names, sizes and contents; of a file larger than any of nano's, of its beginning."""
    found = blake2b(digest_size=12)
    for path in sorted(path for path in folder.iterdir() if path.is_file()):
        found.update(f"{path.name} {path.stat().st_size} ".encode())
        with path.open("rb") as file:
            found.update(file.read(READ_BYTES))
    return found.hexdigest()


if __name__ == "__main__":
    main()
