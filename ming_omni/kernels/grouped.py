"""Many routed rows -> outputs: rows sorted by expert, then one grouped product per matrix.

Nothing here depends on how many rows an expert got: a GPU never waits for the host, `torch.compile` sees one graph.
(transformers' grouped experts do both for bf16 only; else they read the row counts on the host and loop.)
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def expert_mlp(x: Tensor, weights: Tensor, chosen: Tensor, gate: Tensor, up: Tensor, down: Tensor) -> Tensor:
    order, place, ends = _sort(chosen.flatten(), len(gate))
    rows = _Gather.apply(x, order, place, chosen.shape[1])  # (N, D)
    inner = F.silu(_product(rows, gate, ends)) * _product(rows, up, ends)
    out = _Gather.apply(_product(inner, down, ends), place, order, 1).view(*chosen.shape, x.shape[1])  # (T, A, D)
    # A sum over slots instead of an atomic scatter: the same result on every run.
    return (out.float() * weights[..., None].float()).sum(1).to(x.dtype)


def pick_linear(x: Tensor, weight: Tensor, pick: Tensor) -> Tensor:
    order, place, ends = _sort(pick, len(weight))
    return _Gather.apply(_product(_Gather.apply(x, order, place, 1), weight, ends), place, order, 1)


class _Gather(torch.autograd.Function):
    """Rows (n, D), each `copies` times, in a new order (n * copies, D).

    An order that leaves no row out can be undone, so the gradient is gathered too; torch's own would sort the rows once
    more or add them up one atom at a time.
    """

    @staticmethod
    def forward(ctx, rows: Tensor, order: Tensor, place: Tensor, copies: int) -> Tensor:
        """order: which copy comes next; place: where each copy went, the inverse."""
        ctx.save_for_backward(place)
        ctx.copies = copies
        return rows[order // copies if copies > 1 else order]

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None, None, None]:
        (place,) = ctx.saved_tensors
        copies = grad[place]
        if ctx.copies > 1:
            copies = copies.unflatten(0, (len(place) // ctx.copies, ctx.copies)).sum(1)
        return copies, None, None, None


def _sort(ids: Tensor, num_groups: int) -> tuple[Tensor, Tensor, Tensor]:
    """Group ids (N,) -> the order that sorts them (N,), its inverse (N,), and where each group ends in it (G,)."""
    in_order, order = ids.sort(stable=True)
    place = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))
    groups = torch.arange(num_groups, device=ids.device, dtype=ids.dtype)
    return order, place, torch.searchsorted(in_order, groups, right=True, out_int32=True)


def _product(rows: Tensor, weight: Tensor, ends: Tensor) -> Tensor:
    """Sorted rows (N, D), weight (G, O, D), group ends (G,) -> (N, O).

    torch's backward takes contiguous gradients only; `_Gather` above every result sends back nothing else.
    """
    if _is_native(rows, weight):
        return torch._grouped_mm(rows, weight.transpose(1, 2), offs=ends)
    return _blocks(rows, weight, ends)


def _is_native(rows: Tensor, weight: Tensor) -> bool:
    """Whether torch's own grouped product runs here without waiting for the host."""
    if any(size * weight.element_size() % 16 for size in weight.shape[1:]):
        return False  # it reads and writes rows of whole 16 bytes
    if rows.device.type == "cpu":  # it compiles for bf16 only
        return rows.dtype == torch.bfloat16 or (rows.dtype != torch.float64 and not torch.compiler.is_compiling())
    return rows.dtype == torch.bfloat16 and torch.cuda.get_device_capability(rows.device) >= (8, 0)


def _blocks(rows: Tensor, weight: Tensor, ends: Tensor) -> Tensor:
    """The same product for any dtype: each group padded to whole blocks of rows, one batched product over all blocks.

    The number of blocks is the most that N rows in G groups can need, so that it is known without looking at `ends`.
    """
    (num_rows, width), num_groups = rows.shape, len(weight)
    size = min(256, max(16, num_rows // num_groups))
    num_blocks = num_rows // size + num_groups
    row = torch.arange(num_rows, device=rows.device)
    group = torch.searchsorted(ends, row, right=True)  # (N,) group of each row
    starts = F.pad(ends, (1, 0))[:-1]
    block_ends = ((ends - starts + size - 1) // size).cumsum(0)
    block_starts = F.pad(block_ends, (1, 0))[:-1]
    place = block_starts[group] * size + row - starts[group]  # (N,) where each row goes
    padded = rows.new_zeros(num_blocks * size, width).index_copy(0, place, rows)
    owner = torch.searchsorted(block_ends, torch.arange(num_blocks, device=rows.device), right=True)
    owner = owner.clamp(max=num_groups - 1)  # blocks that nobody needed
    return torch.bmm(padded.view(num_blocks, size, width), weight[owner].transpose(1, 2)).flatten(0, 1)[place]
