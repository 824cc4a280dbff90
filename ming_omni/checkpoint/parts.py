"""A folder that holds some parts of a published model -> one of them, alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from ming_omni.checkpoint import detect, fill, shards
from ming_omni.errors import InputError
from ming_omni.model.audio_encoder import AudioEncoder
from ming_omni.model.thinker import Thinker
from ming_omni.model.vision_encoder import VisionEncoder

PARTS = {"thinker": Thinker, "vision": VisionEncoder, "audio": AudioEncoder}


def load_part(folder: Path, part: str, *, dtype: torch.dtype | None = None, **switches: Any) -> nn.Module:
    """`switches` change the part's configuration, for example numerics="reference"."""
    if part not in PARTS:
        raise InputError(f"a part is one of {', '.join(PARTS)}, not {part!r}")
    found = detect.recognise(detect.locate(folder))
    entries = shards.tensors(found.folder)
    config = getattr(fill.read_config(found), part)
    if config is None:
        raise InputError(f"{folder / 'config.json'} has no section for {part}")
    for name, value in switches.items():
        if not hasattr(config, name):
            raise InputError(f"{type(config).__name__} has no {name}")
        setattr(config, name, value)
    whole = nn.Module()
    whole.add_module(part, fill.empty(PARTS[part], config))
    fill.fill(whole, found, entries, dtype=dtype, part=part)
    return whole.get_submodule(part).eval()
