"""A trained painter and its autoencoder -> what nano's folder needs to paint.

`ming build nano-painter` runs this. Matrices are rounded to 8 bits; query tokens, convolutions and the rest to fp16.

painter/config.json, model.safetensors     the painter with its autoencoder, packed rows (`packed`)
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from ming_omni.config import PainterConfig, all_settings
from ming_omni.model.painter import Painter
from ming_omni.nano.files import check, round_off, stored, write_json, write_weights
from ming_omni.packed import Packed

QUERIES = "queries."


def ship_painter(config: PainterConfig, weights: dict[str, Tensor], output: Path) -> None:
    """Write into `output`, a model folder or a new one; weights by name, fp32, those of the autoencoder included."""
    with torch.device("meta"):
        check("painter", Painter(config), weights)
    folder = output / "painter"
    folder.mkdir(parents=True, exist_ok=True)
    write_weights(folder, {"model": stored({name: _rounded(name, value) for name, value in weights.items()})})
    write_json(folder / "config.json", all_settings(config))


def _rounded(name: str, weight: Tensor) -> Packed | Tensor:
    return weight.half() if name.startswith(QUERIES) else round_off(name, weight)
