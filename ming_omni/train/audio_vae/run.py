"""Settings -> a trained AudioVAE, on one GPU in a given time: checks, then steps, looks, saves; pieces to carry away.

    python -m ming_omni.train.audio_vae.run nano_audio_vae --output run --pieces pieces --for 560

Called again with the same output it goes on. The learning rate follows the seconds of training, not the steps, so that
the run ends annealed whatever its speed; so does the time when the critics come.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ming_omni.train.audio_vae import pieces as states
from ming_omni.train.audio_vae.learner import Learner
from ming_omni.train.audio_vae.looks import latent_statistics, look, spread
from ming_omni.train.audio_vae.settings import Settings, read
from ming_omni.train.audio_vae.store import Store
from ming_omni.train.timed import LOG, check_times, command, mark, rate_factor, summary, time_left

RESERVE_SECONDS = 25.0
"""Left at the end of a call for saving and exporting."""
TOLERANCE = 0.05
"""Of the losses in bf16 against those in fp32."""
STATISTICS_BATCHES = 4
START = {"step": 0, "seconds": 0.0, "calls": 0, "warm_from": 0, "critic_steps": 0}
"""Facts of a run: warm_from is the step at which its optimisers were new."""


def make_optimizers(learner: Learner) -> list[torch.optim.Optimizer]:
    """Of the VAE and of its critics."""
    learn = learner.settings.learn
    fused = {"betas": tuple(learn.betas), "weight_decay": learn.weight_decay, "fused": True}
    return [
        torch.optim.AdamW(learner.vae.parameters(), learn.vae, **fused),
        torch.optim.AdamW(learner.critics.parameters(), learn.critics, **fused),
    ]


def step(
    learner: Learner, optimizers: list[torch.optim.Optimizer], samples: Tensor, adversarial: float
) -> dict[str, Tensor]:
    """Learn from samples (B, n). Nothing here waits for the device; a gradient that is not finite changes nothing."""
    losses = learner(samples, adversarial)
    torch.stack(list(losses.values())).sum().backward()
    losses = {name: value.detach() for name, value in losses.items()}
    parts = (learner.vae, learner.critics) if adversarial else (learner.vae,)
    for part, optimizer in zip(parts, optimizers, strict=False):
        norm = nn.utils.clip_grad_norm_(part.parameters(), learner.settings.learn.clip_norm)
        optimizer.found_inf = (~torch.isfinite(norm)).float()  # the fused step leaves everything as it is
        optimizer.step()
        optimizer.zero_grad()
        name = "vae" if part is learner.vae else "critics"
        losses |= {f"norm/{name}": norm, f"skipped/{name}": optimizer.found_inf}
    learner.average()
    return losses


def check(learner: Learner, store: Store, length: int) -> dict[str, float]:
    """The store gives what was decoded; the fast network says what the plain one says."""
    clip = next(iter(store.regions.values()))
    assert int(store.samples[clip.start : clip.start + min(clip.filled, length)].abs().max()) > 0, "the store is silent"
    samples = store.rows(length)
    found = []
    for vae in (learner.vae, learner.mean):
        # With gradients, for which the network is compiled anyway.
        found.append(float(learner.distance(vae.decode(vae.encode(samples).mean), samples).detach()))
    difference = abs(found[0] - found[1]) / found[1]
    assert difference < TOLERANCE, f"the fast network's mel distance is {found[0]}, the plain one's {found[1]}"
    return {"check/network": difference}


def rehearse(learner: Learner, samples: Tensor) -> None:
    """A step that changes nothing, critics and all: it takes what compiling takes, before the clock starts."""
    torch.stack(list(learner(samples, 1.0).values())).sum().backward()
    learner.zero_grad()
    mark(samples.device)()


def train(
    settings: Settings, output: Path, pieces: Path | None, seconds: float, start_from: Path | None = None
) -> dict[str, Any]:
    """seconds: of this call, everything included; returns the facts at its end."""
    called = time.perf_counter()
    output.mkdir(parents=True, exist_ok=True)
    device = torch.device(settings.device)
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.benchmark = True
    torch.manual_seed(settings.seed)
    learner = Learner(settings, device)
    optimizers = make_optimizers(learner)
    facts = states.restore(output, learner, optimizers) or dict(START)
    if start_from and not facts["step"]:
        facts |= states.start_from(start_from, learner)
        facts["warm_from"] = facts["step"]
    facts["calls"] += 1
    torch.manual_seed(settings.seed + facts["calls"])  # other rows in every call
    length = settings.frames * learner.vae.config.hop_samples
    log = (output / LOG).open("a")

    def write(row: dict[str, Any]) -> None:
        log.write(json.dumps({"step": facts["step"], "seconds": round(facts["seconds"], 2), **row}) + "\n")
        log.flush()
        print(summary(facts, row), flush=True)

    def looked() -> list:
        scores, heard = look(learner.mean, store.dev, learner.distance)
        facts["scores"] = scores
        write({"event": "look", **{f"look/{name}": value for name, value in scores.items()}})
        return heard

    store = Store(settings, Path(settings.sounds.cache) if settings.sounds.cache else output / "sounds", device)
    try:
        store.wait()
        checked = {} if facts["step"] else check(learner, store, length)
        rehearse(learner, store.rows(length))
        if not settings.seconds:
            settings.seconds = facts["seconds"] + time_left(seconds, RESERVE_SECONDS, called)
        write({"event": "checked", **checked, "hours": store.hours, "setup_seconds": time.perf_counter() - called})
        first_step = facts["step"]
        began = last_save = last_look = logged = time.perf_counter()
        before, sums, marks, num_logged = facts["seconds"], {}, [], first_step
        while True:
            now = time.perf_counter()
            facts["seconds"] = before + now - began
            if facts["seconds"] >= settings.seconds or now - called > seconds - RESERVE_SECONDS:
                break
            if now - last_look > settings.look_seconds and store.dev:
                looked()
                last_look = time.perf_counter()
            if now - last_save > settings.save_seconds:
                states.save(output, learner, optimizers, facts)
                last_save = time.perf_counter()
            adversarial = 0.0
            if facts["seconds"] >= settings.learn.critics_from * settings.seconds:
                facts["critic_steps"] += 1
                adversarial = min(1.0, facts["critic_steps"] / max(1, settings.learn.critics_warmup))
            factor = rate_factor(settings, facts["seconds"], facts["step"] - facts["warm_from"])
            for optimizer, rate in zip(optimizers, (settings.learn.vae, settings.learn.critics), strict=True):
                optimizer.param_groups[0]["lr"] = rate * factor
            losses = step(learner, optimizers, store.rows(length), adversarial)
            marks.append(mark(device))
            if len(marks) > 2:
                marks.pop(0)()  # never more than two steps ahead of the device
            for name, value in losses.items():
                total, count = sums.get(name, (0, 0))
                sums[name] = total + value, count + 1
            facts["step"] += 1
            if facts["step"] % settings.log_every == 0:
                row = {name: float(total) / count for name, (total, count) in sums.items()}
                took = (time.perf_counter() - logged) / max(1, facts["step"] - num_logged)
                store.refresh()
                write(row | {"rate": factor, "step_seconds": took, "hours": store.hours})
                sums, logged, num_logged = {}, time.perf_counter(), facts["step"]
        facts["is_over"] = facts["seconds"] >= settings.seconds
        states.save(output, learner, optimizers, facts)
        heard = looked() if store.dev else []
        if pieces is not None:
            told = {"facts": facts, "settings": asdict(settings)}
            if settings.learn.encoder:
                statistics = latent_statistics(learner.mean, [store.rows(length) for _ in range(STATISTICS_BATCHES)])
            else:  # the latents are scaled already
                size = learner.vae.config.latent_dim
                statistics = torch.zeros(size, device=device), torch.ones(size, device=device)
            states.export(pieces, learner.mean, statistics, told, spread(heard, settings.heard_clips))
    finally:
        store.close()
        log.close()
    if pieces is not None:
        (pieces / LOG).write_text((output / LOG).read_text())
    return facts


def main(arguments: list[str] | None = None) -> None:
    parser = command(__doc__)
    parser.add_argument("--start-from", type=Path, help="folder with the pieces of another machine's run")
    given = parser.parse_args(arguments)
    settings = read(given.recipe, given.sets)
    check_times(settings, given.seconds)
    print(json.dumps(train(settings, given.output, given.pieces, given.seconds, given.start_from)))


if __name__ == "__main__":
    main()
