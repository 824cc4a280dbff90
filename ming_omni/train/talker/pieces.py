"""A run <-> files: everything, to go on where it stopped on this machine; what ships, in pieces that travel.

talker-0.safetensors, ...  the mean of the weights, fp16
talker.json                config, settings, and how far the run has come
heard.flac                 development sentences as the teacher (left) and the talker (right) say them
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from ming_omni.config import TalkerConfig, all_settings
from ming_omni.errors import InputError
from ming_omni.train.audio_vae.pieces import load as load_vae
from ming_omni.train.talker.learner import Learner
from ming_omni.train.timed import write_pieces

STATE, NAME = "state.pt", "talker"
OLD_FLOW = "old_flow."
"""Before the names of what the flow is being distilled from, while it is."""
GUIDED_STEPS = 10
"""Of a talker that has not been distilled yet."""


def save(folder: Path, learner: Learner, optimizer: torch.optim.Optimizer, facts: dict[str, Any]) -> None:
    """facts: step, seconds of training so far, calls."""
    part = folder / f"{STATE}.part"
    state = {
        "learned": {name: p.data for name, p in learner.learned.items()},
        "mean": learner.mean,
        "num_averaged": learner.num_averaged,
        "helpers": [helper.state_dict() for helper in learner.helpers],
        "old_flow": learner.old_flow.state_dict() if learner.is_distilling else None,
        "optimizer": optimizer.state_dict(),
        "facts": facts,
    }
    torch.save(state, part)
    os.replace(part, folder / STATE)


@torch.no_grad()
def restore(folder: Path, learner: Learner) -> dict[str, Any] | None:
    """The facts of the last save, and `optimizer`, its state; None where there is none."""
    path = folder / STATE
    if not path.is_file():
        return None
    state = torch.load(path, map_location=learner.phonemes.weight.device, weights_only=True)
    if state["old_flow"] is not None:
        learner.begin_distilling()
        learner.old_flow.load_state_dict(state["old_flow"])
    for name, parameter in learner.learned.items():
        parameter.copy_(state["learned"][name])
    learner.mean, learner.num_averaged = state["mean"], state["num_averaged"]
    for helper, stored in zip(learner.helpers, state["helpers"], strict=True):
        helper.load_state_dict(stored)
    return state["facts"] | {"optimizer": state["optimizer"]}


def shipped_config(learner: Learner) -> TalkerConfig:
    """As it speaks best: few steps without guidance once it is distilled."""
    config = TalkerConfig.from_dict(learner.talker.config.to_dict())
    if not learner.is_distilling:
        config.steps, config.guidance = GUIDED_STEPS, learner.settings.distill.guidance
    return config


def export(folder: Path, learner: Learner, facts: dict[str, Any]) -> list[Path]:
    stored = dict(zip(learner.learned, learner.mean, strict=True))
    if learner.is_distilling and not facts.get("is_over"):
        stored |= learner.old_flow.state_dict(prefix=OLD_FLOW)
    paths = write_pieces(folder, NAME, {name: value.half().cpu() for name, value in stored.items()})
    config = all_settings(shipped_config(learner))
    told = {"config": config, "facts": facts, "settings": asdict(learner.settings)}
    (folder / f"{NAME}.json").write_text(json.dumps(told, ensure_ascii=False, indent=1))
    return paths


def load(folder: Path) -> tuple[TalkerConfig, dict[str, Tensor], dict[str, Any]]:
    """What a run exported: config, fp32 weights without the AudioVAE's, and what is told beside them."""
    found = sorted(folder.glob(f"{NAME}-*.safetensors"))
    if not found or not (folder / f"{NAME}.json").is_file():
        raise InputError(f"{folder} holds no pieces of a trained talker")
    told = json.loads((folder / f"{NAME}.json").read_text())
    weights = {name: value.float() for path in found for name, value in load_file(path).items()}
    return TalkerConfig(**told["config"]), weights, told


def load_whole(folder: Path, vae_folder: Path) -> tuple[TalkerConfig, dict[str, Tensor]]:
    """Config and weights of a talker that speaks: its own and the AudioVAE's."""
    config, weights, _ = load(folder)
    vae, _ = load_vae(vae_folder)
    if all_settings(vae.config) != all_settings(config.vae):
        raise InputError(f"{folder} was trained with another AudioVAE than that of {vae_folder}")
    weights = {name: value for name, value in weights.items() if not name.startswith(OLD_FLOW)}
    return config, weights | {f"vae.{name}": p.data for name, p in vae.named_parameters()}


@torch.no_grad()
def start_from(folder: Path, learner: Learner) -> dict[str, Any]:
    """Go on with what another machine has trained; helper and optimiser are new. Returns that run's facts."""
    _, weights, told = load(folder)
    old = {name: weights.pop(name) for name in list(weights) if name.startswith(OLD_FLOW)}
    for (name, parameter), mean in zip(learner.learned.items(), learner.mean, strict=True):
        parameter.copy_(weights[name])
        mean.copy_(weights[name])
    if old:
        learner.begin_distilling()
        learner.old_flow.load_state_dict({name.removeprefix(OLD_FLOW): value for name, value in old.items()})
    return {name: told["facts"][name] for name in ("step", "seconds")}
