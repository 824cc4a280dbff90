"""The understanding side on an accelerator: right first, then timed; prints JSON, a part at a time.

    python -m benchmarks.understand                          tiny, on whatever device is there
    python -m benchmarks.understand --model published --experts fp8     the full 100B-A6B shape, random weights

Checks: every expert kernel against the reference, without waiting for the host; the whole tiny model against the CPU.
Times: reading a prompt, and one step of decoding, with the cache filled to that length.
"""

import argparse
import json
import statistics
import time

import torch

from ming_omni import config, kernels
from ming_omni.checkpoint import fill, quantise
from ming_omni.kernels import grouped, reference
from ming_omni.model.omni import MingForConditionalGeneration


def kernels_agree(device: str) -> dict:
    """Largest relative error of the grouped kernel against the reference, values and gradients, by dtype."""
    errors = {}
    for dtype in (torch.float32, torch.bfloat16):
        torch.manual_seed(0)
        x = torch.randn(300, 256, device=device, dtype=dtype, requires_grad=True)
        matrices = [
            torch.randn(*shape, device=device, dtype=dtype).mul(0.05).requires_grad_()
            for shape in ((16, 128, 256), (16, 128, 256), (16, 256, 128))
        ]
        chosen = torch.rand(300, 16, device=device).topk(4).indices
        weights = torch.rand(300, 4, device=device, dtype=torch.float32)
        results = []
        for kernel in (reference, grouped):
            is_strict = device == "cuda" and kernel is grouped
            if is_strict:
                torch.cuda.set_sync_debug_mode("error")
            out = kernel.expert_mlp(x, weights, chosen, *matrices)
            gradients = torch.autograd.grad(out.float().square().sum(), [x, *matrices])
            if is_strict:
                torch.cuda.set_sync_debug_mode("default")
            results.append([out, *gradients])
        pairs = zip(*results, strict=True)
        errors[str(dtype)] = max(((a - b).float().norm() / a.float().norm()).item() for a, b in pairs)
    return errors


@torch.inference_mode()
def devices_agree(device: str) -> float:
    """Largest difference of the tiny model's logits between this device and the CPU, fp32."""
    torch.manual_seed(0)
    model = MingForConditionalGeneration(config.tiny()).eval()
    ids = torch.randint(32, 280, (2, 40))
    expected = model(ids).logits
    return (model.to(device)(ids.to(device)).logits.cpu() - expected).abs().max().item()


@torch.no_grad()
def build(name: str, experts: str | None, device: str) -> MingForConditionalGeneration:
    """A model of that shape with random weights, made where it runs: nothing of it passes through host memory."""
    shape = config.flash_preview() if name == "published" else config.tiny()
    model = fill.empty(MingForConditionalGeneration, shape)
    if experts in quantise.FORMATS:
        quantise.swap(model, experts)
    model = model.to_empty(device=device).to(torch.bfloat16 if device == "cuda" else torch.float32)
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.dtype == torch.float8_e4m3fn:
            tensor.view(torch.uint8).random_(0, 0x78)  # every finite positive number; the scale makes them small
        elif tensor.dtype == torch.uint8:
            tensor.random_(0, 256)
        elif tensor.dim() == 1:
            tensor.fill_(1.0)
        elif tensor.is_floating_point():
            tensor.normal_(0, 0.006)
    for name, tensor in model.named_buffers():
        if name.endswith(".scale"):
            tensor.fill_(1e-4)
    for name, tensor in model.named_parameters():
        if name.endswith(".bias"):
            tensor.data.zero_()
    model.thinker.tie_weights()
    return model.eval()


@torch.inference_mode()
def times(model: MingForConditionalGeneration, prompt_tokens: int, num_steps: int) -> dict:
    device = model.device
    ids = torch.randint(32, 280, (1, prompt_tokens), device=device)
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    result = {}
    for _ in range(2):  # the first round warms up
        steps, seconds = model.steps({"input_ids": ids}, max_new_tokens=num_steps + 1, eos_token_id=[]), []
        for _ in range(num_steps + 1):
            wait()
            start = time.perf_counter()
            next(steps)
            wait()
            seconds.append(time.perf_counter() - start)
        rest = sorted(seconds[1:])
        result = {
            "prompt_tokens": prompt_tokens,
            "prompt_seconds": seconds[0],
            "step_ms": {"median": statistics.median(rest) * 1e3, "min": rest[0] * 1e3, "max": rest[-1] * 1e3},
        }
    return result


def show(**figures) -> None:
    print(json.dumps(figures), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=("tiny", "published"), default="tiny")
    parser.add_argument("--experts", choices=("bf16", "fp8", "int4"), default="bf16")
    parser.add_argument("--prompt-tokens", type=int, default=64)
    parser.add_argument("--steps", type=int, default=8)
    given = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    show(device=torch.cuda.get_device_name() if device == "cuda" else "cpu", torch=torch.__version__)
    show(grouped_against_reference=kernels_agree(device), available=[k.__name__ for k in kernels.available()])
    show(tiny_against_cpu=devices_agree(device))
    start = time.perf_counter()
    model = build(given.model, given.experts, device)
    show(build_seconds=time.perf_counter() - start)
    if device == "cuda":
        show(weights_gb=torch.cuda.memory_allocated() / 1e9)
    show(model=given.model, experts=given.experts, **times(model, given.prompt_tokens, given.steps))
    if device == "cuda":
        show(peak_gb=torch.cuda.max_memory_allocated() / 1e9)


if __name__ == "__main__":
    main()
