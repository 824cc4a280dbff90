"""What has been trained and the optimiser's moments <-> a folder for every saved step; tensors alone for export.

A checkpoint is written under another name and renamed when it is whole, so a folder with the right name is never half
a checkpoint. Shards of many processes are one checkpoint, which any number of processes can read.
"""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path

import torch
import torch.distributed.checkpoint as dcp
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.distributed.checkpoint.api import CheckpointException

from ming_omni.errors import InputError
from ming_omni.train.parallel import World, full
from ming_omni.train.parts import trained

NAME = "step-{:08d}"
UNFINISHED = ".unfinished"
STATE = "state.json"


class Checkpoints:
    def __init__(self, folder: Path, keep: int, world: World):
        self.folder, self.keep, self.world = folder, keep, world

    def steps(self) -> list[Path]:
        """Whole checkpoints, oldest first."""
        return sorted(path for path in self.folder.glob("step-*") if path.suffix != UNFINISHED)

    def save(self, step: int, learner: nn.Module, optimizer: torch.optim.Optimizer, warm_up_from: int) -> None:
        """step: how many have been done."""
        final = self.folder / NAME.format(step)
        part = final.with_suffix(UNFINISHED)
        if self.world.is_first:
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir(parents=True)
        self.world.wait()
        try:
            with _quiet():
                dcp.save(tensors(learner, optimizer), checkpoint_id=part, no_dist=self.world.size == 1)
            if self.world.is_first:
                updates = float(next(iter(optimizer.state.values()))["step"])
                state = {"step": step, "warm_up_from": warm_up_from, "updates": updates}
                (part / STATE).write_text(json.dumps(state))
        except (OSError, RuntimeError, CheckpointException) as error:
            shutil.rmtree(part, ignore_errors=True)
            last = self.steps()[-1] if self.steps() else None
            kept = f"the last whole checkpoint is {last}" if last else "there is no earlier checkpoint"
            free = f"{shutil.disk_usage(self.folder).free / 1e6:.0f} MB free there"
            raise InputError(
                f"step {step} could not be saved in {self.folder} ({_cause(error)}; {free}); {kept}"
            ) from error
        self.world.wait()
        if self.world.is_first:
            shutil.rmtree(final, ignore_errors=True)
            part.rename(final)
            for old in [*self.steps()[: -self.keep], *self.folder.glob(f"*{UNFINISHED}")]:
                shutil.rmtree(old)
        self.world.wait()

    def restore(self, learner: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[int, int] | None:
        """Fill in the newest one; returns how many steps had been done and where the optimiser had begun to warm up."""
        if not self.steps():
            return None
        path = self.steps()[-1]
        try:
            with _quiet():
                dcp.load(tensors(learner, optimizer), checkpoint_id=path, no_dist=self.world.size == 1)
            state = json.loads((path / STATE).read_text())
            for moments in optimizer.state.values():
                moments["step"].fill_(state["updates"])
        except (OSError, ValueError, KeyError, RuntimeError, CheckpointException) as error:
            raise InputError(f"{path} cannot be read ({_cause(error)}); was it made by another recipe?") from error
        return state["step"], state["warm_up_from"]


def tensors(learner: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Everything of a checkpoint by name, in place: reading it fills these very tensors."""
    found = {}
    for name, parameter in trained(learner).items():
        found[f"weight/{name}"] = parameter.detach()
        for moment, value in optimizer.state.get(parameter, {}).items():
            if moment != "step":  # the same number for all, kept once
                found[f"{moment}/{name}"] = value
    return found


def export(learner: nn.Module, path: Path, step: int, world: World) -> None:
    """Only what was trained, in bf16, router biases in fp32: what travels between machines."""
    state = {}
    for name, parameter in trained(learner).items():
        tensor = full(parameter.detach())
        dtype = torch.float32 if name.endswith(".bias") and ".routers." in name else torch.bfloat16
        state[name] = tensor.to("cpu", dtype, copy=True).contiguous()
    # LoRA's two matrices mean nothing without their factor; every layer has the same.
    scales = {scale for m in learner.modules() if hasattr(m, "lora_A") for scale in m.scaling.values()}
    if world.is_first:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(UNFINISHED)
        metadata = {"format": "pt", "step": str(step)} | ({"lora_scale": str(*scales)} if scales else {})
        save_file(state, part, metadata=metadata)
        part.rename(path)


def _cause(error: BaseException) -> str:
    """The innermost reason, on one line."""
    if isinstance(error, CheckpointException):
        error = next(iter(error.failures.values()))[0]
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


class _quiet(warnings.catch_warnings):
    """torch warns that one process needs no process group, and of its own storage classes."""

    def __enter__(self):
        super().__enter__()
        warnings.simplefilter("ignore")
