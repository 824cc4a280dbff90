"""Parameters -> the files of a nano folder: how each is rounded, where it lies, index and settings."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from ming_omni.errors import InputError
from ming_omni.packed import Packed, adapter, pack

INDEX = "model.safetensors.index.json"
EXPERT_GROUP = 64
"""Routed experts: one scale for 64 weights, 4.25 bits a weight."""
LARGEST_GROUP = 128
SHRINKS = [1 - i / 50 for i in range(1, 26)]
"""Of trained experts' scales, see `pack`."""
BASE = "base"
"""Stands for all files with nothing in them that training changes."""


def round_off(name: str, weight: Tensor) -> Packed | Tensor:
    """A trained parameter as it is stored."""
    if ".experts." in name:
        return pack(weight, EXPERT_GROUP, shrinks=SHRINKS)
    if ".routers." in name:
        return weight if name.endswith(".bias") else weight.half()
    # Convolutions are small and their rows short; a projector is small too, and the thinker sees all it does.
    if weight.ndim != 2 or ".projector." in name:
        return weight.half()
    return pack(weight, math.gcd(weight.shape[-1], LARGEST_GROUP), bits=8)


def by_file(parameters: dict[str, Packed | Tensor]) -> dict[str, dict[str, Packed | Tensor]]:
    """What is replaced together lies together."""
    files: dict[str, dict[str, Packed | Tensor]] = {}
    for name, value in parameters.items():
        files.setdefault(file_of(name), {})[name] = value
    return files


def file_of(name: str) -> str:
    """The file, without its ending, that keeps this parameter."""
    if adapter.MARK in name:
        return "adapter"
    if ".projector." in name:
        return "projectors"
    if ".experts." in name or ".routers." in name:
        return "experts"
    part = name.partition(".")[0]
    return BASE if part == "thinker" else part


def check(part: str, model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Weights by name are exactly those of the model; part: what it is called."""
    expected = {name: p.shape for name, p in model.named_parameters()}
    for name in expected.keys() ^ weights.keys():
        raise InputError(f"the {part} {'lacks' if name in expected else 'has no place for'} {name}")
    for name, shape in expected.items():
        if weights[name].shape != shape:
            raise InputError(f"the {part}'s {name} is {tuple(weights[name].shape)}, not {tuple(shape)}")


def stored(parameters: Mapping[str, Packed | Tensor]) -> dict[str, Tensor]:
    """The tensors that stand for these parameters."""
    found: dict[str, Tensor] = {}
    for name, value in parameters.items():
        tensors = value.named(name) if isinstance(value, Packed) else {name: value}
        found |= {key: tensor.contiguous() for key, tensor in tensors.items()}
    return found


def write_weights(folder: Path, files: Mapping[str, Mapping[str, Tensor]]) -> None:
    from safetensors.torch import save_file

    for file, tensors in files.items():
        path = folder / f"{file}.safetensors"
        save_file(dict(tensors), path, metadata={"format": "pt"})
        path.chmod(0o644)  # safetensors makes files that nobody else can read


def write_index(folder: Path) -> None:
    """Which tensor lies in which of the folder's files."""
    from safetensors import safe_open

    weight_map, total = {}, 0
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            for name in list(file.keys()):
                weight_map[name] = path.name
                total += file.get_tensor(name).nbytes
    write_json(folder / INDEX, {"metadata": {"total_size": total}, "weight_map": weight_map})


def write_json(file: Path, value: dict) -> None:
    file.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
