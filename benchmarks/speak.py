"""The talker, from text ids to samples: right first, then timed; prints JSON, a line for every figure as it is known.

    python -m benchmarks.speak                                tiny, on whatever device is there
    python -m benchmarks.speak --model nano                   nano's sizes, random weights
    python -m benchmarks.speak --model published              the published sizes, random weights, bf16 on a GPU
    python -m benchmarks.speak --model published --compile    then once more with compiled blocks

Checks: on a GPU, the replayed step against the plain one; the tiny talker against the CPU.
Times: the first chunk of a sentence of 60 tokens; for N speakers at once the real-time factor, seconds of work for one
of speech by each (`rtf_total`: by all together). Memory: the most that the device held.
"""

import argparse
import json
import statistics
import time
import warnings
from dataclasses import dataclass

import torch

from ming_omni.config import TalkerConfig, talker_nano, talker_preview
from ming_omni.model.talker import Talker
from ming_omni.speak.loop import Loop, Utterance
from ming_omni.speak.steps import PlainSteps, Steps, fuse, make

MODELS = {"tiny": TalkerConfig, "nano": talker_nano, "published": talker_preview}
TEXT_TOKENS = 60
FIRST_CHUNKS = 5


@dataclass
class Plan:
    """What to run; nothing new starts once the time is up."""

    model: str = "tiny"
    device: str = "cpu"
    batches: tuple[int, ...] = (1, 2)
    num_patches: int = 8
    compile: str | None = None  # a mode of torch.compile
    until: float = float("inf")

    @property
    def has_time(self) -> bool:
        return time.monotonic() < self.until


def build(config: TalkerConfig, device: str, dtype: torch.dtype) -> Talker:
    """Random weights, made where they stay; the stop head never wants to stop."""
    torch.manual_seed(0)
    with torch.device(device):
        talker = Talker(config).to(dtype).eval()
    talker.stop_head.weight.data.zero_()
    talker.stop_head.bias.data.copy_(torch.tensor([9.0, -9.0]))
    return talker


def devices_agree(device: str) -> float:
    """Largest difference of the tiny talker's samples between this device and the CPU, fp32."""
    sounds = []
    for where in ("cpu", device):
        torch.manual_seed(0)
        talker = Talker(TalkerConfig()).eval().to(where)
        talker.stop_head.bias.data.copy_(torch.tensor([9.0, -9.0]))
        sounds.append(torch.cat(list(_quietly(Loop(talker, 1).speak(_utterance(talker, 0, 6))))))
    return (sounds[0] - sounds[1]).abs().max().item()


@torch.inference_mode()
def steps_agree(talker: Talker) -> float:
    """Largest difference between the plain and the fast step's patches, relative to the patches themselves."""
    patches = []
    for steps in (PlainSteps(talker, 3), make(talker, 3)):
        for slot in (0, 2):
            talker.prefill(steps.state, slot, torch.arange(5 + slot, device=talker.device))
        config = talker.config
        noise = torch.randn(2, config.patch_frames, config.vae.latent_dim, generator=torch.Generator().manual_seed(0))
        for i in range(1, 4):
            step = steps([0, 2], noise, 7 + i, i * config.patch_frames)
        patches.append(step.patch.float())
    return ((patches[0] - patches[1]).abs().max() / patches[0].abs().max()).item()


def measure(plan: Plan):
    """Yield one dictionary a figure."""
    is_gpu = plan.device.startswith("cuda")
    dtype = torch.bfloat16 if is_gpu and plan.model == "published" else torch.float32
    yield {"device": torch.cuda.get_device_name() if is_gpu else "cpu", "model": plan.model, "dtype": str(dtype)[6:]}
    if is_gpu:
        yield {"check": "tiny talker against the CPU", "largest_difference": devices_agree(plan.device)}
    started = time.monotonic()
    talker = build(MODELS[plan.model](), plan.device, dtype)
    count = sum(p.numel() for p in talker.parameters())
    yield {"parameters": count, "patch_seconds": talker.config.patch_seconds, "build_s": time.monotonic() - started}
    most = max(plan.batches)
    if is_gpu:
        yield from _times(plan, talker, "plain", PlainSteps(talker, most), plan.batches[:1])
    yield {"check": "fast step against plain step", "relative_difference": steps_agree(talker)}
    yield from _times(plan, talker, "fast", make(talker, most), plan.batches)
    if plan.compile and plan.has_time:
        fuse(talker, plan.compile)
        yield from _times(plan, talker, "compiled", make(talker, most), plan.batches)


