"""Settings -> a trained painter, on some GPUs in a given time: checks, then steps, looks, saves; pieces to carry away.

    python -m ming_omni.train.painter.run nano_painter --output run --pieces pieces --for 560

With several GPUs put `torchrun --nproc-per-node N -m` before the module. Called again with the same output it goes on.
First it learns to paint (flow matching), then to do so in few steps without guidance; the learning rate follows the
seconds of each phase, so that both end annealed whatever the speed.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ming_omni.train.painter import checks, states
from ming_omni.train.painter.bench import Bench, build
from ming_omni.train.painter.learner import ABOUT, DISTILLING, PAINTING, Learner, Moved
from ming_omni.train.painter.settings import Settings, read
from ming_omni.train.parallel import start
from ming_omni.train.recipe import ParallelSettings
from ming_omni.train.senses.run import RESERVE_SECONDS
from ming_omni.train.senses.workers import Ahead
from ming_omni.train.timed import LOG, annealed, command, mark, summary

SHEET = "sheet.png"


def rate_factor(settings: Settings, phase: str, seconds: float, step: int) -> float:
    """Rises over the first steps of a phase, then falls with its time; zero at its end. step: of this optimiser"""
    first = settings.seconds * (1 - settings.distil.share)
    begin, end = (first, settings.seconds) if phase == DISTILLING else (0.0, first)
    progress = (seconds - begin) / max(end - begin, 1e-9)
    return annealed(progress, step, settings.learn.warmup_steps)


def make_optimizer(learner: Learner) -> torch.optim.Optimizer:
    learn = learner.settings.learn
    rates = {"student": learner.settings.distil.rate}
    groups = []
    for name, parameters in learner.groups.items():
        rate = rates[name] if name in rates else getattr(learn, name)
        for decays in (True, False):
            chosen = [p for p in parameters if (p.dim() > 1 and name != "queries") == decays]
            if chosen:
                decay = learn.weight_decay if decays else 0.0
                groups.append({"params": chosen, "lr": rate, "weight_decay": decay, "rate": rate})
    return torch.optim.AdamW(groups, betas=tuple(learn.betas), fused=True)


def step(bench: Bench, optimizer: torch.optim.Optimizer, batches: list[Moved], number: int) -> dict[str, Tensor]:
    """Nothing here waits for the device; a gradient that is not finite changes nothing."""
    learner, world = bench.learner, bench.world
    losses = learner(batches)
    total = torch.stack([value.float() for name, value in losses.items() if not name.startswith(ABOUT)]).sum()
    (total / world.size).backward()  # gradients are summed over processes
    losses = {name: value.detach().float() for name, value in losses.items()}
    world.whole = [p for own in learner.groups.values() for p in own]
    world.sum_gradients(world.whole)
    # Each group by itself: a large gradient of one helper must not still all the others.
    limit = bench.settings.learn.clip_norm
    norms = {name: torch.nn.utils.clip_grad_norm_(own, limit) for name, own in learner.groups.items()}
    is_bad = (~torch.isfinite(torch.stack(list(norms.values())).norm())).float()
    optimizer.found_inf = is_bad  # the fused step leaves everything as it is
    optimizer.step()
    optimizer.zero_grad()
    learner.follow(number)
    return losses | {f"norm/{name}": own for name, own in norms.items()} | {"skipped": is_bad}


def train(
    settings: Settings, output: Path, pieces: Path | None, seconds: float, start_from: list[Path]
) -> dict[str, Any]:
    """seconds: of this call, everything included; returns the facts at its end."""
    called = time.perf_counter()
    output.mkdir(parents=True, exist_ok=True)
    world = start(ParallelSettings(), settings.device)
    bench = build(settings, world)
    learner = bench.learner
    optimizer, facts = states.restore(output, learner, make_optimizer)
    if facts is None:
        facts = {"step": 0, "seconds": 0.0, "calls": 0, "warm_from": 0, "phase": PAINTING}
        if start_from:
            facts |= states.start_from(start_from, learner)
            facts["warm_from"] = facts["step"]
            optimizer = make_optimizer(learner)
    facts["calls"] += 1
    bench.start_feed(facts["calls"])
    log = (output / LOG).open("a")

    def write(row: dict[str, Any]) -> None:
        if world.is_first:
            log.write(json.dumps({"step": facts["step"], "seconds": round(facts["seconds"], 2), **row}) + "\n")
            log.flush()
            print(summary(facts, row), flush=True)

    if world.is_first:
        write({"event": "checked", **checks.check(bench), "setup_seconds": time.perf_counter() - called})
    first_step, first_of_phase = facts["step"], facts["step"]
    sys.setswitchinterval(5e-4)  # the thread that reads ahead waits for this one's lock often, and needs it briefly
    ahead = Ahead(bench.read)
    ahead.wait()  # workers take a while to start
    world.agree(0)  # nobody's clock starts before
    last_save = last_look = began = time.perf_counter()
    before, pending, sums = facts["seconds"], [], {}
    logged, logged_step = before, first_step
    try:
        while True:
            now = time.perf_counter()
            has_time = before + now - began < settings.seconds and now - called < seconds - RESERVE_SECONDS
            facts["seconds"], has_time, looks, saves = world.agree(
                before + now - began,
                has_time,
                now - last_look > settings.look_seconds,
                now - last_save > settings.save_seconds,
            )
            if not has_time:
                break
            is_late = facts["seconds"] >= settings.seconds * (1 - settings.distil.share)
            if is_late and facts["phase"] == PAINTING and settings.distil.share:
                if world.is_first:
                    write({"event": "look", **bench.look(output / "sheet-painting.png")})
                learner.begin_distilling()
                optimizer = make_optimizer(learner)
                facts |= {"phase": DISTILLING, "warm_from": facts["step"]}
                first_of_phase, sums = facts["step"], {}
                before, began = facts["seconds"], time.perf_counter()
                continue
            if looks or saves:
                if looks and world.is_first:
                    write({"event": "look", **bench.look(output / SHEET)})
                if saves and world.is_first:
                    states.save(output, learner, optimizer, facts)
                    if pieces is not None:
                        states.export(pieces, learner, facts)
                now = time.perf_counter()
                last_look, last_save = now if looks else last_look, now if saves else last_save
                continue
            batches = ahead.next()
            factor = rate_factor(settings, facts["phase"], facts["seconds"], facts["step"] - facts["warm_from"])
            for group in optimizer.param_groups:
                group["lr"] = group["rate"] * factor
            losses = step(bench, optimizer, batches, facts["step"])
            pending.append(mark(bench.device))
            if len(pending) > 2:
                pending.pop(0)()  # never more than two steps ahead of the device
            for name, value in losses.items():
                total, count = sums.get(name, (0, 0))
                sums[name] = total + value, count + 1
            facts["step"] += 1
            if facts["step"] == first_of_phase + 1:  # it took what compiling takes, and does not count
                bench.wait()
                before, began = facts["seconds"], time.perf_counter()
                if facts["step"] == first_step + 1:
                    last_look = last_save = began
                logged, logged_step = before, facts["step"]
            elif facts["step"] % settings.log_every == 0:
                elapsed, count = facts["seconds"] - logged, facts["step"] - logged_step
                row = {name: float(total) / count for name, (total, count) in sums.items()}
                row |= {"rate": factor, "seconds_a_step": elapsed / max(1, count)}
                row |= {f"ready/{kind}": count for kind, count in bench.feed.waiting().items()}
                write(row)
                sums, logged, logged_step = {}, facts["seconds"], facts["step"]
        facts["is_over"] = facts["seconds"] >= settings.seconds
        bench.wait()
        if world.is_first:
            states.save(output, learner, optimizer, facts)
            if pieces is not None:  # before the last look: a machine may be taken away at any time
                states.export(pieces, learner, facts)
            if facts["step"] > first_step:
                write({"event": "look", **bench.look(output / SHEET)})
    finally:
        ahead.close()
        bench.feed.close()
        log.close()
        world.stop()
    if pieces is not None and world.is_first:
        for name in (LOG, SHEET):
            if (output / name).is_file():
                (pieces / name).write_bytes((output / name).read_bytes())
    return facts


def main(arguments: list[str] | None = None) -> None:
    parser = command(__doc__)
    parser.add_argument("--start-from", type=Path, nargs="*", default=[], help="pieces of another machine's run")
    given = parser.parse_args(arguments)
    settings = read(given.recipe, given.sets)
    print(json.dumps(train(settings, given.output, given.pieces, given.seconds, given.start_from)))


if __name__ == "__main__":
    main()
