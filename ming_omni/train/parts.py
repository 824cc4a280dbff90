"""Settings -> a model whose chosen parts learn: loaded, the rest frozen, LoRA where it is asked for."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer

from ming_omni import checkpoint
from ming_omni import config as presets
from ming_omni.config import MingConfig
from ming_omni.errors import InputError
from ming_omni.inputs.processor import MingProcessor
from ming_omni.inputs.tiny import tiny_tokenizer
from ming_omni.model.omni import MingForConditionalGeneration
from ming_omni.speech.alphabet import character_tokenizer
from ming_omni.train.recipe import LearnSettings, ModelSettings


def load(settings: ModelSettings) -> tuple[MingForConditionalGeneration, MingProcessor]:
    """In float32: optimisers move weights by less than bf16 can tell apart."""
    is_tiny = settings.name == "tiny"
    if settings.config and not is_tiny:
        raise InputError("model.config changes sizes, and only a model that is built here (tiny) has no weights yet")
    model = checkpoint.load(
        settings.name,
        dtype=torch.float32,
        config=configure(presets.tiny(), settings.config) if is_tiny else None,
        load_image_gen=settings.painter,
        load_talker=settings.talker,
    )
    if settings.painter:
        model.require("painter")
    if settings.talker and getattr(model.require("talker"), "tokenizer", None) is None:
        model.talker.tokenizer = character_tokenizer()
    if is_tiny:
        return model, MingProcessor.from_config(model.config, tiny_tokenizer())
    return model, MingProcessor.from_pretrained(settings.name)


def configure(config: MingConfig, changes: dict[str, Any]) -> MingConfig:
    """A configuration with some of its nested values changed."""

    def merge(values: dict[str, Any], changes: dict[str, Any], where: str) -> dict[str, Any]:
        for name, value in changes.items():
            if name not in values:
                known = ", ".join(sorted(values))
                raise InputError(f"there is no setting model.config.{where}{name}; there are {known}")
            is_table = isinstance(values[name], dict) and isinstance(value, dict)
            values[name] = merge(values[name], value, f"{where}{name}.") if is_table else value
        return values

    return MingConfig(**merge(config.to_dict(), changes, "")) if changes else config


def choose(model: nn.Module, settings: LearnSettings) -> Any:
    """Let the named parts learn and nothing else; returns the PEFT model when there is LoRA, else None."""
    adapted = None
    if settings.lora:
        from peft import LoraConfig, get_peft_model

        names = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
        targets = select(names, settings.lora)
        adapted = get_peft_model(
            model, LoraConfig(r=settings.lora_rank, lora_alpha=settings.lora_alpha, target_modules=targets)
        )
    learning = {name for name, parameter in model.named_parameters() if adapted and ".lora_" in name}
    if settings.parts:
        # A router's bias is moved by the load it sees, never by gradients.
        names = [name for name, _ in model.named_parameters() if not _is_router_bias(name) and ".lora_" not in name]
        learning |= set(select(names, settings.parts))
    if not learning:
        raise InputError("nothing learns: name parts of the model in learn.parts or learn.lora")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in learning)
    return adapted


def select(names: Iterable[str], patterns: list[str]) -> list[str]:
    """Names that a pattern names, or whose owner it names, in their order; later patterns win."""
    names = list(names)
    chosen: set[str] = set()
    for pattern in patterns:
        is_out = pattern.startswith("!")
        wanted = pattern.removeprefix("!")
        found = {name for name in names if fnmatchcase(name, wanted) or fnmatchcase(name, f"{wanted}.*")}
        if not found:
            raise InputError(_nothing_named(wanted, names))
        chosen = chosen - found if is_out else chosen | found
    return [name for name in names if name in chosen]


def _nothing_named(pattern: str, names: list[str]) -> str:
    prefixes = sorted({".".join(name.split(".")[:depth]) for name in names for depth in range(1, name.count(".") + 2)})
    near = difflib.get_close_matches(pattern, prefixes, 3)
    parts = ", ".join(near or dict.fromkeys(name.partition(".")[0] for name in names))
    return f"the model has no {pattern}; it has {parts}"


def _is_router_bias(name: str) -> bool:
    return ".routers." in name and name.endswith(".bias")


def trained(learner: nn.Module) -> dict[str, nn.Parameter]:
    """Everything that training changes: parameters that learn, and the router biases beside them."""
    return {
        name: parameter
        for name, parameter in learner.named_parameters()
        if parameter.requires_grad or _is_router_bias(name)
    }


def import_trained(learner: nn.Module, path: str | Path) -> int:
    """Take the tensors that another run has trained; returns the step it had reached. Names must be those here."""
    path = Path(path).expanduser()
    if not path.is_file():
        raise InputError(f"model.start_from: there is no file {path}")
    wanted = trained(learner)
    with safe_open(path, "pt") as file, torch.no_grad():
        found = set(file.keys())
        if missing := wanted.keys() - found:
            raise InputError(f"{path} lacks {min(missing)} and {len(missing) - 1} more tensors that learn here")
        if extra := found - wanted.keys():
            raise InputError(f"{path} holds {min(extra)} and {len(extra) - 1} more tensors that do not learn here")
        for name, parameter in wanted.items():
            tensor = file.get_tensor(name)
            if tensor.shape != parameter.shape:
                raise InputError(f"{path}: {name} is {tuple(tensor.shape)}, here it is {tuple(parameter.shape)}")
            parameter.copy_(tensor)
        return int((file.metadata() or {}).get("step", 0))


def checkpoint_activations(model: nn.Module) -> None:
    """Every layer forgets its insides after the forward pass and computes them again when gradients need them.

    transformers' own switch would drop the attention boundaries of a packed row, which it takes for a cache.
    """
    for layer in model.modules():
        if isinstance(layer, GradientCheckpointingLayer):
            layer.forward = _Recomputed(layer.forward)


class _Recomputed:
    def __init__(self, forward):
        self.plain = forward

    def __call__(self, *args, **kwargs):
        return torch.utils.checkpoint.checkpoint(self.plain, *args, use_reentrant=False, **kwargs)
