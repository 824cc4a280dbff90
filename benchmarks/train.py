"""Training the thinker on an accelerator: right first, then timed; prints JSON and writes it where `--output` says.

    python -m benchmarks.train                                   tiny, on whatever device is there
    python -m benchmarks.train --model 3b --output train.json    a mixture of 3.4 billion parameters, one 141 GB GPU
    torchrun --nproc-per-node 2 -m benchmarks.train --model 3b --mode fsdp

Random weights and tokens; the losses, the balancing, the packing and the sharding are those of `ming train`. Needs
torch and transformers only.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import torch
from torch import Tensor, nn

from ming_omni.config import MoEConfig, ThinkerConfig, tiny
from ming_omni.model.thinker import Thinker
from ming_omni.train import balance, losses, parallel
from ming_omni.train.packing import PackedAttention
from ming_omni.train.recipe import ParallelSettings

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
        4,
    ),
}
"""Sizes, tokens of a sequence, sequences that one process reads at once."""
WARM_UP = 3


class Reader(nn.Module):
    """What a learner is for answers: packed ids -> loss, with the experts balanced."""

    def __init__(self, thinker: Thinker):
        super().__init__()
        self.model = nn.Module()
        self.model.thinker = thinker
        self.loads = balance.Loads(thinker)
        self.settings = balance.BalanceSettings()

    def forward(self, ids: Tensor, lengths: list[int], total_tokens: int, total_sequences: int) -> Tensor:
        thinker = self.model.thinker
        places = torch.cat([torch.arange(n, device=ids.device) for n in lengths]).expand(3, 1, -1)
        cache = PackedAttention(lengths, thinker.config._attn_implementation)
        output = thinker(thinker.embed(ids), places, cache=cache, collect_routing=True)
        self.loads.add(output.routing)
        loss = losses.next_token(thinker.logits, output.hidden, ids.roll(-1, 1)) / total_tokens
        present = torch.tensor([total_sequences, 0, 0])
        for layer in output.routing:
            loss = loss + balance.auxiliary_loss(layer, self.settings.auxiliary, lengths, present)
            loss = loss + self.settings.z_loss * balance.z_loss(layer, total_tokens)
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


def measure(name: str, num_steps: int, micro_batches: int, mode: str, is_compiled: bool) -> dict:
    """Tokens a second and their share of the device's peak, everything included: forward, backward, optimiser."""
    settings = ParallelSettings(mode=mode)
    world = parallel.start(settings)
    figures: dict = {"error_against_cpu": devices_agree(world.device)}
    config, length, num_sequences = MODELS[name]
    is_cuda = world.device.type == "cuda"
    reader = build(config, world.device)
    num_parameters = sum(p.numel() for p in reader.parameters())
    if is_compiled:
        for layer in reader.model.thinker.layers:
            layer.forward = torch.compile(layer.forward, dynamic=False)
    parallel.apply(reader, settings, world, "bf16" if is_cuda else "fp32")
    learning = [p for p in reader.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=3e-4, betas=(0.9, 0.95), fused=is_cuda)

    tokens = length * num_sequences * micro_batches * world.size
    draw = torch.Generator().manual_seed(world.rank)
    ids = torch.randint(config.vocab_size, (micro_batches, 1, length * num_sequences), generator=draw).to(world.device)
    seconds, history = [], []
    for _ in range(WARM_UP + num_steps):
        _finish(world.device)
        started = time.perf_counter()
        total = torch.zeros((), device=world.device)
        for row in ids:
            with torch.autocast(world.device.type, torch.bfloat16, enabled=is_cuda):
                loss = reader(row, [length] * num_sequences, tokens, num_sequences * micro_batches * world.size)
            loss.backward()
            total += loss.detach()
        world.sum_gradients(learning)
        world.clip(learning, 1.0)
        optimizer.step()
        reader.loads.move(reader.loads.take(world.total), reader.settings.bias_rate)
        optimizer.zero_grad()
        _finish(world.device)
        seconds.append(time.perf_counter() - started)
        history.append(float(world.total(total)))
    step = statistics.median(seconds[WARM_UP:])
    active, per_token = operations(config, num_parameters, length)
    device = torch.cuda.get_device_name() if is_cuda else "CPU"
    peak = next((value for key, value in PEAKS.items() if key in device), None)
    figures |= {
        "model": name,
        "device": device,
        "torch": torch.__version__,
        "processes": world.size,
        "mode": mode,
        "is_compiled": is_compiled,
        "parameters": num_parameters,
        "active_parameters": active,
        "tokens_per_step": tokens,
        "first_step_seconds": round(seconds[0], 2),
        "seconds_per_step": round(step, 4),
        "tokens_per_second": round(tokens / step),
        "operations_per_second": tokens * per_token / step,
        "mfu": None if peak is None else round(tokens * per_token / step / peak / world.size, 4),
        "peak_memory_gb": round(torch.cuda.max_memory_allocated() / 1e9, 1) if is_cuda else None,
        "loss": [round(value, 4) for value in (history[0], history[-1])],
    }
    assert history[-1] < history[0], "the loss of repeated tokens must fall"
    world.stop()
    return figures


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def main(arguments: list[str] | None = None) -> dict:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", choices=MODELS, default="tiny")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--micro-batches", type=int, default=2)
    parser.add_argument("--mode", choices=("data", "fsdp"), default="data")
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=torch.cuda.is_available())
    parser.add_argument("--output", type=Path)
    chosen = parser.parse_args(arguments)
    figures = measure(chosen.model, chosen.steps, chosen.micro_batches, chosen.mode, chosen.compile)
    text = json.dumps(figures, indent=2)
    print(text)
    if chosen.output:
        chosen.output.write_text(text + "\n")
    return figures


if __name__ == "__main__":
    main()
