"""POST /v1/chat/completions and /v1/completions: messages or plain text -> answers, whole or streamed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import torch
from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from ming_omni.engine.engine import Stream
from ming_omni.engine.request import Prompt, read_prompt
from ming_omni.engine.request import Request as EngineRequest
from ming_omni.engine.text import Answer
from ming_omni.errors import InputError
from ming_omni.inputs.messages import Audio, from_openai
from ming_omni.ming import Ming
from ming_omni.serve.capabilities import capabilities, require
from ming_omni.serve.choices import Choice, Reply
from ming_omni.serve.door import check_model, describe, while_connected
from ming_omni.serve.media import MEDIA, Media
from ming_omni.serve.schema import ChatBody, CompletionBody
from ming_omni.serve.spoken import Reader, SpokenReply, Transcripts
from ming_omni.serve.work import Seats

MAX_TOKEN_CHARACTERS = 64
"""No text has longer tokens on average."""
MOST_HEARD = 4
"""Requests whose spoken messages are written down at once; others wait, and those without sound overtake them."""


def router(ming: Ming, preparing: CapacityLimiter, seats: Seats, media: Media) -> APIRouter:
    """preparing  how many prompts are read at once; seats  of everything that speaks; media  opens what is sent"""
    routes, engine, tokenizer, able = APIRouter(), ming.engine, ming.processor.tokenizer, capabilities(ming)
    transcripts, hearing = Transcripts(), CapacityLimiter(MOST_HEARD)

    def check(body: ChatBody | CompletionBody) -> None:
        """Refuse what cannot be answered, before any work is put into it."""
        engine.check_open()
        check_model(ming, body.model)

    def submit(
        http: Request, body: ChatBody | CompletionBody, prompts: list[Prompt], limit: int | None, **options
    ) -> list[Stream]:
        """n streams for each prompt, or none if one is refused."""
        streams, loop, user = [], asyncio.get_running_loop(), user_of(http, body)
        try:
            for prompt in prompts:
                # Asking for more than there is room for is asking for all the room; the answer then ends by `length`.
                room = max(engine.longest - len(prompt), 0)
                most = limit if limit is None or not room else min(limit, room)
                for choice in range(body.n):
                    sampling = body.sampling(ming.sampling, choice)
                    request = EngineRequest(prompt, sampling, most, ming.stop_ids, user, **options)
                    streams.append(engine.submit(request, loop))
        except Exception:
            for stream in streams:
                stream.cancel()
            raise
        return streams

    def answer_of(body: ChatBody | CompletionBody) -> Answer:
        return Answer(tokenizer.stream(), body.stop)

    def read_chat(messages: list[dict], fetched: dict[str, bytes], user: str) -> Prompt:
        told = ming.heard(from_openai(messages, media.reader(fetched)), user)
        return read_prompt(ming.model, ming.processor.prepare(told))

    def read_completion(prompt: str | list[int]) -> Prompt:
        # A plain completion is where prompts are written by hand, so special tokens in them are obeyed.
        ids = tokenizer.encode(prompt) if isinstance(prompt, str) else prompt
        return read_prompt(ming.model, {"input_ids": torch.tensor([ids], dtype=torch.long)})

    @routes.post("/v1/chat/completions")
    async def chat(http: Request, body: ChatBody) -> Response:
        check(body)
        reader = None
        if body.audio:
            require(able, "speech_out", ming.name)
            seats.check()
            reader = await to_thread.run_sync(Reader, ming, body.audio)
        messages = [transcripts.recall(message.model_dump()) for message in body.messages]
        check_length(written(messages), engine.longest)
        fetched = await media.fetch(messages)
        limiter = preparing if ming.answers_sound or not has_sound(messages) else hearing
        prompt = await to_thread.run_sync(read_chat, messages, fetched, user_of(http, body), limiter=limiter)
        streams = submit(http, body, [prompt], body.limit, num_likeliest=body.top_logprobs)
        choices = [Choice(i, stream, answer_of(body)) for i, stream in enumerate(streams)]
        reply = Reply("chat", ming.name, tokenizer, choices, body.logprobs)
        if reader:
            reply = SpokenReply(reply, reader, seats, transcripts)
        return await respond(http, body, reply)

    @routes.post("/v1/completions")
    async def complete(http: Request, body: CompletionBody) -> Response:
        check(body)
        for prompt in body.prompts:
            check_length(len(prompt), engine.longest)
        prompts = await to_thread.run_sync(lambda: [read_completion(p) for p in body.prompts], limiter=preparing)
        texts = [p if isinstance(p, str) else tokenizer.decode(p) for p in body.prompts]
        has_logprobs = body.logprobs is not None
        streams = submit(
            http,
            body,
            prompts,
            body.max_tokens,
            num_likeliest=body.logprobs or 0,
            score_prompt=body.echo and has_logprobs,
        )
        choices = [
            Choice(i, stream, answer_of(body), texts[i // body.n] if body.echo else None)
            for i, stream in enumerate(streams)
        ]
        return await respond(http, body, Reply("text", ming.name, tokenizer, choices, has_logprobs))

    return routes


def user_of(http: Request, body: ChatBody | CompletionBody) -> str:
    return body.user or (http.client.host if http.client else "")


def has_sound(messages: list[dict]) -> bool:
    contents = [message["content"] for message in messages if isinstance(message["content"], list)]
    return any(MEDIA.get(part.get("type"), (None,))[0] is Audio for content in contents for part in content)


def written(messages: list[dict]) -> int:
    """Characters of the texts in messages."""
    contents = [message["content"] for message in messages]
    parts = [content if isinstance(content, list) else [{"text": content}] for content in contents]
    return sum(len(text) for part in parts for p in part if isinstance(text := p.get("text"), str))


def check_length(num_characters: int, num_tokens: int) -> None:
    """Refuse what is certainly too long before it is cut into tokens, which takes a hundred times its bytes."""
    if num_characters > num_tokens * MAX_TOKEN_CHARACTERS:
        raise InputError(f"a text of {num_characters:,} characters is too long; this model reads {num_tokens} tokens")


async def respond(http: Request, body: ChatBody | CompletionBody, reply: Reply | SpokenReply) -> Response:
    if body.stream:
        return StreamingResponse(events(http, reply, body.has_usage), media_type="text/event-stream")
    async with while_connected(http, reply.cancel):
        return JSONResponse(await reply.whole())


async def events(http: Request, reply: Reply | SpokenReply, has_usage: bool) -> AsyncIterator[str]:
    """Server-sent events; what fails after the first byte is said in an event of its own."""
    async with while_connected(http, reply.cancel):
        try:
            async for chunk in reply.chunks(has_usage):
                yield f"data: {json.dumps(chunk, ensure_ascii=False)}\n\n"
        except Exception as cause:
            yield f"data: {describe(cause).body.decode()}\n\n"
        yield "data: [DONE]\n\n"
