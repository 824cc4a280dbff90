"""Blocking work (speech, pictures) beside the event loop: a few at a time, stopped when nobody waits for it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Generator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

from fastapi import Request

from ming_omni.engine.request import Busy
from ming_omni.serve.door import while_connected

T = TypeVar("T")
END = object()


class Seats:
    """Room for so many at once, a thread for each; more are told to come back."""

    def __init__(self, count: int, what: str, **threads: Any):
        """what  they do, in the sentence that refuses: "texts are being spoken"; threads  of `ThreadPoolExecutor`"""
        self.count, self.what, self.num_taken = count, what, 0
        self.threads = ThreadPoolExecutor(**{"max_workers": count} | threads)

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

    def __init__(self, generator: Generator[T, Any, Any], threads: Executor):
        self.generator, self.threads = generator, threads
        self.is_cancelled = False
        self.at_work: Future | None = None

    def cancel(self) -> None:
        """No further item; the generator is closed at once, or as soon as the item at work is there."""
        if self.is_cancelled:
            return
        self.is_cancelled = True
        if self.at_work:
            self.at_work.add_done_callback(lambda _: self.threads.submit(self.generator.close))
        else:
            self.threads.submit(self.generator.close)

    async def __aiter__(self) -> AsyncIterator[T]:
        try:
            while not self.is_cancelled:
                self.at_work = self.threads.submit(next, self.generator, END)
                item = await asyncio.wrap_future(self.at_work)
                if item is END:
                    return
                yield item
        finally:
            self.cancel()


class Studio:
    """One thread that paints, a picture at a time."""

    def __init__(self, max_inside: int):
        what = "pictures are being painted or wait"
        self.seats = Seats(max_inside, what, max_workers=1, thread_name_prefix="paint")

    async def paint(self, http: Request, work: Callable[[Callable[[Any], bool]], T]) -> T | None:
        """What `work` returns; None once the client has left. `work` hands its argument on as `on_step`."""
        has_left = threading.Event()

        def on_step(_: Any) -> bool:
            return not has_left.is_set()

        def unless_left() -> T | None:
            return None if has_left.is_set() else work(on_step)

        with self.seats.taken():
            async with while_connected(http, has_left.set):
                return await asyncio.get_running_loop().run_in_executor(self.seats.threads, unless_left)
