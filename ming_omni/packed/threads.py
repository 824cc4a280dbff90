"""This machine, as busy as it is -> how many threads torch uses: measured, because a busy core punishes a second one.

The products of one token take 0.1 ms each. Where another program holds a core, every one of them waits for that core:
two threads are then up to ten times slower than one, and a third faster on a quiet machine.
"""

from __future__ import annotations

import os
import time
from functools import partial

import torch

from ming_omni.packed import pack
from ming_omni.packed.matrix import Matrix, fastest

WORTH_IT = 1.25
"""All threads stay in use when they are faster than one by this factor."""
REPEATS = 40


def settle() -> int:
    """Set torch's number of threads and return it. OMP_NUM_THREADS, when the user has set it, is left alone."""
    many = torch.get_num_threads()
    if many == 1 or "OMP_NUM_THREADS" in os.environ:
        return many
    matrix, x = Matrix(partial(pack, torch.randn(3072, 576), 32), fastest()), torch.randn(1, 576)
    together = _seconds(matrix, x)
    torch.set_num_threads(1)
    if _seconds(matrix, x) > WORTH_IT * together:
        torch.set_num_threads(many)
    return torch.get_num_threads()


def _seconds(matrix: Matrix, x: torch.Tensor) -> float:
    matrix(x)
    start = time.perf_counter()
    for _ in range(REPEATS):
        matrix(x)
    return time.perf_counter() - start
