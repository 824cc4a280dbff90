"""Small model folders for tests: the published layout, written by us, and ways to change or spoil one."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from safetensors.torch import load_file, save_file

from ming_omni import checkpoint
from ming_omni.config import MingConfig, tiny

RECORDED = Path(__file__).parent / "fixtures" / "parity"
"""Folders written by the published release itself."""


def published(folder: Path, config: MingConfig | None = None, **options) -> Path:
    """A folder in the published layout, of random weights; one shard unless `shard_bytes` is small."""
    checkpoint.load("tiny", config=config or tiny()).save_published(folder, **options)
    return folder


def recorded(name: str, folder: Path) -> Path:
    """A copy of a recorded folder's model, which a test may change."""
    folder.mkdir()
    for file in ("config.json", "model.safetensors"):
        shutil.copyfile(RECORDED / name / file, folder / file)
    return folder


def edit_config(folder: Path, change: Callable[[dict], None]) -> None:
    config = json.loads((folder / "config.json").read_text())
    change(config)
    (folder / "config.json").write_text(json.dumps(config))


def edit_tensors(file: Path, change: Callable[[dict], None]) -> None:
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file)
