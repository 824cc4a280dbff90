"""A pause in what the user says -> the turn read by the model while it is still uncertain whether it is over.

When it is, its tokens are in the cache by then; when the user goes on, the work was in vain. Nothing is told of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

import numpy as np
from starlette.concurrency import run_in_threadpool

from ming_omni.converse.memory import Content, Item, Memory, sound_content
from ming_omni.engine.request import Request
from ming_omni.ming import Ming


class Ahead:
    """One turn at a time."""

    def __init__(self, ming: Ming, memory: Memory, user: str, give_up: Callable[[], None]):
        """give_up  ends the reading of a turn that was not over"""
        self.ming, self.memory, self.user, self._give_up = ming, memory, user, give_up
        self._samples: np.ndarray | None = None
        self._content: asyncio.Task[Content] | None = None
        self._prompt: asyncio.Task[None] | None = None

    def begin(self, samples: np.ndarray, instructions: str | None) -> None:
        """samples (n,) at 16 kHz: what the user has said, if this was all"""
        self.cancel()
        self._samples = samples
        self._content = asyncio.create_task(run_in_threadpool(sound_content, self.memory.reader, samples))
        self._prompt = asyncio.create_task(self._read(self._content, instructions))

    async def content(self, samples: np.ndarray) -> Content:
        """The turn as a part of an item; it was all, or it was not."""
        if self._content is not None and samples is self._samples:
            return await self._content
        self.cancel()
        return await run_in_threadpool(sound_content, self.memory.reader, samples)

    def cancel(self) -> None:
        if self._prompt is not None:
            self._prompt.cancel()
            self._give_up()
        self._samples = self._content = self._prompt = None

    async def _read(self, content: asyncio.Task[Content], instructions: str | None) -> None:
        with suppress(Exception):  # whatever is wrong is said when it is asked for in earnest
            item = Item("ahead", "user", [await asyncio.shield(content)])
            prompt = Memory(self.memory.reader, [*self.memory.items, item]).prompt(instructions)
            request = Request(prompt, max_tokens=0, user=self.user)
            with self.ming.engine.submit(request, asyncio.get_running_loop()) as stream:
                async for _ in stream:
                    pass
