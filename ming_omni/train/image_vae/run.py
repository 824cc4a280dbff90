"""Settings -> a trained autoencoder, on a GPU in a given time: checks, then steps, looks, saves; pieces to carry away.

    python -m ming_omni.train.image_vae.run nano_image_vae --output run --pieces pieces --for 560

Called again with the same output it goes on. The learning rate follows the seconds of training, not the steps.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ming_omni.data.bank import Bank
from ming_omni.data.render import render
from ming_omni.train.image_vae import looks, states
from ming_omni.train.image_vae.learner import Learner, measure, pixels, reconstruct, rescale
from ming_omni.train.image_vae.scenes import Pool, make_planner
from ming_omni.train.image_vae.settings import Settings, read
from ming_omni.train.senses.workers import Feed
from ming_omni.train.timed import LOG, command, mark, rate_factor, summary

RESERVE_SECONDS = 15.0
"""Left at the end of a call for measuring, a last look and exporting."""
ABOUT = "about/"
"""Figures that no gradient comes from."""
MEASURED_BATCHES = 64
SHEET = "before-after.png"
TOLERANCE = {"cpu": 1e-4, "cuda": 0.05}
"""Of reconstructions in [-1, 1]: fp32, and TF32 or bf16 against fp32."""


@dataclass
class Bench:
    """What a run works with."""

    settings: Settings
    device: torch.device
    learner: Learner
    optimizer: torch.optim.Optimizer
    pool: Pool
    feed: Feed
    cases: dict[str, Tensor]

    def autocast(self) -> AbstractContextManager:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda")

    def look(self) -> dict[str, float]:
        with self.autocast():
            found = looks.look(self.learner.average, self.cases)
        return {f"look/{name}": value for name, value in found.items()}

    def refill(self) -> None:
        """Until the pool is full."""
        while not self.pool.is_full:
            self.pool.add(self.feed.next("scenes"))

    def refresh(self) -> None:
        """Only what is ready: learning never waits for scenes."""
        if self.feed.waiting().get("scenes", 1):
            self.pool.add(self.feed.next("scenes"))


def build(settings: Settings, output: Path) -> tuple[Bench, dict[str, Any]]:
    """A bench, and the facts of the run so far."""
    torch.manual_seed(settings.seed)
    device = torch.device(settings.device)
    torch.backends.cudnn.benchmark = True
    learner, learn = Learner(settings), settings.learn
    learner.to_device(device, settings.compile)
    groups = [
        {"params": [p for p in learner.vae.parameters() if (p.dim() > 1) == decays], "weight_decay": decay}
        for decays, decay in ((True, learn.weight_decay), (False, 0.0))
    ]
    optimizer = torch.optim.AdamW(groups, lr=learn.rate, betas=tuple(learn.betas), fused=True)
    facts = states.restore(output, learner, optimizer) or {"step": 0, "seconds": 0.0, "calls": 0}
    facts["calls"] += 1
    torch.manual_seed(settings.seed + facts["calls"])  # every call draws other pictures
    bank = Bank(settings.pictures.bank, device)
    makers, workers = {"scenes": partial(make_planner, settings)}, {"scenes": settings.workers}
    feed = Feed(makers, workers, facts["calls"] * 1_000_000)
    bench = Bench(settings, device, learner, optimizer, Pool(bank, settings.pictures), feed, {})
    bench.cases = looks.cases(settings, bank)
    return bench, facts


@torch.no_grad()
def check(bench: Bench) -> dict[str, float]:
    """The device draws and codes as the CPU does; what learns is what the model's own encode and decode do."""
    settings, cpu = bench.settings, torch.device("cpu")
    planner = make_planner(settings)
    scenes = planner.batch(0).scenes[:4]
    here, there = (
        render(bank, scenes, settings.pictures.pixels).pictures for bank in (bench.pool.bank, planner.stock.bank)
    )
    moved = (here.cpu().float() - there.float()).abs()
    drawing = float((moved > 8).float().mean())  # a pixel at an edge may fall to the other side
    assert drawing < 0.01, f"{drawing:.1%} of the pixels are drawn otherwise on {bench.device}"
    vae, target = bench.learner.average, pixels(next(iter(bench.cases.values()))[:2])
    with bench.autocast():
        made = reconstruct(vae, target)
        learned = vae.decoder(vae.post_quant(vae.posterior(target).mean)).float().clamp(-1, 1)
    difference = float((made - learned).abs().max())
    assert difference < TOLERANCE[bench.device.type], f"training codes otherwise than the model, by {difference}"
    vae.to(cpu)
    plain = reconstruct(vae, target.to(cpu))
    vae.to(bench.device)
    coding = float((made.to(cpu) - plain).abs().mean())
    assert coding < TOLERANCE[bench.device.type], f"{bench.device} codes otherwise than the CPU, by {coding}"
    return {"check/drawing": drawing, "check/model": difference, "check/coding": coding}


