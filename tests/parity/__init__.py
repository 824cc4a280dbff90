"""Recorded runs of the published model, replayed: `python -m tests.parity FOLDER` prints every error as JSON.

One module per set. Each has `matches(folder) -> bool`, which recognises its set by what the folder holds (never by the
folder's name), and `compare(folder) -> Iterator[Check]`, which loads the set through the public loader.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

SETS = ("llm", "thinker", "vision", "audio", "talker", "imagegen", "glyph", "processor")


@dataclass
class Check:
    """One compared quantity: the largest deviation found and the largest allowed (0: exact)."""

    key: str
    error: float
    tolerance: float

    @property
    def passed(self) -> bool:
        return self.error <= self.tolerance  # a NaN error fails


def difference(key: str, actual: Tensor, expected: Tensor, tolerance: float) -> Check:
    """Largest absolute difference of two tensors of one shape; another shape is an infinite error."""
    if actual.shape != expected.shape:
        return Check(f"{key} {tuple(actual.shape)} is not {tuple(expected.shape)}", float("inf"), tolerance)
    if actual.numel() == 0:
        return Check(key, 0.0, tolerance)
    gap = (actual.detach().cpu().to(torch.float64) - expected.to(torch.float64)).abs().max()
    return Check(key, float(gap), tolerance)


def same(key: str, actual: object, expected: object) -> Check:
    """Exact equality of anything that is not a float tensor: text, sizes, ids."""
    if isinstance(actual, Tensor) and isinstance(expected, Tensor):
        return difference(key, actual, expected, 0.0)
    return Check(key, 0.0 if actual == expected else 1.0, 0.0)


def tensors(path: Path) -> dict[str, Tensor]:
    with safe_open(path, "pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dict


def keys(path: Path) -> set[str]:
    """Tensor names in a safetensors file, without reading the tensors; empty for a missing file."""
    if not path.is_file():
        return set()
    with safe_open(path, "pt") as file:
        return set(file.keys())


def find(root: Path) -> Iterator[tuple[str, Path]]:
    """(set name, folder) for the root itself, else for every set directly below it.

    A folder that holds a record but is no set, say because a file of it was lost, has no name and must fail.
    """
    names = {folder: _recognise(folder) for folder in [root, *sorted(p for p in root.iterdir() if p.is_dir())]}
    if names[root] is not None or _is_record(root):
        yield names[root], root
        return
    for folder, name in names.items():
        if name is not None or _is_record(folder):
            yield name, folder


def _recognise(folder: Path) -> str | None:
    return next((name for name in SETS if importlib.import_module(f"tests.parity.{name}").matches(folder)), None)


def _is_record(folder: Path) -> bool:
    return any((folder / name).is_file() for name in ("inputs.safetensors", "outputs.safetensors", "expected.json"))


def _compare(name: str | None, folder: Path) -> Iterator[Check]:
    """The checks of one set; one that cannot be finished fails, and leaves the other sets their say."""
    if name is None:
        yield Check("the folder is no complete set", math.inf, 0.0)
        return
    try:
        yield from importlib.import_module(f"tests.parity.{name}").compare(folder)
    except Exception as error:
        yield Check(f"{type(error).__name__}: {error}", math.inf, 0.0)


@torch.inference_mode()
def run(root: Path) -> dict[str, list[dict]]:
    """Compare every set found at or below `root`."""
    if not root.is_dir():
        raise FileNotFoundError(f"{root} is not a folder")
    report = {}
    for name, folder in find(root):
        checks = _compare(name, folder)
        report[str(folder)] = [asdict(check) | {"set": name, "passed": check.passed} for check in checks]
    if not report:
        raise FileNotFoundError(f"{root} holds no recorded set")
    return report
