"""An answer as it is written -> the same answer spoken: sentence by sentence, as `audio` of a message or its deltas."""

from __future__ import annotations

import asyncio
import time
import uuid
from base64 import b64encode
from collections import OrderedDict
from collections.abc import AsyncIterator, Generator
from contextlib import closing, suppress
from queue import SimpleQueue
from typing import Any

from ming_omni.engine.request import Closing
from ming_omni.ming import Ming
from ming_omni.serve.choices import Piece, Reply
from ming_omni.serve.door import Refused
from ming_omni.serve.schema import ChatAudio
from ming_omni.serve.speech import rate_of
from ming_omni.serve.work import Pieces, Seats
from ming_omni.speak.output import encode
from ming_omni.speak.speaker import NothingToSay

KEPT_SECONDS = 3600
KEPT_ANSWERS = 1000
AHEAD = 64
"""Pieces that wait for a client that reads slowly; then speaking pauses."""


class Transcripts:
    """What was said in recent answers: a client names a spoken turn by its id, and the model reads its words."""

    def __init__(self):
        self.kept: OrderedDict[str, tuple[str, float]] = OrderedDict()

    def keep(self, id_: str, text: str) -> None:
        self.kept[id_] = text, time.monotonic() + KEPT_SECONDS
        while len(self.kept) > KEPT_ANSWERS:
            self.kept.popitem(last=False)

    def recall(self, message: dict[str, Any]) -> dict[str, Any]:
        """A chat message whose `audio`, if it has one, has become its content."""
        audio = message.pop("audio", None)
        if audio is None:
            return message
        text, until = self.kept.get(audio["id"], ("", 0.0))
        if time.monotonic() >= until:
            raise Refused(404, f"there is no audio {audio['id']!r} here any more; send its transcript as content")
        return message | {"content": text}


class Reader:
    """Reads aloud what `texts` will bring, up to None. Runs in threads; a wrong voice is refused at once."""

    def __init__(self, ming: Ming, audio: ChatAudio):
        self.texts: SimpleQueue[str | None] = SimpleQueue()
        self.form = "pcm" if audio.format == "pcm16" else audio.format
        self.rate_hz = rate_of(self.form, ming.speaker.sample_rate_hz)
        self.chunks = ming.speak(iter(self.texts.get, None), audio.voice, sample_rate_hz=self.rate_hz, stream=True)

    def sound(self) -> Generator[bytes, None, None]:
        with closing(self.chunks), suppress(NothingToSay):  # an answer of marks alone is a silent one
            yield from encode(self.chunks, self.form, self.rate_hz)


class SpokenReply:
    """A reply of one choice with its speech, which begins after the first sentence. Has the methods of `Reply`."""

    def __init__(self, reply: Reply, reader: Reader, seats: Seats, transcripts: Transcripts):
        self.reply, self.seats, self.transcripts = reply, seats, transcripts
        self.id, self.expires_at = f"audio_{uuid.uuid4().hex}", int(time.time()) + KEPT_SECONDS
        self.texts, self.pieces = reader.texts, Pieces(reader.sound(), seats.threads)
        self.tasks: list[asyncio.Task] = []

    def cancel(self) -> None:
        self.reply.cancel()
        self.pieces.cancel()
        self.texts.put(None)  # wakes a reader that waits for the next sentence
        for task in self.tasks:
            task.cancel()

    async def whole(self) -> dict:
        text, data, ending = "", b"", None
        async for item in self._both():
            if isinstance(item, bytes):
                data += item
            else:
                text, ending = text + item.text, item
        shown = self.reply.shown(ending, "message")
        audio = {"id": self.id, "data": b64encode(data).decode(), "transcript": text, "expires_at": self.expires_at}
        shown["message"] |= {"content": None, "audio": audio}
        return {"object": "chat.completion", **self.reply.head, "choices": [shown], "usage": self.reply.usage()}

    async def chunks(self, has_usage: bool) -> AsyncIterator[dict]:
        head = {"object": "chat.completion.chunk", **self.reply.head}
        tail = {"usage": None} if has_usage else {}

        def chunk(delta: dict, finish_reason: str | None = None) -> dict:
            choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
            return {**head, "choices": [choice], **tail}

        yield chunk({"role": "assistant", "content": None, "audio": {"id": self.id, "transcript": ""}})
        finish_reason = None
        async for item in self._both():
            if isinstance(item, bytes):
                yield chunk({"audio": {"id": self.id, "data": b64encode(item).decode()}})
                continue
            finish_reason = item.finish_reason
            if item.text:
                yield chunk({"audio": {"id": self.id, "transcript": item.text}})
        yield chunk({"audio": {"id": self.id, "expires_at": self.expires_at}}, finish_reason)
        if has_usage:
            yield {**head, "choices": [], "usage": self.reply.usage()}

    async def _both(self) -> AsyncIterator[Piece | bytes]:
        """Pieces of text as they are written and of sound as they are spoken, until both have ended."""
        items: asyncio.Queue[Piece | bytes | Exception | None] = asyncio.Queue(AHEAD)

        async def write() -> None:
            said = ""
            try:
                async for piece in self.reply.choices[0].pieces():
                    said += piece.text
                    self.texts.put(piece.text)
                    await items.put(piece)
            finally:
                self.texts.put(None)
            self.transcripts.keep(self.id, said)

        async def speak() -> None:
            async for piece in self.pieces:
                await items.put(piece)

        async def forward(work) -> None:
            try:
                await work()
                await items.put(None)
            except asyncio.CancelledError:
                with suppress(asyncio.QueueFull):  # if it is full, nobody waits at it
                    items.put_nowait(Closing("this answer was given up"))
                raise
            except Exception as cause:
                await items.put(cause)

        with self.seats.taken():
            self.tasks = [asyncio.create_task(forward(work)) for work in (write, speak)]
            try:
                num_open = len(self.tasks)
                while num_open:
                    item = await items.get()
                    if isinstance(item, Exception):
                        raise item
                    num_open -= item is None
                    if item is not None:
                        yield item
            finally:
                self.cancel()
