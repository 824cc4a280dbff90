"""A folder of weights -> a model on its devices, shard by shard: host memory holds one tensor more than the model.

transformers' own WeightConverter could stack the experts, but it reads ahead in threads, keeps all experts of a layer
until the last has come, and names neither the file of a bad tensor nor an absent expert. Here each expert goes straight
into its slot, quantised on the way if wished.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers.initialization import no_init_weights

from ming_omni.checkpoint import devices, match, names, quantise, settings, shards
from ming_omni.checkpoint.detect import Found
from ming_omni.checkpoint.match import Source
from ming_omni.checkpoint.names import Place
from ming_omni.checkpoint.quantise import QuantisedWeight
from ming_omni.checkpoint.shards import Entry
from ming_omni.config import MingConfig
from ming_omni.errors import InputError
from ming_omni.model.audio_encoder import sinusoids
from ming_omni.packed import Packed, adapter, collect, unpack

DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def read_config(found: Found) -> MingConfig:
    if found.layout == "published":
        return settings.read(found.config)
    return MingConfig.from_dict({key: value for key, value in found.config.items() if key != "packed"})


def empty(kind: type[nn.Module], config) -> nn.Module:
    """A model without storage: all its tensors on the meta device."""
    with torch.device("meta"), no_init_weights():
        return kind(config)


def unfold(model: nn.Module, folder: Path, dtype: torch.dtype, assign: bool) -> None:
    """Give a part of the model its folder's packed rows, unfolded; assign: it is empty, and takes their storage."""
    rows = {name: tensor for file in shards.files(folder) for name, tensor in load_file(file).items()}
    weights = {name: tensor.to(dtype) for name, tensor in unpack(rows)}
    lacking, unknown = model.load_state_dict(weights, strict=False, assign=assign)
    if lacking or unknown:
        raise InputError(f"{folder}: {[*lacking, *unknown][0]} is {'missing' if lacking else 'unknown'}")


def fill(
    model: nn.Module,
    found: Found,
    entries: dict[str, Entry],
    *,
    dtype: torch.dtype | None = None,
    experts: str | None = None,
    device_map=None,
    part: str | None = None,
) -> devices.Placement:
    """Give an empty model its storage and its weights; returns where each piece went.

    dtype    of everything that floats; None: as most of the folder is stored
    experts  "fp8", "int4", "bf16" (plain, in `dtype`), or None: as the folder stores them
    part     only this part is in the model; weights of others are passed over
    """
    added = {name: entries[name] for name in entries if adapter.MARK in name}
    entries = {name: entry for name, entry in entries.items() if name not in added}
    experts = experts or stored_experts(entries)
    if experts in quantise.FORMATS:
        quantise.swap(model, experts)
    dtype = dtype or stored_dtype(entries)
    sources = match.sources(model, found, entries, part)
    placement = devices.place(model, device_map, dtype)
    writer = _Writer(model, placement, dtype)
    with _progress(sum(source.bytes for source in sources), f"Loading {found.folder.name}") as advance:
        for file, group in groupby(sources, lambda source: source.entry.file):
            try:
                with safe_open(file, "pt") as tensors:
                    for source in group:
                        writer.write(source.place, _read(tensors, source))
                        advance(source.bytes)
            except SafetensorError as error:
                raise InputError(f"{file} cannot be read: {error}") from error
    writer.finish()
    _fold(model, added, part)
    return placement


def _fold(model: nn.Module, added: dict[str, Entry], part: str | None) -> None:
    """Add stored adapters to the weights that they belong to; with `part`, to those of that part alone."""
    stored = {}
    for file, found in shards.by_file(added):
        with safe_open(file, "pt") as tensors:
            stored |= {name: tensors.get_tensor(name) for name in found}
    parameters = collect(stored)
    for name in adapter.owners(parameters):
        if part is None or name.startswith(f"{part}."):
            weight = model.get_parameter(f"{name}.weight").data
            weight += adapter.find(parameters.__getitem__, name).weight().to(weight)


