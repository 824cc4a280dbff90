"""Packed rows of many requests -> attention of each row to its own request, with keys and values kept in pages."""

from __future__ import annotations

import mmap
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ming_omni.config import ThinkerConfig
from ming_omni.engine.pages import Pages
from ming_omni.engine.scheduler import Span


@dataclass
class Read:
    """B requests with T new rows each, and what these rows may see."""

    num_rows: int  # B · T
    num_new: int  # T
    slots: slice | None  # neighbouring pages are read where they are,
    pages: Tensor | None  # (B, pages of the longest), others are gathered
    length: int  # S
    mask: Tensor | None  # (B, 1, 1 or G · T, S), added to the scores


@dataclass
class Layout:
    """Where the rows of one step are written, and what they read; on the device of a layer."""

    slots: Tensor  # (R,)
    reads: list[Read]

    def to(self, like: Tensor) -> Layout:
        reads = [
            replace(
                read,
                pages=None if read.pages is None else read.pages.to(like.device),
                mask=None if read.mask is None else read.mask.to(like),
            )
            for read in self.reads
        ]
        return Layout(self.slots.to(like.device), reads)


class PagedCache:
    """Keys and values of every request. One slot holds one token; `page_tokens` slots are a page.

    `plan` is called once a step and decides where rows are written and read; `attend` then runs once a layer. Each
    layer's pages lie where the layer runs.
    """

    def __init__(self, config: ThinkerConfig, pages: Pages):
        self.page_tokens = pages.page_tokens
        self.num_slots = pages.num_pages * pages.page_tokens
        self.num_shared = config.num_attention_heads // config.num_key_value_heads  # G, query heads per key head
        self.kept: dict[int, tuple[Tensor, Tensor]] = {}  # layer -> keys, values (slots, K, C)
        self._planned: Layout | None = None
        self._layouts: dict[torch.device, Layout] = {}  # the planned one, on each device that has asked for it

    def plan(self, spans: list[Span]) -> list[Span]:
        """Lay out a step; returns the spans in the order their rows must be packed."""
        # One row each: requests of similar length are read together, so that little of a read is padding.
        single = sorted((s for s in spans if s.num_rows == 1), key=lambda s: s.stop)
        chunks = [s for s in spans if s.num_rows > 1]
        groups: list[list[Span]] = []
        for span in single:
            if not groups or span.stop > 2 * groups[-1][0].stop + self.page_tokens:
                groups.append([])
            groups[-1].append(span)
        reads = [self._read(group) for group in groups] + [self._read([chunk]) for chunk in chunks]
        spans = single + chunks
        slots = torch.from_numpy(np.concatenate([self._slots(s) for s in spans]))
        self._planned, self._layouts = Layout(slots, reads), {}
        return spans

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        """Store the new k, v (1, K, R, C), then let each of the R rows of q (1, H, R, C) see its own request.

        mask is None: what a row may see follows from the plan.
        """
        assert mask is None
        layout = self._layouts.get(q.device)
        if layout is None:
            layout = self._layouts[q.device] = self._planned.to(q)
        if layer not in self.kept:
            shape = (self.num_slots, k.shape[1], k.shape[3])
            self.kept[layer] = zeros(shape, k.dtype, k.device), zeros(shape, v.dtype, v.device)
        keys, values = self.kept[layer]
        keys.index_copy_(0, layout.slots, k[0].transpose(0, 1))
        values.index_copy_(0, layout.slots, v[0].transpose(0, 1))
        outputs, start = [], 0
        for read in layout.reads:
            outputs.append(self._attend(read, q[0, :, start : start + read.num_rows], keys, values))
            start += read.num_rows
        return (outputs[0] if len(outputs) == 1 else torch.cat(outputs, 1))[None]

    def _attend(self, read: Read, q: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """q (H, B · T, C) -> (H, B · T, C)"""
        num_heads, _, channels = q.shape
        num_shared, num_new = self.num_shared, read.num_new
        # The query heads that share a key head become its queries, so keys are never repeated.
        q = q.reshape(num_heads // num_shared, num_shared, -1, num_new, channels)  # (K, G, B, T, C)
        q = q.permute(2, 0, 1, 3, 4).flatten(2, 3)  # (B, K, G · T, C)
        out = F.scaled_dot_product_attention(q, self._gather(keys, read), self._gather(values, read), read.mask)
        out = out.unflatten(2, (num_shared, num_new)).permute(1, 2, 0, 3, 4)  # (K, G, B, T, C)
        return out.reshape(num_heads, read.num_rows, channels)

    def _gather(self, kept: Tensor, read: Read) -> Tensor:
        """kept (slots, K, C) -> (B, K, S, C)"""
        if read.slots is not None:
            return kept[read.slots].transpose(0, 1)[None]
        found = kept.unflatten(0, (-1, self.page_tokens))[read.pages].flatten(1, 2)
        return found[:, : read.length].transpose(1, 2)

    def _read(self, spans: list[Span]) -> Read:
        num_new, length = spans[0].num_rows, max(s.stop for s in spans)
        slots = pages = None
        tables = [s.sequence.pages[: -(-s.stop // self.page_tokens)] for s in spans]
        if len(spans) == 1 and tables[0] == list(range(tables[0][0], tables[0][0] + len(tables[0]))):
            first = tables[0][0] * self.page_tokens
            slots = slice(first, first + length)
        else:
            longest = max(map(len, tables))
            pages = torch.tensor([t + [t[0]] * (longest - len(t)) for t in tables])
        return Read(len(spans) * num_new, num_new, slots, pages, length, self._mask(spans, num_new, length))

    def _mask(self, spans: list[Span], num_new: int, length: int) -> Tensor | None:
        """Zero where a row may look, minus infinity where it may not; None when every row sees everything."""
        if num_new == 1 and all(s.stop == length for s in spans):
            return None
        last = torch.tensor([s.start for s in spans])[:, None] + torch.arange(num_new)  # (B, T), a row's own place
        hidden = torch.arange(length) > last[..., None]  # (B, T, S)
        mask = torch.zeros(hidden.shape).masked_fill_(hidden, -torch.inf)
        if num_new > 1:
            mask = mask.repeat(1, self.num_shared, 1)
        return mask[:, None]

    def _slots(self, span: Span) -> np.ndarray:
        places = np.arange(span.start, span.stop)
        pages = np.asarray(span.sequence.pages)[places // self.page_tokens]
        return pages * self.page_tokens + places % self.page_tokens


def zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Zeros, because a masked key must still be a number. On a CPU, memory is only spent once a page is written."""
    if device.type != "cpu":
        return torch.zeros(shape, dtype=dtype, device=device)
    # An anonymous map, because numpy asks for huge pages: a short prompt would fill 60 of 2 MB, half a second of work.
    return torch.frombuffer(mmap.mmap(-1, int(np.prod(shape)) * dtype.itemsize), dtype=dtype).view(shape)
