"""One client's events in, a conversation's events out: settings, ears, memory, and the responses at work."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool

from ming_omni.converse import ears
from ming_omni.converse.ears import Ears, Paused, Started, Stopped
from ming_omni.converse.memory import (
    Content,
    Item,
    Memory,
    Reader,
    picture_content,
    sound_content,
    text_content,
)
from ming_omni.converse.wires import Inlet
from ming_omni.errors import InputError
from ming_omni.ming import Ming
from ming_omni.serve.door import Refused
from ming_omni.serve.realtime import schema, views
from ming_omni.serve.realtime.ahead import Ahead
from ming_omni.serve.realtime.outbox import Outbox, new_id
from ming_omni.serve.realtime.response import Reason, Response, fault
from ming_omni.serve.realtime.setup import Setup
from ming_omni.serve.realtime.transcribing import Transcribing
from ming_omni.serve.schema import sentence
from ming_omni.transcribe.voice import voice_detector

MOST_RESPONSES = 2
"""At once: the conversation's own, and one beside it."""
SHORTEST_SECONDS = 0.1
"""Of a turn that is committed."""
LOW_DETAIL_PIXELS = 64 * 28 * 28
TICK_SECONDS = 0.1


@dataclass(frozen=True)
class Caps:
    """What sessions may take."""

    sessions: int = 8
    event_bytes: int = 4_000_000
    """as JSON: a minute of sound, or a picture; read once, when the server begins"""
    idle_seconds: float = 300.0
    """without an event from the client, or an answer to it"""
    seconds: float = 3600.0
    unsent_bytes: int = 4_000_000
    """that wait for a slow client; then its answers wait"""
    stuck_seconds: float = 20.0
    """that one event may take to be sent"""


