"""A run <-> files: everything, to go on where it stopped on this machine; what was trained, in pieces that travel.

Pieces hold bf16 tensors, and the routed experts in 8 bits with a scale for 64 weights (`packed`): they ship in 4.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from ming_omni.errors import InputError
from ming_omni.packed import pack, unpack
from ming_omni.train.senses.learner import Learner
from ming_omni.train.senses.network import GROUP
from ming_omni.train.timed import write_pieces

STATE = "state.pt"


def save(folder: Path, learner: Learner, optimizer: torch.optim.Optimizer, facts: dict[str, Any]) -> None:
    """facts: step, seconds of training so far, numbers of the next batches."""
    part = folder / f"{STATE}.part"
    trained = {name: p.data for name, p in learner.named_parameters() if p.requires_grad}
    state = {"trained": trained, "biases": learner.biases.values, "optimizer": optimizer.state_dict(), "facts": facts}
    torch.save(state, part)
    os.replace(part, folder / STATE)


def restore(folder: Path, learner: Learner, optimizer: torch.optim.Optimizer) -> dict[str, Any] | None:
    """The facts of the last save; None where there is none."""
    path = folder / STATE
    if not path.is_file():
        return None
    state = torch.load(path, map_location=learner.biases.values.device, weights_only=True)
    parameters = dict(learner.named_parameters())
    with torch.no_grad():
        for name, value in state["trained"].items():
            parameters[name].copy_(value)
        learner.biases.values.copy_(state["biases"])
    optimizer.load_state_dict(state["optimizer"])
    return state["facts"]


def export(folder: Path, learner: Learner, facts: dict[str, Any]) -> list[Path]:
    """trained-0.safetensors, ...: what training changed, each small enough to be fetched."""
    stored: dict[str, Tensor] = {}
    for name, parameter in learner.names().items():
        value = parameter.detach().float().cpu()
        if ".experts." in name:
            stored |= pack(value, min(GROUP, value.shape[-1]), bits=8).named(name)
        else:
            stored[name] = value if ".routers." in name else value.to(torch.bfloat16)
    stored |= {name: head.detach().to(torch.bfloat16).cpu() for name, head in learner.helper_names().items()}
    return write_pieces(folder, "trained", stored, {"facts": json.dumps(facts)})


def join(pieces: Iterable[Path], output: Path) -> dict[str, Any]:
    """Pieces as they came back -> one trained.safetensors with float tensors; returns the facts of the run."""
    stored, facts = _read(pieces)
    tensors = {name: value for name, value in unpack(stored) if not name.startswith("helpers.")}
    save_file(tensors, output, metadata={"facts": json.dumps(facts)})
    return facts


@torch.no_grad()
def start_from(pieces: Iterable[Path], learner: Learner) -> dict[str, Any]:
    """Go on with what another machine has trained, the optimiser anew; returns the facts of that run.

    Of what was trained before any run (`sights`), not everything is there, and it comes last: it replaces its own.
    """
    stored, facts = _read(pieces)
    wanted = learner.names() | learner.helper_names()
    found = dict(unpack(stored))
    missing = [name for name in wanted if name not in found and not name.startswith("helpers.")]
    if missing and facts["step"]:
        raise InputError(f"the pieces lack {missing[0]} and {len(missing) - 1} more tensors that learn here")
    for name, value in found.items():
        is_other = name.startswith("helpers.") and name in wanted and wanted[name].shape != value.shape
        if name in wanted and not is_other:  # other clips have other letters
            wanted[name].copy_(value)
    return facts


def _read(pieces: Iterable[Path]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    stored, facts = {}, {}
    for path in pieces:
        with safe_open(path, "pt") as file:
            stored |= {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            facts = json.loads(file.metadata()["facts"])
    if not stored:
        raise InputError("there are no pieces to join")
    return stored, facts
