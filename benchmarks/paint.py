"""The painter on an accelerator: right first, then timed; prints JSON, a part at a time.

    python -m benchmarks.paint                              tiny, on whatever device is there
    python -m benchmarks.paint --model published            the full shape, random weights, 512x512 in 30 steps
    python -m benchmarks.paint --model published --compile  then once more with compiled layers
    python -m benchmarks.paint --sweep                      how well masks are read, by threshold

Checks: the tiny painter against the CPU; on a GPU, the recorded step against the plain one.
Times: each part (condition, coding, one step, decoding) and whole pictures, with a prompt and with a picture to edit.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch

from ming_omni import config
from ming_omni.checkpoint.painter import empty
from ming_omni.model.painter import Guidance, Painter

PARAMETER_STD = 0.02


def devices_agree(device: str) -> float:
    """Largest difference of the tiny painter's latents between this device and the CPU, fp32."""
    torch.manual_seed(0)
    painter = fill(Painter(config.tiny_painter()))
    condition = torch.randn(1, 16, painter.config.condition_width)

    def latents() -> torch.Tensor:
        *_, last = painter.sample(condition.to(painter.device), size=(64, 64), seeds=[0], num_steps=4)
        return last.latents.cpu()

    with torch.inference_mode():
        expected = latents()
        painter.to(device)
        return (latents() - expected).abs().max().item()


def fill(painter: Painter) -> Painter:
    """Random weights of a size that keeps states finite; nothing stays closed."""
    for parameter in painter.parameters():
        if parameter.dim() == 1:
            parameter.data.fill_(1.0)
        else:
            parameter.data.normal_(0, PARAMETER_STD)
    for name, parameter in painter.named_parameters():
        if name.endswith(".bias"):
            parameter.data.zero_()
    return painter.eval()


def build(name: str, device: str) -> Painter:
    """A painter of that shape with random weights, made where it runs."""
    shape = config.flash_painter() if name == "published" else config.tiny_painter()
    return fill(empty(Painter, shape, device, torch.bfloat16 if device == "cuda" else torch.float32))


class Bench:
    """One painter at one size: the inputs of every part, and their times."""

    def __init__(self, painter: Painter, width: int, height: int, num_steps: int, rounds: int):
        self.painter, self.size, self.num_steps, self.rounds = painter, (height, width), num_steps, rounds
        shape = painter.config
        like = {"device": painter.device, "dtype": painter.dtype}
        self.states = torch.randn(1, shape.query_scales[-1] ** 2, shape.thinker_width, **like)
        self.pixels = torch.rand(1, 3, height, width, **like) * 2 - 1
        with torch.inference_mode():
            self.condition = painter.condition(self.states)
            self.reference = painter.vae.encode(self.pixels)

    def seconds(self, work: Callable[[], object]) -> float:
        """Median of a few rounds after one that warms up."""
        wait = torch.cuda.synchronize if self.painter.device.type == "cuda" else lambda: None
        times = []
        for _ in range(self.rounds + 1):
            wait()
            start = time.perf_counter()
            with torch.inference_mode():
                work()
            wait()
            times.append(time.perf_counter() - start)
        return statistics.median(times[1:])

    def picture(self, reference: torch.Tensor | None = None, count: int = 1) -> None:
        """From the thinker's states to pixels."""
        condition = self.painter.condition(self.states).expand(count, -1, -1)
        edited = None if reference is None else reference.expand(count, -1, -1, -1)
        *_, last = self.painter.sample(
            condition,
            size=self.size,
            seeds=[*range(count)],
            num_steps=self.num_steps,
            guidance=Guidance(),
            reference=edited,
        )
        self.painter.decode(last.latents)

    def step_inputs(self, branches: int) -> tuple[torch.Tensor, ...]:
        context, pooled = self.painter.context(self.condition.expand(branches, -1, -1))
        latents = self.reference.expand(branches, -1, -1, -1)
        return latents, torch.full((branches,), 500.0, device=latents.device), context, pooled

    def parts(self) -> dict[str, float]:
        """Milliseconds of each part; a step paints without a picture to edit, so its batch is two."""
        painter = self.painter
        with torch.inference_mode():
            inputs = self.step_inputs(branches=2)
        times = {
            "condition": self.seconds(lambda: painter.condition(self.states)),
            "encode": self.seconds(lambda: painter.vae.encode(self.pixels)),
            "step": self.seconds(lambda: painter.dit(*inputs)),
            "decode": self.seconds(lambda: painter.vae.decode(self.reference)),
        }
        if painter.device.type == "cuda":
            times["recorded_step"] = self.seconds(lambda: painter.recorded_dit(*inputs))
        return {f"{name}_ms": seconds * 1e3 for name, seconds in times.items()}

    def recording_error(self) -> float:
        """Relative difference of the recorded step from the plain one."""
        with torch.inference_mode():
            inputs = self.step_inputs(branches=2)
            plain, recorded = self.painter.dit(*inputs).float(), self.painter.recorded_dit(*inputs).float()
        return ((recorded - plain).norm() / plain.norm()).item()