class Session:
    """One conversation. `run` receives events until the client leaves or time is up."""

    def __init__(
        self,
        ming: Ming,
        caps: Caps,
        send: Callable[[str], Awaitable[None]],
        threads: Executor,
        able: list[str],
        user: str,
    ):
        self.ming, self.caps, self.threads, self.user = ming, caps, threads, user
        self.reader = Reader(ming.model, ming.processor, None if ming.answers_sound else self._words)
        self.id, self.conversation_id = new_id("sess"), new_id("conv")
        self.outbox = Outbox(send, caps.unsent_bytes, caps.stuck_seconds)
        self.memory = Memory(self.reader)
        self.setup = Setup(ming, able)
        self.transcribing = Transcribing(ming, self.outbox, threads, user)
        self.ahead = Ahead(ming, self.memory, user, self.transcribing.give_up_words)
        self.responses: dict[Response, asyncio.Task] = {}
        self.last: Response | None = None
        """the newest of the conversation's own"""
        self.started_at = self.active_at = time.monotonic()
        self._lock = asyncio.Lock()  # one event, or one timeout, at a time
        self._exit = ExitStack()
        self._hearing: asyncio.Future | None = None
        self.inlet = Inlet(self.setup.wire)
        self._next_item_id = new_id("item")
        self._is_waiting = False  # for the user, since the last answer

    # The life of a session.

    async def run(self, receive: Callable[[], Awaitable[str | None]]) -> tuple[int, str]:
        """receive gives an event's text, or None when the client has left. Returns code and reason of the close."""
        detect = await run_in_threadpool(self._exit.enter_context, voice_detector())
        self.ears = Ears(detect, self.setup.manners)
        self.outbox.put("session.created", session=self._view())
        tasks = [asyncio.create_task(work) for work in (self._listen(receive), self._watch(), self.outbox.run())]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if tasks[2] in done and isinstance(tasks[2].exception(), TimeoutError):
                return 1008, "the client does not read what it is sent"
            ending = next((task.result() for task in tasks[:2] if task in done), None)
            if ending is None:
                return 1000, ""
            code, message = ending
            if message:
                self._put_error(Refused(400, message, code="session_ended"))
            self.outbox.close()
            await tasks[2]
            return code, message
        finally:
            await self._leave(tasks)

    async def _leave(self, tasks: list[asyncio.Task]) -> None:
        self.transcribing.cancel()
        self.ahead.cancel()
        for response, task in self.responses.items():
            response.cancel("client_cancelled")
            task.cancel()
        for task in tasks:
            task.cancel()
        hearing = [] if self._hearing is None else [self._hearing]  # the detector is not for others before that
        await asyncio.gather(*tasks, *self.responses.values(), *hearing, return_exceptions=True)
        self._exit.close()

    async def _listen(self, receive: Callable[[], Awaitable[str | None]]) -> tuple[int, str] | None:
        while (text := await receive()) is not None:
            self.active_at = time.monotonic()
            await self.outbox.room()  # who does not read is not read either
            async with self._lock:
                await self._obey(text)
        return None

    async def _watch(self) -> tuple[int, str]:
        """Time passes."""
        while True:
            await asyncio.sleep(TICK_SECONDS)
            now = time.monotonic()
            if self.responses:
                self.active_at = now
            if now - self.started_at > self.caps.seconds:
                return 1001, f"a session lasts at most {self.caps.seconds:g} seconds"
            if now - self.active_at > self.caps.idle_seconds:
                return 1001, f"the session has been idle for {self.caps.idle_seconds:g} seconds"
            if self.ming.engine.is_draining and not self.responses:
                return 1012, "this server is shutting down"
            async with self._lock:
                await self._break_silence()

    async def _obey(self, text: str) -> None:
        """One event; what is wrong with it is said, and changes nothing."""
        event_id = None
        try:
            data = _parse(text)
            event_id = data["event_id"] if isinstance(data.get("event_id"), str) else None
            await self._handle(_checked(data))
        except ValidationError as cause:
            message, param = sentence(cause.errors()[0])
            self._put_error(Refused(400, message, param), event_id)
        except Exception as cause:
            self._put_error(cause, event_id)

    def _put_error(self, cause: Exception, event_id: str | None = None) -> None:
        self.outbox.put("error", error=fault(cause) | {"event_id": event_id})

    async def _handle(self, event: schema.Event) -> None:
        match event:
            case schema.SessionUpdate():
                await self._update(event.session)
            case schema.BufferAppend():
                await self._hear(event.audio)
            case schema.BufferCommit():
                await self._commit_buffer()
            case schema.BufferClear():
                self._clear()
                self.outbox.put("input_audio_buffer.cleared")
            case schema.ItemCreate():
                await self._create_item(event)
            case schema.ItemDelete():
                self.memory.remove(self.memory.get(event.item_id))
                self.outbox.put("conversation.item.deleted", item_id=event.item_id)
            case schema.ItemRetrieve():
                item = self.memory.get(event.item_id)
                view = await run_in_threadpool(views.item_view, item, self.setup.wire)
                self.outbox.put("conversation.item.retrieved", item=view)
            case schema.ItemTruncate():
                await self._truncate(event)
            case schema.ResponseCreate():
                await self._respond(event.response)
            case schema.ResponseCancel():
                await self._cancel(event.response_id)

    async def _update(self, changes: dict[str, Any]) -> None:
        old = self.setup.session.audio.input
        await run_in_threadpool(self.setup.change, changes)
        new = self.setup.session.audio.input
        if new.format != old.format:
            self._clear()
        if new.turn_detection != old.turn_detection:
            self.ears.behave(self.setup.manners)
        self.outbox.put("session.updated", session=self._view())

    def _view(self) -> dict[str, Any]:
        return self.setup.view(self.id, self.caps.seconds - (time.monotonic() - self.started_at))

    def _clear(self) -> None:
        self.ears.clear()
        self.inlet = Inlet(self.setup.wire)

    # What comes in.

    async def _hear(self, audio: str) -> None:
        self._hearing = asyncio.get_running_loop().run_in_executor(None, self._find_turns, audio)
        for event in await asyncio.shield(self._hearing):
            match event:
                case Started():
                    await self._begin_turn(event)
                case Paused():
                    self._read_ahead(event)
                case Stopped():
                    await self._end_turn(event)

    def _find_turns(self, audio: str) -> list[ears.Event]:
        """In a thread."""
        return list(self.ears.hear(self.inlet.push(_bytes(audio))))

    async def _begin_turn(self, event: Started) -> None:
        self._is_waiting = False
        ms = round(1000 * event.at)
        self.outbox.put("input_audio_buffer.speech_started", audio_start_ms=ms, item_id=self._next_item_id)
        if self.setup.turns.interrupt_response:
            await self._interrupt("turn_detected")

    def _read_ahead(self, event: Paused) -> None:
        if self.setup.turns.create_response and self._current is None and "audio_in" in self.setup.able:
            self.ahead.begin(event.samples, self.setup.session.instructions)

    async def _end_turn(self, event: Stopped) -> None:
        ms = round(1000 * event.at)
        self.outbox.put("input_audio_buffer.speech_stopped", audio_end_ms=ms, item_id=self._next_item_id)
        await self._commit(event.samples)
        if self.setup.turns.create_response:
            await self._respond(schema.ResponseBody())

    async def _commit_buffer(self) -> None:
        rest = self.inlet.finish()
        if self.setup.turns is None:
            list(self.ears.hear(rest))
        if self.ears.kept_seconds < SHORTEST_SECONDS:
            message = f"the buffer holds {1000 * self.ears.kept_seconds:.0f} ms of sound; a turn has 100 ms or more"
            raise Refused(400, message, code="input_audio_buffer_commit_empty")
        await self._commit(self.ears.take())

    async def _commit(self, samples: np.ndarray) -> None:
        """samples (n,) at 16 kHz: what the user said becomes an item."""
        self.setup.require("audio_in")
        item = Item(self._next_item_id, "user")
        self._next_item_id = new_id("item")
        item.contents.append(await self.ahead.content(samples))
        self._remember(item)
        previous = self.memory.before(item)
        self.outbox.put("input_audio_buffer.committed", item_id=item.id, previous_item_id=previous)
        self._announce(item)
        if settings := self.setup.session.audio.input.transcription:
            self.transcribing.begin(item, item.contents[0], samples, settings)

    async def _create_item(self, event: schema.ItemCreate) -> None:
        item = await run_in_threadpool(self._read, event.item)
        self._remember(item, event.previous_item_id)
        self._announce(item)
        self._tell_gone(self.memory.thin_frames())

    def _read(self, body: schema.ItemBody) -> Item:
        """An item that a client describes."""
        return Item(body.id or new_id("item"), body.role, [self._read_content(part) for part in body.content])

    def _read_content(self, part: schema.ContentBody) -> Content:
        if part.type == "input_image":
            if not part.image_url[:5].lower() == "data:":
                raise Refused(400, "only data: URLs are read; send the picture's content as base64", "image_url")
            self.setup.require("image_in")
            return picture_content(self.reader, part.image_url, LOW_DETAIL_PIXELS if part.detail == "low" else None)
        if part.type == "input_audio":
            self.setup.require("audio_in")
            inlet = Inlet(self.setup.wire)
            samples = np.concatenate([inlet.push(_bytes(part.audio)), inlet.finish()])
            return sound_content(self.reader, samples, part.transcript)
        return text_content(self.reader, part.text)

    def _words(self, samples: np.ndarray) -> str:
        """What is said in samples (n,) at 16 kHz, for a model that has to write it down. In a thread."""
        settings = self.setup.session.audio.input.transcription or schema.Transcription()
        return self.transcribing.words(samples, settings)

    def _remember(self, item: Item, after: str | None = None) -> None:
        """Add an item, and forget others if need be; an item that there is no room for is not added."""
        self.memory.add(item, after)
        try:
            gone = self.memory.forget(self.setup.bounds)
        except InputError:
            self.memory.remove(item)
            raise
        self._tell_gone([other for other in gone if other is not item])
        if item in gone:
            raise InputError("this place in the conversation is so far back that there is no room for it any more")

    def _announce(self, item: Item) -> None:
        previous = self.memory.before(item)
        for kind in ("conversation.item.added", "conversation.item.done"):
            self.outbox.put(kind, previous_item_id=previous, item=views.item_view(item))

    def _tell_gone(self, items: list[Item]) -> None:
        for item in items:
            self.outbox.put("conversation.item.deleted", item_id=item.id)

    # What goes out.

    @property
    def _current(self) -> Response | None:
        """The conversation's own response, while it is at work."""
        return self.last if self.last is not None and not self.last.is_over else None

    async def _respond(self, body: schema.ResponseBody) -> None:
        is_own = body.conversation == "auto"
        if is_own and self._current is not None:
            raise Refused(
                400,
                "this conversation has a response in progress; cancel it, or wait for its response.done",
                code="conversation_already_has_active_response",
            )
        if len(self.responses) >= MOST_RESPONSES:
            raise Refused(400, f"a session has at most {MOST_RESPONSES} responses in progress")
        settings = await run_in_threadpool(self.setup.response, body, self.user)
        memory = self.memory if body.input is None else await run_in_threadpool(self._aside, body.input)
        if is_own:
            self._tell_gone(memory.forget(self.setup.bounds))
        if settings.is_spoken:
            await run_in_threadpool(lambda: self.ming.speaker)  # loaded on first use
        response = Response(
            self.ming, memory, settings, self.outbox, self.threads, self.conversation_id if is_own else None
        )
        if is_own:
            self.last, self._is_waiting = response, False
        self.responses[response] = asyncio.create_task(self._run(response))

    async def _run(self, response: Response) -> None:
        try:
            await response.run()
        finally:
            self.responses.pop(response, None)
        if response is self.last:
            self._is_waiting = response.status != "cancelled"
        scheduler = self.ming.engine.scheduler
        most = scheduler.max_running + scheduler.max_waiting
        left = max(0, most - len(scheduler.running) - len(scheduler.waiting))
        limit = {"name": "requests", "limit": most, "remaining": left, "reset_seconds": 0.0}
        self.outbox.put("rate_limits.updated", rate_limits=[limit])

    def _aside(self, bodies: list[schema.Reference | schema.ItemBody]) -> Memory:
        """Items for one response only."""
        items = [
            self.memory.get(body.id) if isinstance(body, schema.Reference) else self._read(body) for body in bodies
        ]
        return Memory(self.reader, items)

    async def _cancel(self, response_id: str | None) -> None:
        response = self._current
        if response_id is not None:
            response = next((r for r in self.responses if r.id == response_id), None)
        if response is None:
            raise Refused(400, "there is no such response in progress", code="response_cancel_not_active")
        await self._stop(response, "client_cancelled")

    async def _stop(self, response: Response, reason: Reason) -> None:
        response.cancel(reason)
        if task := self.responses.get(response):
            await asyncio.wait([task])

    async def _interrupt(self, reason: Reason) -> None:
        """The user speaks: end the answer, also one that is written but perhaps still sounds."""
        if (response := self._current) is not None:
            await self._stop(response, reason)
            return
        response = self.last
        if response is None or response.sounds_until <= time.monotonic() or response.item not in self.memory.items:
            return
        if response.cut_to_heard():
            response.tell_cut()

    async def _truncate(self, event: schema.ItemTruncate) -> None:
        item = self.memory.get(event.item_id)
        if item.said is None:
            raise Refused(400, f"item {item.id} is no spoken answer; only those can be cut", "item_id")
        if (response := self._current) is not None and response.item is item:
            await self._stop(response, "client_cancelled")
        seconds = event.audio_end_ms / 1000
        if seconds > item.said.seconds + 0.001:
            message = f"item {item.id} has {1000 * item.said.seconds:.0f} ms of sound, not {event.audio_end_ms}"
            raise Refused(400, message, "audio_end_ms")
        if item.cut(self.reader, seconds):
            item.is_complete = False
        self.outbox.put(
            "conversation.item.truncated", item_id=item.id, content_index=0, audio_end_ms=event.audio_end_ms
        )

    async def _break_silence(self) -> None:
        """Nobody has spoken for as long as the session asked for: answer the silence."""
        turns, response = self.setup.turns, self.last
        if not self._is_waiting or turns is None or turns.idle_timeout_ms is None or self.ears.is_hearing:
            return
        since = max(response.ended_at, response.sounds_until)
        if time.monotonic() - since < turns.idle_timeout_ms / 1000:
            return
        self._is_waiting = False
        end = round(1000 * self.ears.seconds)
        start = round(end - 1000 * self.ears.kept_seconds)
        self.outbox.put(
            "input_audio_buffer.timeout_triggered",
            audio_start_ms=start,
            audio_end_ms=end,
            item_id=self._next_item_id,
        )
        try:
            if self.ears.kept_seconds >= SHORTEST_SECONDS:
                await self._commit(self.ears.take())
            await self._respond(schema.ResponseBody())
        except Exception as cause:
            self._put_error(cause)


def _parse(text: str) -> dict[str, Any]:
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        raise Refused(400, "the event is not valid JSON") from None
    if not isinstance(data, dict):
        raise Refused(400, "an event is a JSON object")
    return data


def _checked(data: dict[str, Any]) -> schema.Event:
    kind = data.get("type")
    if not isinstance(kind, str):
        raise Refused(400, "an event has a type", "type")
    if kind not in schema.EVENTS:
        raise Refused(400, f"there is no event {kind[:64]!r} for clients to send", "type")
    return schema.EVENTS[kind].model_validate(data)


def _bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Refused(400, "audio is base64", "audio") from None
