"""Events for a client -> its socket, one after the other; one that reads slowly is waited for, but not for ever."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections import deque
from collections.abc import Awaitable, Callable
from typing import NamedTuple

SOUND = "response.output_audio.delta"


class Letter(NamedTuple):
    kind: str
    response_id: str | None
    delta: str
    data: str


class Outbox:
    """`put` never waits; who produces much asks for `room` first."""

    def __init__(self, send: Callable[[str], Awaitable[None]], most_bytes: int, stuck_seconds: float):
        self.send, self.most_bytes, self.stuck_seconds = send, most_bytes, stuck_seconds
        self.num_bytes = 0
        """waiting to be sent"""
        self._waiting: deque[Letter] = deque()
        self._is_closed = False
        self._work, self._has_room = asyncio.Event(), asyncio.Event()
        self._has_room.set()

    def put(self, kind: str, **fields) -> None:
        data = json.dumps({"type": kind, "event_id": new_id("event"), **fields}, ensure_ascii=False)
        # Half a character, which a client may have sent, cannot be sent back but as its escape.
        data = data.encode(errors="backslashreplace").decode()
        self._waiting.append(Letter(kind, fields.get("response_id"), fields.get("delta", ""), data))
        self._count(len(data))
        self._work.set()

    async def room(self) -> None:
        await self._has_room.wait()

    def drop_sound(self, response_id: str) -> list[str]:
        """Take back sound of a response that has not been sent; returns it, in base64."""
        dropped = [letter for letter in self._waiting if (letter.kind, letter.response_id) == (SOUND, response_id)]
        self._waiting = deque(letter for letter in self._waiting if letter not in dropped)
        self._count(-sum(len(letter.data) for letter in dropped))
        return [letter.delta for letter in dropped]

    def close(self) -> None:
        """`run` ends once everything is sent."""
        self._is_closed = True
        self._work.set()

    async def run(self) -> None:
        """Raises TimeoutError when the client does not read."""
        while self._waiting or not self._is_closed:
            if not self._waiting:
                self._work.clear()
                await self._work.wait()
                continue
            letter = self._waiting.popleft()
            async with asyncio.timeout(self.stuck_seconds):
                await self.send(letter.data)
            self._count(-len(letter.data))

    def _count(self, num_bytes: int) -> None:
        self.num_bytes += num_bytes
        self._has_room.set() if self.num_bytes < self.most_bytes else self._has_room.clear()


def new_id(kind: str) -> str:
    """item_..., resp_..., event_..."""
    return f"{kind}_{secrets.token_hex(10)}"