def compile_layers(painter: Painter) -> None:
    """Compile each kind of layer once: all layers of a kind share the result, so this is much faster than the whole."""
    for layer in (*painter.dit.noise.refiners, *painter.dit.reference.refiners, *painter.dit.layers):
        layer.compile(dynamic=False)
    painter.recorded_dit = type(painter.recorded_dit)(painter.dit)  # record anew


def sweep(num_scenes: int = 24) -> dict[str, float]:
    """Mean overlap (IoU) of read and true masks by threshold, over opacities and noises that an edit may have."""
    from ming_omni.paint.segment import read

    rng = np.random.default_rng(0)
    thresholds = [0.02, 0.05, 0.08, 0.1, 0.12, 0.15, 0.18, 0.2, 0.25, 0.3, 0.4]
    overlaps: dict[float, list[float]] = {threshold: [] for threshold in thresholds}
    rows, columns = np.mgrid[:96, :96]
    for k in range(num_scenes):
        low = rng.uniform(0, 255, (6, 6, 3)).repeat(16, 0).repeat(16, 1)  # patches of any colour
        centre, radius = rng.uniform(24, 72, 2), rng.uniform(8, 24)
        truth = (rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 < radius**2
        opacity, noise = (0.4, 0.7, 1.0)[k % 3], (0.01, 0.03, 0.06)[k // 3 % 3]
        after = low + rng.normal(0, noise * 255, low.shape)
        after[truth] += opacity * (np.array((255, 0, 0)) - after[truth])
        for threshold in thresholds:
            [found] = read(low, after.clip(0, 255), [(255, 0, 0)], threshold)
            overlaps[threshold].append((found & truth).sum() / (found | truth).sum())
    return {str(threshold): round(float(np.mean(values)), 3) for threshold, values in overlaps.items()}


def show(**figures) -> None:
    print(json.dumps(figures), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=("tiny", "published"), default="tiny")
    parser.add_argument("--size", nargs="+", help="width x height; 64x64 for tiny, 512x512 for published")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--sweep", action="store_true")
    given = parser.parse_args()
    if given.sweep:
        show(mask_overlap_by_threshold=sweep())
        return
    device = "cuda" if torch.cuda.is_available() else "cpu"
    show(device=torch.cuda.get_device_name() if device == "cuda" else "cpu", torch=torch.__version__)
    show(tiny_against_cpu=devices_agree(device))
    start = time.perf_counter()
    painter = build(given.model, device)
    show(model=given.model, build_seconds=time.perf_counter() - start, parameters=count(painter))
    if device == "cuda":
        show(weights_gb=torch.cuda.memory_allocated() / 1e9)
    for size in given.size or (["512x512"] if given.model == "published" else ["64x64"]):
        width, height = map(int, size.split("x"))
        bench = Bench(painter, width, height, given.steps, given.rounds)
        report(bench, size, device)
        if given.compile:
            start = time.perf_counter()
            compile_layers(painter)
            with torch.inference_mode():
                painter.dit(*bench.step_inputs(branches=2))
            show(size=size, compile_seconds=time.perf_counter() - start)
            report(bench, f"{size} compiled", device, is_compiled=True)


def report(bench: Bench, size: str, device: str, is_compiled: bool = False) -> None:
    """Everything at one size; compiled layers are timed for one kind of picture, since every other compiles anew."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        show(size=size, recorded_against_plain=bench.recording_error())
    show(size=size, **bench.parts())
    show(size=size, steps=bench.num_steps, picture_seconds=bench.seconds(bench.picture))
    if not is_compiled:
        show(size=size, steps=bench.num_steps, edit_seconds=bench.seconds(lambda: bench.picture(bench.reference)))
        show(size=size, steps=bench.num_steps, four_pictures_seconds=bench.seconds(lambda: bench.picture(count=4)))
    if device == "cuda":
        show(size=size, peak_gb=torch.cuda.max_memory_allocated() / 1e9)


def count(painter: Painter) -> dict[str, int]:
    return {name: sum(p.numel() for p in part.parameters()) for name, part in painter.named_children()}


if __name__ == "__main__":
    main()
