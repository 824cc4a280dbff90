"""Figures of each step, and what went wrong -> log.jsonl, TensorBoard, progress bar and terminal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ming_omni.train.recipe import Recipe

FILE = "log.jsonl"


class Log:
    """Writes in the first process only; elsewhere every call does nothing."""

    def __init__(self, output: Path, recipe: Recipe, start: int, is_first: bool = True):
        self.is_first, self.recipe = is_first, recipe
        self.num_bad = 0
        if not is_first:
            return
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        output.mkdir(parents=True, exist_ok=True)
        _cut(output / FILE, start)
        self.file = (output / FILE).open("a")
        self.board = _board(output / "tensorboard", start) if recipe.output.tensorboard else None
        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
        self.progress = Progress(*columns, TextColumn("{task.fields[figures]}"))
        self.progress.start()
        self.bar = self.progress.add_task(recipe.name, total=recipe.steps, completed=start, figures="")

    def step(self, step: int, figures: dict[str, float]) -> None:
        if not self.is_first:
            return
        self.progress.update(self.bar, completed=step + 1, figures=f"loss {figures['loss']:.4f}")
        if step % self.recipe.output.log_every == 0:
            self._write({"step": step, **figures})
            for name, value in figures.items() if self.board else ():
                self.board.add_scalar(name, value, step)

    def event(self, step: int, what: str, message: object) -> None:
        """Something that a person should know of."""
        if self.is_first:
            self._write({"step": step, "event": what, "message": str(message)})
            self.progress.console.print(f"step {step}: {what}: {message}", markup=False, highlight=False)

    def close(self) -> None:
        if self.is_first:
            self.progress.stop()
            self.file.close()
            if self.board:
                self.board.close()

    def _write(self, row: dict[str, Any]) -> None:
        self.file.write(json.dumps(row) + "\n")
        self.file.flush()


def read(output: Path) -> list[dict[str, Any]]:
    """Rows of a log; a last line that was being written when the run was killed is left out."""
    path, rows = output / FILE, []
    for text in path.read_text().splitlines() if path.is_file() else ():
        try:
            rows.append(json.loads(text))
        except json.JSONDecodeError:
            break
    return rows


def count_events(output: Path, what: str) -> int:
    return sum(row.get("event") == what for row in read(output))


def _cut(path: Path, start: int) -> None:
    """Forget what lies after the step that a run goes on from: it will be done again."""
    rows = [row for row in read(path.parent) if row["step"] < start]
    part = path.with_suffix(".unfinished")
    part.write_text("".join(json.dumps(row) + "\n" for row in rows))
    part.replace(path)  # whole or not at all, also when the run is killed here or the disk is full


def _board(folder: Path, start: int):
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        print("TensorBoard is not installed, so no curves are written for it: pip install 'ming-omni[train]'")
        return None
    return SummaryWriter(str(folder), purge_step=start)
