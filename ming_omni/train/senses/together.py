"""Processes that torchrun started, one a GPU, learn as one: the first decides, gradients and loads are shared."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn


@dataclass
class Team:
    """This process among all of them; alone, nothing here does anything."""

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def same(self, parameters: list[nn.Parameter]) -> None:
        """Everybody begins as the first does."""
        if self.size > 1:
            for parameter in parameters:
                dist.broadcast(parameter.data, 0)

    def average(self, parameters: list[nn.Parameter]) -> None:
        """Mean gradients, in one message; all processes have read the same kinds, so all have the same gradients."""
        if self.size > 1 and parameters:
            flat = torch.cat([parameter.grad.flatten() for parameter in parameters])
            dist.all_reduce(flat)
            flat /= self.size
            for parameter, part in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
                parameter.grad = part.view_as(parameter)

    def total(self, tensor: Tensor) -> Tensor:
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def agree(self, *values: float) -> list[float]:
        """The first's values, on the host: nobody waits for a device."""
        told = torch.tensor(values, dtype=torch.float64)
        if self.size > 1:
            dist.broadcast(told, 0)
        return told.tolist()

    @contextmanager
    def first_alone(self) -> Iterator[None]:
        """The first goes through the block, then all others: they find ready what it has made."""
        if not self.is_first:
            self.agree(0)
        yield
        if self.is_first:
            self.agree(0)

    def stop(self) -> None:
        if self.size > 1:
            dist.destroy_process_group()


def start(device: str) -> tuple[Team, torch.device]:
    """device: what one process would use."""
    size, rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
    if size == 1:
        return Team(), torch.device(device)
    if device == "cpu":
        dist.init_process_group("gloo")
        return Team(rank, size), torch.device("cpu")
    here = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    torch.cuda.set_device(here)
    dist.init_process_group("cpu:gloo,cuda:nccl")
    return Team(rank, size), here
