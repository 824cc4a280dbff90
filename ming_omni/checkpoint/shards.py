"""A folder of safetensors -> where each tensor lies: headers are read and checked, no tensor data yet."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ming_omni.errors import InputError

INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"
BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1, "I64": 8, "I32": 4, "I16": 2, "I8": 1}
BYTES |= {"U8": 1, "BOOL": 1}
LFS_POINTER = b"version https://git-lfs"
MAX_HEADER_BYTES = 100_000_000  # the safetensors library's own limit


class Entry(NamedTuple):
    """One stored tensor."""

    file: Path
    dtype: str
    shape: tuple[int, ...]

    @property
    def parameters(self) -> int:
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        return self.parameters * BYTES.get(self.dtype, 1)


def read_json(file: Path) -> dict:
    """A JSON object, or one sentence about what is wrong with the file."""
    try:
        data = file.read_bytes()
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror}") from error
    if data.startswith(LFS_POINTER):
        raise InputError(f"{file} is a git-lfs pointer, not the file itself; run `git lfs pull` in {file.parent}")
    try:
        value = json.loads(data)
    except ValueError as error:
        raise InputError(f"{file} is not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise InputError(f"{file} should hold a JSON object")
    return value


def header(file: Path) -> dict[str, Entry]:
    """The tensors of one file; a truncated or damaged file is named, with the first tensor it lacks."""
    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            start = stream.read(8)
            if start == LFS_POINTER[:8]:
                raise InputError(f"{file} is a git-lfs pointer, not the weights; run `git lfs pull` in {file.parent}")
            length = int.from_bytes(start, "little")
            if len(start) < 8 or length > min(size - 8, MAX_HEADER_BYTES):
                raise InputError(f"{file} is truncated or no safetensors file ({size} bytes)")
            raw = json.loads(stream.read(length))
        raw.pop("__metadata__", None)
        spans = {name: (*value["data_offsets"], value["dtype"], tuple(value["shape"])) for name, value in raw.items()}
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror}") from error
    except InputError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{file} has a damaged safetensors header") from error
    for name, (_, end, _, _) in sorted(spans.items(), key=lambda item: item[1][1]):
        if 8 + length + end > size:
            raise InputError(f"{file} is truncated: tensor {name} ends at byte {8 + length + end} of {size}")
    return {name: Entry(file, dtype, shape) for name, (_, _, dtype, shape) in spans.items()}


def files(folder: Path) -> list[Path]:
    """The safetensors files of a folder, in index order: the index's shards, or the single file."""
    if (folder / INDEX).is_file():
        shards = sorted(set(_weight_map(folder).values()))
        for shard in shards:
            if Path(shard).name != shard:
                raise InputError(f"{folder / INDEX} points outside its folder: {shard}")
            if not (folder / shard).is_file():
                raise InputError(f"{folder / shard} is missing, although {INDEX} lists it")
        return [folder / shard for shard in shards]
    if (folder / SINGLE).is_file():
        return [folder / SINGLE]
    if pickles := [file.name for pattern in ("*.bin", "*.pt", "*.pth") for file in folder.glob(pattern)]:
        raise InputError(f"{folder} holds pickled weights ({pickles[0]}); only safetensors are read here")
    raise InputError(f"{folder} holds no weights: neither {SINGLE} nor {INDEX}")


def tensors(folder: Path) -> dict[str, Entry]:
    """Every stored tensor of a folder by name; index and shards must agree."""
    found: dict[str, Entry] = {}
    for file in files(folder):
        for name, entry in header(file).items():
            if name in found:
                raise InputError(f"tensor {name} is stored twice, in {found[name].file} and in {file.name}")
            found[name] = entry
    if (folder / INDEX).is_file():
        for name, shard in _weight_map(folder).items():
            if name not in found:
                raise InputError(f"{folder / shard} lacks tensor {name}, which {INDEX} places there")
    return found


def by_file(entries: dict[str, Entry]) -> Iterator[tuple[Path, list[str]]]:
    """(file, its tensor names), file after file."""
    groups: dict[Path, list[str]] = {}
    for name, entry in entries.items():
        groups.setdefault(entry.file, []).append(name)
    yield from groups.items()


def _weight_map(folder: Path) -> dict[str, str]:
    weight_map = read_json(folder / INDEX).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise InputError(f"{folder / INDEX} has no weight_map")
    return weight_map
