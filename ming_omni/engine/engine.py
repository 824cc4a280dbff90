"""Requests from any thread -> one thread that steps the model -> tokens back to whoever waits, sync or async."""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field, replace

from ming_omni.engine.cache import PagedCache
from ming_omni.engine.pages import Pages
from ming_omni.engine.request import Closing, Request, Sequence, Token
from ming_omni.engine.runner import Runner
from ming_omni.engine.scheduler import Scheduler, Span
from ming_omni.errors import InputError
from ming_omni.model.omni import MingForConditionalGeneration

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Options:
    """Sizes of the engine. The defaults suit nano on two CPU cores."""

    max_running: int = 32
    max_waiting: int = 256
    step_tokens: int = 256
    """Prompt tokens read in one step: a long prompt is cut, so that the engine looks up in between."""
    shared_step_tokens: int = 64
    """The same while somebody is being answered, who then waits no longer than this."""
    page_tokens: int = 16
    cache_tokens: int | None = None
    """Tokens whose keys and values are kept, over all requests; None: as many as the model reads at most."""


@dataclass
class Counts:
    """What the engine has done since it started."""

    prompt_tokens: int = 0
    answer_tokens: int = 0
    steps: int = 0
    step_seconds: float = 0.0
    finished: Counter[str] = field(default_factory=Counter)
    """requests by how they ended"""
    first_token_seconds: Counter[float] = field(default_factory=Counter)
    """requests by the bucket of their time to the first token, see FIRST_TOKEN_BUCKETS"""
    first_token_total_seconds: float = 0.0


FIRST_TOKEN_BUCKETS = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, float("inf"))


class Stream:
    """The tokens of one request as they come, for `for` and `async for`. `finish` tells how it ended.

    Whoever stops listening calls `cancel`, or uses the stream as a context manager.
    """

    def __init__(self, engine: Engine, sequence: Sequence, loop: asyncio.AbstractEventLoop | None):
        self.engine = engine
        self.sequence = sequence
        self.finish: str | None = None
        """stop: a stop id; length: no more room; cancelled"""
        self.submitted_at = time.monotonic()
        self.first_token_at: float | None = None
        self.loop = loop
        self._queue: asyncio.Queue | queue.SimpleQueue = queue.SimpleQueue() if loop is None else asyncio.Queue()

    def cancel(self, how: str = "cancelled") -> None:
        """Stop working on it; its memory is free before the engine's next step. Harmless when it is over.

        how  what is counted: "stop" when the listener found the end of the answer itself
        """
        self.engine.cancel(self.sequence, how)

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_) -> None:
        self.cancel()

    def __iter__(self) -> Iterator[Token]:
        assert self.loop is None, "this stream was made for an event loop: use `async for`"
        while (token := self._take(self._queue.get())) is not None:
            yield token

    async def __aiter__(self) -> AsyncIterator[Token]:
        assert self.loop is not None, "this stream was made for no event loop: use `for`"
        while (token := self._take(await self._queue.get())) is not None:
            yield token

    def put(self, item: Token | str | Exception) -> None:
        self._queue.put_nowait(item) if self.loop else self._queue.put(item)

    def _take(self, item: Token | str | Exception) -> Token | None:
        if isinstance(item, Token):
            return item
        if isinstance(item, Exception):
            raise item
        self.finish = item
        return None


