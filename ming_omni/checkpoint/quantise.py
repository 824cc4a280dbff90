"""Expert weights -> 8- or 4-bit codes with scales, one expert at a time, and the module that runs on them.

fp8    e4m3 codes (E, O, I), one fp32 scale per output row
int4   the packed format of `ming_omni.packed`: two codes a byte, one fp16 scale per group of inputs, symmetric
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ming_omni import kernels
from ming_omni.packed import Packed, pack

FORMATS = ("fp8", "int4")
FP8_MAX = 448.0  # torch.finfo(torch.float8_e4m3fn).max
GROUP = 64
"""Inputs that share a scale in int4: 4.25 bits a weight, as in nano."""
EXPERTS_AT_ONCE = 32
"""How many experts are dequantised at a time: the published width needs 0.8 GB for them in bf16."""


class QuantisedWeight(nn.Module):
    """One stacked matrix (E, O, I), stored as codes and scales."""

    def __init__(self, shape: tuple[int, int, int], format: str):
        super().__init__()
        self.shape, self.format = shape, format
        num_experts, rows, width = shape
        if format == "fp8":
            codes = torch.empty(shape, dtype=torch.float8_e4m3fn)
            scale = torch.empty(num_experts, rows, 1)
        else:
            assert width % 2 == 0, "two 4-bit codes share a byte"
            codes = torch.empty(num_experts, rows, width // 2, dtype=torch.uint8)
            scale = torch.empty(num_experts, rows, width // math.gcd(width, GROUP), dtype=torch.half)
        self.register_buffer("codes", codes)
        self.register_buffer("scale", scale)

    def fits(self, value: Packed) -> bool:
        """Whether stored codes can be taken as they are."""
        same = [(mine.dtype, mine.shape) for mine in (self.codes, self.scale)]
        return value.minimum is None and same == [(t.dtype, t.shape) for t in (value.codes, value.scale)]

    def write(self, expert: int, weight: Tensor) -> None:
        """Quantise one expert's (O, I) into its slot, on the device where the slot lies."""
        weight = weight.to(self.codes.device).float()
        if self.format == "fp8":
            scale = weight.abs().amax(-1, keepdim=True) / FP8_MAX
            codes = (weight / scale.clamp(min=torch.finfo(torch.float32).tiny)).clamp(-FP8_MAX, FP8_MAX)
            codes = codes.to(self.codes.dtype)
        else:
            codes, scale, _ = pack(weight, math.gcd(weight.shape[-1], GROUP))
        self.codes[expert].copy_(codes)
        self.scale[expert].copy_(scale)

    def float(self, experts: Tensor | slice = slice(None)) -> Tensor:
        """The fp32 weights (n, O, I) of some experts."""
        # torch cannot pick rows of 8-bit floats, but it can of bytes.
        codes = self.codes.view(torch.uint8)[experts].view(self.codes.dtype)
        return Packed(codes, self.scale[experts]).float()

    def _apply(self, fn, recurse: bool = True):
        # Seen as bytes, codes and scales follow the model to its device but never to its dtype.
        return super()._apply(lambda tensor: fn(tensor.view(torch.uint8)).view(tensor.dtype), recurse)


class QuantisedExperts(nn.Module):
    """Takes the place of `Experts`: same forward, a half or a quarter of the memory.

    This is the plain form: it dequantises the experts in use, then runs the ordinary kernel.
    """

    def __init__(self, num_experts: int, width: int, inner: int, format: str):
        super().__init__()
        self.format = format
        self.gate = QuantisedWeight((num_experts, inner, width), format)
        self.up = QuantisedWeight((num_experts, inner, width), format)
        self.down = QuantisedWeight((num_experts, width, inner), format)

    def forward(self, x: Tensor, weights: Tensor, chosen: Tensor) -> Tensor:
        """x (T, D), mixing weights (T, A), expert ids (T, A) -> (T, D)"""
        total = torch.zeros(x.shape, dtype=torch.float32, device=x.device)
        for experts in chosen.unique().split(EXPERTS_AT_ONCE):
            token, slot = torch.where(torch.isin(chosen, experts))
            local = torch.searchsorted(experts, chosen[token, slot])
            matrices = (part.float(experts).to(x.dtype) for part in (self.gate, self.up, self.down))
            out = kernels.expert_mlp(x[token], weights[token, slot, None], local[:, None], *matrices)  # (N, D)
            total = total.index_add(0, token, out.float())
        return total.to(x.dtype)


def swap(model: nn.Module, format: str) -> None:
    """Give every mixture-of-experts layer room for quantised experts instead of plain ones; values come later."""
    for module in list(model.modules()):
        experts = getattr(module, "experts", None)
        if experts is not None and not isinstance(experts, QuantisedExperts):
            num_experts, inner, width = experts.gate.shape
            with torch.device(experts.gate.device):
                module.experts = QuantisedExperts(num_experts, width, inner, format)


def convert(model: nn.Module, format: str) -> None:
    """Quantise the routed experts of a model that is already loaded."""
    plain = {name: module for name, module in model.named_modules() if name.endswith(".mlp.experts")}
    swap(model, format)
    for name, experts in plain.items():
        for matrix, weight in experts.named_parameters():
            for slot, expert in enumerate(weight.detach()):
                model.get_submodule(f"{name}.{matrix}").write(slot, expert)
