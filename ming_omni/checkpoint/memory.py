"""Safetensors headers -> a plan of the memory a model needs: no weight is read, and a hub id is not downloaded."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ming_omni.checkpoint import detect, names, quantise, settings, shards
from ming_omni.checkpoint.detect import Found
from ming_omni.checkpoint.shards import Entry
from ming_omni.errors import InputError
from ming_omni.inputs.folder import is_hub_id

FORMATS = ("fp32", "bf16", *quantise.FORMATS)
"""How routed experts are kept; everything else is fp32 in the first row and bf16 in the others."""
RESERVED = 0.1
"""Share of each device left for the KV cache and activations."""
TAKES = (("text", "thinker"), ("pictures", "vision"), ("video", "vision"), ("sound", "audio"))
GIVES = (("text", "thinker"), ("pictures", "painter"), ("speech", "talker"))
"""What a model with these parts takes and gives."""
SUBFOLDERS = {"mlp": "painter", "connector": "painter", "transformer": "painter", "vae": "painter", "byt5": "painter"}
SUBFOLDERS |= {"painter": "painter", "talker": "talker"}


@dataclass(frozen=True)
class Device:
    """A place for weights: a GPU, or host memory."""

    name: str
    bytes: int


@dataclass(frozen=True)
class Piece:
    """What is never cut over two devices: the embedding, a layer, an encoder."""

    name: str
    parameters: int
    bytes: dict[str, int]
    """By format."""

    @property
    def part(self) -> str:
        return self.name.partition(".")[0]


@dataclass(frozen=True)
class Plan:
    """What a model is made of, and where its pieces go."""

    name: str
    release: str
    pieces: tuple[Piece, ...]
    devices: tuple[Device, ...]

    @property
    def parameters(self) -> dict[str, int]:
        """Of each part."""
        totals: dict[str, int] = {}
        for piece in self.pieces:
            totals[piece.part] = totals.get(piece.part, 0) + piece.parameters
        return totals

    def bytes(self, format: str) -> int:
        return sum(piece.bytes[format] for piece in self.pieces)

    def layout(self, format: str) -> list[list[Piece]] | None:
        """The pieces on each device, filled in order; None when they do not fit."""
        placed: list[list[Piece]] = [[] for _ in self.devices]
        free = [int(device.bytes * (1 - RESERVED)) for device in self.devices]
        current = 0
        for piece in self.pieces:
            while current < len(free) and piece.bytes[format] > free[current]:
                current += 1
            if current == len(free):
                return None
            placed[current].append(piece)
            free[current] -= piece.bytes[format]
        return placed

    def fits(self, format: str) -> bool:
        return self.layout(format) is not None


def plan(name_or_folder: str | Path, devices: Sequence[Device] | None = None) -> Plan:
    """The plan for a built-in name, a folder, or a hub id; by default for the GPUs and host memory of this machine."""
    release, sizes = _tiny() if name_or_folder == "tiny" else _stored(name_or_folder)
    pieces: dict[str, Piece] = {}
    for owner, shape in sizes:
        old = pieces.get(owner.piece, Piece(owner.piece, 0, dict.fromkeys(FORMATS, 0)))
        size = math.prod(shape)
        more = {format: _bytes(shape, format if owner.is_expert else "bf16") for format in FORMATS}
        more["fp32"] = 4 * size
        total = {format: old.bytes[format] + more[format] for format in FORMATS}
        pieces[owner.piece] = Piece(owner.piece, old.parameters + (0 if owner.is_table else size), total)
    ordered = tuple(sorted(pieces.values(), key=lambda piece: _order(piece.name)))
    return Plan(str(name_or_folder), release, ordered, tuple(devices or here()))


def here() -> list[Device]:
    """The GPUs of this machine, then its memory."""
    import torch

    gpus = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    host = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return [*(Device(f"GPU {i}", gpu.total_memory) for i, gpu in enumerate(gpus)), Device("host memory", host)]


@dataclass(frozen=True)
class _Owner:
    piece: str
    is_expert: bool = False
    is_table: bool = False
    """Stored, but computed rather than learned."""


def _tiny() -> tuple[str, Iterator[tuple[_Owner, tuple[int, ...]]]]:
    from ming_omni.checkpoint.fill import empty
    from ming_omni.checkpoint.match import parameters
    from ming_omni.config import tiny
    from ming_omni.model.omni import MingForConditionalGeneration

    model = empty(MingForConditionalGeneration, tiny())
    return "tiny, random weights", ((_owner(name), shape) for name, shape in parameters(model).items())


def _stored(name_or_folder: str | Path) -> tuple[str, Iterator[tuple[_Owner, tuple[int, ...]]]]:
    is_remote = is_hub_id(name_or_folder) and not Path(name_or_folder).expanduser().exists()
    try:
        found = detect.recognise(detect.locate(name_or_folder, local_files_only=True))
        entries = shards.tensors(found.folder)
    except InputError:
        if not is_remote:
            raise
        found, entries = _remote(str(name_or_folder))
    detect.check_tensors(found, entries)
    release = detect.PREVIEW if found.layout == "published" else "ming-omni"
    return release, _sizes(found, entries)


def _sizes(found: Found, entries: dict[str, Entry]) -> Iterator[tuple[_Owner, tuple[int, ...]]]:
    """(owner, shape) of every weight; packed ones with the shape they unfold to."""
    for name, entry in entries.items():
        if names.is_ignored(name) or name.endswith((".scale", ".minimum")):
            continue
        if found.layout == "published":
            place = names.to_ours(f"model.{name}" if found.is_bare else name)
            if place is None:
                raise InputError(f"{entry.file}: tensor {name} belongs to no part of this model")
            yield _owner(place.name), entry.shape
        else:
            is_packed = name.endswith(".codes") and entry.dtype == "U8"
            yield _owner(names.parameter(name)), (*entry.shape[:-1], 2 * entry.shape[-1]) if is_packed else entry.shape
    for subfolder, part in SUBFOLDERS.items():
        for file in sorted((found.folder / subfolder).rglob("*.safetensors")):
            for entry in shards.header(file).values():
                yield _Owner(part), entry.shape


def _remote(hub_id: str) -> tuple[Found, dict[str, Entry]]:
    """config.json and the headers alone, fetched by range requests."""
    from huggingface_hub import HfApi, get_safetensors_metadata, hf_hub_download

    with detect.hub_errors(hub_id):
        HfApi().model_info(hub_id, timeout=10)  # fails at once where the next calls would retry
        config = shards.read_json(Path(hf_hub_download(hub_id, "config.json")))
        files = get_safetensors_metadata(hub_id).files_metadata
    folder = Path(hub_id)
    entries = {
        name: Entry(folder / file, tensor.dtype, tuple(tensor.shape))
        for file, metadata in files.items()
        for name, tensor in metadata.tensors.items()
    }
    layout = "ours" if config.get("model_type") == detect.OURS else "published"
    if layout == "published" and config.get("model_type") != settings.MODEL_TYPE:
        raise InputError(f"{hub_id} is no Ming model: its config.json has model_type {config.get('model_type')!r}")
    return Found(folder, layout, config), entries


def _owner(ours: str) -> _Owner:
    return _Owner(names.piece(ours), names.is_stacked(ours), names.is_optional(ours))


def _bytes(shape: tuple[int, ...], format: str) -> int:
    """Of one weight, its scales included."""
    size = math.prod(shape)
    if format == "fp8":
        return size + 4 * size // shape[-1]
    if format == "int4":
        return size // 2 + 2 * size // math.gcd(shape[-1], quantise.GROUP)
    return {"fp32": 4, "bf16": 2}[format] * size


def _order(piece: str) -> tuple:
    """As data flows."""
    stages = ("vision", "audio", "thinker.embedding", "thinker.layers", "thinker.norm", "thinker.head")
    stage, _, layer = piece.rpartition(".")
    if stage == "thinker.layers":
        return stages.index(stage), int(layer)
    return (stages.index(piece) if piece in stages else len(stages)), 0


def describe(plan: Plan, experts: str | None = None) -> str:
    """The plan as text; with `experts`, the pieces on each device too."""
    if experts not in (None, *FORMATS):
        raise InputError(f"experts are kept as {', '.join(FORMATS)}, not {experts!r}")
    width = max(map(len, plan.parameters))
    takes, gives = (", ".join(word for word, part in words if part in plan.parameters) for words in (TAKES, GIVES))
    lines = [f"{plan.name}: {plan.release}; takes {takes}; gives {gives}", ""]
    lines += [f"{part:<{width}}  {count:>17,} parameters" for part, count in plan.parameters.items()]
    lines += [f"{'total':<{width}}  {sum(plan.parameters.values()):>17,} parameters", ""]
    for format in FORMATS if experts is None else (experts,):
        placed = plan.layout(format)
        where = "does not fit" if placed is None else "fits: " + ", ".join(_share(plan, placed, format))
        lines.append(f"experts in {format:<4}  {_gb(plan.bytes(format)):>9}  {where}")
        if experts is not None:
            for device, pieces in zip(plan.devices, placed or [], strict=False):
                if pieces:
                    lines.append(f"  {device.name}: {', '.join(_ranges(pieces))}")
    devices = ", ".join(f"{device.name} {_gb(device.bytes)}" for device in plan.devices)
    return "\n".join([*lines, "", f"{devices}; {RESERVED:.0%} of each is kept free for the cache and activations"])


def _share(plan: Plan, placed: list[list[Piece]], format: str) -> list[str]:
    sizes = [sum(piece.bytes[format] for piece in pieces) for pieces in placed]
    return [f"{_gb(size)} on {device.name}" for device, size in zip(plan.devices, sizes, strict=True) if size]


def _ranges(pieces: list[Piece]) -> list[str]:
    """Piece names, neighbouring layers as one range."""
    layers = [int(piece.name.rpartition(".")[2]) for piece in pieces if ".layers." in piece.name]
    others = [piece.name for piece in pieces if ".layers." not in piece.name]
    return [*others, *([f"thinker.layers.{layers[0]}-{layers[-1]}"] if layers else [])]


def _gb(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"
