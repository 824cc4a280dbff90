"""A learner in one process -> the same learner over many: data parallel, FSDP2, experts spread over processes.

Everything is applied from outside; the model never hears of ranks. Each process computes its share of the step's mean
loss (see learner.py), so that gradients are always summed, never averaged.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed._functional_collectives import all_to_all_single_autograd
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

from ming_omni import kernels
from ming_omni.errors import InputError
from ming_omni.model.moe import Experts, MoE, Router
from ming_omni.train.recipe import ParallelSettings

BUCKET = 1 << 26
"""Numbers that are summed over processes in one message."""


@dataclass
class World:
    """This process among all of them."""

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    mesh: DeviceMesh | None = None
    """(data, expert): processes in one row share a set of experts, those in one column hold the same ones."""
    whole: list[nn.Parameter] = field(default_factory=list)
    """Parameters that learn and of which every process holds all."""
    spread: list[nn.Parameter] = field(default_factory=list)
    """Experts that learn and that FSDP leaves alone: one process of each row holds them."""

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def total(self, tensor: Tensor) -> Tensor:
        """The sum over all processes."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def wait(self) -> None:
        if self.size > 1:
            dist.barrier()

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

    def same(self, parameters: list[nn.Parameter]) -> None:
        """Everybody begins as the first does."""
        if self.size > 1:
            for parameter in parameters:
                dist.broadcast(parameter.data, 0)

    def sum_gradients(self, parameters: list[nn.Parameter]) -> None:
        """What FSDP does by itself for its own parameters. One that no process used has a gradient of zero."""
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        if self.size > 1:
            _sum_gradients(self.whole, dist.group.WORLD)
            if self.mesh["data"].size() > 1:
                _sum_gradients(self.spread, self.mesh.get_group("data"))

    @torch.no_grad()
    def clip(self, parameters: list[nn.Parameter], limit: float) -> float:
        """The norm of all gradients together, which are scaled down to `limit`; 0 only measures."""
        norms: dict[float, Tensor] = {}
        pieces = [local(p.grad) for p in parameters]
        copies = [self.size / _num_shards(p) for p in parameters]
        for count in set(copies):
            mine = [piece for piece, n in zip(pieces, copies, strict=True) if n == count]
            norms[count] = torch.stack(torch._foreach_norm(mine)).float().square().sum() / count
        norm = float(self.total(torch.stack(list(norms.values())).sum()).sqrt())
        if limit and norm > limit:
            torch._foreach_mul_(pieces, limit / norm)
        return norm

    def stop(self) -> None:
        if self.size > 1:
            dist.destroy_process_group()


