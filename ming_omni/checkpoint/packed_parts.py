"""A packed folder -> a model whose thinker stays packed: read in place, nothing unfolded, made for a CPU that chats."""

from __future__ import annotations

import torch
from safetensors import safe_open
from torch import nn

from ming_omni.checkpoint import devices, fill, shards
from ming_omni.checkpoint.detect import Found
from ming_omni.checkpoint.shards import Entry
from ming_omni.config import MingConfig
from ming_omni.errors import InputError
from ming_omni.packed.thinker import PackedThinker

PREFIX = "thinker."


def load(
    kind: type[nn.Module], config: MingConfig, found: Found, entries: dict[str, Entry]
) -> tuple[nn.Module, devices.Placement]:
    """The other parts are small and load as ever, in fp32."""
    if not fill.is_packed(entries):
        raise InputError(f"{found.folder} is not packed, so its thinker cannot stay packed")
    model = fill.empty(kind, config)
    model.thinker = None
    thinker = {name: entry for name, entry in entries.items() if name.startswith(PREFIX)}
    others = {name: entry for name, entry in entries.items() if name not in thinker}
    if others:
        fill.fill(model, found, others, dtype=torch.float32)
    stored = {}
    for file, names in shards.by_file(thinker):
        with safe_open(file, "pt") as tensors:
            stored |= {name.removeprefix(PREFIX): tensors.get_tensor(name) for name in names}
    model.thinker = PackedThinker(config.thinker, stored)
    return model, devices.place(model, None, torch.float32)
