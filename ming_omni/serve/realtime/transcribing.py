"""What a user says -> its words, beside the answer and one turn at a time, for sessions that ask for them."""

from __future__ import annotations

import asyncio
from concurrent.futures import Executor

import numpy as np

from ming_omni.converse.memory import Content, Item
from ming_omni.engine.request import Busy
from ming_omni.inputs.mel import SAMPLE_RATE_HZ
from ming_omni.ming import Ming
from ming_omni.serve.realtime.outbox import Outbox
from ming_omni.serve.realtime.response import fault
from ming_omni.serve.realtime.schema import Transcription
from ming_omni.transcribe.listening import Listening, transcribe

EVENT = "conversation.item.input_audio_transcription"
MOST_WAITING = 8
"""Turns whose words are still to be written down; more are not."""


class Transcribing:
    """The turns of one session, in order."""

    def __init__(self, ming: Ming, outbox: Outbox, threads: Executor, user: str):
        self.ming, self.outbox, self.threads, self.user = ming, outbox, threads, user
        self._tasks: set[asyncio.Task] = set()
        self._turn = asyncio.Lock()
        self._listening: Listening | None = None
        self._words: Listening | None = None

    def begin(self, item: Item, content: Content, samples: np.ndarray, settings: Transcription) -> None:
        """samples (n,) at 16 kHz"""
        if len(self._tasks) >= MOST_WAITING:
            cause = Busy(f"{MOST_WAITING} turns are still to be written down")
            self.outbox.put(f"{EVENT}.failed", error=fault(cause), item_id=item.id, content_index=0)
            return
        task = asyncio.create_task(self._run(item, content, samples, settings))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def cancel(self) -> None:
        for task in self._tasks:
            task.cancel()
        if self._listening is not None:
            self._listening.cancel()
        self.give_up_words()

    def words(self, samples: np.ndarray, settings: Transcription) -> str:
        """What is said in samples (n,) at 16 kHz, for a model that must know before it answers. In a thread."""
        self._words = self._listen(samples, settings)
        return "".join(update.text for update in self._words)

    def give_up_words(self) -> None:
        """Nobody waits for them any more: the user goes on speaking, or has left."""
        if self._words is not None:
            self._words.cancel()

    def _listen(self, samples: np.ndarray, settings: Transcription) -> Listening:
        return transcribe(
            self.ming,
            (samples, SAMPLE_RATE_HZ),
            context=settings.context,
            language=settings.language,
            stream=True,
            user=self.user,
        )

    async def _run(self, item: Item, content: Content, samples: np.ndarray, settings: Transcription) -> None:
        place = {"item_id": item.id, "content_index": 0}
        async with self._turn:
            loop = asyncio.get_running_loop()

            def tell(piece: str) -> None:
                self.outbox.put(f"{EVENT}.delta", delta=piece, **place)

            def write() -> str:
                """In a thread."""
                self._listening = self._listen(samples, settings)
                text = ""
                for update in self._listening:
                    if update.text:
                        loop.call_soon_threadsafe(tell, update.text)
                        text += update.text
                return text

            try:
                if content.text is None:
                    content.text = await loop.run_in_executor(self.threads, write)
                elif content.text:  # the model had to know the words before it could answer
                    tell(content.text)
                usage = {"type": "duration", "seconds": round(len(samples) / SAMPLE_RATE_HZ, 3)}
                self.outbox.put(f"{EVENT}.completed", transcript=content.text, usage=usage, **place)
            except Exception as cause:
                self.outbox.put(f"{EVENT}.failed", error=fault(cause), **place)
