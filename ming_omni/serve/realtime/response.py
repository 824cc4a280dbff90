"""One response: the conversation so far -> events of an answer in text or speech, and the item that is remembered."""

from __future__ import annotations

import base64
import json
import time
from concurrent.futures import Executor
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Literal

from ming_omni.converse.answering import Answering, Began, Ended, Sounded, Style, Wrote
from ming_omni.converse.memory import Content, Item, Memory
from ming_omni.converse.said import Said
from ming_omni.engine.request import Prompt, Request
from ming_omni.errors import InputError
from ming_omni.ming import Ming
from ming_omni.serve.door import describe
from ming_omni.serve.realtime import views
from ming_omni.serve.realtime.outbox import SOUND, Outbox, new_id
from ming_omni.serve.realtime.schema import MOST_TOKENS, AudioFormat

Reason = Literal["turn_detected", "client_cancelled", "max_output_tokens"]


@dataclass(frozen=True)
class Settings:
    """What holds for one response, from its session and its own event."""

    is_spoken: bool
    instructions: str | None
    max_output_tokens: int | Literal["inf"]
    format: AudioFormat
    voice: str | None
    speed: float
    metadata: dict[str, str] | None
    user: str
    """users of an engine take turns"""


class Response:
    """Made when there is nothing left to refuse; `run` then tells it event by event."""

    def __init__(
        self,
        ming: Ming,
        memory: Memory,
        settings: Settings,
        outbox: Outbox,
        threads: Executor,
        conversation_id: str | None,
    ):
        """conversation_id  None: the answer is told, and not remembered"""
        self.memory, self.settings, self.outbox = memory, settings, outbox
        self.conversation_id = conversation_id
        self.id = new_id("resp")
        self.item = Item(new_id("item"), "assistant", said=Said() if settings.is_spoken else None)
        self.status: Literal["in_progress", "completed", "cancelled", "incomplete", "failed"] = "in_progress"
        self.reason: Reason | None = None
        self.error: dict[str, Any] | None = None
        self.sounds_since: float | None = None
        """when its first sound was sent"""
        self.ended_at = 0.0
        self._text = ""
        prompt = memory.prompt(settings.instructions)
        room = ming.engine.longest - len(prompt)
        if room <= 0:
            raise InputError(
                f"instructions and conversation have {len(prompt)} tokens; this model reads fewer than "
                f"{ming.engine.longest}"
            )
        most = MOST_TOKENS if settings.max_output_tokens == "inf" else settings.max_output_tokens
        request = Request(prompt, ming.sampling, min(most, room), ming.stop_ids, settings.user)
        style = Style(settings.voice, settings.speed, settings.format.wire.rate_hz)
        speaker = ming.speaker if settings.is_spoken else None
        self.answering = Answering(ming.engine, ming.processor.tokenizer, request, speaker, style, threads)

    @property
    def is_spoken(self) -> bool:
        return self.settings.is_spoken

    @property
    def is_over(self) -> bool:
        return self.status != "in_progress"

    @property
    def sounds_until(self) -> float:
        """When its last sound has been played, by somebody who began with the first."""
        return 0.0 if self.sounds_since is None else self.sounds_since + self.item.said.seconds

    def cancel(self, reason: Reason) -> None:
        """Nothing more is written, spoken or sent; the task that runs it ends by itself."""
        if not self.is_over:
            self.reason = self.reason or reason
            self.answering.cancel()
            unsent = b"".join(map(base64.b64decode, self.outbox.drop_sound(self.id)))
            if self.is_spoken:
                self.item.said.seconds -= self.settings.format.wire.seconds(unsent)

    async def run(self) -> None:
        self._put("response.created", response=views.response_view(self))
        self._begin()
        try:
            async with aclosing(aiter(self.answering)) as events:
                async for event in events:
                    await self._tell(event)
            self._conclude()
        except Exception as cause:
            self.status = "failed"
            self.error = fault(cause)
        finally:
            self.answering.cancel()
            if not self.is_over:  # the session has ended
                self.status, self.reason = "cancelled", "client_cancelled"
        self.ended_at = time.monotonic()
        self._end()

    def cut_to_heard(self) -> bool:
        """Keep what somebody can have heard by now: nobody hears more than the seconds since the first sound."""
        if self.item.said is None:
            return False
        heard = 0.0 if self.sounds_since is None else time.monotonic() - self.sounds_since
        if not self.item.cut(self.memory.reader, min(heard, self.item.said.seconds)):
            return False
        self.item.is_complete = False
        return True

    def _begin(self) -> None:
        if self.conversation_id is not None:
            self.memory.add(self.item)
        view = views.item_view(self.item, is_in_progress=True)
        self._output("response.output_item.added", item=view)
        self._item_event("conversation.item.added", view)
        self._content("response.content_part.added", part=self._part)

    async def _tell(self, event: Wrote | Began | Sounded | Ended) -> None:
        said = self.item.said
        if isinstance(event, Wrote):
            self._text += event.text
            if said is None:
                self._content("response.output_text.delta", delta=event.text)
            else:
                said.write(event.text)
                self._content("response.output_audio_transcript.delta", delta=event.text)
        elif isinstance(event, Began):
            said.begin(event.sentence)
        elif isinstance(event, Ended):
            said.end()
        else:
            await self.outbox.room()
            if self.answering.is_cancelled:
                return
            data = self.settings.format.wire.encode(event.samples)
            self.sounds_since = self.sounds_since or time.monotonic()
            said.sound(len(event.samples) / self.settings.format.wire.rate_hz)
            self._content(SOUND, delta=base64.b64encode(data).decode())

    def _conclude(self) -> None:
        """How it ended, and what is remembered of it: the model's own tokens, so that the cache holds them."""
        finish, text = self.answering.finish, self._text
        self.status = {"stop": "completed", "length": "incomplete"}.get(finish, "cancelled")
        if finish == "length":
            self.reason = "max_output_tokens"
        if text:
            self.item.contents = [Content("text", Prompt.of_ids(self.answering.ids), text)]
        self.item.is_complete = self.status == "completed"
        if self.status == "cancelled":
            unsent = sum(
                self.settings.format.wire.seconds(base64.b64decode(d)) for d in self.outbox.drop_sound(self.id)
            )
            if self.is_spoken:
                self.item.said.seconds -= unsent

    def _end(self) -> None:
        is_cut = self.status in ("cancelled", "failed") and self.cut_to_heard()
        if self.is_spoken:
            self._content("response.output_audio.done")
            self._content("response.output_audio_transcript.done", transcript=self.item.text)
        else:
            self._content("response.output_text.done", text=self.item.text)
        self._content("response.content_part.done", part=self._part)
        view = views.item_view(self.item)
        self._item_event("conversation.item.done", view)
        self._output("response.output_item.done", item=view)
        if is_cut:
            self.tell_cut()
        self._put("response.done", response=views.response_view(self))

    def tell_cut(self) -> None:
        if self.conversation_id is not None:
            end = int(1000 * (self.item.heard_seconds or 0.0))
            self._put("conversation.item.truncated", item_id=self.item.id, content_index=0, audio_end_ms=end)

    @property
    def _part(self) -> dict[str, str]:
        """What has been said so far."""
        kind, field = ("audio", "transcript") if self.is_spoken else ("text", "text")
        return {"type": kind, field: self.item.text}

    def _put(self, kind: str, **fields) -> None:
        self.outbox.put(kind, **fields)

    def _item_event(self, kind: str, view: dict[str, Any]) -> None:
        if self.conversation_id is not None and self.item in self.memory.items:
            self._put(kind, previous_item_id=self.memory.before(self.item), item=view)

    def _output(self, kind: str, **fields) -> None:
        self._put(kind, response_id=self.id, output_index=0, **fields)

    def _content(self, kind: str, **fields) -> None:
        self._output(kind, item_id=self.item.id, content_index=0, **fields)


def fault(cause: Exception) -> dict[str, Any]:
    """What went wrong, as an event tells it."""
    return json.loads(describe(cause).body)["error"]
