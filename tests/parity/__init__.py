"""Recorded runs of the published model, replayed: `python -m tests.parity FOLDER` prints every error as JSON.

One module per set. Each has `matches(folder) -> bool`, which recognises its set by what the folder holds (never by the
folder's name), and `compare(folder) -> Iterator[Check]`, which loads the set through the public loader.
"""

from __future__ import annotations

import importlib
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
    """(set name, folder) for the root itself or every set directly below it; an unknown folder is an error."""
    for folder in [root, *sorted(p for p in root.iterdir() if p.is_dir())]:
        for name in SETS:
            if importlib.import_module(f"tests.parity.{name}").matches(folder):
                yield name, folder
                break
        if folder == root and (root / "outputs.safetensors").is_file():
            return


@torch.inference_mode()
def run(root: Path) -> dict[str, list[dict]]:
    """Compare every set found at or below `root`."""
    if not root.is_dir():
        raise FileNotFoundError(f"{root} is not a folder")
    report = {}
    for name, folder in find(root):
        checks = importlib.import_module(f"tests.parity.{name}").compare(folder)
        report[str(folder)] = [asdict(check) | {"set": name, "passed": check.passed} for check in checks]
    if not report:
        raise FileNotFoundError(f"{root} holds no recorded set")
    return report
