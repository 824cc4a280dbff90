"""A run <-> files: everything, to go on where it stopped; the averaged weights and settings, small enough to travel."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from ming_omni.config import ImageVAEConfig
from ming_omni.errors import InputError
from ming_omni.model.image_vae import ImageVAE
from ming_omni.model.painter import Painter
from ming_omni.train.image_vae.learner import Learner
from ming_omni.train.image_vae.settings import Settings

STATE, WEIGHTS, ABOUT = "state.pt", "image_vae.safetensors", "image_vae.json"
PREFIX = "painter.vae."
"""Where these weights belong in the whole model."""
CONFIG = tuple(name for name in ImageVAEConfig.__annotations__ if name != "model_type")
"""All settings of an autoencoder, the measured shift and scale among them."""


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
    config = {name: getattr(vae.config, name) for name in CONFIG}
    about = {"vae": config, **facts, "settings": asdict(settings)}
    (folder / ABOUT).write_text(json.dumps(about, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def load(folder: Path) -> ImageVAE:
    """The autoencoder of a run's pieces, fp32; its config holds the measured shift and scale."""
    files = weights, about = folder / WEIGHTS, folder / ABOUT
    if missing := [file for file in files if not file.is_file()]:
        raise InputError(f"there is no file {missing[0]}")
    vae = ImageVAE(ImageVAEConfig(**json.loads(about.read_text(encoding="utf-8"))["vae"]))
    vae.load_state_dict({name.removeprefix(PREFIX): value.float() for name, value in load_file(weights).items()})
    return vae.eval()


def place(painter: Painter, folder: Path) -> None:
    """Give a painter the autoencoder of a run's pieces; `painter.save_pretrained(nano / "painter")` then ships both."""
    vae = load(folder)
    wanted, found = painter.config.vae, vae.config
    if (wanted.latent_channels, wanted.downscale) != (found.latent_channels, found.downscale):
        raise InputError(
            f"the painter paints {wanted.latent_channels} latent channels of 1/{wanted.downscale}; "
            f"{folder} has {found.latent_channels} of 1/{found.downscale}"
        )
    painter.vae, painter.config.vae = vae.to(painter.device), found