def stored_dtype(entries: dict[str, Entry]) -> torch.dtype:
    """The dtype of most weights on disk; packed weights unfold to fp32."""
    if is_packed(entries):
        return torch.float32
    sizes: dict[str, int] = {}
    for name, entry in entries.items():
        if entry.dtype in DTYPES and not name.endswith((".scale", "expert_bias")):
            sizes[entry.dtype] = sizes.get(entry.dtype, 0) + entry.parameters
    return DTYPES[max(sizes, key=sizes.get)] if sizes else torch.float32


def stored_experts(entries: dict[str, Entry]) -> str | None:
    """The format of experts that were saved quantised; a folder that is packed throughout unfolds instead."""
    kinds = {entry.dtype for name, entry in entries.items() if name.endswith(".experts.gate.codes")}
    if not kinds or is_packed(entries):
        return None
    return "fp8" if kinds == {"F8_E4M3"} else "int4"


def is_packed(entries: dict[str, Entry]) -> bool:
    return any(name.endswith(".codes") and ".experts." not in name for name in entries)


def _read(tensors, source: Source) -> Tensor | Packed:
    if not source.parts:
        return tensors.get_tensor(source.stored)
    return Packed(*(_read_part(tensors, source, name) for name in source.parts))


def _read_part(tensors, source: Source, name: str) -> Tensor:
    """Codes from the open file; scales may have come to lie in the next one."""
    file = source.parts[name].file
    if file == source.entry.file:
        return tensors.get_tensor(name)
    with safe_open(file, "pt") as other:
        return other.get_tensor(name)


class _Writer:
    """Puts tensors where they belong; storage is made on the right device when the first slot of a tensor arrives."""

    def __init__(self, model: nn.Module, placement: devices.Placement, dtype: torch.dtype):
        self.model, self.placement, self.dtype = model, placement, dtype
        self.made: dict[str, Tensor] = {}
        self.quantised = {n: module for n, module in model.named_modules() if isinstance(module, QuantisedWeight)}
        thinker = getattr(model, "thinker", None)
        # The load-balancing bias is finer than bf16; only the published roundings want it coarse (spec N4).
        self.bias_dtype = torch.float32 if thinker is None or thinker.config.numerics == "native" else dtype

    def write(self, place: Place, value: Tensor | Packed) -> None:
        if place.name in self.quantised:
            self._write_quantised(place, value)
            return
        target = self.made.get(place.name)
        if target is None:
            target = self._make(place.name)
        value = value.float() if isinstance(value, Packed) else value
        (target if place.slot is None else target[place.slot]).copy_(value)

    def finish(self) -> None:
        """Regenerate what a folder may lack, and tie what is tied."""
        audio = getattr(self.model, "audio", None)
        if audio is not None and audio.positions.is_meta:
            self.write(Place("audio.positions"), sinusoids(*audio.positions.shape))
        for part in self.model.children():
            part.tie_weights()
        assert not any(tensor.is_meta for tensor in self.model.state_dict().values()), "a tensor was left unread"

    def _write_quantised(self, place: Place, value: Tensor | Packed) -> None:
        weight = self.quantised[place.name]
        if weight.codes.is_meta:
            weight.to_empty(device=self._device(place.name))
        if place.slot is not None:
            weight.write(place.slot, value)
        elif isinstance(value, Packed) and weight.fits(value):
            weight.codes.copy_(value.codes)
            weight.scale.copy_(value.scale)
        else:
            for expert, matrix in enumerate(value.float() if isinstance(value, Packed) else value):
                weight.write(expert, matrix)

    def _make(self, name: str) -> Tensor:
        owner, _, leaf = name.rpartition(".")
        module = self.model.get_submodule(owner)
        old = getattr(module, leaf)
        dtype = self.bias_dtype if names.is_expert_bias(name) else self.dtype
        new = torch.empty(old.shape, dtype=dtype, device=self._device(name))
        if isinstance(old, nn.Parameter):
            module.register_parameter(leaf, nn.Parameter(new, old.requires_grad))
        else:
            module.register_buffer(leaf, new)
        self.made[name] = new
        return new

    def _device(self, name: str) -> torch.device:
        return self.placement[names.piece(name)]


@contextmanager
def _progress(total_bytes: int, title: str) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal, nothing elsewhere."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn(title), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(title, total=total_bytes)
        yield lambda size: progress.advance(task, size)
