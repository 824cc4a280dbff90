"""A run <-> files: everything, to go on where it stopped; the averaged weights and settings, small enough to travel."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from ming_omni.model.image_vae import ImageVAE
from ming_omni.train.image_vae.learner import Learner
from ming_omni.train.image_vae.settings import Settings

STATE, WEIGHTS, ABOUT = "state.pt", "image_vae.safetensors", "image_vae.json"
PREFIX = "painter.vae."
"""Where these weights belong in the whole model."""
MEASURED = ("shift_factor", "scaling_factor")


def save(folder: Path, learner: Learner, optimizer: torch.optim.Optimizer, facts: dict[str, Any]) -> None:
    """facts: step, seconds of training so far, calls."""
    part = folder / f"{STATE}.part"
    weights = {"vae": learner.vae.state_dict(), "average": learner.average.state_dict()}
    torch.save({**weights, "optimizer": optimizer.state_dict(), "facts": facts}, part)
    os.replace(part, folder / STATE)


def restore(folder: Path, learner: Learner, optimizer: torch.optim.Optimizer) -> dict[str, Any] | None:
    """The facts of the last save; None where there is none."""
    path = folder / STATE
    if not path.is_file():
        return None
    state = torch.load(path, map_location=next(learner.parameters()).device, weights_only=True)
    learner.vae.load_state_dict(state["vae"])
    learner.average.load_state_dict(state["average"])
    optimizer.load_state_dict(state["optimizer"])
    return state["facts"]


def export(folder: Path, vae: ImageVAE, settings: Settings, facts: dict[str, Any]) -> None:
    """Weights in fp16 under the whole model's names; beside them what was measured, the settings and the scores."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {PREFIX + name: value.half().contiguous().cpu() for name, value in vae.state_dict().items()}
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
    measured = {name: getattr(vae.config, name) for name in MEASURED}
    about = {"vae": measured, **facts, "settings": asdict(settings)}
    (folder / ABOUT).write_text(json.dumps(about, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
