"""A recipe -> what it would do, as text: parts, what learns, tokens, memory, time. One step is tried, none is kept."""

from __future__ import annotations

import time

import torch
from torch import Tensor, nn

from ming_omni.train import seeds
from ming_omni.train.bench import Bench, build
from ming_omni.train.feed import batches_of, count
from ming_omni.train.parallel import World
from ming_omni.train.recipe import Recipe

GRADIENT_AND_MOMENTS = 3
"""Numbers that AdamW keeps for each one that learns, beside the number itself."""


def describe(recipe: Recipe) -> str:
    bench = build(recipe)
    world = World(device=torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    bench.learner.to(world.device).train()
    rows = [("part", "parameters", "that learn")]
    for name, module in _parts(bench):
        sizes = [(p.numel(), p.requires_grad) for p in module.parameters()]
        rows.append((name, f"{sum(n for n, _ in sizes):,}", f"{sum(n for n, learns in sizes if learns):,}"))
    seconds, activations, tokens, examples = _try_step(bench, recipe, world)
    numbers = sum(p.numel() for p in bench.learner.parameters())
    learning = sum(p.numel() for p in bench.learner.parameters() if p.requires_grad)
    memory = {
        "weights": 4 * numbers,
        "gradients and moments": 4 * GRADIENT_AND_MOMENTS * learning,
        "activations": activations,
    }
    lines = [recipe.about or recipe.name, ""]
    lines += [f"{name:<12}{total:>16}{learns:>16}" for name, total, learns in rows]
    lines += ["", f"{'set':<12}{'lines':>8}{'a step':>8}  learns"]
    lines += [f"{d.name:<12}{len(d.lines):>8}{d.settings.examples_per_step:>8}  {d.kind}" for d in bench.sets]
    if bench.bad_lines:
        lines += ["", f"{len(bench.bad_lines)} lines cannot be used; the first: {bench.bad_lines[0]}"]
    lines += [
        "",
        f"steps   {recipe.steps:,} with {examples:,} examples each",
        f"tokens  {tokens:,} in the first step, about {tokens * recipe.steps:,} in all",
        f"memory  {sum(memory.values()) / 1e6:,.0f} MB: "
        + ", ".join(f"{name} {size / 1e6:,.0f}" for name, size in memory.items()),
        f"time    {seconds:.2f} s for a step here in one process, about {_duration(seconds * recipe.steps)} in all",
    ]
    return "\n".join(lines)


def _parts(bench: Bench) -> list[tuple[str, nn.Module]]:
    model = bench.model
    named = [(name, getattr(model, name)) for name in ("thinker", "vision", "audio", "painter", "talker")]
    return [(name, part) for name, part in [*named, ("critics", bench.learner.critics)] if part is not None]


def _try_step(bench: Bench, recipe: Recipe, world: World) -> tuple[float, int, int, int]:
    """Seconds of a step, the most bytes that one batch keeps for its gradients, tokens and examples."""
    batches, _ = batches_of(bench.sets, recipe, world, 0)
    totals = count(batches, 0, world)
    held = {p.untyped_storage().data_ptr() for p in bench.learner.parameters()}
    most, started = 0, time.perf_counter()
    for batch in batches:
        kept: dict[int, int] = {}

        def note(tensor: Tensor, kept: dict[int, int] = kept) -> Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in held:
                kept[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            draw = seeds.generator(recipe.seed, "noise", 0, 0, 0)
            with torch.autocast(world.device.type, torch.bfloat16, enabled=recipe.learn.precision == "bf16"):
                losses = bench.learner(batch.to(world.device), totals[batch.name], draw)
            torch.stack([value.float() for value in losses.values()]).sum().backward()
        most = max(most, sum(kept.values()))
    seconds = time.perf_counter() - started
    return seconds, most, sum(b.num_tokens for b in batches), sum(len(b.where) for b in batches)


def _duration(seconds: float) -> str:
    for unit, size in (("days", 86_400), ("hours", 3600), ("minutes", 60)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} seconds"
