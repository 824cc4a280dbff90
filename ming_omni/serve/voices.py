"""GET, POST and DELETE /v1/audio/voices: the voices of this machine, listed, cloned with consent, and deleted."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from anyio import to_thread
from fastapi import APIRouter, Request
from pydantic import Field

from ming_omni.errors import InputError
from ming_omni.ming import Ming
from ming_omni.serve.capabilities import capabilities, require
from ming_omni.serve.door import Refused, check_running
from ming_omni.serve.form import described, read_form
from ming_omni.serve.media import sound
from ming_omni.serve.schema import OWN_VOICE, Body
from ming_omni.speech.voices import Voice

MAX_SAMPLE_SECONDS = 60.0
"""Opened at most; which length makes a voice, `Voice` says."""


class VoiceBody(Body):
    """The fields of the form besides the recording."""

    without = {"type": ("audio_sample",)}
    name: str
    consent: str = Field(min_length=1, description="who speaks, and that they agreed to be imitated")
    text: str | None = Field(None, description="what is said in the recording; the clone is better with it")


def router(ming: Ming) -> APIRouter:
    routes, able = APIRouter(), capabilities(ming)

    def keep(body: VoiceBody, sample: bytes) -> Voice:
        return ming.speaker.clone(body.name, sound(sample, MAX_SAMPLE_SECONDS), body.text, consent=body.consent)

    @routes.get("/v1/audio/voices")
    async def voices() -> dict:
        require(able, "speech_out", ming.name)
        names = await to_thread.run_sync(lambda: ming.speaker.voices)
        own = {"id": OWN_VOICE, "object": "audio.voice", "name": OWN_VOICE, "created_at": 0, "type": "built_in"}
        data = await to_thread.run_sync(lambda: [_listed(ming, name) for name in names])
        return {"object": "list", "data": [own, *data], "has_more": False}

    @routes.post("/v1/audio/voices", openapi_extra=described(VoiceBody, ("audio_sample",)))
    async def add(http: Request) -> dict:
        check_running(ming)
        require(able, "speech_out", ming.name)
        files, body = await read_form(http, VoiceBody, ("audio_sample",))
        if body.name.strip().lower() == OWN_VOICE:
            raise InputError(f"{OWN_VOICE} is the talker's own voice; choose another name")
        return _card(await to_thread.run_sync(keep, body, files["audio_sample"][0]))

    @routes.delete("/v1/audio/voices/{name}")
    async def delete(name: str) -> dict:
        require(able, "speech_out", ming.name)
        if name not in await to_thread.run_sync(lambda: ming.speaker.voices):
            raise Refused(404, f"there is no voice {name!r}", "name", "voice_not_found")
        await to_thread.run_sync(lambda: ming.speaker.shelf.delete(name))
        return {"id": name, "object": "audio.voice.deleted", "deleted": True}

    return routes


def _listed(ming: Ming, name: str) -> dict[str, Any]:
    """A voice of the shelf. A release's own, and one whose file is damaged, have no sound to tell of."""
    shelf = ming.speaker.shelf
    try:
        return _card(shelf.get(name)) | ({"type": "built_in"} if shelf.is_built_in(name) else {})
    except InputError:
        return {"id": name, "object": "audio.voice", "name": name, "created_at": 0, "type": "built_in"}


def _card(voice: Voice) -> dict[str, Any]:
    created = int(datetime.fromisoformat(voice.created).timestamp()) if voice.created else 0
    return {
        "id": voice.name,
        "object": "audio.voice",
        "name": voice.name,
        "created_at": created,
        "type": "audio_sample",
        "seconds": round(voice.seconds, 2),
        "consent": voice.consent,
        "text": voice.transcript,
    }
