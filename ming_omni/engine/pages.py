"""Token signatures -> pages of the KV cache: who holds a page, which pages can be shared, which is given up next."""

from __future__ import annotations

from collections import OrderedDict
from hashlib import blake2b

import numpy as np


def page_keys(signatures: np.ndarray, page_tokens: int, parent: bytes = b"") -> list[bytes]:
    """Name every full page by a hash of the page before it and of its own tokens.

    signatures  (T, n) integers, everything a token's keys and values depend on, see `request.Sequence`
    Equal names mean equal tokens from the very first one on, so the pages hold the same keys and values.
    """
    keys = []
    for start in range(0, len(signatures) - page_tokens + 1, page_tokens):
        parent = blake2b(parent + signatures[start : start + page_tokens].tobytes(), digest_size=16).digest()
        keys.append(parent)
    return keys


class Pages:
    """A fixed number of pages. Each is held by some requests, or idle; an idle page keeps its content until reused."""

    def __init__(self, num_pages: int, page_tokens: int):
        self.num_pages = num_pages
        self.page_tokens = page_tokens
        self.num_holders = [0] * num_pages
        self.key_of: list[bytes | None] = [None] * num_pages
        self.page_of: dict[bytes, int] = {}
        self.idle = OrderedDict.fromkeys(range(num_pages))  # the next page to give up comes first

    def count(self, num_tokens: int) -> int:
        """Pages that hold so many tokens."""
        return -(-num_tokens // self.page_tokens)

    def share(self, keys: list[bytes]) -> list[int]:
        """Hold the longest known prefix of these keys."""
        pages = []
        for key in keys:
            page = self.page_of.get(key)
            if page is None:
                break
            if self.num_holders[page] == 0:
                del self.idle[page]
            self.num_holders[page] += 1
            pages.append(page)
        return pages

    def take(self, after: int | None = None) -> int | None:
        """Hold an empty page, or None if every page is held.

        The neighbour of `after` is preferred when it is empty anyway: neighbours can be read without copying.
        """
        if not self.idle:
            return None
        neighbour = None if after is None else after + 1
        if neighbour in self.idle and self.key_of[neighbour] is None:
            page = neighbour
            del self.idle[page]
        else:
            page, _ = self.idle.popitem(last=False)
        if (key := self.key_of[page]) is not None:
            del self.page_of[key]
            self.key_of[page] = None
        self.num_holders[page] = 1
        return page

    def publish(self, page: int, key: bytes) -> None:
        """Let others share this page from now on. If an equal page is already known, this one stays private."""
        if key not in self.page_of:
            self.page_of[key] = page
            self.key_of[page] = key

    def release(self, pages: list[int]) -> None:
        """Let go. Shareable pages wait at the end of the line, the last of a prompt before the first of it."""
        for page in reversed(pages):
            self.num_holders[page] -= 1
            if self.num_holders[page] == 0:
                self.idle[page] = None
                if self.key_of[page] is None:
                    self.idle.move_to_end(page, last=False)
