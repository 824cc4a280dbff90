"""POST /v1/audio/transcriptions: a sound and what is known about it -> its text, in OpenAI's forms, or as it comes."""

from __future__ import annotations

import json
import zlib
from collections.abc import AsyncIterator
from typing import Annotated, ClassVar, Literal
from weakref import WeakSet

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from pydantic import Field, model_validator
from starlette.concurrency import iterate_in_threadpool, run_in_threadpool

from ming_omni.engine.request import Busy
from ming_omni.errors import InputError
from ming_omni.inputs.tokenizer import Tokenizer
from ming_omni.ming import Ming
from ming_omni.serve.capabilities import capabilities, require
from ming_omni.serve.door import check_model, describe, while_connected
from ming_omni.serve.form import described, read_form
from ming_omni.serve.schema import Body
from ming_omni.transcribe.context import MAX_WORDS, Context
from ming_omni.transcribe.formats import render
from ming_omni.transcribe.listening import Listening, transcribe
from ming_omni.transcribe.result import Segment, Transcript

MOST_AT_ONCE = 8
"""Recordings; each keeps several segments and threads at work."""
LISTS = ("timestamp_granularities", "include", "keywords", "languages", "known_speaker_names")
LISTS += ("known_speaker_references",)
"""Fields that clients repeat, with or without [] behind their names."""


class TranscriptionBody(Body):
    """The fields of the form besides the file."""

    without: ClassVar[dict[str, tuple]] = {
        "chunking_strategy": ("auto",),
        "include": (),
        "languages": (),
        "known_speaker_names": (),
        "known_speaker_references": (),
    }
    model: str
    language: str | None = None
    prompt: str = ""
    keywords: list[str] = Field(default_factory=list)
    response_format: Literal["json", "text", "srt", "vtt", "verbose_json"] = "json"
    temperature: float = Field(0.0, ge=0, le=1)
    timestamp_granularities: list[str] = Field(default_factory=list)
    stream: bool = False
    user: str = ""
    # Ours
    context: Annotated[str | None, "JSON as Context takes it"] = None
    dialect: str | None = None

    @model_validator(mode="after")
    def check(self):
        if self.stream and self.response_format not in ("json", "text"):
            raise InputError(f"a stream has no {self.response_format}: its events carry text")
        if set(self.timestamp_granularities) - {"segment"}:
            raise InputError("timestamp_granularities is segment: this model tells no times of single words")
        if self.timestamp_granularities and self.response_format != "verbose_json":
            raise InputError("timestamp_granularities goes with response_format=verbose_json")
        return self

    @property
    def known(self) -> Context:
        """All that the form says about the sound."""
        given = Context() if self.context is None else Context.from_json(self.context)
        text = " ".join(filter(None, (given.text, self.prompt)))
        return Context(given.topic, [*given.words, *self.keywords], text)

    @property
    def has_times(self) -> bool:
        return self.response_format in ("srt", "vtt", "verbose_json")


def router(ming: Ming) -> APIRouter:
    routes, at_work, able = APIRouter(), WeakSet(), capabilities(ming)

    @routes.post("/v1/audio/transcriptions", openapi_extra=described(TranscriptionBody, ("file",)))
    async def transcriptions(http: Request) -> Response:
        ming.engine.check_open()
        if sum(not listening.is_over for listening in at_work) >= MOST_AT_ONCE:
            raise Busy(f"{MOST_AT_ONCE} recordings are being transcribed already; try again shortly")
        files, body = await read_form(http, TranscriptionBody, ("file",), LISTS, max_fields=MAX_WORDS + 100)
        check_model(ming, body.model)
        require(able, "audio_in", ming.name)
        listening = await run_in_threadpool(
            lambda: transcribe(
                ming,
                files["file"][0],
                context=body.known,
                language=body.language,
                dialect=body.dialect,
                timestamps=body.has_times,
                temperature=body.temperature,
                user=body.user or (http.client.host if http.client else ""),
                stream=True,
            )
        )
        at_work.add(listening)
        if body.stream:
            return StreamingResponse(_events(http, listening), media_type="text/event-stream")
        async with while_connected(http, listening.cancel):
            async for update in iterate_in_threadpool(listening):
                if update.transcript:
                    return _response(update.transcript, body, ming.processor.tokenizer)
        return Response()  # the client has left

    return routes


async def _events(http: Request, listening: Listening) -> AsyncIterator[str]:
    """Server-sent events; what fails after the first byte is said in an event of its own."""
    async with while_connected(http, listening.cancel):
        try:
            async for update in iterate_in_threadpool(listening):
                if update.text:
                    yield _event({"type": "transcript.text.delta", "delta": update.text})
                if update.transcript:
                    done = {"type": "transcript.text.done", "text": update.transcript.text}
                    yield _event({**done, "usage": _usage(update.transcript)})
        except Exception as cause:
            yield f"data: {describe(cause).body.decode()}\n\n"
        yield "data: [DONE]\n\n"


def _event(data: dict) -> str:
    return f"data: {json.dumps(data, ensure_ascii=False)}\n\n"


def _response(transcript: Transcript, body: TranscriptionBody, tokenizer: Tokenizer) -> Response:
    form = body.response_format
    if form == "json":
        return JSONResponse({"text": transcript.text, "usage": _usage(transcript)})
    if form == "text":
        return PlainTextResponse(render(transcript, "txt"))
    if form in ("srt", "vtt"):
        return PlainTextResponse(render(transcript, form))
    return JSONResponse(verbose(transcript, tokenizer, body.temperature))


def verbose(transcript: Transcript, tokenizer: Tokenizer, temperature: float) -> dict:
    """OpenAI's fields, and ours: dialect, confidence, leaks."""
    return {
        "task": "transcribe",
        "language": (transcript.language or "").lower(),
        "dialect": transcript.dialect,
        "confidence": transcript.confidence,
        "duration": transcript.seconds,
        "text": transcript.text,
        "segments": [_segment(i, s, tokenizer, temperature) for i, s in enumerate(transcript.segments)],
        "leaks": [{"word": leak.word, "verdict": leak.verdict, "instead": leak.instead} for leak in transcript.leaks],
        "usage": _usage(transcript),
    }


def _segment(index: int, segment: Segment, tokenizer: Tokenizer, temperature: float) -> dict:
    data = segment.text.encode()
    return {
        "id": index,
        "seek": round(segment.start * 100),
        "start": segment.start,
        "end": segment.end,
        "text": segment.text,
        "tokens": tokenizer.encode(tokenizer.escape(segment.text)),
        "temperature": temperature,
        "avg_logprob": segment.logprob or 0.0,
        "compression_ratio": len(data) / len(zlib.compress(data)),
        "no_speech_prob": 1 - segment.speech,
    }


def _usage(transcript: Transcript) -> dict:
    return {"type": "duration", "seconds": transcript.seconds}
