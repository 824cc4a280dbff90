"""A model folder -> every score of what the model paints, edits and segments, as JSON, a table and sheets of pictures.

    python -m benchmarks.painting FOLDER --data DATA --output OUT [--ocr OCR_PYTHON] [--limit 64]
    python -m benchmarks.painting FOLDER --data DATA --output OUT --only edit segment --limit 16
    python -m benchmarks.painting FOLDER --data DATA --output OUT --only speed   on a machine with nothing else to do
    python -m benchmarks.painting truth --data DATA --output OUT   the scenes themselves: what the judges let one reach
    python -m benchmarks.painting wrong --data DATA --output OUT   other scenes, edits not done, masks elsewhere: near 0

All goes the product's own way (`Ming.paint`, `edit`, `segment`) with its own settings, in English, the first seeds that
there are, nothing picked. Pictures are kept in OUT/pictures: a stopped command goes on, and scores can be taken again.
Speed needs OMP_WAIT_POLICY=passive in the environment, as `ming` sets it: threads that spin take each other's cores.
DATA holds bank/sprites.safetensors and judge/judge.safetensors; OCR_PYTHON is the interpreter of an environment with
rapidocr-onnxruntime (benchmarks/ocr.py), without which no words are read.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ming_omni.data import edits, prompts, segments
from ming_omni.data.bank import PAINTER_STYLES, Bank, stock
from ming_omni.data.examples import Example
from ming_omni.data.judges import Judge, Seen
from ming_omni.data.render import Rendered, render
from ming_omni.data.splits import generator
from ming_omni.evaluate import painted
from ming_omni.evaluate.score import Score, bootstrap, share, table
from ming_omni.paint.masks import COLORS
from ming_omni.paint.segment import as_the_painter_sees, read
from ming_omni.train.painter.pictures import covered
from ming_omni.train.painter.requests import stocks

SEED = 11
SIDE = 256
GENEVAL = ("one object", "two objects", "counting", "colours", "position", "attributes")
LONGEST_WORD = 8
KINDS = ("paint", "edit", "segment")
TOGETHER = 4
"""Prompts painted at once."""
THRESHOLDS = [round(0.04 + 0.02 * i, 2) for i in range(15)]
SHEET_SIDE, SHEET_COLUMNS, MOST_ON_SHEET = 128, 8, 64
SPEED_ROUNDS = 5


@dataclass(frozen=True)
class Case:
    kind: str
    task: str
    number: int
    example: Example
    """An edit has the scenes before and after; paintings and masks have one."""
    classes: tuple[str, ...] = ()
    """What is to be found in a picture; one: referred to by a phrase."""
    targets: tuple[tuple[int, ...], ...] = ()
    """Things of the scene that each of them means."""

    @property
    def name(self) -> str:
        return f"{self.kind}-{self.task.replace(' ', '-')}-{self.number:03}"


# Cases


def cases(bank: Bank, only: Sequence[str], limit: int) -> list[Case]:
    found: list[Case] = []
    if "paint" in only:
        # Prompts do not show drawings, and a painter cannot paint what it has never seen; words and fonts are held out.
        own, _ = stocks(bank, "test")
        for task in prompts.TASKS:
            made = (prompts.TASK_MAKERS[task](numbers, own, False) for numbers in _numbers("test", task))
            wanted = (example for example in made if task != "words" or is_short(example))
            found += [Case("paint", task, i, next(wanted)) for i in range(limit)]
    if "edit" in only:
        # Drawings nobody has learned, of things that the painter knows.
        known, held = stock(bank, "train", PAINTER_STYLES), stock(bank, "test", PAINTER_STYLES)
        held = replace(held, sprites={name: own for name, own in held.sprites.items() if name in known.sprites})
        for task, make in edits.EDITS.items():
            for i, numbers in zip(range(max(1, limit // 2)), _numbers("test", task), strict=False):
                found.append(Case("edit", task, i, make(numbers, held, False)))
    if "segment" in only:
        for split in ("dev", "test"):
            held = stock(bank, split)
            for task, make in (("referring", segments.referring), ("semantic", segments.semantic)):
                for i, numbers in zip(range(limit), _numbers(split, task), strict=False):
                    found.append(mask_case(f"{task} {split}", i, make(numbers, held, False)))
    return found


def _numbers(split: str, task: str) -> Iterator[np.random.Generator]:
    index = 0
    while True:
        yield generator(SEED, f"painted {split} {task}", index)
        index += 1


def is_short(example: Example) -> bool:
    word = example.facts["words"]
    return word.isascii() and len(word) <= LONGEST_WORD


def mask_case(task: str, number: int, example: Example) -> Case:
    things = example.scenes[0].things
    if task.startswith("referring"):
        return Case("segment", task, number, example, (example.answer.removeprefix("the "),), (example.targets,))
    names = tuple(dict.fromkeys(thing.concept for thing in things))
    targets = tuple(tuple(i for i, thing in enumerate(things) if thing.concept == name) for name in names)
    return Case("segment", task, number, example, names, targets)


def drawn(bank: Bank, case: Case, which: int = -1) -> Rendered:
    return render(bank, [case.example.scenes[which]], SIDE)


def array(picture: Tensor | Image.Image) -> np.ndarray:
    """(S, S, 3) uint8"""
    if isinstance(picture, Image.Image):
        return np.asarray(picture.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR))
    return picture.permute(1, 2, 0).cpu().numpy()


# Painters: groups of cases of one task -> pictures before (edits and masks) and after.

Made = list[tuple[np.ndarray | None, np.ndarray]]


def with_model(ming, bank: Bank, group: Sequence[Case]) -> Made:
    if group[0].kind == "paint":
        pictures = ming.paint([case.example.prompt for case in group], seed=group[0].number)
        return [(None, array(picture.image)) for picture in pictures]
    found: Made = []
    for case in group:
        given = Image.fromarray(array(drawn(bank, case, 0).pictures[0]))
        if case.kind == "edit":
            (picture,) = ming.edit(given, case.example.prompt, seed=case.number)
            before = as_the_painter_sees(ming.model, ming.processor, given, picture)
            found.append((array(Image.fromarray(before)), array(picture.image)))
        else:
            what = {"what": case.classes[0]} if len(case.classes) == 1 else {"classes": case.classes}
            result = ming.segment(given, **what, seed=case.number)
            found.append((array(Image.fromarray(result.before)), array(result.edited.image)))
    return found


def with_truth(_, bank: Bank, group: Sequence[Case]) -> Made:
    return [truth(bank, case) for case in group]


def truth(bank: Bank, case: Case) -> tuple[np.ndarray | None, np.ndarray]:
    scene = drawn(bank, case)
    if case.kind == "paint":
        return None, array(scene.pictures[0])
    if case.kind == "edit":
        return array(drawn(bank, case, 0).pictures[0]), array(scene.pictures[0])
    covers = tuple((i, color) for part, color in zip(case.targets, COLORS, strict=False) for i in part)
    return array(scene.pictures[0]), array(covered(scene, [covers])[0])


def with_wrong(_, bank: Bank, group: Sequence[Case]) -> Made:
    """Another scene than the prompt's, an edit that was not done, a mask that lies elsewhere."""
    found: Made = []
    for case in group:
        before, after = truth(bank, case)
        if case.kind == "paint":
            own, _ = stocks(bank, "test")
            numbers = generator(SEED, f"wrong {case.task}", case.number)
            other = replace(case, example=prompts.TASK_MAKERS[case.task](numbers, own, False))
            found.append((None, truth(bank, other)[1]))
        elif case.kind == "edit":
            found.append((before, before))
        else:
            moved = np.roll(after.astype(int) - before, SIDE // 2, (0, 1)) + before
            found.append((before, moved.clip(0, 255).astype(np.uint8)))
    return found


STANDS_FOR: dict[str, Callable] = {"truth": with_truth, "wrong": with_wrong}


def paint_part(model: str, bank_file: Path, output: Path, only: Sequence[str], limit: int, part: int, parts: int):
    """One process's share of what is not painted yet."""
    torch.set_num_threads(1)
    bank = Bank(bank_file)
    ming, make = None, STANDS_FOR.get(model, with_model)
    groups = [
        group
        for number, group in enumerate(grouped(cases(bank, only, limit)))
        if number % parts == part and not all(file(output, case).is_file() for case in group)
    ]
    if model not in STANDS_FOR and groups:
        from ming_omni import Ming

        ming = Ming.load(model)
    for group in groups:
        for case, (before, after) in zip(group, make(ming, bank, group), strict=True):
            if before is not None:
                Image.fromarray(before).save(file(output, case, "before-"))
            Image.fromarray(after).save(file(output, case))


def grouped(found: Sequence[Case]) -> Iterator[list[Case]]:
    """Neighbours of one task, a few at a time."""
    group: list[Case] = []
    for case in found:
        if group and (case.task != group[0].task or len(group) == TOGETHER):
            yield group
            group = []
        group.append(case)
    if group:
        yield group


def file(output: Path, case: Case, which: str = "") -> Path:
    return output / "pictures" / f"{which}{case.name}.png"


# Scores


@dataclass
class Looked:
    """A case, its pictures, and what judge and OCR make of them."""

    case: Case
    before: np.ndarray | None
    after: np.ndarray
    seen_before: list[Seen]
    seen: list[Seen]
    lines: list[str]
    truths: list[np.ndarray]
    """Masks that should be found."""


def look(bank: Bank, judge: Judge, found: Sequence[tuple[Case, tuple]], ocr: Path | None) -> list[Looked]:
    has_words = [i for i, (case, _) in enumerate(found) if case.task in ("words", "change words")]
    lines: dict[int, list[str]] = {}
    if ocr is not None and has_words:
        from benchmarks.image_vae import lines as read_lines

        pictures = torch.from_numpy(np.stack([found[i][1][1] for i in has_words])).permute(0, 3, 1, 2)
        lines = dict(zip(has_words, read_lines(pictures, ocr, 2), strict=True))
    looked = []
    for i, (case, (before, after)) in enumerate(found):
        seen_before, seen = ([], []) if case.kind == "segment" else (_seen(judge, before), _seen(judge, after))
        scene = drawn(bank, case) if case.kind == "segment" else None
        truths = [] if scene is None else [scene.mask(0, part).numpy() for part in case.targets]
        looked.append(Looked(case, before, after, seen_before, seen, lines.get(i, []), truths))
    return looked


def _seen(judge: Judge, picture: np.ndarray | None) -> list[Seen]:
    if picture is None:
        return []
    return judge.look(torch.from_numpy(picture.copy()).permute(2, 0, 1)[None])[0]


def paint_scores(judge: Judge, looked: Sequence[Looked], has_ocr: bool) -> dict[str, list[bool]]:
    found: dict[str, list[bool]] = {}
    for one in (one for one in looked if one.case.kind == "paint"):
        facts = one.case.example.facts
        if one.case.task == "words":
            if has_ocr:
                found.setdefault("words", []).append(painted.reads(facts["words"], one.lines))
        else:
            found.setdefault(one.case.task, []).append(painted.shows(judge, facts, one.seen))
    return found


def edit_scores(bank: Bank, judge: Judge, looked: Sequence[Looked], has_ocr: bool) -> dict[str, list[tuple[bool, ...]]]:
    """For each kind of edit and item: the change is seen, the rest is kept, the other things are recognised."""
    found: dict[str, list[tuple[bool, ...]]] = {}
    for one in (one for one in looked if one.case.kind == "edit"):
        example = one.case.example
        task = example.facts["edit"]
        if task == "change words" and not has_ocr:
            continue
        truth = array(drawn(bank, one.case).pictures[0])
        is_seen = painted.is_change_seen(judge, example, one.before, one.after, truth, one.seen, one.lines)
        owners = drawn(bank, one.case, 0).owners[0].numpy()
        is_kept = painted.is_kept(example, one.before, one.after, owners)
        known = painted.are_recognised(judge, example, one.seen_before, one.seen)
        found.setdefault(task, []).append((is_seen, is_kept, known))
    return found


def mask_scores(looked: Sequence[Looked], task: str, threshold: float) -> list[float]:
    """Of each case, the mean overlap of its masks."""
    found = []
    for one in (one for one in looked if one.case.task == task):
        colors = [COLORS[color] for color in list(COLORS)[: len(one.case.classes)]]
        inside = read(one.before.astype(np.float32), one.after.astype(np.float32), colors, threshold)
        overlaps = [painted.overlap(mask, truth) for mask, truth in zip(inside, one.truths, strict=True)]
        found.append(float(np.mean(overlaps)))
    return found


def mean(ability: str, values: Sequence[float], floor: float, goal: float) -> Score:
    low, high = bootstrap(np.array([(value, 1.0) for value in values]))
    return Score(ability, float(np.mean(values)), low, high, len(values), floor, goal)


def all_scores(bank: Bank, judge: Judge, looked: Sequence[Looked], ideal: Sequence[Looked], has_ocr: bool) -> dict:
    """ideal: the same cases, painted as they should be; what the judges think of those stands beside each score."""
    scores: list[Score] = []
    ours, best = (paint_scores(judge, part, has_ocr) for part in (looked, ideal))
    if ours:
        pooled, ceiling = ([x for task in GENEVAL for x in part[task]] for part in (ours, best))
        scores.append(share("GenEval-style, mean of six", pooled, 0.75, 0.90, truth=float(np.mean(ceiling))))
        for task, right in ours.items():
            bounds = (0.60, 0.90) if task == "words" else (None, None)
            label = f"words of up to {LONGEST_WORD} letters" if task == "words" else f"- {task}"
            scores.append(share(label, right, *bounds, truth=float(np.mean(best[task]))))
    ours, best = (edit_scores(bank, judge, part, has_ocr) for part in (looked, ideal))
    if ours:
        pooled, ceiling = ([all(item) for part in found.values() for item in part] for found in (ours, best))
        parts = np.mean([item for part in ours.values() for item in part], 0)
        beside = dict(zip(("seen", "kept", "recognised"), map(float, parts), strict=True))
        scores.append(share("edits, each item", pooled, 0.60, 0.90, truth=float(np.mean(ceiling)), **beside))
        for task, right in ours.items():
            ideal_mean = float(np.mean([all(item) for item in best[task]]))
            beside = dict(zip(("seen", "kept", "recognised"), map(float, np.mean(right, 0)), strict=True))
            scores.append(share(f"- {task}", [all(item) for item in right], None, None, truth=ideal_mean, **beside))
    figures: dict = {}
    if any(one.case.kind == "segment" for one in looked):
        swept = {t: float(np.mean(mask_scores(looked, "referring dev", t))) for t in THRESHOLDS}
        threshold = max(swept, key=swept.get)
        figures = {"mask_threshold": threshold, "swept_on_dev": {str(t): round(v, 4) for t, v in swept.items()}}
        for task in ("referring", "semantic"):
            values = mask_scores(looked, f"{task} test", threshold)
            scores.append(mean(f"{task} segmentation, mIoU", values, 0.60, 0.85))
    return {"scores": scores, "figures": figures}


# Sheets and speed


def write_sheets(output: Path, looked: Sequence[Looked]) -> None:
    """The first pictures of each task, and beside edits and masks what was there before."""
    tasks: dict[str, list[Looked]] = {}
    for one in looked:
        tasks.setdefault(f"{one.case.kind}-{one.case.task.replace(' ', '-')}", []).append(one)
    for name, found in tasks.items():
        cells = [
            np.concatenate([small(p) for p in (one.before, one.after) if p is not None], 1)
            for one in found[:MOST_ON_SHEET]
        ]
        cells += [np.full_like(cells[0], 255)] * (-len(cells) % SHEET_COLUMNS)
        rows = [np.concatenate(cells[i : i + SHEET_COLUMNS], 1) for i in range(0, len(cells), SHEET_COLUMNS)]
        Image.fromarray(np.concatenate(rows)).save(output / f"{name}.png", optimize=True)


def small(picture: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(picture).resize((SHEET_SIDE,) * 2, Image.Resampling.LANCZOS))


def speed(model: str, bank: Bank, threads: int) -> dict[str, float]:
    """Median seconds of one picture after one that warms up."""
    from ming_omni import Ming

    torch.set_num_threads(threads)
    ming, found = Ming.load(model), {}
    chosen = cases(bank, KINDS, SPEED_ROUNDS + 1)
    for kind in KINDS:
        taken = []
        for case in [case for case in chosen if case.kind == kind][: SPEED_ROUNDS + 1]:
            started = time.perf_counter()
            with_model(ming, bank, [case])
            taken.append(time.perf_counter() - started)
        found[f"{kind}_seconds"] = round(statistics.median(taken[1:]), 2)
    return found


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a folder, nano, or truth or wrong")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--ocr", type=Path, help="python of an environment with rapidocr-onnxruntime")
    parser.add_argument("--only", nargs="*", choices=(*KINDS, "speed"), default=list(KINDS))
    parser.add_argument("--limit", type=int, default=64, help="pictures of each task; half as many of each edit")
    parser.add_argument("--workers", type=int, default=2, help="processes side by side")
    given = parser.parse_args(arguments)
    report = run(given)
    (given.output / "painting.json").write_text(json.dumps(report["figures"], indent=1, ensure_ascii=False) + "\n")
    (given.output / "painting.md").write_text(report["table"])
    print(report["table"] or json.dumps(report["figures"], indent=1))


