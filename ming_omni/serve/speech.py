"""POST /v1/audio/speech: a text -> a sound file that grows while it is spoken, or events that carry it."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from typing import Literal

from anyio import to_thread
from fastapi import APIRouter, Request
from fastapi.responses import Response, StreamingResponse
from pydantic import Field

from ming_omni.ming import Ming
from ming_omni.serve.capabilities import capabilities, require
from ming_omni.serve.door import check_model, check_running, describe, while_connected
from ming_omni.serve.schema import Body, VoiceName
from ming_omni.serve.work import Pieces, Seats
from ming_omni.speak.output import KINDS, MAX_SPEED, MIN_SPEED, encode
from ming_omni.speak.speaker import MAX_CHARACTERS

PCM_RATE_HZ = 24_000
"""A file says its rate; bare samples cannot, so they come at the rate that OpenAI's clients expect."""


class SpeechBody(Body):
    """POST /v1/audio/speech"""

    without = {"instructions": ("",)}
    model: str
    input: str = Field(min_length=1, max_length=MAX_CHARACTERS)
    voice: VoiceName = None
    response_format: Literal["mp3", "opus", "aac", "flac", "wav", "pcm"] = "mp3"
    speed: float = Field(1.0, ge=MIN_SPEED, le=MAX_SPEED)
    stream_format: Literal["audio", "sse"] = "audio"
    # Ours
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)


def rate_of(form: str, rate_hz: int) -> int:
    """The rate of a file in this format, from a talker that speaks at `rate_hz`: the same, or the next one up."""
    if form == "pcm":
        return PCM_RATE_HZ
    rates_hz = KINDS[form].rates_hz or (rate_hz,)
    return min((rate for rate in rates_hz if rate >= rate_hz), default=max(rates_hz))


def router(ming: Ming, seats: Seats) -> APIRouter:
    """seats  shared with everything else that speaks"""
    routes, able = APIRouter(), capabilities(ming)

    @routes.post("/v1/audio/speech")
    async def speech(http: Request, body: SpeechBody) -> Response:
        check_running(ming)
        check_model(ming, body.model)
        require(able, "speech_out", ming.name)
        seats.check()
        pieces = Pieces(await to_thread.run_sync(spoken, ming, body), seats.threads)
        stream = _listened(http, pieces, seats, body)
        # The first piece comes before the status, so that what goes wrong until then is said with one.
        first = await anext(stream, b"")
        media_type = "text/event-stream" if body.stream_format == "sse" else KINDS[body.response_format].media_type
        return StreamingResponse(_chained(first, stream), media_type=media_type)

    return routes


def spoken(ming: Ming, body: SpeechBody) -> Iterator[bytes]:
    """The bytes of the file as they come. What is wrong with the text or the voice is said now."""
    rate_hz = rate_of(body.response_format, ming.speaker.sample_rate_hz)
    chunks = ming.speak(body.input, body.voice, speed=body.speed, seed=body.seed, sample_rate_hz=rate_hz, stream=True)

    def encoded() -> Iterator[bytes]:
        with closing(chunks):
            yield from encode(chunks, body.response_format, rate_hz)

    return encoded()


async def _listened(http: Request, pieces: Pieces[bytes], seats: Seats, body: SpeechBody) -> AsyncIterator[bytes]:
    with seats.taken():
        async with while_connected(http, pieces.cancel):
            if body.stream_format == "audio":
                async for piece in pieces:
                    yield piece
                return
            try:
                async for piece in pieces:
                    yield _event({"type": "speech.audio.delta", "audio": b64encode(piece).decode()})
                yield _event({"type": "speech.audio.done"})
            except Exception as cause:
                yield b"data: " + describe(cause).body + b"\n\n"
            yield b"data: [DONE]\n\n"


async def _chained(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    try:
        yield first
        async for piece in rest:
            yield piece
    finally:
        await rest.aclose()


def _event(data: dict) -> bytes:
    return f"data: {json.dumps(data)}\n\n".encode()
