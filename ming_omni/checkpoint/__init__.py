"""Folders of weights <-> models: published, our own and packed layouts; nothing here is heavy until it is called."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

    from ming_omni.checkpoint.memory import Device, Plan
    from ming_omni.checkpoint.pretrained import MingForConditionalGeneration


def load(name_or_folder: str | Path, **options: Any) -> MingForConditionalGeneration:
    """A model by name (nano, tiny), folder or hub id; options: see `MingForConditionalGeneration.from_pretrained`."""
    from ming_omni.checkpoint.pretrained import MingForConditionalGeneration

    return MingForConditionalGeneration.from_pretrained(name_or_folder, **options)


def load_part(folder: str | Path, part: str, **options: Any) -> nn.Module:
    """One of thinker, vision or audio from a folder that may hold nothing else; `options` go to its configuration."""
    from ming_omni.checkpoint.parts import load_part

    return load_part(Path(folder), part, **options)


def plan(name_or_folder: str | Path, devices: Sequence[Device] | None = None) -> Plan:
    """Parts, parameters and memory of a model, from file headers alone; see memory.py."""
    from ming_omni.checkpoint import memory

    return memory.plan(name_or_folder, devices)


def describe(name_or_folder: str | Path, experts: str | None = None) -> str:
    """The plan as text, for the terminal."""
    from ming_omni.checkpoint import memory

    return memory.describe(memory.plan(name_or_folder), experts)
