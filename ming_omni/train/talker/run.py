"""Settings -> a trained talker, on some GPUs in a given time: first all of it, then its flow alone in few steps.

    python -m ming_omni.train.talker.run nano_talker --output run --pieces pieces --for 560 --set vae=vae

With several GPUs put `torchrun --nproc-per-node N -m` before the module. Called again with the same output it goes on.
Rates follow the seconds of training, not the steps, so that both halves end annealed whatever their speed.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ming_omni.model.talker import Talker, TalkerState
from ming_omni.train.audio_vae.pieces import load as load_vae
from ming_omni.train.parallel import World, start
from ming_omni.train.recipe import ParallelSettings
from ming_omni.train.senses.workers import Ahead, Feed
from ming_omni.train.talker import looks, pieces, store
from ming_omni.train.talker.learner import Learner, Moved, config_of, on_device
from ming_omni.train.talker.rows import Batch, make_rows
from ming_omni.train.talker.settings import Settings, read
from ming_omni.train.timed import LOG, annealed, check_times, command, mark, summary, time_left

RESERVE_SECONDS = 25.0
"""Left at the end of a call for saving, speaking and exporting."""
TOLERANCE = 0.05
"""Of the losses in bf16 against those in fp32."""
KIND = "rows"


@dataclass
class Bench:
    """Everything that a run works with."""

    settings: Settings
    world: World
    learner: Learner
    store: store.Store
    dev: store.Store
    dev_table: list[store.Clip]
    make: Callable


def build(settings: Settings, world: World) -> Bench:
    torch.manual_seed(settings.seed)
    config = config_of(settings)
    if settings.vae:
        vae, _ = load_vae(Path(settings.vae))
        config.vae = vae.config
    talker = Talker(config).eval()  # it has no dropout, and a look must not make layers compile anew
    if settings.vae:
        talker.vae = vae
    learner = Learner(talker, settings)
    learner.to_device(world.device)
    world.same([*learner.learned.values(), *learner.mean])
    patch = config.patch_frames * config.vae.hop_samples
    folder = Path(settings.store)
    own = store.parts(folder, world.rank, world.size)
    kept = store.build(own, "train", talker.vae, config)
    everything = store.parts(folder)
    dev_table = [clip for _, _, clip in store.clips(everything, "dev", patch)] if world.is_first else []
    dev = store.build(everything if world.is_first else [], "dev", talker.vae, config)
    make = partial(make_rows, own, "train", patch, settings.rows, settings.seed)
    return Bench(settings, world, learner, kept, dev, dev_table, make)


def compile_blocks(learner: Learner) -> None:
    """Layers of all networks; each has few shapes, since all batches are alike."""
    torch._dynamo.config.recompile_limit = 64
    talker = learner.talker
    for part in (talker.flow.body, learner.old_flow.body, talker.aggregator.body):
        for block in part.blocks:
            block.compile(dynamic=False)
    for layer in talker.backbone.layers:
        layer.compile(dynamic=False)


def make_optimizer(learner: Learner, rate: float) -> torch.optim.Optimizer:
    learn = learner.settings.learn
    groups = [
        {
            "params": [p for p in learner.learning if (p.dim() > 1) == decays],
            "weight_decay": learn.weight_decay if decays else 0.0,
        }
        for decays in (True, False)
    ]
    return torch.optim.AdamW(groups, lr=rate, betas=tuple(learn.betas), fused=True)


def rate_of(settings: Settings, seconds: float, step: int) -> float:
    """Of either half: rises over its first steps, then falls with its time; zero at its end. step: of this half."""
    is_late = seconds >= settings.learn_seconds
    span = settings.seconds - settings.learn_seconds if is_late else settings.learn_seconds
    gone = (seconds - settings.learn_seconds * is_late) / max(span, 1e-9)
    base = settings.distill.rate if is_late else settings.learn.rate
    return base * annealed(gone, step, settings.learn.warmup_steps)


def step(bench: Bench, optimizer: torch.optim.Optimizer, batch: Moved) -> dict[str, Tensor]:
    """Learn from a batch. Nothing here waits for the device; a gradient that is not finite changes nothing."""
    learner, world = bench.learner, bench.world
    losses = learner(batch)
    (torch.stack(list(losses.values())).sum() / world.size).backward()  # gradients are summed over processes
    world.whole = learner.learning
    world.sum_gradients(world.whole)
    norm = nn.utils.clip_grad_norm_(world.whole, bench.settings.learn.clip_norm)
    optimizer.found_inf = (~torch.isfinite(norm)).float()  # the fused step leaves everything as it is
    optimizer.step()
    optimizer.zero_grad()
    learner.average()
    losses = {name: value.detach() for name, value in losses.items()}
    return losses | {"gradient_norm": norm, "skipped": optimizer.found_inf}


@torch.no_grad()
def check(bench: Bench, is_new: bool = True) -> dict[str, float]:
    """Speech step by step comes from the same states as in training; the device says what the CPU says."""
    learner, talker = bench.learner, bench.learner.talker
    batch = on_device(bench.make().batch(0), bench.store)
    count, length = int(batch.is_real[0].sum()), int(batch.text_lengths[0])
    # TF32 may differ between two ways of computing by nearly as much as a mistake would.
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    wanted = talker.states(batch.ids[:1], batch.text_lengths[:1], batch.patches[:1])[0, :count]
    own = talker.prefill(TalkerState(talker, 1), 0, batch.ids[0, :length], batch.patches[0, : count - 1])[length - 1 :]
    torch.set_float32_matmul_precision(precision)
    difference = float((own - wanted).norm() / wanted.norm())
    assert difference < 1e-3, f"states of training and of speaking differ by {difference}"
    found = {"check/states": difference, "check/latents": float(batch.patches[batch.is_real].std())}
    if bench.world.device.type == "cuda":
        with learner.autocast():
            fast = talker.states(batch.ids[:8], batch.text_lengths[:8], batch.patches[:8])
        slow = talker.states(batch.ids[:8], batch.text_lengths[:8], batch.patches[:8])
        real = batch.is_real[:8]
        found["check/bf16"] = float((fast.float() - slow)[real].norm() / slow[real].norm())
        # Trained weights differ more, and have passed.
        assert not is_new or found["check/bf16"] < TOLERANCE, f"states in bf16 differ by {found['check/bf16']}"
    return found


@torch.compiler.set_stance("force_eager")
def look(bench: Bench, folder: Path | None) -> dict[str, float]:
    """Losses on development clips, and how a few of them sound; those are written to the folder."""
    import soundfile

    settings, learner = bench.settings, bench.learner
    if not bench.dev_table:
        return {}
    measured = looks.losses(learner, bench.dev, bench.dev_table, settings.rows, settings.look_rows)
    with learner.averaged() as talker:
        kept = talker.config
        talker.config = pieces.shipped_config(learner)
        heard = looks.speak(talker, bench.dev, bench.dev_table, settings.heard_rows)
        talker.config = kept
    found = {f"look/{name}": value for name, value in measured.items()}
    if heard:
        found["look/ended"] = sum(one.is_ended for one in heard) / len(heard)
        found["look/length"] = sum(len(one.talker) / len(one.teacher) for one in heard) / len(heard)
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            rate = learner.talker.config.vae.sample_rate_hz
            soundfile.write(folder / "heard.flac", looks.side_by_side(heard), rate, subtype="PCM_16")
    return found


def train(
    settings: Settings, output: Path, folder: Path | None, seconds: float, start_from: Path | None = None
) -> dict[str, Any]:
    """seconds: of this call, everything included; folder: for the pieces; returns the facts at its end."""
    called = time.perf_counter()
    output.mkdir(parents=True, exist_ok=True)
    world = start(ParallelSettings(), settings.device)
    torch.set_float32_matmul_precision("high")
    bench = build(settings, world)
    learner = bench.learner
    facts = pieces.restore(output, learner) or {"step": 0, "seconds": 0.0, "calls": 0}
    if start_from and not facts["step"]:
        facts |= pieces.start_from(start_from, learner)
    kept = facts.pop("optimizer", None)
    optimizer = make_optimizer(learner, settings.learn.rate)
    if kept is not None:
        optimizer.load_state_dict(kept)
    warm_from = facts.pop("warm_from", facts["step"])
    facts["calls"] += 1
    torch.manual_seed(settings.seed + 1000 * facts["calls"] + world.rank)
    log = (output / LOG).open("a")

    def write(row: dict[str, Any]) -> None:
        if world.is_first:
            log.write(json.dumps({"step": facts["step"], "seconds": round(facts["seconds"], 2), **row}) + "\n")
            log.flush()
            print(summary(facts, row), flush=True)

    def save() -> None:
        if world.is_first:
            pieces.save(output, learner, optimizer, facts | {"warm_from": warm_from})
            if folder is not None:
                pieces.export(folder, learner, facts)

    if world.is_first:
        checked = check(bench, not facts["step"])
        hours = {"hours": bench.store.hours * world.size, "dev_clips": len(bench.dev_table)}
        write({"event": "checked", **checked, **hours, "setup_seconds": time.perf_counter() - called})
    first = facts["calls"] * 1_000_000 + world.rank * 100_000  # every call and process draws other rows
    feed = Feed({KIND: bench.make}, {KIND: settings.workers}, first)
    ahead = Ahead(lambda: on_device(feed.next(KIND), bench.store))
    sys.setswitchinterval(5e-4)  # the thread that reads ahead waits for this one's lock often, and needs it briefly
    try:
        ahead.wait()
        world.agree(0)  # nobody's clock starts before
        if settings.compile:
            rehearse(bench)
        if not settings.seconds:
            (settings.seconds,) = world.agree(facts["seconds"] + time_left(seconds, RESERVE_SECONDS, called))
        last_save = last_look = began = logged = time.perf_counter()
        before, sums, marks, num_logged = facts["seconds"], {}, [], facts["step"]
        while True:
            now = time.perf_counter()
            has_time = before + now - began < settings.seconds and now - called < seconds - RESERVE_SECONDS
            facts["seconds"], has_time, is_look, is_save = world.agree(
                before + now - began,
                has_time,
                now - last_look > settings.look_seconds,
                now - last_save > settings.save_seconds,
            )
            if not has_time:
                break
            if is_look and world.is_first:
                write({"event": "look", **look(bench, folder)})
            if is_save:
                save()
            if is_look or is_save:
                now = time.perf_counter()
                last_look, last_save = now if is_look else last_look, now if is_save else last_save
                continue
            if not learner.is_distilling and facts["seconds"] >= settings.learn_seconds:
                learner.begin_distilling()
                optimizer = make_optimizer(learner, settings.distill.rate)
                warm_from, sums = facts["step"], {}
            rate = rate_of(settings, facts["seconds"], facts["step"] - warm_from)
            for group in optimizer.param_groups:
                group["lr"] = rate
            losses = step(bench, optimizer, ahead.next())
            marks.append(mark(world.device))
            if len(marks) > 2:
                marks.pop(0)()  # never more than two steps ahead of the device
            for name, value in losses.items():
                total, count = sums.get(name, (0, 0))
                sums[name] = total + value, count + 1
            facts["step"] += 1
            if facts["step"] % settings.log_every == 0:
                row = {name: float(total) / count for name, (total, count) in sums.items()}
                took = (time.perf_counter() - logged) / max(1, facts["step"] - num_logged)
                waiting = sum(feed.waiting().values())
                write(row | {"rate": rate, "step_seconds": took, "ready": waiting})
                sums, logged, num_logged = {}, time.perf_counter(), facts["step"]
        facts["is_over"] = facts["seconds"] >= settings.seconds
        mark(world.device)()
        save()
        if world.is_first:
            write({"event": "look", **look(bench, folder)})
    finally:
        ahead.close()
        feed.close()
        log.close()
        world.stop()
    if folder is not None and world.is_first:
        (folder / LOG).write_text((output / LOG).read_text())
    return facts


def rehearse(bench: Bench) -> None:
    """Compile for every shape of a batch, in passes that change nothing, before the clock starts."""
    learner, kept, rows = bench.learner, bench.store, bench.settings.rows
    compile_blocks(learner)
    for num_symbols, num_patches in rows.shapes:
        count = rows.patches // num_patches
        full = np.tile([0, min(num_patches, len(kept.patches))], (count, 1))
        batch = Batch(
            np.zeros((count, num_symbols), np.int16), np.full(count, num_symbols), np.zeros_like(full), full,
            np.zeros(count, bool), num_patches,
        )  # fmt: skip
        moved = on_device(batch, kept)
        with learner.autocast():
            passes = [learner.few_steps(moved), *([] if learner.is_distilling else [learner.speech(moved)])]
        for losses in passes:
            torch.stack(list(losses.values())).sum().backward()
    learner.zero_grad()
    mark(bench.world.device)()
    bench.world.agree(0)


def main(arguments: list[str] | None = None) -> None:
    parser = command(__doc__)
    parser.add_argument("--start-from", type=Path, help="folder with the pieces of another machine's run")
    given = parser.parse_args(arguments)
    settings = read(given.recipe, given.sets)
    check_times(settings, given.seconds)
    print(json.dumps(train(settings, given.output, given.pieces, given.seconds, given.start_from)))


if __name__ == "__main__":
    main()
