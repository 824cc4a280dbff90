"""Parameters by file -> a model folder: safetensors, their index, settings. All builders of nano use this."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path

from torch import Tensor
from transformers import PreTrainedConfig

from ming_omni.packed import Packed

INDEX = "model.safetensors.index.json"


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


def all_settings(config: PreTrainedConfig) -> dict:
    """Our own fields, defaults included, so that a later change of a default cannot change a shipped model."""
    found = {"model_type": config.model_type}
    for field in fields(config):
        value = getattr(config, field.name)
        if field.name in type(config).__annotations__:
            found[field.name] = all_settings(value) if isinstance(value, PreTrainedConfig) else value
    return found


def write_json(file: Path, value: dict) -> None:
    file.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
