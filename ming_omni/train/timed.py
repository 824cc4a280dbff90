"""What nano's own runs share, each of which has a given time: settings, rates, logs, pieces small enough to travel."""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from ming_omni.errors import InputError
from ming_omni.train.recipe import build, find, tables

LOG = "log.jsonl"
PIECE_BYTES = 15 << 20
NO_LIMIT = 1e9
SLACK_SECONDS = 0.5
"""A run that takes all of its call is over before the call is."""


def read_settings(kind: type, recipe: Path | str, sets: list[str], recipes: Path) -> Any:
    """Settings of that kind. recipe: a file, or the name of one in the folder of recipes; sets: `a.b=value`."""
    file = find(recipe, recipes)
    settings = build(kind, tables(file, sets))
    settings.name = settings.name or file.stem
    return settings


def command(about: str) -> argparse.ArgumentParser:
    """What every run is asked; about: its module's docstring, whose first line is shown."""
    parser = argparse.ArgumentParser(description=about.partition("\n")[0])
    parser.add_argument("recipe", help="a file, or the name of one beside this module")
    parser.add_argument("--output", type=Path, required=True, help="the run's folder; called again, it goes on")
    parser.add_argument("--pieces", type=Path, help="where what was trained is written in small files")
    parser.add_argument("--for", type=float, default=NO_LIMIT, dest="seconds", help="seconds of this call")
    parser.add_argument("--set", action="append", default=[], dest="sets", metavar="NAME=VALUE")
    return parser


def check_times(settings: Any, call_seconds: float) -> None:
    if not settings.seconds and call_seconds >= NO_LIMIT:
        raise InputError("seconds=0 takes what a call has left: say with --for how long that is")


def time_left(call_seconds: float, reserve_seconds: float, called: float) -> float:
    """Seconds that a call, which began at `called`, can train from now on if it takes all it has."""
    return call_seconds - reserve_seconds - SLACK_SECONDS - (time.perf_counter() - called)


def annealed(progress: float, step: int, warmup_steps: int) -> float:
    """Rises over the first steps, then falls along a cosine with the share of the time gone by; zero at its end."""
    warm = min(1.0, (step + 1) / max(1, warmup_steps))
    return warm * 0.5 * (1 + math.cos(math.pi * min(1.0, max(0.0, progress))))


def rate_factor(settings: Any, seconds: float, step: int) -> float:
    """`annealed` over all seconds of a run. step: of this optimiser"""
    return annealed(seconds / settings.seconds, step, settings.learn.warmup_steps)


def mark(device: torch.device) -> Callable[[], None]:
    """A function that waits until the device has done everything so far."""
    if device.type != "cuda":
        return lambda: None
    event = torch.cuda.Event()
    event.record()
    return event.synchronize


def summary(facts: dict[str, Any], row: dict[str, Any]) -> str:
    """One line for a person."""
    shown = {name: value for name, value in row.items() if isinstance(value, int | float) and "/worst" not in name}
    figures = " ".join(f"{name} {value:.4g}" for name, value in shown.items())
    return f"{facts['step']:6d} {facts['seconds']:6.1f} s  {row.get('event', '')} {figures}"


def write_pieces(
    folder: Path, stem: str, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None
) -> list[Path]:
    """stem-0.safetensors, ...: tensors of a CPU, each file small enough to be fetched; what an earlier export needed
    beyond these goes."""
    folder.mkdir(parents=True, exist_ok=True)
    pieces: list[dict[str, Tensor]] = [{}]
    for name, value in tensors.items():
        if sum(t.nbytes for t in pieces[-1].values()) + value.nbytes > PIECE_BYTES and pieces[-1]:
            pieces.append({})
        pieces[-1][name] = value.contiguous()
    paths = [folder / f"{stem}-{number}.safetensors" for number in range(len(pieces))]
    for path, piece in zip(paths, pieces, strict=True):
        save_file(piece, path, metadata=metadata)
    for path in set(folder.glob(f"{stem}-*.safetensors")) - set(paths):
        path.unlink()
    return paths
