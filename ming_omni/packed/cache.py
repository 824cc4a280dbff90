"""Keys and values of the tokens read so far, with room to grow: a new token is written in place, nothing is copied."""

from __future__ import annotations

from torch import Tensor

from ming_omni.model.layers import attend

ROOM = 256
"""Tokens by which a full cache grows."""


class RoomyCache:
    """Does what `KVCache` does."""

    def __init__(self, implementation: str | None = None):
        self.implementation = implementation
        self.kept: dict[int, list[Tensor]] = {}  # layer -> keys and values (B, K, room, C)
        self.lengths: dict[int, int] = {}

    @property
    def length(self) -> int:
        """Tokens kept, padding included."""
        return self.lengths.get(0, 0)

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        start, added = self.lengths.get(layer, 0), k.shape[2]
        end = self.lengths[layer] = start + added
        if layer not in self.kept:
            self.kept[layer] = [_room(new, end) for new in (k, v)]
        elif end > self.kept[layer][0].shape[2]:
            self.kept[layer] = [_room(old, end) for old in self.kept[layer]]
        keys, values = self.kept[layer]
        keys.narrow(2, start, added).copy_(k)
        values.narrow(2, start, added).copy_(v)
        return attend(q, keys.narrow(2, 0, end), values.narrow(2, 0, end), mask, self.implementation)


def _room(content: Tensor, length: int) -> Tensor:
    """The same content (B, K, S, C) in a tensor that holds `length` tokens and some more."""
    num_rows, num_heads, kept, channels = content.shape
    roomy = content.new_empty(num_rows, num_heads, length + ROOM, channels)
    roomy[:, :, :kept] = content
    return roomy
