"""A client of /v1/realtime that keeps every event it was sent, and real speech to send it."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from typing import Any

import numpy as np
import soxr
import torch
import websockets
from openai import AsyncOpenAI

from ming_omni.config import TalkerConfig
from ming_omni.ming import Ming
from ming_omni.model.sampling import Sampling
from ming_omni.model.talker import Talker
from ming_omni.speak.speaker import Speaker
from ming_omni.speech.alphabet import character_tokenizer
from tests.serving import tiny_ming
from tests.talks import RATE_HZ, talk

WIRE_HZ = 24_000


@cache
def spoken(*names: str, pause_seconds: float = 0.7) -> bytes:
    """Words of real speakers, with pauses before, between and after them, as pcm16."""
    samples, _ = talk(list(names), pause_seconds)
    return (soxr.resample(samples, RATE_HZ, WIRE_HZ) * 32_767).astype("<i2").tobytes()


def talkative_ming() -> Ming:
    """Tiny that writes short lines of letters, never ends by itself, and speaks each line for 1.6 seconds."""
    ming = tiny_ming()
    letters = {id_ for id_ in range(320) if ming.processor.tokenizer.decode(id_) in set("AEIOUNST \n")}
    ming.sampling = Sampling(temperature=1.0, seed=3, banned=tuple(set(range(320)) - letters))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        talker = Talker(TalkerConfig(min_patches=20, max_patches=20, steps=1)).eval()
    ming.__dict__["speaker"] = Speaker(talker, character_tokenizer())
    return ming


def text_item(text: str, role: str = "user", **more) -> dict[str, Any]:
    kind = "output_text" if role == "assistant" else "input_text"
    return {"type": "message", "role": role, "content": [{"type": kind, "text": text}], **more}


class Caller:
    """`async with Caller(url) as caller`: one connection of the official client."""

    def __init__(self, url: str, model: str = "tiny", **options: Any):
        self.client = AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
        self.manager = self.client.realtime.connect(model=model, **options)
        self.events: list[Any] = []
        self.times: list[float] = []
        self._changed = asyncio.Condition()

    async def __aenter__(self) -> Caller:
        self.connection = await self.manager.__aenter__()
        self.reading = asyncio.create_task(self._read())
        return self

    async def __aexit__(self, *error) -> None:
        self.reading.cancel()
        await self.manager.__aexit__(*error)
        await self.client.close()

    async def _read(self) -> None:
        async for event in self.connection:
            self.events.append(event)
            self.times.append(time.monotonic())
            async with self._changed:
                self._changed.notify_all()

    def all(self, kind: str) -> list[Any]:
        return [event for event in self.events if event.type == kind]

    def kinds(self) -> list[str]:
        """Types in order, repeated deltas once."""
        kinds = [event.type for event in self.events]
        return [kind for i, kind in enumerate(kinds) if not kind.endswith(".delta") or kinds.index(kind) == i]

    async def until(self, kind: str, count: int = 1, timeout_seconds: float = 60.0) -> Any:
        """The count-th event of a type."""
        async with self._changed, asyncio.timeout(timeout_seconds):
            await self._changed.wait_for(lambda: len(self.all(kind)) >= count)
        return self.all(kind)[count - 1]

    async def send(self, kind: str, **fields: Any) -> None:
        await self.connection.send({"type": kind, **fields})

    async def update(self, **session: Any) -> Any:
        count = len(self.all("session.updated"))
        await self.send("session.update", session={"type": "realtime", **session})
        return (await self.until("session.updated", count + 1)).session

    async def refused(self, kind: str, **fields: Any) -> Any:
        """The error that an event is answered with."""
        count = len(self.all("error"))
        await self.send(kind, event_id="mine", **fields)
        error = (await self.until("error", count + 1)).error
        assert error.event_id == "mine"
        return error

    async def ask(self, text: str, **response: Any) -> Any:
        """One written turn, answered to its end."""
        count = len(self.all("response.done"))
        await self.send("conversation.item.create", item=text_item(text))
        await self.send("response.create", response=response)
        return (await self.until("response.done", count + 1)).response

    async def say(self, sound: bytes, pace: float = 10.0) -> None:
        """Stream pcm16 in pieces of 50 ms, so many times as fast as it was spoken."""
        size = WIRE_HZ // 20 * 2
        for piece in (sound[i : i + size] for i in range(0, len(sound), size)):
            await self.send("input_audio_buffer.append", audio=base64.b64encode(piece).decode())
            await asyncio.sleep(0.05 / pace)

    async def closed(self) -> int:
        """The code that the server ends the connection with."""
        with suppress(websockets.ConnectionClosed):
            await asyncio.wait_for(self.reading, 60)
        return self.connection._connection.close_code

    def heard(self, item_id: str) -> np.ndarray:
        """(n,) int16: all sound of an answer that has arrived."""
        deltas = [e.delta for e in self.all("response.output_audio.delta") if e.item_id == item_id]
        return np.frombuffer(b"".join(map(base64.b64decode, deltas)), "<i2")


def written(events: Iterable[Any]) -> str:
    return "".join(event.delta for event in events)
