"""A run <-> files: everything, to go on where it stopped on this machine; what was trained, in pieces that travel."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from ming_omni.config import PainterConfig, all_settings
from ming_omni.errors import InputError
from ming_omni.train.image_vae import states as image_vae
from ming_omni.train.painter.learner import DISTILLING, PAINTING, Learner
from ming_omni.train.timed import write_pieces

STATE = "state.pt"
PREFIX, TEACHER = "painter.", "teacher."

MakeOptimizer = Callable[[Learner], torch.optim.Optimizer]


def save(folder: Path, learner: Learner, optimizer: torch.optim.Optimizer, facts: dict[str, Any]) -> None:
    """facts: step, seconds of training so far, calls, phase."""
    part = folder / f"{STATE}.part"
    state = {
        "painter": {name: p.data for name, p in learner.names().items()},
        "average": learner.average,
        "helpers": _helpers(learner),
        "teacher": None if learner.teacher is None else learner.teacher.state_dict(),
        "optimizer": optimizer.state_dict(),
        "facts": facts,
    }
    torch.save(state, part)
    os.replace(part, folder / STATE)


def restore(
    folder: Path, learner: Learner, make_optimizer: MakeOptimizer
) -> tuple[torch.optim.Optimizer, dict[str, Any] | None]:
    """An optimiser for the phase that the run is in, and the facts of the last save; None where there is none."""
    path = folder / STATE
    if not path.is_file():
        return make_optimizer(learner), None
    state = torch.load(path, map_location=learner.device, weights_only=True)
    if state["facts"]["phase"] == DISTILLING:
        learner.begin_distilling()
        learner.teacher.load_state_dict(state["teacher"])
    with torch.no_grad():
        for name, p in learner.names().items():
            p.copy_(state["painter"][name])
            learner.average[name].copy_(state["average"][name])
        for name, value in _helpers(learner).items():
            value.copy_(state["helpers"][name])
    optimizer = make_optimizer(learner)
    optimizer.load_state_dict(state["optimizer"])
    return optimizer, state["facts"]


def export(folder: Path, learner: Learner, facts: dict[str, Any]) -> list[Path]:
    """trained-0.safetensors, ... in fp16: the averaged painter and, while few steps are learned, its teacher."""
    stored = {PREFIX + name: value for name, value in learner.average.items()}
    if learner.teacher is not None:
        stored |= {TEACHER + name: value for name, value in learner.teacher.state_dict().items()}
    stored = {name: value.detach().half().cpu() for name, value in stored.items()}
    about = {"facts": json.dumps(facts), "config": json.dumps(all_settings(learner.painter.config))}
    return write_pieces(folder, "trained", stored, about)


def load_whole(folder: Path, vae: Path) -> tuple[PainterConfig, dict[str, Tensor]]:
    """Pieces of a run and of the autoencoder's -> the painter's settings, and all its weights by name, fp32."""
    paths = sorted(folder.glob("trained-*.safetensors"))
    stored, _ = read(paths)
    with safe_open(paths[0], "pt") as file:
        config = PainterConfig(**json.loads(file.metadata()["config"]))
    autoencoder = image_vae.load(vae)
    if json.dumps(all_settings(autoencoder.config)) != json.dumps(all_settings(config.vae)):
        raise InputError(f"{vae} holds another autoencoder than this painter was trained with")
    own = {name.removeprefix(PREFIX): t.float() for name, t in stored.items() if name.startswith(PREFIX)}
    return config, own | {f"vae.{name}": value for name, value in autoencoder.state_dict().items()}


@torch.no_grad()
def start_from(pieces: Iterable[Path], learner: Learner) -> dict[str, Any]:
    """Go on with what another machine has trained, the optimiser and helpers anew; returns the facts of that run."""
    stored, facts = read(pieces)
    own = {name.removeprefix(PREFIX): value for name, value in stored.items() if name.startswith(PREFIX)}
    if missing := [name for name in learner.names() if name not in own]:
        raise InputError(f"the pieces lack {missing[0]} and {len(missing) - 1} more tensors that learn here")
    for name, p in learner.names().items():
        p.copy_(own[name])
        learner.average[name].copy_(own[name])
    if facts["phase"] == DISTILLING:
        learner.begin_distilling()
        learner.teacher.load_state_dict(
            {name.removeprefix(TEACHER): value for name, value in stored.items() if name.startswith(TEACHER)}
        )
    assert learner.phase == facts["phase"] or facts["phase"] == PAINTING
    return facts


def read(pieces: Iterable[Path]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """All tensors of all pieces, and the facts of the run."""
    stored, facts = {}, {}
    for path in pieces:
        with safe_open(path, "pt") as file:
            stored |= {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            facts = json.loads(file.metadata()["facts"])
    if not stored:
        raise InputError("there are no pieces to read")
    return stored, facts


def _helpers(learner: Learner) -> dict[str, Tensor]:
    return {
        name: p.data for name, p in (*learner.cells.named_parameters("cells"), *learner.told.named_parameters("told"))
    }
