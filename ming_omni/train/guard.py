"""A loss or gradient that is not finite -> the step is skipped, counted, its batches saved; too many stop the run.

And a disk that is full -> one sentence, whoever was writing.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from safetensors.torch import save_file

from ming_omni.errors import InputError
from ming_omni.train.batches import Batch
from ming_omni.train.recipe import GuardSettings

ALMOST_NOTHING = 1 << 16
"""Bytes that are left on a disk when a write to it has failed for want of room."""


class Guard:
    def __init__(self, folder: Path, settings: GuardSettings, rank: int = 0):
        self.folder, self.settings, self.rank = folder, settings, rank
        self.in_a_row = self.num_skipped = 0

    def allows(self, step: int, figures: dict[str, float], batches: Sequence[Batch]) -> bool:
        """Whether the optimiser may use this step. All processes see the same figures, so all decide alike."""
        wrong = {name: value for name, value in figures.items() if not math.isfinite(value)}
        if not wrong:
            self.in_a_row = 0
            return True
        self.in_a_row += 1
        self.num_skipped += 1
        path = self.save(step, wrong, batches)
        if self.in_a_row >= self.settings.max_bad_steps:
            what = ", ".join(f"{name} {value}" for name, value in wrong.items())
            raise InputError(
                f"{self.in_a_row} steps in a row were not finite ({what}); the batches are in {path.parent}"
            )
        return False

    def save(self, step: int, wrong: dict[str, float], batches: Sequence[Batch]) -> Path:
        """The lines that the step read, and its tensors."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"step-{step:08d}-process-{self.rank}.json"
        lines = {f"{index} {batch.kind}": batch.where for index, batch in enumerate(batches)}
        path.write_text(json.dumps({"step": step, "wrong": {k: str(v) for k, v in wrong.items()}, "lines": lines}))
        tensors = {
            f"{index}/{name}": tensor.cpu().contiguous()
            for index, batch in enumerate(batches)
            for name, tensor in batch.tensors().items()
        }
        save_file(tensors, path.with_suffix(".safetensors"))
        return path


@contextmanager
def full_disk_named(output: Path) -> Iterator[None]:
    """Pictures, sounds, curves and tensors are written by libraries that each report a full disk in another way."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        folder = next(path for path in (output.absolute(), *output.absolute().parents) if path.exists())
        is_said = any(words in str(error) for words in ("No space left", "quota exceeded"))
        if not is_said and shutil.disk_usage(folder).free > ALMOST_NOTHING:
            raise
        raise InputError(f"the disk of {output} is full ({error}); with more room, --resume goes on") from error
