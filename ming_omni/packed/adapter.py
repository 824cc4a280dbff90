"""What training added to a weight (O, K), in low rank: x -> up (O, R) down (R, K) x, beside the weight or in it.

A folder stores it as `NAME.adapter.down` and `NAME.adapter.up`, packed or plain, for the weight `NAME.weight`; LoRA's
own factor lies within `up`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from ming_omni.packed import Packed

MARK = ".adapter."
"""In the names of its tensors."""


class Adapter(NamedTuple):
    """Both halves lie as a product of few rows reads them fastest: transposed."""

    down: Tensor
    """(K, R)"""
    up: Tensor
    """(R, O)"""

    def weight(self) -> Tensor:
        """(O, K)"""
        return (self.down @ self.up).T

    def add_to(self, product: Tensor, x: Tensor) -> Tensor:
        """product (N, O) of x (N, K) with the weight alone -> with the adapter too, fp32"""
        return torch.addmm(product.float(), torch.mm(x, self.down), self.up)


def find(get: Callable[[str], Packed | Tensor], name: str) -> Adapter | None:
    """The adapter of `name.weight`; `get` gives stored parameters and raises KeyError where there is none."""
    try:
        return Adapter(*(get(f"{name}{MARK}{half}").float().T.contiguous() for half in ("down", "up")))
    except KeyError:
        return None


def owners(parameters: Mapping[str, Packed | Tensor]) -> list[str]:
    """Names of the weights, without `.weight`, that these parameters have adapters of."""
    return [name.partition(MARK)[0] for name in parameters if name.endswith(f"{MARK}down")]
