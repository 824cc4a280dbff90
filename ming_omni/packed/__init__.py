"""Packed tensors <-> float tensors: small integer codes with a scale, and perhaps a minimum, for each group of a row.

A parameter `p` (..., K) of a packed folder is stored as two or three tensors; a group is G neighbours along K:

    p.codes    uint8 (..., K / 2)  4-bit codes 0..15: weight 2i is the low half of byte i, weight 2i + 1 the high half
               int8  (..., K)      8-bit codes -128..127
    p.scale    fp16  (..., K / G)
    p.minimum  fp16  (..., K / G)  only where groups have one; otherwise 4-bit codes are centred on 8

    weight = code * scale + minimum, or (code - 8) * scale, or code * scale for 8 bits; in fp32, in this order.

G follows from the shapes. A parameter without `.codes` is stored as it is.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn

CENTRE = 8
"""The 4-bit code that means zero when a group has no minimum."""


class Packed(NamedTuple):
    """One packed parameter."""

    codes: Tensor
    scale: Tensor
    minimum: Tensor | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the float tensor."""
        *rows, width = self.codes.shape
        return (*rows, width * 2 if self.codes.dtype == torch.uint8 else width)

    def float(self) -> Tensor:
        """The exact fp32 weights."""
        codes = self.codes
        if codes.dtype == torch.uint8:
            codes = split_nibbles(codes)
            if self.minimum is None:
                codes = codes.to(torch.int8) - CENTRE
        groups = codes.unflatten(-1, (self.scale.shape[-1], -1)).float() * self.scale.float()[..., None]
        if self.minimum is not None:
            groups += self.minimum.float()[..., None]
        return groups.flatten(-2)

    def named(self, name: str) -> dict[str, Tensor]:
        """The tensors to store for parameter `name`."""
        parts = {f"{name}.codes": self.codes, f"{name}.scale": self.scale, f"{name}.minimum": self.minimum}
        return {key: value for key, value in parts.items() if value is not None}


def split_nibbles(codes: Tensor) -> Tensor:
    """Bytes (..., K / 2) -> 4-bit codes (..., K), uint8."""
    return torch.stack((codes & 15, codes >> 4), -1).flatten(-2)


def join_nibbles(codes: Tensor) -> Tensor:
    """4-bit codes (..., K), uint8 -> bytes (..., K / 2)."""
    return codes[..., ::2] | codes[..., 1::2] << 4


def pack(weight: Tensor, group: int, bits: int = 4, shrinks: Iterable[float] = ()) -> Packed:
    """Round a trained float tensor to 4- or 8-bit codes centred on zero; off by at most half a scale a weight.

    shrinks  smaller scales to try, as parts of the one that reaches a group's largest weight: the one with the least
             squared error is taken, although the largest weights may then be off by more
    """
    groups = weight.float().unflatten(-1, (-1, group))
    full = groups.abs().amax(-1, keepdim=True) / (2 ** (bits - 1) - 1)
    scale, codes = _round(groups, full, bits)
    least = (codes * scale.float() - groups).square().sum(-1, keepdim=True)
    for shrink in shrinks:
        candidate, rounded = _round(groups, full * shrink, bits)
        error = (rounded * candidate.float() - groups).square().sum(-1, keepdim=True)
        better = error < least
        scale, codes, least = (
            torch.where(better, new, old) for new, old in ((candidate, scale), (rounded, codes), (error, least))
        )
    codes = codes.flatten(-2)
    if bits == 8:
        return Packed(codes.to(torch.int8), scale[..., 0])
    return Packed(join_nibbles((codes + CENTRE).to(torch.uint8)), scale[..., 0])


def _round(groups: Tensor, scale: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Scale in fp16, and the codes of weights (..., G) under it."""
    scale = scale.half()
    codes = (groups / scale.float().clamp(min=torch.finfo(torch.half).tiny)).round()
    return scale, codes.clamp(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def collect(tensors: dict[str, Tensor]) -> dict[str, Packed | Tensor]:
    """Stored tensors by name -> parameters by name, packed ones still packed."""
    found: dict[str, Packed | Tensor] = {}
    for name, tensor in tensors.items():
        parameter, _, kind = name.rpartition(".")
        if kind == "codes":
            found[parameter] = Packed(tensor, tensors[f"{parameter}.scale"], tensors.get(f"{parameter}.minimum"))
        elif f"{parameter}.codes" not in tensors:
            found[name] = tensor
    return found


def unpack(tensors: dict[str, Tensor]) -> Iterable[tuple[str, Tensor]]:
    """Stored tensors by name -> (parameter, fp32 tensor), one by one so that memory holds one float copy."""
    for name, value in collect(tensors).items():
        yield name, value.float()


def register(root: nn.Module, name: str, tensor: Tensor) -> None:
    """Make `tensor` appear in the state dict of `root` under its dotted name."""
    *path, last = name.split(".")
    for part in path:
        if part not in root._modules:
            root.add_module(part, nn.Module())
        root = root._modules[part]
    if last in ("codes", "scale", "minimum"):
        root.register_buffer(last, tensor)
    else:
        root.register_parameter(last, nn.Parameter(tensor, requires_grad=False))
