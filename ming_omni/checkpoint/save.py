"""A model -> a folder in the published layout, shard by shard: the released scripts can load what was trained here."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ming_omni.checkpoint import names, settings, shards
from ming_omni.checkpoint.quantise import QuantisedWeight

SHARD_BYTES = 5 * 2**30


def save_published(model: nn.Module, folder: str | Path, *, shard_bytes: int = SHARD_BYTES) -> None:
    """Write config.json and safetensors of the understanding side; quantised experts become plain, one at a time."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    dtype = str(model.dtype).removeprefix("torch.")
    (folder / "config.json").write_text(json.dumps(settings.write(model.config, dtype), indent=2) + "\n")
    files: list[dict[str, str]] = []
    total = 0
    for shard in _shards(published_tensors(model), shard_bytes):
        file = folder / f"model-{len(files) + 1:05d}.safetensors"
        save_file(shard, file, metadata={"format": "pt"})
        files.append(dict.fromkeys(shard, file.name))
        total += sum(tensor.nbytes for tensor in shard.values())
    weight_map = {name: file for names_of_file in files for name, file in names_of_file.items()}
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / shards.INDEX).write_text(json.dumps(index, indent=2) + "\n")


def published_tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """(published name, tensor) of every parameter, experts one by one."""
    quantised = {name: module for name, module in model.named_modules() if isinstance(module, QuantisedWeight)}
    for name, tensor in model.state_dict().items():
        if not name.startswith(("thinker.", "vision.", "audio.")):
            continue
        owner = names.parameter(name)
        if owner in quantised:
            if name.endswith(".codes"):
                weight = quantised[owner]
                for slot in range(len(weight.codes)):
                    expert = torch.tensor([slot], device=weight.codes.device)
                    yield names.to_published(owner, slot), weight.float(expert)[0].to(model.dtype)
        elif names.is_stacked(name):
            for slot, expert in enumerate(tensor):
                yield names.to_published(name, slot), expert
        else:
            yield names.to_published(name), tensor


def _shards(tensors: Iterator[tuple[str, Tensor]], limit: int) -> Iterator[dict[str, Tensor]]:
    """Groups of at most `limit` bytes, copied to the host as they are taken."""
    shard: dict[str, Tensor] = {}
    size = 0
    for name, tensor in tensors:
        if shard and size + tensor.nbytes > limit:
            yield shard
            shard, size = {}, 0
        shard[name] = tensor.detach().to("cpu", copy=True)
        size += tensor.nbytes
    yield shard