def run(given: argparse.Namespace) -> dict:
    started = time.perf_counter()
    bank_file = given.data / "bank" / "sprites.safetensors"
    bank, judge = Bank(bank_file), Judge.load(given.data / "judge" / "judge.safetensors")
    (given.output / "pictures").mkdir(parents=True, exist_ok=True)
    only = [kind for kind in KINDS if kind in given.only]
    work = partial(paint_part, given.model, bank_file, given.output, only, given.limit, parts=given.workers)
    if only and given.workers == 1:
        work(part=0)
    elif only:
        with ProcessPoolExecutor(given.workers, mp_context=get_context("spawn")) as pool:
            for task in [pool.submit(work, part=part) for part in range(given.workers)]:
                task.result()
    chosen = cases(bank, only, given.limit)
    pairs = [(case, (_load(file(given.output, case, "before-")), _load(file(given.output, case)))) for case in chosen]
    looked = look(bank, judge, pairs, given.ocr)
    judged = [case for case in chosen if case.kind != "segment"]
    ideal = look(bank, judge, [(case, truth(bank, case)) for case in judged], given.ocr)
    found = all_scores(bank, judge, looked, ideal, given.ocr is not None)
    write_sheets(given.output, looked)
    figures = {
        "model": Path(given.model).name,
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "limit": given.limit,
        "scores": [asdict(score) | {"reached": score.verdict} for score in found["scores"]],
        **found["figures"],
    }
    if "speed" in given.only:
        figures["speed"] = speed(given.model, bank, given.workers)
    figures["total_seconds"] = round(time.perf_counter() - started)
    return {"figures": figures, "table": table(found["scores"]) if found["scores"] else ""}


def _load(path: Path) -> np.ndarray | None:
    return np.asarray(Image.open(path).convert("RGB")) if path.is_file() else None


if __name__ == "__main__":
    main()
