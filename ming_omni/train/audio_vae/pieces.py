"""A run <-> files: everything, to go on where it stopped on this machine; what ships, in pieces that travel.

audio_vae.safetensors   the mean of the weights, fp16, its latents scaled to mean 0 and standard deviation 1
audio_vae.json          its config, settings, scores, and how far the run has come
dev.flac                clips before (left) and after (right)
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ming_omni.config import AudioVAEConfig
from ming_omni.model.audio_vae import AudioVAE
from ming_omni.train.audio_vae.learner import Learner
from ming_omni.train.audio_vae.looks import Heard, side_by_side

STATE = "state.pt"
NAME = "audio_vae"
SIZES = ("sample_rate_hz", "hop_samples", "frame_samples", "latent_dim", "encoder", "decoder")


def save(folder: Path, learner: Learner, optimizers: Sequence[torch.optim.Optimizer], facts: dict[str, Any]) -> None:
    """facts: step, seconds of training so far, calls."""
    part = folder / f"{STATE}.part"
    state = {
        "learner": learner.state_dict(),
        "num_averaged": learner.num_averaged,
        "optimizers": [optimizer.state_dict() for optimizer in optimizers],
        "facts": facts,
    }
    torch.save(state, part)
    os.replace(part, folder / STATE)


def restore(folder: Path, learner: Learner, optimizers: Sequence[torch.optim.Optimizer]) -> dict[str, Any] | None:
    """The facts of the last save; None where there is none."""
    path = folder / STATE
    if not path.is_file():
        return None
    state = torch.load(path, map_location=learner.vae.device, weights_only=True)
    learner.load_state_dict(state["learner"])
    learner.num_averaged = state["num_averaged"]
    for optimizer, stored in zip(optimizers, state["optimizers"], strict=True):
        optimizer.load_state_dict(stored)
    return state["facts"]


@torch.no_grad()
def scaled(vae: AudioVAE, mean: Tensor, std: Tensor) -> AudioVAE:
    """The same sounds by latents of mean 0 and standard deviation 1, for the talker: both ends take up the change.

    The posterior's spread is a softplus, for which dividing is only nearly a shift; it is exact where the spread is
    small, and elsewhere the latents are noise anyway.
    """
    vae = deepcopy(vae)
    posterior, latent = vae.encoder.posterior, vae.decoder.latent
    size = len(mean)
    latent.bias += latent.weight @ mean
    latent.weight *= std
    posterior.bias[:size] -= mean
    posterior.weight[:size] /= std[:, None]
    posterior.bias[:size] /= std
    posterior.bias[size:] -= std.log()
    return vae


def export(
    folder: Path,
    vae: AudioVAE,
    statistics: tuple[Tensor, Tensor],
    told: dict[str, Any],
    heard: Sequence[Heard],
) -> None:
    """told: what else belongs into the JSON file."""
    import soundfile

    folder.mkdir(parents=True, exist_ok=True)
    mean, std = statistics
    tensors = {name: value.half().cpu().contiguous() for name, value in scaled(vae, mean, std).state_dict().items()}
    save_file(tensors, folder / f"{NAME}.safetensors")
    told = {"config": sizes(vae.config), **told, "before_scaling": {"mean": mean.tolist(), "std": std.tolist()}}
    if heard:
        sound, clips = side_by_side(heard)
        soundfile.write(folder / "dev.flac", sound, vae.config.sample_rate_hz, subtype="PCM_16")
        told["dev_flac"] = clips
    (folder / f"{NAME}.json").write_text(json.dumps(told, ensure_ascii=False, indent=1))


def sizes(config: AudioVAEConfig) -> dict[str, Any]:
    """What makes the config again."""
    own = (
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "head_dim",
    )
    half = {name: {key: getattr(getattr(config, name), key) for key in own} for name in ("encoder", "decoder")}
    return {name: half[name] if name in half else getattr(config, name) for name in SIZES}


def load(folder: Path) -> tuple[AudioVAE, dict[str, Any]]:
    """What a run exported: the model in fp32, and what is told beside it."""
    told = json.loads((folder / f"{NAME}.json").read_text())
    vae = AudioVAE(AudioVAEConfig(**told["config"]))
    vae.load_state_dict({name: value.float() for name, value in load_file(folder / f"{NAME}.safetensors").items()})
    return vae.eval(), told


@torch.no_grad()
def start_from(folder: Path, learner: Learner) -> dict[str, Any]:
    """Go on with what another machine has trained; critics and optimisers are new. Returns that run's facts."""
    vae, told = load(folder)
    for own in (learner.vae, learner.mean):
        own.load_state_dict(vae.state_dict())
    return {name: told["facts"][name] for name in ("step", "seconds")}
