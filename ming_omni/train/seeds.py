"""A run's seed and any numbers or names -> a seed of its own for every purpose, the same on every machine."""

from __future__ import annotations

import hashlib

import torch


def mix(seed: int, *purpose: int | str) -> int:
    digest = hashlib.sha256(repr((seed, *purpose)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1  # generators of torch take 63 bits


def generator(seed: int, *purpose: int | str) -> torch.Generator:
    return torch.Generator().manual_seed(mix(seed, *purpose))
