"""Parameters that learn -> AdamW, and its learning rate at every step."""

from __future__ import annotations

import math

import torch

from ming_omni.train.recipe import OptimizerSettings, Recipe


def make_optimizer(parameters: list[torch.nn.Parameter], settings: OptimizerSettings) -> torch.optim.Optimizer:
    """AdamW; vectors (norms, biases) do not decay. Tensors laid out alike share a group, as its fused form needs."""
    groups: dict[tuple, list[torch.nn.Parameter]] = {}
    for parameter in parameters:
        mesh = getattr(parameter, "device_mesh", None)
        groups.setdefault((parameter.dim() > 1, mesh and id(mesh)), []).append(parameter)
    optimizer = torch.optim.AdamW(
        [
            {"params": group, "weight_decay": settings.weight_decay if decays else 0.0}
            for (decays, _), group in groups.items()
        ],
        lr=settings.learning_rate,
        betas=tuple(settings.betas),
        fused=True,
    )
    # Moments exist from the start, so that a checkpoint holds the same tensors after any step.
    for parameter in parameters:
        optimizer.state[parameter] = {
            "step": torch.zeros((), device=parameter.device),
            "exp_avg": torch.zeros_like(parameter),
            "exp_avg_sq": torch.zeros_like(parameter),
        }
    return optimizer


def learning_rate(recipe: Recipe, step: int, warm_up_from: int) -> float:
    """Rises over the first steps of this optimiser, then follows the schedule of the whole run."""
    settings = recipe.optimizer
    warm = min(1.0, (step - warm_up_from + 1) / max(1, settings.warmup_steps))
    if settings.schedule == "constant":
        return settings.learning_rate * warm
    return settings.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * step / recipe.steps))
