"""Training the thinker on an accelerator: right first, then timed; prints JSON and writes it where `--output` says.

    python -m benchmarks.train                                   tiny, on whatever device is there
    python -m benchmarks.train --model 3b --output train.json    a mixture of 3.4 billion parameters, one 141 GB GPU
    torchrun --nproc-per-node 2 -m benchmarks.train --model 3b --mode fsdp

The more tokens are read at once (`--sequences`), the less often weights are rounded to bf16 and gradients added up; the
more of these make a step (`--micro-batches`), the less the optimiser weighs.

Random weights and tokens; the losses, the balancing, the packing and the sharding are those of `ming train`. Needs
torch and transformers only.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from contextlib import nullcontext
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from ming_omni.config import MoEConfig, ThinkerConfig, tiny
from ming_omni.model.thinker import Thinker
from ming_omni.train import balance, losses, parallel
from ming_omni.train.optimizer import make_optimizer
from ming_omni.train.packing import PackedAttention
from ming_omni.train.recipe import OptimizerSettings, ParallelSettings

PEAKS = {"H200": 989e12, "H100": 989e12, "A100": 312e12}
"""Dense bf16 operations a second, from the makers' data sheets."""
MODELS = {
    "tiny": (tiny().thinker, 64, 4),
    "1b": (
        ThinkerConfig(
            vocab_size=32_768,
            hidden_size=1024,
            intermediate_size=4096,
            num_hidden_layers=16,
            num_attention_heads=8,
            num_key_value_heads=2,
            head_dim=128,
            moe=MoEConfig(num_experts=32, experts_per_token=4, expert_width=768),
        ),
        4096,
        8,
    ),
    "3b": (
        ThinkerConfig(
            vocab_size=32_768,
            hidden_size=2048,
            intermediate_size=8192,
            num_hidden_layers=12,
            num_attention_heads=16,
            num_key_value_heads=4,
            head_dim=128,
            moe=MoEConfig(num_experts=32, experts_per_token=4, expert_width=1408),
        ),
        4096,
        8,
    ),
}
"""Sizes, tokens of a sequence, sequences that one process reads at once."""
ATTENTION = {
    "torch": None,
    "flash": [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH],
    "cudnn": [
        SDPBackend.CUDNN_ATTENTION,
        SDPBackend.FLASH_ATTENTION,
        SDPBackend.EFFICIENT_ATTENTION,
        SDPBackend.MATH,
    ],
}
"""Names of orders that torch tries its attention kernels in; its own order depends on its version."""
WARM_UP = 3


class Reader(nn.Module):
    """What a learner is for answers: packed ids -> loss, with the experts balanced."""

    def __init__(self, thinker: Thinker):
        super().__init__()
        self.model = nn.Module()
        self.model.thinker = thinker
        self.loads = balance.Loads(thinker)
        self.settings = balance.BalanceSettings()
        self.cross_entropy = losses.cross_entropy

    def forward(self, ids: Tensor, lengths: list[int], total_tokens: int, total_sequences: int) -> Tensor:
        thinker = self.model.thinker
        places = torch.cat([torch.arange(n, device=ids.device) for n in lengths]).expand(3, 1, -1)
        cache = PackedAttention(lengths, thinker.config._attn_implementation)
        output = thinker(thinker.embed(ids), places, cache=cache, collect_routing=True)
        loss = self.cross_entropy(thinker.logits, output.hidden[0], ids.roll(-1, 1)[0]) / total_tokens
        self.loads.add(output.routing)
        present = torch.tensor([total_sequences, 0, 0])
        loss = loss + balance.auxiliary_loss(output.routing, self.settings.auxiliary, lengths, present)
        loss = loss + self.settings.z_loss * balance.z_loss(output.routing, total_tokens)
        return loss


def build(config: ThinkerConfig, device: torch.device) -> Reader:
    torch.manual_seed(0)
    with device:
        return Reader(Thinker(config)).train()


def devices_agree(device: torch.device) -> float:
    """Largest relative error of the tiny model's gradients on this device against the CPU's, fp32, packed."""
    gradients = []
    for place in (torch.device("cpu"), device):
        reader = build(tiny().thinker, torch.device("cpu")).to(place)
        ids = torch.randint(32, 280, (1, 50), generator=torch.Generator().manual_seed(0)).to(place)
        reader(ids, [20, 30], 50, 2).backward()
        gradients.append([p.grad.cpu() for p in reader.parameters() if p.grad is not None])
    return max(((a - b).norm() / (a.norm() + 1e-8)).item() for a, b in zip(*gradients, strict=True))


def operations(config: ThinkerConfig, num_parameters: int, length: int) -> tuple[int, float]:
    """Parameters that one token uses, and the operations that training on it takes: forward once, backward twice."""
    moe, width = config.moe, config.hidden_size
    num_moe = config.num_hidden_layers - config.num_dense_layers
    unused_experts = num_moe * (moe.num_experts - moe.experts_per_token) * 3 * width * moe.expert_width
    unused_routers = num_moe * 2 * moe.num_experts * width
    active = num_parameters - unused_experts - unused_routers - config.vocab_size * width  # looked up, not multiplied
    # Scores and mixing, of half the keys on average.
    attention = config.num_hidden_layers * 2 * 2 * config.num_attention_heads * config.head_dim * length / 2
    return active, 3 * (2 * active + attention)


