"""Held-out requests -> losses of the averaged painter, and a sheet of what it paints."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from ming_omni.data.judges import Judge
from ming_omni.data.sheet import write_sheet
from ming_omni.evaluate.painted import shows
from ming_omni.model import flow
from ming_omni.model.painter import noise, sigmas
from ming_omni.train.painter.learner import ABOUT, DISTILLING, Learner, Moved
from ming_omni.train.painter.requests import Batch

SEED = 7
TEACHER_STEPS = 16
SHOWN = {"paint": (6, 4), "edit": (5, 1)}
"""Requests on the sheet: without letters to draw, and with."""


@torch.no_grad()
def look(learner: Learner, cases: list[tuple[Batch, Moved]]) -> dict[str, float]:
    device = learner.device
    with torch.random.fork_rng([device] if device.type == "cuda" else []), learner.averaged():
        torch.manual_seed(SEED)  # always the same noise
        learner.eval()
        losses = learner([moved for _, moved in cases])
        learner.train()
    return {name: float(value) for name, value in losses.items() if not name.startswith(ABOUT)}


@torch.no_grad()
def judged(learner: Learner, cases: list[tuple[Batch, Moved]], judge: Judge) -> dict[str, float]:
    """Part of the paintings without letters that show what was asked, of each task and of all."""
    rights: dict[str, list[bool]] = {}
    for batch, moved in cases:
        if batch.kind == "paint":
            rows = range(moved.count - len(moved.letters[0]))
            seen = judge.look(paint(learner, moved, rows))
            for row, found in zip(rows, seen, strict=True):
                request = batch.requests[row]
                rights.setdefault(request.task, []).append(shows(judge, request.facts, found))
    means = {f"right/{task}": sum(found) / len(found) for task, found in rights.items()}
    every = [right for found in rights.values() for right in found]
    return means | {"right": sum(every) / max(1, len(every))}


@torch.no_grad()
def write(learner: Learner, cases: list[tuple[Batch, Moved]], path: Path) -> None:
    """What is painted for the first requests of each kind; beside edits the picture before."""
    shown, labels = [], []
    for batch, moved in cases:
        split = moved.count - len(moved.letters[0])
        plain, lettered = SHOWN[batch.kind]
        groups = [range(min(plain, split)), range(split, min(split + lettered, moved.count))]
        for rows in groups:
            if not rows:
                continue
            made = paint(learner, moved, rows)
            for row, picture in zip(rows, made, strict=True):
                if moved.pictures.seen is not None:
                    shown.append(moved.pictures.seen[row].cpu())
                    labels.append("before")
                shown.append(picture.cpu())
                labels.append(batch.requests[row].prompt)
    write_sheet(path, shown, labels)


@torch.no_grad()
def paint(learner: Learner, moved: Moved, rows: range) -> Tensor:
    """Pictures (n, 3, S, S) uint8 of neighbouring requests that all have letters to draw, or none."""
    is_few, chosen = learner.phase == DISTILLING, learner.settings.distil
    guidance = 1.0 if is_few else chosen.guidance if moved.kind == "paint" else chosen.edit_guidance
    split = moved.count - len(moved.letters[0])
    part = slice(rows.start, rows.stop)
    with learner.averaged() as painter:
        (states,) = learner.reader(painter, [moved.prompts])
    with learner.averaged() as painter, learner.autocast():
        condition = painter.condition(states[part])
        if rows.start >= split:
            letters = painter.glyphs(*(t[rows.start - split : rows.stop - split] for t in moved.letters))
            condition = torch.cat([condition, letters.to(condition.dtype)], 1)
        reference = None if moved.pictures.reference is None else moved.pictures.reference[part]
        context, pooled = painter.context(torch.cat([condition, torch.zeros_like(condition)]))
        both = None if reference is None else reference.repeat(2, 1, 1, 1)

        def velocity(x: Tensor, sigma: Tensor) -> Tensor:
            time = (sigma * painter.config.flow.num_train_steps).to(x.device).expand(2 * len(x))
            made, _ = learner.network(painter.dit, x.repeat(2, 1, 1, 1), time, context, pooled, both)
            told, untold = made.float().chunk(2)
            return untold + guidance * (told - untold)

        latents = moved.pictures.latents[part]
        cells = latents.shape[2] * latents.shape[3] // painter.config.dit.patch_size**2
        grid = sigmas(painter.config.flow, painter.config.steps if is_few else TEACHER_STEPS, cells)
        start = noise([*rows], latents.shape[1:], torch.float32).to(latents.device)
        *_, last = flow.euler(velocity, start, grid)
        pixels = painter.decode(last.to(painter.vae.dtype))
    return (pixels.float() * 255).round().to(torch.uint8)
