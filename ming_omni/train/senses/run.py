"""Settings -> a trained model, on some GPUs in a given time: checks, then steps, looks, saves; pieces to carry away.

    python -m ming_omni.train.senses.run nano_understanding --output run --pieces pieces --for 560

With several GPUs put `torchrun --nproc-per-node N -m` before the module. Called again with the same output it goes on.
The learning rate follows the seconds of training, not the steps, so that the run ends annealed whatever its speed.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ming_omni.data.films import FRAMES
from ming_omni.train.parallel import start
from ming_omni.train.recipe import ParallelSettings
from ming_omni.train.senses import checks, states
from ming_omni.train.senses.bench import Bench, build
from ming_omni.train.senses.ears import masked
from ming_omni.train.senses.eyes import varied
from ming_omni.train.senses.learner import RIGHT, Moved, on_device
from ming_omni.train.senses.settings import Settings, read
from ming_omni.train.senses.workers import Ahead
from ming_omni.train.timed import LOG, command, mark, rate_factor, summary

RESERVE_SECONDS = 20.0
"""Left at the end of a call for saving and exporting."""


def kinds_of(step: int, settings: Settings) -> list[str]:
    """What a step reads."""
    in_turn = settings.in_turn
    return [*settings.always, *([in_turn[step % len(in_turn)]] if in_turn else [])]


def make_optimizer(bench: Bench) -> torch.optim.Optimizer:
    learn = bench.settings.learn
    groups = []
    for name, parameters in bench.learner.groups.items():
        for decays in (True, False):
            chosen = [p for p in parameters if (p.dim() > 1) == decays]
            if chosen:
                rate = getattr(learn, name)
                decay = learn.weight_decay if decays else 0.0
                groups.append({"params": chosen, "lr": rate, "weight_decay": decay, "rate": rate})
    return torch.optim.AdamW(groups, betas=tuple(learn.betas), fused=True)


def step(bench: Bench, optimizer: torch.optim.Optimizer, batches: list[Moved]) -> dict[str, Tensor]:
    """Learn from batches on the device. Nothing here waits for it; a gradient that is not finite changes nothing."""
    learner, world = bench.learner, bench.world
    losses = learner(batches)
    total = torch.stack([value.float() for name, value in losses.items() if not name.startswith(RIGHT)]).sum()
    (total / world.size).backward()  # gradients are summed over processes
    losses = {name: value.detach().float() for name, value in losses.items()}
    groups = {name: [p for p in own if p.grad is not None] for name, own in learner.groups.items()}
    world.whole = [p for own in groups.values() for p in own]
    world.sum_gradients(world.whole)
    # Each group by itself: a large gradient of one helper must not still all the others.
    limit = bench.settings.learn.clip_norm
    norms = {name: torch.nn.utils.clip_grad_norm_(own, limit) for name, own in groups.items() if own}
    norm = torch.stack(list(norms.values())).norm()
    is_bad = (~torch.isfinite(norm)).float()
    optimizer.found_inf = is_bad  # the fused step leaves everything as it is
    optimizer.step()
    optimizer.zero_grad()
    world.total(learner.loads)
    learner.biases.move(learner.loads, bench.settings.balance.bias_rate)
    bench.loads += learner.loads
    learner.loads = None
    return losses | {f"norm/{name}": own for name, own in norms.items()} | {"gradient_norm": norm, "skipped": is_bad}


def train(
    settings: Settings, output: Path, pieces: Path | None, seconds: float, start_from: list[Path]
) -> dict[str, Any]:
    """seconds: of this call, everything included; returns the facts at its end."""
    called = time.perf_counter()
    output.mkdir(parents=True, exist_ok=True)
    torch.set_float32_matmul_precision("high")
    world = start(ParallelSettings(), settings.device)
    bench = build(settings, output, world)
    optimizer = make_optimizer(bench)
    facts = states.restore(output, bench.learner, optimizer) or {"step": 0, "seconds": 0.0, "calls": 0, "warm_from": 0}
    if start_from and not facts["step"]:
        facts |= states.start_from(start_from, bench.learner)
        facts["warm_from"] = facts["step"]
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
    first_step = facts["step"]
    number = iter(range(first_step, 1 << 60))
    sys.setswitchinterval(5e-4)  # the thread that reads ahead waits for this one's lock often, and needs it briefly
    ahead = Ahead(partial(_read, bench, number))
    ahead.wait()  # workers take a while to start
    world.agree(0)  # nobody's clock starts before
    last_save = last_look = began = time.perf_counter()
    before, pending, sums, tokens = facts["seconds"], [], {}, 0
    logged = before
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
            if looks or saves:
                if looks and world.is_first:
                    write({"event": "look", **bench.look()})
                if saves and world.is_first:
                    states.save(output, bench.learner, optimizer, facts)
                    if pieces is not None:
                        states.export(pieces, bench.learner, facts)
                now = time.perf_counter()
                last_look, last_save = now if looks else last_look, now if saves else last_save
                continue
            batches = ahead.next()
            factor = rate_factor(settings, facts["seconds"], facts["step"] - facts["warm_from"])
            for group in optimizer.param_groups:
                group["lr"] = group["rate"] * factor
            losses = step(bench, optimizer, batches)
            tokens += sum(settings.tokens[batch.kind] for batch in batches) * world.size
            pending.append(mark(bench.device))
            if len(pending) > 2:
                pending.pop(0)()  # never more than two steps ahead of the device
            for name, value in losses.items():
                total, count = sums.get(name, (0, 0))
                sums[name] = total + value, count + 1
            facts["step"] += 1
            if facts["step"] == first_step + 1:  # it took what compiling takes, and does not count
                bench.wait()
                began = last_look = last_save = time.perf_counter()
            if facts["step"] % settings.log_every == 0:
                elapsed = facts["seconds"] - logged
                row = {name: float(total) / count for name, (total, count) in sums.items()}
                row |= bench.take_violations() | {"rate": factor, "tokens_per_second": tokens / max(elapsed, 1e-9)}
                row |= {f"ready/{kind}": count for kind, count in bench.feed.waiting().items()}
                write(row)
                sums, tokens, logged = {}, 0, facts["seconds"]
        facts["is_over"] = facts["seconds"] >= settings.seconds
        bench.wait()
        if world.is_first:
            states.save(output, bench.learner, optimizer, facts)
            if pieces is not None:  # before the last look: a machine may be taken away at any time
                states.export(pieces, bench.learner, facts)
            if facts["step"] > first_step:
                write({"event": "look", **bench.look()})
    finally:
        ahead.close()
        bench.feed.close()
        log.close()
        world.stop()
    if pieces is not None and world.is_first:
        (pieces / LOG).write_text((output / LOG).read_text())
    return facts


def _read(bench: Bench, number: Iterator[int]) -> list[Moved]:
    """The batches of the next step, on the device, their pictures varied."""
    found = []
    for kind in kinds_of(next(number), bench.settings):
        batch = on_device(bench.feed.next(kind), bench.device, bench.store, bench.num_mel_bins)
        if kind in ("pictures", "films") and bench.settings.pictures.varied:
            frames = FRAMES if kind == "films" else 1
            batch.media["pictures"] = varied(batch.media["pictures"], frames)
        if kind == "speech" and bench.settings.speech.masked:
            batch.media["features"] = masked(batch.media["features"], batch.media["frames"])
        found.append(batch)
    return found


def main(arguments: list[str] | None = None, train: Callable = train) -> None:
    parser = command(__doc__)
    parser.add_argument("--start-from", type=Path, nargs="*", default=[], help="pieces of another machine's run")
    given = parser.parse_args(arguments)
    print(
        json.dumps(train(read(given.recipe, given.sets), given.output, given.pieces, given.seconds, given.start_from))
    )


if __name__ == "__main__":
    main()
