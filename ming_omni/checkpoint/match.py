"""Stored tensors and an empty model -> what to read into which place, or one error that says what is wrong."""

from __future__ import annotations

from typing import NamedTuple

from torch import nn

from ming_omni.checkpoint import names, quantise
from ming_omni.checkpoint.detect import Found
from ming_omni.checkpoint.names import Place
from ming_omni.checkpoint.shards import Entry
from ming_omni.errors import InputError

REPORTED = 3
"""Problems spelled out in one error; the rest are counted."""


class Source(NamedTuple):
    """One stored tensor and the place it fills; packed weights are stored as codes with scales and perhaps minima."""

    stored: str
    entry: Entry
    place: Place
    parts: dict[str, Entry]
    """Names of codes, scale and minimum; empty for a tensor stored as it is."""

    @property
    def bytes(self) -> int:
        return sum(entry.bytes for entry in self.parts.values()) or self.entry.bytes

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the weight itself: 4-bit codes lie two in a byte."""
        *rows, width = self.entry.shape or (1,)
        return (*rows, 2 * width) if self.parts and self.entry.dtype == "U8" else self.entry.shape


def sources(model: nn.Module, found: Found, entries: dict[str, Entry], part: str | None = None) -> list[Source]:
    """What to read, file after file. With `part`, tensors of other parts are passed over."""
    expected, tied = parameters(model), tied_parameters(model)
    placed, problems = _placed(found, entries, part)
    placed = [source for source in placed if source.place.name not in tied]
    for source in placed:
        shape = expected.get(source.place.name)
        where = f"{source.entry.file}: tensor {source.stored}"
        if shape is None:
            problems.append(f"{where} has no place in this model")
        elif source.place.slot is None and source.shape != shape:
            problems.append(f"{where} has shape {source.shape}, expected {shape}")
        elif source.place.slot is not None and source.place.slot >= shape[0]:
            problems.append(f"{where} is an expert too many; config.json says {shape[0]}")
        elif source.place.slot is not None and source.shape != shape[1:]:
            problems.append(f"{where} has shape {source.shape}, expected {shape[1:]}")
    problems += _missing(found, entries, expected, {source.place for source in placed})
    if problems:
        more = f" (and {len(problems) - REPORTED} more)" if len(problems) > REPORTED else ""
        raise InputError("; ".join(problems[:REPORTED]) + more)
    return sorted(placed, key=lambda source: source.entry.file)


def parameters(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """Name and shape of everything that must be loaded; a quantised weight counts as the one weight it stands for."""
    found = {}
    for name, module in model.named_modules():
        if isinstance(module, quantise.QuantisedWeight):
            found[name] = module.shape
    quantised = tuple(f"{name}." for name in found)
    tied = tied_parameters(model)
    for name, tensor in model.state_dict().items():
        if name not in tied and not name.startswith(quantised or ("\0",)):
            found[name] = tuple(tensor.shape)
    return found


def tied_parameters(model: nn.Module) -> set[str]:
    """Parameters that are another parameter under a second name; a folder may store them or not."""
    return {f"{part}.{name}" for part, module in model.named_children() for name in module.all_tied_weights_keys}


def _placed(found: Found, entries: dict[str, Entry], part: str | None) -> tuple[list[Source], list[str]]:
    """A source for every stored tensor, and a complaint about each that has no place in any model."""
    placed, problems = [], []
    for name, entry in entries.items():
        if names.is_ignored(name) or (found.layout == "ours" and _is_companion(name, entries)):
            continue
        if found.layout == "published":
            place = names.to_ours(f"model.{name}" if found.is_bare else name)
        else:
            place = Place(names.parameter(name))
        if place is None:
            if part is None:
                problems.append(f"{entry.file}: tensor {name} belongs to no part of this model")
        elif part is None or place.name.startswith(f"{part}."):
            placed.append(Source(name, entry, place, _parts(name, place.name, entries)))
    return placed, problems


def _is_companion(name: str, entries: dict[str, Entry]) -> bool:
    """Scales and minima are read together with their codes."""
    return name.endswith((".scale", ".minimum")) and f"{names.parameter(name)}.codes" in entries


def _parts(stored: str, parameter: str, entries: dict[str, Entry]) -> dict[str, Entry]:
    if stored != f"{parameter}.codes":
        return {}
    found = {kind: entries.get(f"{parameter}.{kind}") for kind in ("codes", "scale", "minimum")}
    if found["scale"] is None:
        raise InputError(f"{found['codes'].file} has {stored}, but no file has {parameter}.scale")
    return {f"{parameter}.{kind}": entry for kind, entry in found.items() if entry is not None}


def _missing(found: Found, entries: dict[str, Entry], expected: dict[str, tuple], filled: set[Place]) -> list[str]:
    files = sorted({entry.file.name for entry in entries.values()})
    where = f"{found.folder / files[0]}" if len(files) == 1 else f"{found.folder} ({len(files)} files)"
    problems = []
    for name, shape in expected.items():
        is_split = found.layout == "published" and names.is_stacked(name)
        for slot in range(shape[0]) if is_split else (None,):
            if Place(name, slot) not in filled and not names.is_optional(name):
                stored = names.to_published(name, slot) if found.layout == "published" else name
                problems.append(f"{where} lacks tensor {stored.removeprefix('model.') if found.is_bare else stored}")
    return problems