def compile_layers(reader: Reader) -> None:
    """Everything heavy, piece by piece: layers of a kind share their graph."""
    for module in (*reader.model.thinker.layers, reader.model.thinker.norm):
        module.forward = torch.compile(module.forward, dynamic=False)
    reader.cross_entropy = torch.compile(reader.cross_entropy, dynamic=False)


class Trainer:
    """A reader, spread over the processes and optionally compiled, with its optimiser and its tokens."""

    def __init__(self, chosen: argparse.Namespace):
        settings = ParallelSettings(mode=chosen.mode)
        self.world = parallel.start(settings)
        self.config, length, num_sequences = MODELS[chosen.model]
        self.lengths = [length] * (chosen.sequences or num_sequences)
        self.is_cuda = self.world.device.type == "cuda"
        self.reader = build(self.config, self.world.device)
        self.num_parameters = sum(p.numel() for p in self.reader.parameters())
        if chosen.compile:
            compile_layers(self.reader)
        parallel.apply(self.reader, settings, self.world, "bf16" if self.is_cuda else "fp32")
        self.learning = [p for p in self.reader.parameters() if p.requires_grad]
        self.optimizer = make_optimizer(self.learning, OptimizerSettings(learning_rate=3e-4))
        draw = torch.Generator().manual_seed(self.world.rank)
        ids = torch.randint(self.config.vocab_size, (chosen.micro_batches, 1, sum(self.lengths)), generator=draw)
        self.ids = ids.to(self.world.device)
        self.num_tokens, self.num_sequences = ids.numel() * self.world.size, ids.numel() * self.world.size // length

    def step(self) -> float:
        """Forward, backward, balance, optimiser; returns the loss, for which it waits."""
        total = torch.zeros((), device=self.world.device)
        for row in self.ids:
            with torch.autocast(self.world.device.type, torch.bfloat16, enabled=self.is_cuda):
                loss = self.reader(row, self.lengths, self.num_tokens, self.num_sequences)
            loss.backward()
            total += loss.detach()
        self.world.sum_gradients(self.learning)
        self.world.clip(self.learning, 1.0)
        self.optimizer.step()
        self.reader.loads.move(self.reader.loads.take(self.world.total), self.reader.settings.bias_rate)
        self.optimizer.zero_grad()
        return float(self.world.total(total))


def measure(chosen: argparse.Namespace) -> dict:
    """Tokens a second and their share of the device's peak, everything included."""
    trainer = Trainer(chosen)
    world = trainer.world
    agree = devices_agree(world.device)
    seconds, history = [], []
    for _ in range(WARM_UP + chosen.steps):
        started = time.perf_counter()
        history.append(trainer.step())
        _finish(world.device)
        seconds.append(time.perf_counter() - started)
    assert history[-1] < history[0], "the loss of repeated tokens must fall"
    step = statistics.median(seconds[WARM_UP:])
    active, per_token = operations(trainer.config, trainer.num_parameters, trainer.lengths[0])
    device = torch.cuda.get_device_name() if trainer.is_cuda else "CPU"
    peak = next((value for key, value in PEAKS.items() if key in device), None)
    rate = trainer.num_tokens / step
    figures = {
        "error_against_cpu": agree,
        "model": chosen.model,
        "device": device,
        "torch": torch.__version__,
        "processes": world.size,
        "mode": chosen.mode,
        "is_compiled": chosen.compile,
        "attention": chosen.attention,
        "parameters": trainer.num_parameters,
        "active_parameters": active,
        "tokens_per_pass": sum(trainer.lengths),
        "tokens_per_step": trainer.num_tokens,
        "first_step_seconds": round(seconds[0], 2),
        "seconds_per_step": round(step, 4),
        "tokens_per_second": round(rate),
        "operations_per_second": rate * per_token,
        "mfu": None if peak is None else round(rate * per_token / peak / world.size, 4),
        "peak_memory_gb": round(torch.cuda.max_memory_allocated() / 1e9, 1) if trainer.is_cuda else None,
        "loss": [round(value, 4) for value in (history[0], history[-1])],
    }
    if chosen.profile:
        print(profile(trainer))
    world.stop()
    return figures


def profile(trainer: Trainer) -> str:
    """A table of where one step's time goes, the longest operations first."""
    with torch.profiler.profile() as seen:
        trainer.step()
        _finish(trainer.world.device)
    by = "self_device_time_total" if trainer.is_cuda else "self_cpu_time_total"
    return seen.key_averages().table(sort_by=by, row_limit=30, max_name_column_width=70)


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def main(arguments: list[str] | None = None) -> dict:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", choices=MODELS, default="tiny")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--sequences", type=int, help="that one process reads at once; default: the model's")
    parser.add_argument("--micro-batches", type=int, default=4)
    parser.add_argument("--mode", choices=("data", "fsdp"), default="data")
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=torch.cuda.is_available())
    parser.add_argument("--attention", choices=ATTENTION, default="torch", help="which kernel torch tries first")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--profile", action="store_true", help="then show where the time of one step goes")
    chosen = parser.parse_args(arguments)
    backends = ATTENTION[chosen.attention]
    with nullcontext() if backends is None else sdpa_kernel(backends, set_priority=True):
        figures = measure(chosen)
    if os.environ.get("RANK", "0") != "0":
        return figures
    text = json.dumps(figures, indent=2)
    print(text)
    if chosen.output:
        chosen.output.write_text(text + "\n")
    return figures


if __name__ == "__main__":
    main()
