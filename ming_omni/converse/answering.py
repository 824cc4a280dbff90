"""A prompt -> one answer as it comes: pieces of text, and their sound, spoken while the rest is still being written.

The engine writes, a thread speaks, an event loop listens to both. `cancel` stops either within one step.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Executor
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from ming_omni.engine.engine import Engine
from ming_omni.engine.request import Request
from ming_omni.engine.text import Answer
from ming_omni.inputs.tokenizer import Tokenizer
from ming_omni.speak.speaker import PAUSE_SECONDS, Speaker
from ming_omni.speech import normalize
from ming_omni.speech.plain import has_chinese
from ming_omni.speech.sentences import Splitter

AHEAD = 32
"""Pieces of sound that are spoken before the listener has taken the first of them."""


@dataclass(frozen=True)
class Wrote:
    """More text."""

    text: str


@dataclass(frozen=True)
class Began:
    """The speaker turns to the next sentence of the text."""

    sentence: str


@dataclass(frozen=True)
class Sounded:
    """More of its sound, or of the pause before it."""

    samples: np.ndarray
    """(n,)"""


@dataclass(frozen=True)
class Ended:
    """The sentence has been spoken to its end."""


@dataclass(frozen=True)
class Failed:
    cause: BaseException


Event = Wrote | Began | Sounded | Ended


@dataclass(frozen=True)
class Style:
    """How an answer sounds."""

    voice: Any = None
    speed: float = 1.0
    sample_rate_hz: int = 24_000


class Answering:
    """One answer. Iterate over it once; `finish` then tells how it ended, `ids` what was written."""

    def __init__(
        self,
        engine: Engine,
        tokenizer: Tokenizer,
        request: Request,
        speaker: Speaker | None,
        style: Style,
        threads: Executor,
    ):
        """speaker  None: the answer stays text"""
        self.finish: str | None = None
        """stop, length or cancelled, in the end"""
        self.ids: list[int] = []
        self.is_cancelled = False
        self._tokenizer, self._speaker, self._style, self._threads = tokenizer, speaker, style, threads
        self._loop = asyncio.get_running_loop()
        self.stream = engine.submit(request, self._loop)
        self._events: asyncio.Queue[Event | Failed | None] = asyncio.Queue()
        self._sentences: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._room = threading.Semaphore(AHEAD)

    def cancel(self) -> None:
        """The iteration ends at once; engine and speaker before their next step. Harmless when it is over."""
        self.is_cancelled = True
        self.stream.cancel()
        self._sentences.put(None)
        self._room.release()
        for _ in range(2):
            self._events.put_nowait(None)

    async def __aiter__(self) -> AsyncIterator[Event]:
        writing = asyncio.create_task(self._write())
        num_open = 1
        if self._speaker is not None:
            num_open = 2
            self._loop.run_in_executor(self._threads, self._speak)
        try:
            while num_open and not self.is_cancelled:
                event = await self._events.get()
                if event is None:
                    num_open -= 1
                elif isinstance(event, Failed):
                    raise event.cause
                elif not self.is_cancelled:
                    yield event
                    if isinstance(event, Sounded):
                        self._room.release()
            self.finish = "cancelled" if self.is_cancelled else self.stream.finish
        finally:
            self.cancel()
            writing.cancel()

    async def _write(self) -> None:
        """Tokens -> text for the listener, and sentences for the speaker."""
        answer, splitter = Answer(self._tokenizer.stream()), Splitter()

        def take(piece: str) -> None:
            if piece:
                self._events.put_nowait(Wrote(piece))
                for sentence in splitter.feed(piece):
                    self._sentences.put(sentence)

        try:
            async for token in self.stream:
                self.ids.append(token.id)
                take(answer.push(token)[0])
            take(answer.finish()[0])
            for sentence in splitter.finish():
                self._sentences.put(sentence)
        except Exception as cause:
            self._events.put_nowait(Failed(cause))
        finally:
            self._sentences.put(None)
            self._events.put_nowait(None)

    def _speak(self) -> None:
        """Sentences -> sound, in a thread of its own."""
        try:
            with closing(self._spoken()) as events:
                for event in events:
                    if isinstance(event, Sounded):
                        self._room.acquire()
                    if self.is_cancelled:
                        return
                    self._put(event)
        except Exception as cause:
            self._put(Failed(cause))
        finally:
            self._put(None)

    def _spoken(self) -> Iterator[Event]:
        style, num_said, is_chinese = self._style, 0, False
        while (sentence := self._sentences.get()) is not None and not self.is_cancelled:
            is_chinese = is_chinese or has_chinese(sentence)
            if not normalize.spoken(sentence, is_chinese):
                continue
            if num_said:
                yield Sounded(np.zeros(int(PAUSE_SECONDS * style.sample_rate_hz), np.float32))
            yield Began(sentence)
            num_said += 1
            chunks = self._speaker.speak(
                sentence, style.voice, speed=style.speed, stream=True, sample_rate_hz=style.sample_rate_hz
            )
            with closing(chunks):
                for samples in chunks:
                    yield Sounded(samples)
            yield Ended()

    def _put(self, event: Event | Failed | None) -> None:
        with suppress(RuntimeError):  # the loop has closed: nobody listens any more
            self._loop.call_soon_threadsafe(self._events.put_nowait, event)