def _times(plan: Plan, talker: Talker, kind: str, steps: Steps, batches: tuple[int, ...]):
    is_gpu = talker.device.type == "cuda"
    started = time.monotonic()
    loop = Loop(talker, max(plan.batches), steps)
    _speak(loop, talker, 1, plan.num_patches)  # captures, compiles, warms up
    yield {"steps": kind, "warm_up_s": time.monotonic() - started}
    seconds = [_first_chunk(loop, talker) for _ in range(FIRST_CHUNKS)]
    yield {"steps": kind, "first_chunk_ms": 1000 * statistics.median(seconds)}
    for batch in batches:
        if not plan.has_time:
            yield {"skipped": f"{kind}, batch {batch}: the time is up"}
            continue
        if is_gpu:
            torch.cuda.reset_peak_memory_stats()
        _speak(loop, talker, batch, 3)
        seconds = _speak(loop, talker, batch, plan.num_patches)
        speech = plan.num_patches * talker.config.patch_seconds
        memory = torch.cuda.max_memory_allocated() / 2**30 if is_gpu else None
        yield {
            "steps": kind,
            "batch": batch,
            "step_ms": 1000 * seconds / plan.num_patches,
            "rtf": seconds / speech,
            "rtf_total": seconds / speech / batch,
            "memory_gib": memory,
        }


def _utterance(talker: Talker, seed: int, num_patches: int) -> Utterance:
    ids = torch.arange(TEXT_TOKENS) % talker.config.backbone.vocab_size
    return Utterance(ids, None, torch.Generator().manual_seed(seed), num_patches)


def _quietly(chunks):
    """The sentences here end at their limit, on purpose."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield from chunks


def _speak(loop: Loop, talker: Talker, batch: int, num_patches: int) -> float:
    """Seconds until all of `batch` sentences of one length are spoken."""
    started = time.perf_counter()
    streams = [_quietly(loop.speak(_utterance(talker, i, num_patches))) for i in range(batch)]
    for chunks in zip(*streams, strict=True):
        assert len(chunks) == batch
    return time.perf_counter() - started


def _first_chunk(loop: Loop, talker: Talker) -> float:
    """Seconds from the request to samples on the host; the rest of the sentence is cancelled."""
    started = time.perf_counter()
    stream = loop.speak(_utterance(talker, 0, 50))
    next(stream)
    seconds = time.perf_counter() - started
    stream.close()
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=MODELS, default="tiny")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--patches", type=int, default=40, help="length of a timed sentence")
    parser.add_argument(
        "--compile",
        nargs="?",
        const="default",
        choices=("default", "max-autotune-no-cudagraphs"),
        help="then once more with compiled blocks; the second mode also tries out matrix products, for minutes",
    )
    parser.add_argument("--budget", type=float, default=120, help="seconds after which nothing new is started")
    parser.add_argument("--output", help="a JSON file for all figures together")
    options = parser.parse_args()
    until = time.monotonic() + options.budget
    plan = Plan(options.model, options.device, tuple(options.batches), options.patches, options.compile, until)
    figures = []
    try:
        for figure in measure(plan):
            figures.append(figure)
            print(json.dumps(figure), flush=True)
    finally:  # what is known is kept, whatever happens later
        if options.output:
            with open(options.output, "w") as file:
                json.dump(figures, file, indent=1)


if __name__ == "__main__":
    main()
