"""What training exported, and the folder it started from -> the folder that ships, every file below 48 MB.

`ming build nano` runs this. The base stays as it is; what was trained is rounded: experts to 4 bits, encoders and the
attention's adapter to 8, projectors and routers to fp16. `cost` says what that changes.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from ming_omni.checkpoint import shards
from ming_omni.errors import InputError
from ming_omni.inputs.tokenizer import read_json
from ming_omni.nano.files import BASE, by_file, file_of, round_off, stored, write_index, write_json, write_weights
from ming_omni.packed import adapter, collect

LEARNER = "model."
"""What the general trainer puts before every name."""
SENSES = {".lora_a": "down", ".lora_b": "up"}
"""Halves of a low-rank addition by `train.senses`, as they are."""
PEFT = {".lora_A.default.weight": "down", ".lora_B.default.weight": "up"}
"""By PEFT, whose product has a factor."""


def build_shipped(trained: Path, output: Path, start: Path, lora_scale: float | None = None) -> None:
    """Write the shipped folder to `output`.

    start       the folder that training began with
    lora_scale  alpha / rank, unless the export says it
    """
    trained, output, start = Path(trained), Path(output), Path(start)
    found = read(trained, lora_scale)
    parameters = collect(_tensors(start))
    if unknown := [name for name in found if adapter.MARK not in name and name not in parameters]:
        raise InputError(f"{trained} holds {unknown[0]}, which {start} has no place for")
    for name, tensor in found.items():
        is_adapter = adapter.MARK in name
        if name in parameters and not is_adapter and tensor.shape != parameters[name].shape:
            raise InputError(f"{trained}: {name} is {tuple(tensor.shape)}, not {tuple(parameters[name].shape)}")
        if name in parameters and is_adapter:  # the start had been trained before: both corrections hold
            found[name] = torch.cat((parameters[name].float(), tensor), 0 if name.endswith("down") else 1)
    rounded = parameters | {name: round_off(name, tensor) for name, tensor in found.items()}
    output.mkdir(parents=True, exist_ok=True)
    for path in [*start.glob("*.json"), *(file for file in shards.files(start) if is_base(file))]:
        shutil.copyfile(path, output / path.name)
    # Its ears were taught to write speech down, not to answer it.
    generation = output / "generation_config.json"
    write_json(generation, read_json(generation) | {"ming_answers_sound": False})
    write_weights(output, {file: stored(part) for file, part in by_file(rounded).items() if file != BASE})
    write_index(output)


def is_base(file: Path) -> bool:
    return all(file_of(name) == BASE for name in shards.header(file))


def read(path: Path, lora_scale: float | None = None) -> dict[str, Tensor]:
    """Trained tensors under our names, fp32; the halves of low-rank additions as adapters."""
    if not path.is_file():
        raise InputError(f"there is no file {path}")
    tensors = {name.removeprefix(LEARNER): tensor.float() for name, tensor in load_file(path).items()}
    with safe_open(path, "pt") as file:
        scale = lora_scale or float((file.metadata() or {}).get("lora_scale", 0))
    found = {}
    for name, tensor in tensors.items():
        ending = next((ending for ending in SENSES | PEFT if name.endswith(ending)), None)
        if ending is None:
            found[name] = tensor
            continue
        if ending in PEFT and not scale:
            raise InputError(f"{path} has LoRA but does not say its alpha / rank; give --lora-scale")
        half = (SENSES | PEFT)[ending]
        found[f"{name.removesuffix(ending)}{adapter.MARK}{half}"] = (
            tensor * scale if ending in PEFT and half == "up" else tensor
        )
    return found


def _tensors(folder: Path) -> dict[str, Tensor]:
    return {name: tensor for file in shards.files(folder) for name, tensor in load_file(file).items()}