def step(bench: Bench, pictures: Tensor, number: int) -> dict[str, Tensor]:
    """Nothing here waits for the device; a gradient that is not finite changes nothing."""
    learner, optimizer, learn = bench.learner, bench.optimizer, bench.settings.learn
    with bench.autocast():
        losses = learner(pictures)
    sum(value for name, value in losses.items() if not name.startswith(ABOUT)).backward()
    norm = torch.nn.utils.clip_grad_norm_(learner.vae.parameters(), learn.clip_norm)
    is_bad = (~torch.isfinite(norm)).float()
    optimizer.found_inf = is_bad  # the fused step leaves everything as it is
    optimizer.step()
    optimizer.zero_grad()
    learner.follow(number, learn.average)
    return {name: value.detach() for name, value in losses.items()} | {"gradient_norm": norm, "skipped": is_bad}


def train(settings: Settings, output: Path, pieces: Path | None, seconds: float) -> dict[str, Any]:
    """seconds: of this call, everything included; returns the facts at its end."""
    called = time.perf_counter()
    output.mkdir(parents=True, exist_ok=True)
    bench, facts = build(settings, output)
    log = (output / LOG).open("a")

    def write(row: dict[str, Any]) -> None:
        log.write(json.dumps({"step": facts["step"], "seconds": round(facts["seconds"], 2), **row}) + "\n")
        log.flush()
        print(summary(facts, row), flush=True)

    try:
        checked = check(bench)
        bench.refill()
        write({"event": "checked", **checked, "setup_seconds": time.perf_counter() - called})
        steps(bench, facts, called + seconds, output, write)
        facts["is_over"] = facts["seconds"] >= settings.seconds
        states.save(output, bench.learner, bench.optimizer, facts)
        finish(bench, facts, pieces, write)
    finally:
        bench.feed.close()
        log.close()
    if pieces is not None:
        (pieces / LOG).write_text((output / LOG).read_text())
    return facts


def steps(bench: Bench, facts: dict[str, Any], end: float, output: Path, write: Callable) -> None:
    """Until the run or this call is over."""
    settings, first_step, before = bench.settings, facts["step"], facts["seconds"]
    began = last_save = last_look = time.perf_counter()
    pending, sums, logged, logged_step = [], {}, before, first_step
    while True:
        now = time.perf_counter()
        facts["seconds"] = before + now - began
        if facts["seconds"] >= settings.seconds or now > end - RESERVE_SECONDS:
            break
        if now - last_look > settings.look_seconds:
            write({"event": "look", **bench.look()})
            last_look = time.perf_counter()
        if now - last_save > settings.save_seconds:
            states.save(output, bench.learner, bench.optimizer, facts)
            last_save = time.perf_counter()
        factor = rate_factor(settings, facts["seconds"], facts["step"])
        for group in bench.optimizer.param_groups:
            group["lr"] = settings.learn.rate * factor
        if facts["step"] % settings.pictures.fresh_every == 0:
            bench.refresh()
        losses = step(bench, bench.pool.batch(settings.batch), facts["step"])
        pending.append(mark(bench.device))
        if len(pending) > 2:
            pending.pop(0)()  # never more than two steps ahead of the device
        for name, value in losses.items():
            sums[name] = sums.get(name, 0) + value
        facts["step"] += 1
        if facts["step"] == first_step + 1:  # it took what compiling takes, and does not count
            mark(bench.device)()
            began = last_look = last_save = time.perf_counter()
        if facts["step"] % settings.log_every == 0:
            elapsed, count = facts["seconds"] - logged, facts["step"] - logged_step
            row = {name.removeprefix(ABOUT): float(total) / count for name, total in sums.items()}
            row |= {"rate": factor, "pictures_per_second": count * settings.batch / max(elapsed, 1e-9)}
            row |= {f"ready/{kind}": ready for kind, ready in bench.feed.waiting().items()}
            write(row)
            sums, logged, logged_step = {}, facts["seconds"], facts["step"]
    mark(bench.device)()


def finish(bench: Bench, facts: dict[str, Any], pieces: Path | None, write: Callable) -> None:
    """Measure the latents, look once more, and export."""
    vae, batch = bench.learner.average, bench.settings.batch
    with bench.autocast():
        latents = measure(vae, [bench.pool.batch(batch) for _ in range(MEASURED_BATCHES)])
    rescale(vae, latents)
    scores = bench.look()
    write(
        {
            "event": "look",
            **scores,
            "shift_factor": vae.config.shift_factor,
            "scaling_factor": vae.config.scaling_factor,
        }
    )
    if pieces is not None:
        states.export(pieces, vae, bench.settings, {**facts, "scores": scores, "latents": latents})
        with bench.autocast():
            looks.sheet(vae, bench.cases, pieces / SHEET)


def main(arguments: list[str] | None = None) -> None:
    parser = command(__doc__)
    given = parser.parse_args(arguments)
    print(json.dumps(train(read(given.recipe, given.sets), given.output, given.pieces, given.seconds)))


if __name__ == "__main__":
    main()
