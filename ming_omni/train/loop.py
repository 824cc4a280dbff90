"""A recipe -> a trained model: one straight loop on plain torch, the same on one process and on many."""

from __future__ import annotations

import time
from pathlib import Path

import torch

from ming_omni.errors import InputError
from ming_omni.train import balance, checkpoints, heatmap, parallel, report, samples, seeds
from ming_omni.train.bench import build, save_model
from ming_omni.train.checkpoints import Checkpoints
from ming_omni.train.feed import count, prefetch
from ming_omni.train.guard import Guard, full_disk_named
from ming_omni.train.log import Log, count_events
from ming_omni.train.optimizer import learning_rate, make_optimizer
from ming_omni.train.recipe import Recipe

EXPORT = "trained.safetensors"


def train(recipe: Recipe, output: Path, *, resume: bool = False) -> Path:
    """Train, and leave in `output` log, checkpoints, samples, report and what was trained; returns the report."""
    with full_disk_named(output):
        return _train(recipe, output, resume)


def _train(recipe: Recipe, output: Path, resume: bool) -> Path:
    world = parallel.start(recipe.parallel)
    bench = build(recipe)
    learner = bench.learner
    parallel.apply(learner, recipe.parallel, world, recipe.learn.precision)
    learning = [parameter for parameter in learner.parameters() if parameter.requires_grad]
    optimizer = make_optimizer(learning, recipe.optimizer)
    saved = Checkpoints(output / "checkpoints", recipe.output.keep, world)
    if saved.steps() and not resume:
        raise InputError(f"{output} holds a run already: --resume goes on with it, another --output starts a new one")
    if not saved.steps() and bench.first_step >= recipe.steps:
        done, wanted = bench.first_step, recipe.steps
        raise InputError(f"{recipe.model.start_from} has done {done} steps already; steps, {wanted}, counts them too")
    start, warm_up_from = saved.restore(learner, optimizer) or (bench.first_step, bench.first_step)

    log = Log(output, recipe, start, world.is_first)
    guard = Guard(output / "bad", recipe.guard, world.rank)
    for error in bench.bad_lines:
        log.event(start, "line left out", error)
    is_whole = recipe.parallel.mode == "data" and recipe.parallel.experts == 1
    learner.train()
    try:
        for step, batches, bad in prefetch(bench.sets, recipe, world, start):
            started = time.perf_counter()
            for error in bad:
                log.event(step, "example left out", error)
            torch.manual_seed(seeds.mix(recipe.seed, "dropout", step, world.rank))
            rate = learning_rate(recipe, step, warm_up_from)
            for group in optimizer.param_groups:
                group["lr"] = rate

            losses: dict[str, torch.Tensor] = {}
            totals = count(batches, step, world)
            for index, batch in enumerate(batches):
                draw = seeds.generator(recipe.seed, "noise", step, world.rank, index)
                with torch.autocast(world.device.type, torch.bfloat16, enabled=recipe.learn.precision == "bf16"):
                    found = learner(batch.to(world.device), totals[batch.name], draw)
                torch.stack([value.float() for value in found.values()]).sum().backward()
                for name, value in found.items():
                    losses[name] = losses.get(name, 0) + value.detach().float()
            world.sum_gradients(learning)
            norm = world.clip(learning, recipe.optimizer.clip_norm)
            names = sorted(losses)
            values = world.total(torch.stack([losses[name] for name in names])).tolist()
            figures = {"loss": sum(values), "gradient_norm": norm} | {
                f"loss/{name}": value for name, value in zip(names, values, strict=True)
            }

            load = learner.loads.take(world.total)
            if guard.allows(step, figures, batches):
                optimizer.step()
                if load is not None:
                    learner.loads.move(load, recipe.balance.bias_rate)
            else:
                log.event(
                    step, "step skipped", f"not finite; {guard.num_skipped} so far, batches saved in {guard.folder}"
                )
            optimizer.zero_grad()

            if load is not None:
                figures |= balance.figures(load)
                if _is_due(step, recipe.output.heatmap_every) and world.is_first:
                    heatmap.save(load, output / "heatmaps" / f"step-{step + 1:08d}.png")
            seconds = time.perf_counter() - started
            tokens = sum(totals[name].set_tokens for name in totals)
            figures |= {"learning_rate": rate, "tokens": tokens, "tokens_per_second": tokens / seconds}
            log.step(step, figures)
            if _is_due(step, recipe.output.sample_every) and world.is_first and is_whole:
                samples.write(output / "samples" / f"step-{step + 1:08d}", bench.sets, bench.model)
            if _is_due(step, recipe.output.save_every) or step + 1 == recipe.steps:
                saved.save(step + 1, learner, optimizer, warm_up_from)
                checkpoints.export(learner, output / EXPORT, step + 1, world)
    finally:
        log.close()

    if start >= recipe.steps:  # killed after the last step
        checkpoints.export(learner, output / EXPORT, start, world)
    if world.is_first and is_whole:
        save_model(bench, recipe, output)
    facts = {
        "steps": recipe.steps,
        "parameters that learn": f"{sum(p.numel() for p in learning):,}",
        "steps skipped": count_events(output, "step skipped"),  # those before a stop, too
        "processes": world.size,
    }
    path = report.write(output, recipe, facts) if world.is_first else output / "report.html"
    world.wait()
    world.stop()
    return path


def _is_due(step: int, every: int) -> bool:
    return bool(every) and (step + 1) % every == 0