class Engine:
    """Many requests, one model. `submit` is safe in every thread; the model runs in the engine's own.

    Without `start`, a caller may `step` it by hand.
    """

    def __init__(self, model: MingForConditionalGeneration, options: Options = Options()):
        self.model = model
        self.options = options
        config = model.config.thinker
        num_tokens = options.cache_tokens or config.max_position_embeddings
        self.pages = Pages(-(-num_tokens // options.page_tokens), options.page_tokens)
        self.scheduler = Scheduler(
            self.pages,
            step_tokens=options.step_tokens,
            shared_step_tokens=options.shared_step_tokens,
            max_running=options.max_running,
            max_waiting=options.max_waiting,
        )
        self.runner = Runner(model, PagedCache(config, self.pages))
        self.longest = min(config.max_position_embeddings, self.pages.num_pages * options.page_tokens)
        self.counts = Counts()
        self.streams: dict[Sequence, Stream] = {}
        self.is_draining = False
        self._is_stopped = False
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def submit(self, request: Request, loop: asyncio.AbstractEventLoop | None = None) -> Stream:
        """Queue a request. What is wrong with it, or with the moment, is said here and not in the stream.

        loop  where the stream is listened to with `async for`; None: a plain `for` listens, in any thread
        """
        length = len(request.prompt)
        room = self.longest - length
        if room <= 0:
            raise InputError(f"the prompt is {length} tokens long; this model reads fewer than {self.longest}")
        if request.max_tokens is None:
            request = replace(request, max_tokens=room)
        elif not 0 <= request.max_tokens <= room:
            raise InputError(f"after a prompt of {length} tokens max_tokens is 0 to {room}, not {request.max_tokens}")
        stream = Stream(self, Sequence(request), loop)
        with self._changed:
            self.check_open()
            self.scheduler.add(stream.sequence)
            self.streams[stream.sequence] = stream
            self._changed.notify()
        return stream

    def check_open(self) -> None:
        """Refuse, as `submit` would, before work is put into a request."""
        if self.is_draining or self._is_stopped:
            raise Closing("this server is shutting down")
        self.scheduler.check_room()

    def cancel(self, sequence: Sequence, how: str = "cancelled") -> None:
        with self._changed:
            sequence.cancelled = sequence.cancelled or how
            self._changed.notify()

    def start(self) -> Engine:
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()
        return self

    @property
    def is_alive(self) -> bool:
        return self._thread is not None and self._thread.is_alive() and not self._is_stopped

    def drain(self) -> None:
        """Take no more requests; those at work go on."""
        self.is_draining = True

    def stop(self) -> None:
        """Cancel everything and end the thread."""
        with self._changed:
            self._is_stopped = True
            for sequence in self.streams:
                sequence.cancelled = "cancelled"
            self._changed.notify()
        if self._thread:
            self._thread.join()
        delivery: list[tuple[Stream, Token | str | Exception]] = []
        with self._changed:
            for sequence in list(self.streams):
                self._end(sequence, sequence.cancelled, delivery)
        _deliver(delivery)

    def step(self) -> bool:
        """Drop who was cancelled, compute one step, hand out its tokens. False: there was nothing to compute."""
        delivery: list[tuple[Stream, Token | str | Exception]] = []
        with self._changed:
            for sequence in [s for s in self.streams if s.cancelled]:
                self._end(sequence, sequence.cancelled, delivery)
            spans = self.scheduler.plan()
        has_work = bool(spans)
        if has_work:
            started = time.monotonic()
            spans, chosen = self._compute(spans, delivery)
            self.counts.steps += 1
            self.counts.step_seconds += time.monotonic() - started
            with self._changed:
                for span in spans:
                    self.scheduler.advance(span)
                for sequence, token in chosen:
                    self._take(sequence, token, delivery)
        _deliver(delivery)
        return has_work

    def _compute(self, spans: list[Span], delivery: list) -> tuple[list[Span], list[tuple[Sequence, Token]]]:
        """Run the model; a request that cannot be computed ends here, and only it if it fails on its own media."""
        sound = []
        for span in spans:
            try:
                self.runner.encode(span)
                sound.append(span)
            except Exception as error:
                self._fail([span], error, delivery)
        try:
            return sound, self.runner.step(sound) if sound else []
        except Exception as error:
            self._fail(sound, error, delivery)
            return [], []

    def _fail(self, spans: list[Span], error: Exception, delivery: list) -> None:
        log.error("%d requests are lost", len(spans), exc_info=error)
        with self._changed:
            for span in spans:
                self._end(span.sequence, "error", delivery, error)

    def _run(self) -> None:
        try:
            while not self._is_stopped:
                if not self.step():
                    with self._changed:
                        self._changed.wait_for(self._has_work)
        except BaseException as error:
            # A defect of the engine itself: whoever waits must hear of it rather than wait for ever.
            with self._changed:
                self._is_stopped = True
                orphans = [(stream, error) for stream in self.streams.values()]
                self.streams.clear()
            _deliver(orphans)
            raise

    def _has_work(self) -> bool:
        return self._is_stopped or bool(self.streams)

    def _take(self, sequence: Sequence, token: Token, delivery: list) -> None:
        """One new token of a request: hand it on, and see whether it was the last."""
        request, stream = sequence.request, self.streams[sequence]
        if stream.first_token_at is None:
            self._count_first_token(stream)
        if request.max_tokens == 0:
            self._end(sequence, "length", delivery)
        elif token.id in request.stop_ids:
            self._end(sequence, "stop", delivery)
        else:
            sequence.ids.append(token.id)
            self.counts.answer_tokens += 1
            delivery.append((stream, token))
            if sequence.num_answered == request.max_tokens:
                self._end(sequence, "length", delivery)

    def _count_first_token(self, stream: Stream) -> None:
        stream.first_token_at = time.monotonic()
        seconds = stream.first_token_at - stream.submitted_at
        self.counts.prompt_tokens += len(stream.sequence.prompt)
        self.counts.first_token_seconds[next(b for b in FIRST_TOKEN_BUCKETS if seconds <= b)] += 1
        self.counts.first_token_total_seconds += seconds

    def _end(self, sequence: Sequence, how: str, delivery: list, error: Exception | None = None) -> None:
        self.scheduler.drop(sequence)
        self.counts.finished[how] += 1
        delivery.append((self.streams.pop(sequence), error or how))


def _deliver(delivery: list[tuple[Stream, Token | str | Exception]]) -> None:
    """Hand items to their streams; each event loop is woken once."""
    by_loop = defaultdict(list)
    for stream, item in delivery:
        by_loop[stream.loop].append((stream, item))
    for loop, items in by_loop.items():
        if loop is None:
            _put(items)
            continue
        try:
            loop.call_soon_threadsafe(_put, items)
        except RuntimeError:  # the loop has closed, perhaps just now: nobody can listen any more
            for stream, _ in items:
                stream.cancel()


def _put(items: list[tuple[Stream, Token | str | Exception]]) -> None:
    for stream, item in items:
        stream.put(item)