def start(settings: ParallelSettings, kind: str | None = None) -> World:
    """One process, or one of those that torchrun started, on devices of a kind: cuda where there is any, or cpu."""
    size, rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
    kind = kind or ("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(kind, int(os.environ.get("LOCAL_RANK", 0))) if kind == "cuda" else torch.device(kind)
    if size == 1:
        if settings.experts > 1:
            raise InputError(
                f"parallel.experts is {settings.experts}, but there is one process; start it with torchrun"
            )
        return World(device=device)
    if size % settings.experts:
        raise InputError(f"{size} processes cannot share experts in groups of {settings.experts}")
    if kind == "cuda":
        torch.cuda.set_device(device)
    if not dist.is_initialized():
        dist.init_process_group("cpu:gloo,cuda:nccl" if kind == "cuda" else "gloo")
    shape = (size // settings.experts, settings.experts)
    return World(rank, size, device, init_device_mesh(kind, shape, mesh_dim_names=("data", "expert")))


def apply(learner: nn.Module, settings: ParallelSettings, world: World, precision: str = "fp32") -> None:
    """Spread a learner over the processes; every process has built the same one."""
    learner.to(world.device)
    if world.size == 1:
        return
    learner.sum_processes = world.total
    if settings.experts > 1:
        for layer in [module for module in learner.modules() if isinstance(module, MoE)]:
            layer.experts = SpreadExperts(layer.experts, world.mesh["expert"])
    if settings.mode == "fsdp":
        _shard(learner, world, precision)
    learning = [parameter for parameter in learner.parameters() if parameter.requires_grad]
    names = {
        id(parameter) for module in learner.modules() if isinstance(module, FSDPModule) for parameter in _own(module)
    }
    rest = [parameter for parameter in learning if id(parameter) not in names]
    world.whole = [parameter for parameter in rest if not isinstance(parameter, DTensor)]
    world.spread = [parameter for parameter in rest if isinstance(parameter, DTensor)]


def _own(module: FSDPModule) -> list[nn.Parameter]:
    """The parameters that this module's FSDP group manages."""
    group = module._get_fsdp_state()._fsdp_param_group
    return [] if group is None else [managed.sharded_param for managed in group.fsdp_params]


def _shard(learner: nn.Module, world: World, precision: str) -> None:
    """A group for each thinker layer, gathered while it runs; one for all the rest, gathered for the whole step.

    Encoders belong to the rest: a process whose batch has no picture does not call them, and could not join in.
    Routers stay whole and in fp32.
    """
    everyone = init_device_mesh(world.device.type, (world.size,), mesh_dim_names=("all",))
    bf16 = MixedPrecisionPolicy(torch.bfloat16, torch.float32, cast_forward_inputs=False)
    policy = bf16 if precision == "bf16" else MixedPrecisionPolicy(cast_forward_inputs=False)
    apart = {p for module in learner.modules() if isinstance(module, Router) for p in module.parameters()}
    for experts in [module for module in learner.modules() if isinstance(module, SpreadExperts)]:
        if world.mesh["data"].size() > 1:
            fully_shard(experts, mesh=world.mesh["data"], mp_policy=policy)
        else:
            apart |= set(experts.parameters())
    for layer in learner.model.thinker.layers:
        fully_shard(layer, mesh=everyone, mp_policy=policy, ignored_params=apart)
    fully_shard(learner, mesh=everyone, mp_policy=policy, ignored_params=apart, reshard_after_forward=False)
    for module in learner.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)  # gloo knows no other way
    inside = {id(p) for layer in learner.model.thinker.layers for p in layer.parameters()} | {id(p) for p in apart}
    learner.always_used = [name for name, p in learner.named_parameters() if p.requires_grad and id(p) not in inside]


class SpreadExperts(nn.Module):
    """The routed experts of one layer, of which this process holds a part: rows travel to their expert and back."""

    def __init__(self, experts: Experts, mesh: DeviceMesh):
        super().__init__()
        self.mesh, self.num_experts = mesh, len(experts.gate)
        if self.num_experts % mesh.size():
            raise InputError(f"{self.num_experts} experts cannot be shared by {mesh.size()} processes")
        for name, weight in experts.named_parameters():
            part = distribute_tensor(weight.detach(), mesh, [Shard(0)])
            self.register_parameter(name, nn.Parameter(part, requires_grad=weight.requires_grad))

    def forward(self, x: Tensor, weights: Tensor, chosen: Tensor) -> Tensor:
        """As `Experts.forward`: x (T, D), mixing weights (T, A), expert ids (T, A) -> (T, D)"""
        num_tokens, num_chosen = chosen.shape
        order = chosen.flatten().argsort(stable=True)
        counts = chosen.flatten().bincount(minlength=self.num_experts).view(self.mesh.size(), -1)  # (processes, own)
        arriving = torch.empty_like(counts)
        dist.all_to_all_single(arriving, counts, group=self.mesh.get_group())
        sent, received = counts.sum(1).tolist(), arriving.sum(1).tolist()

        rows = self._exchange(x[order // num_chosen], received, sent)
        own = torch.arange(counts.shape[1], device=x.device).repeat(len(counts))
        rows = self._compute(rows, own.repeat_interleave(arriving.flatten()))
        rows = self._exchange(rows, sent, received)

        inverse = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=x.device))
        out = rows[inverse].view(num_tokens, num_chosen, -1)
        return (out.float() * weights[..., None].float()).sum(1).to(x.dtype)

    def _exchange(self, rows: Tensor, received: list[int], sent: list[int]) -> Tensor:
        return all_to_all_single_autograd(rows.contiguous(), received, sent, self.mesh.get_group())

    def _compute(self, rows: Tensor, expert: Tensor) -> Tensor:
        gate, up, down = local(self.gate), local(self.up), local(self.down)
        if not len(rows):  # nobody chose an expert of this process; gradients of zero keep it in step with the others
            return rows + 0 * (gate.flatten()[0] + up.flatten()[0] + down.flatten()[0])
        return kernels.expert_mlp(rows, torch.ones_like(rows[:, :1]), expert[:, None], gate, up, down)


def local(tensor: Tensor) -> Tensor:
    """The part of a tensor that this process holds."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def full(tensor: Tensor) -> Tensor:
    """All of a tensor, in every process; all of them must ask."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def _num_shards(tensor: Tensor) -> int:
    if not isinstance(tensor, DTensor):
        return 1
    placed = zip(tensor.placements, tensor.device_mesh.shape, strict=True)
    return torch.tensor([size for placement, size in placed if placement.is_shard()]).prod().int().item()


@torch.no_grad()
def _sum_gradients(parameters: list[nn.Parameter], group) -> None:
    """In buckets."""
    bucket: list[Tensor] = []
    for index, parameter in enumerate(parameters):
        bucket.append(local(parameter.grad))
        if sum(piece.numel() for piece in bucket) >= BUCKET or index == len(parameters) - 1:
            flat = torch.cat([piece.flatten() for piece in bucket])
            dist.all_reduce(flat, group=group)
            for piece, summed in zip(bucket, flat.split([piece.numel() for piece in bucket]), strict=True):
                piece.copy_(summed.view_as(piece))
            bucket = []
