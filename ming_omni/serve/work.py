"""Blocking work (speech, pictures) beside the event loop: a few at a time, stopped when nobody waits for it."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import AsyncIterator, Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

from anyio import CapacityLimiter, to_thread
from fastapi import Request

from ming_omni.engine.request import Busy
from ming_omni.serve.door import while_connected

T = TypeVar("T")
NICENESS = 10
END = object()


class Seats:
    """Room for so many at once; more are told to come back."""

    def __init__(self, count: int, what: str):
        """what  they do, in the sentence that refuses: "texts are being spoken" """
        self.count, self.what, self.num_taken = count, what, 0
        self.limiter = CapacityLimiter(count)

    def check(self) -> None:
        if self.num_taken >= self.count:
            raise Busy(f"{self.count} {self.what} already; try again shortly")

    @contextmanager
    def taken(self):
        self.check()
        self.num_taken += 1
        try:
            yield
        finally:
            self.num_taken -= 1


class Pieces(Generic[T]):
    """A blocking generator for `async for`: each item is fetched in a thread, when the listener wants it."""

    def __init__(self, generator: Generator[T, Any, Any], limiter: CapacityLimiter):
        self.generator, self.limiter, self.is_cancelled = generator, limiter, False

    def cancel(self) -> None:
        """No further item; the generator is closed as soon as the one at work is there."""
        self.is_cancelled = True

    async def __aiter__(self) -> AsyncIterator[T]:
        try:
            while not self.is_cancelled:
                item = await to_thread.run_sync(next, self.generator, END, limiter=self.limiter)
                if item is END or self.is_cancelled:
                    return
                yield item
        finally:
            self.generator.close()


class Studio:
    """One thread that paints. The operating system lets it run behind the threads that write and speak."""

    def __init__(self, max_inside: int):
        self.seats = Seats(max_inside, "pictures are being painted or wait")
        self.thread = ThreadPoolExecutor(1, "paint", initializer=step_back)

    async def paint(self, http: Request, work: Callable[[Callable[[Any], bool]], T]) -> T | None:
        """What `work` returns; None once the client has left. `work` hands its argument on as `on_step`."""
        has_left = threading.Event()

        def on_step(_: Any) -> bool:
            return not has_left.is_set()

        def unless_left() -> T | None:
            return None if has_left.is_set() else work(on_step)

        with self.seats.taken():
            async with while_connected(http, has_left.set):
                return await asyncio.get_running_loop().run_in_executor(self.thread, unless_left)


def step_back() -> None:
    """Lower the priority of this thread, and of those that it starts to compute with it."""
    if sys.platform == "linux":  # elsewhere a thread has no priority of its own
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
