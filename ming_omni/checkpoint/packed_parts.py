"""A packed folder -> a model whose thinker stays packed: read in place, nothing unfolded, made for a CPU that chats."""

from __future__ import annotations

import torch
from safetensors import safe_open
from torch import Tensor, nn

from ming_omni.checkpoint import devices, fill, match, shards
from ming_omni.checkpoint.detect import Found
from ming_omni.checkpoint.shards import Entry
from ming_omni.config import MingConfig
from ming_omni.errors import InputError
from ming_omni.packed.encoder import PackedEncoder
from ming_omni.packed.thinker import PackedThinker

PREFIX = "thinker."


def load(
    kind: type[nn.Module], config: MingConfig, found: Found, entries: dict[str, Entry]
) -> tuple[nn.Module, devices.Placement]:
    """Only names and shapes of the encoders are looked at now; they are unfolded when they are first used."""
    if not fill.is_packed(entries):
        raise InputError(f"{found.folder} is not packed, so its thinker cannot stay packed")
    model = fill.empty(kind, config)
    model.thinker = None
    thinker = {name: entry for name, entry in entries.items() if name.startswith(PREFIX)}
    others = {name: entry for name, entry in entries.items() if name not in thinker}
    match.sources(model, found, others)  # says what is missing or has no place
    for part, encoder in list(model.named_children()):
        setattr(model, part, PackedEncoder(type(encoder), encoder.config, _read(others, f"{part}.")))
    model.thinker = PackedThinker(config.thinker, _read(thinker, PREFIX))
    return model, devices.place(model, None, torch.float32)


def _read(entries: dict[str, Entry], prefix: str) -> dict[str, Tensor]:
    """Tensors of one part under their names within it."""
    stored = {}
    for file, names in shards.by_file(entries):
        with safe_open(file, "pt") as tensors:
            stored |= {n.removeprefix(prefix): tensors.get_tensor(n) for n in names if n.startswith(prefix)}
    return stored
