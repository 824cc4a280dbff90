"""Rows (N, K) through a packed weight (O, K) -> (N, O): the fastest of torch's own CPU products for this many rows.

Few rows read 4-bit codes directly; many rows are worth unfolding the weight once. Which products a CPU is good at
is asked of the CPU, and every CPU can do the plain fp32 one.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ming_omni.packed import CENTRE, Packed, split_nibbles
from ming_omni.packed.adapter import Adapter

GROUP_SIZES = (32, 64, 128, 256)
"""Those that torch's 4-bit product takes."""
FEW_ROWS = 16
"""Measured with AVX-512 and bf16 units: more rows than that are faster through bf16, see docs/nano/base.md."""
ROW_BLOCK = 16
"""Its weights have a multiple of this many rows."""

ROWS_AT_ONCE = 4096


class Products(NamedTuple):
    """What to compute with."""

    few_rows: int
    """Up to this many rows go through 4-bit codes, in bf16 with fp32 sums; 0: never."""
    wide: torch.dtype
    """What more rows than that are computed in, from unfolded weights."""


PLAIN = Products(0, torch.float32)
"""Exact and everywhere: fp32 from unfolded weights."""


def fastest() -> Products:
    # Elsewhere the 4-bit product runs, but as a scalar loop.
    is_vectorised = torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")
    has_bf16 = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return Products(FEW_ROWS if is_vectorised else 0, torch.bfloat16 if has_bf16 else torch.float32)


class Matrix:
    """A packed weight (O, K), 4-bit, ready to multiply. It is no module: what is stored stays with its owner."""

    def __init__(self, read: Callable[[], Packed], products: Products, adapter: Adapter | None = None):
        """read gives the weight, now and when it is unfolded: what was put together for it need not stay in memory"""
        packed = read()
        self.read, self.products, self.shape, self.adapter = read, products, packed.shape, adapter
        self.group = packed.shape[-1] // packed.scale.shape[-1]
        self.few_rows = products.few_rows if fits(packed) else 0
        self.codes = self.scales = self.unfolded = None
        if self.few_rows:
            self.codes, self.scales = four_bit(packed)

    def __call__(self, x: Tensor) -> Tensor:
        """x (N, K) -> (N, O), in bf16 or fp32, whichever product ran"""
        if x.shape[0] <= self.few_rows:  # `len` of a tensor takes as long as a small product
            product = torch._weight_int4pack_mm_for_cpu(x.bfloat16(), self.codes, self.group, self.scales)
            return product if self.adapter is None else self.adapter.add_to(product, x)
        if self.unfolded is None:
            weight = self.read().float()
            weight = weight if self.adapter is None else weight + self.adapter.weight()
            self.unfolded = weight.to(self.products.wide)
        return F.linear(x.to(self.products.wide), self.unfolded)


def fits(packed: Packed) -> bool:
    group = packed.shape[-1] // packed.scale.shape[-1]
    return packed.codes.dtype == torch.uint8 and group in GROUP_SIZES and packed.shape[0] % ROW_BLOCK == 0


def four_bit(packed: Packed) -> tuple[Tensor, Tensor]:
    """The operands of torch's 4-bit product: codes in the order this CPU wants, and (K / G, O, 2) scales and zeros.

    It computes (code - 8) * scale + zero. bf16 scales are off by 1/512 at most, far less than 4-bit rounding itself.
    """
    order = _blocks_of_64 if len(packed.codes) % 64 == 0 and _wants_blocks_of_64() else _order
    codes = torch.empty_like(packed.codes)
    for start in range(0, len(codes), ROWS_AT_ONCE):  # the copies in between stay small
        rows = slice(start, start + ROWS_AT_ONCE)
        codes[rows] = order(packed.codes[rows])
    scale = packed.scale.float()
    zero = torch.zeros_like(scale) if packed.minimum is None else packed.minimum.float() + CENTRE * scale
    return codes, torch.stack((scale.T, zero.T), -1).bfloat16()


def _order(codes: Tensor) -> Tensor:
    """torch's own reordering; it wants one int32 a code."""
    return torch.ops.aten._convert_weight_to_int4pack_for_cpu(split_nibbles(codes).int(), 1)


def _blocks_of_64(codes: Tensor) -> Tensor:
    """What `_order` does on a CPU with AVX-512, on whole bytes: 64 rows at a time, row i beside row i + 32."""
    columns = codes.unflatten(0, (-1, 64)).transpose(1, 2).contiguous()  # (O / 64, K / 2, 64)
    low, high = columns.split(32, -1)
    even, odd = (low & 15) | high << 4, low >> 4 | (high & 240)
    return torch.stack((even, odd), 2).view(codes.shape)


@cache
def _wants_blocks_of_64() -> bool:
    """torch documents no order, so one small weight is reordered both ways."""
    codes = torch.arange(128 * 32).view(128, 32).to(torch.uint8)
    return torch.equal(_order(codes), _blocks_of_64(codes))


def stack(parts: list[Packed]) -> Packed:
    """Several 4-bit weights with as many inputs each, their rows one below the other."""
    return Packed(*(torch.cat(tensors, 0) for tensors in zip(*_alike(parts), strict=True)))


def join(parts: list[Packed]) -> Packed:
    """Several 4-bit weights with as many rows each, their inputs side by side."""
    return Packed(*(torch.cat(tensors, -1) for tensors in zip(*_alike(parts), strict=True)))


def _alike(parts: list[Packed]) -> list[Packed]:
    """The same weights with the smallest group of all, and a minimum everywhere: nothing is rounded."""
    group = min(part.shape[-1] // part.scale.shape[-1] for part in parts)
    found = []
    for codes, scale, minimum in parts:
        times = 2 * codes.shape[-1] // scale.shape[-1] // group
        minimum = scale * -CENTRE if minimum is None else minimum
        found.append(Packed(codes, scale.repeat_interleave(times, -1), minimum.repeat_interleave(times, -1)))
    return found


def as_four_bit(packed: Packed) -> Packed:
    """An 8-bit weight (O, K) as a 4-bit one (O, 2K), for inputs that are repeated: x w = [x x] [high low].

    code + 128 = 16 high + low, so the scale of the high half is 16 times as large. Exact while 16 scales fit in fp16.
    """
    codes = packed.codes.view(torch.uint8) ^ 128  # + 128
    even, odd = codes[..., ::2], codes[..., 1::2]
    high, low = even >> 4 | (odd & 240), (even & 15) | odd << 4
    scale = packed.scale
    minimum = torch.cat((scale * -(16 * CENTRE), torch.zeros_like(scale)), -1)
    return Packed(torch.cat((high, low), -1), torch.cat((scale * 16, scale), -1), minimum)
