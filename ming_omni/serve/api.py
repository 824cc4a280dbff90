"""A model behind HTTP: OpenAI's chat and completions, a chat page, health and metrics; one server, one process."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import torch
import uvicorn
from anyio import CapacityLimiter, to_thread
from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.concurrency import run_in_threadpool
from starlette.staticfiles import StaticFiles

from ming_omni import __version__
from ming_omni.engine.request import Prompt, read_prompt
from ming_omni.engine.request import Request as EngineRequest
from ming_omni.engine.text import Answer
from ming_omni.inputs.messages import from_openai
from ming_omni.ming import Ming
from ming_omni.serve import transcriptions
from ming_omni.serve.capabilities import capabilities
from ming_omni.serve.choices import Choice, Reply
from ming_omni.serve.door import Door, add_error_handlers, describe, error, while_connected
from ming_omni.serve.metrics import prometheus
from ming_omni.serve.schema import ChatBody, CompletionBody

PAGE = Path(__file__).parent / "page"
PAGE_HEADERS = {
    "Cache-Control": "no-cache",
    # Nothing from elsewhere is loaded, and what is shown reaches nobody but this server.
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data: blob:; media-src data: blob:; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
}
MAX_BODY_BYTES = 64_000_000
GRACE_SECONDS = 30.0
KEEP_ALIVE_SECONDS = 75
"""Longer than clients keep idle connections, so that it is they who hang up and no request meets a closed one."""


def build(ming: Ming, max_body_bytes: int = MAX_BODY_BYTES) -> FastAPI:
    """The application. Its state holds the model's `name`, its `engine`, and `inside`: who is being served."""
    engine, started_at, inside = ming.engine, int(time.time()), set()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await run_in_threadpool(engine.stop)

    app = FastAPI(title="ming-omni", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None)
    # Pictures and sounds are opened beside the engine, a few at a time, so that many do not fill the memory.
    preparing = CapacityLimiter(os.cpu_count() or 1)
    app.state.name, app.state.engine, app.state.inside = ming.name, engine, inside
    app.add_middleware(Door, max_body_bytes=max_body_bytes, inside=inside)
    add_error_handlers(app)

    def check(body: ChatBody | CompletionBody) -> JSONResponse | None:
        """Why this request cannot be answered, before any work is put into it."""
        engine.check_open()
        if body.model != ming.name:
            message = f"there is no model {body.model!r} here; this server has {ming.name!r}"
            return error(404, message, "model", "model_not_found")
        return None

    def submit(http: Request, body: ChatBody | CompletionBody, prompts: list[Prompt], limit: int | None, **options):
        """n streams for each prompt, or none if one is refused."""
        streams, loop = [], asyncio.get_running_loop()
        user = body.user or (http.client.host if http.client else "")
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
        return Answer(ming.processor.tokenizer.stream(), body.stop)

    def read_completion(prompt: str | list[int]) -> Prompt:
        # A plain completion is where prompts are written by hand, so special tokens in them are obeyed.
        ids = ming.processor.tokenizer.encode(prompt) if isinstance(prompt, str) else prompt
        return read_prompt(ming.model, {"input_ids": torch.tensor([ids], dtype=torch.long)})

    async def respond(http: Request, body: ChatBody | CompletionBody, reply: Reply) -> Response:
        if body.stream:
            return StreamingResponse(events(http, reply, body.has_usage), media_type="text/event-stream")
        async with while_connected(http, reply.cancel):
            return JSONResponse(await reply.whole())

    @app.post("/v1/chat/completions")
    async def chat(http: Request, body: ChatBody) -> Response:
        if refusal := check(body):
            return refusal
        messages = [message.model_dump() for message in body.messages]
        prompt = await to_thread.run_sync(
            lambda: read_prompt(ming.model, ming.processor.prepare(from_openai(messages))), limiter=preparing
        )
        streams = submit(http, body, [prompt], body.limit, num_likeliest=body.top_logprobs)
        choices = [Choice(i, stream, answer_of(body)) for i, stream in enumerate(streams)]
        return await respond(http, body, Reply("chat", ming.name, ming.processor.tokenizer, choices, body.logprobs))

    @app.post("/v1/completions")
    async def complete(http: Request, body: CompletionBody) -> Response:
        if refusal := check(body):
            return refusal
        tokenizer = ming.processor.tokenizer
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

    app.include_router(transcriptions.router(ming))
    card = {"id": ming.name, "object": "model", "created": started_at, "owned_by": "ming-omni"}
    card["capabilities"] = capabilities(ming)

    @app.get("/v1/models")
    async def models() -> dict:
        return {"object": "list", "data": [card]}

    @app.get("/v1/models/{name:path}")
    async def model(name: str) -> Response:
        if name != ming.name:
            return error(
                404, f"there is no model {name!r} here; this server has {ming.name!r}", "model", "model_not_found"
            )
        return JSONResponse(card)

    @app.api_route("/health", methods=["GET", "HEAD"])
    async def health() -> JSONResponse:
        status = "draining" if engine.is_draining else "ok" if engine.is_alive else "stopped"
        return JSONResponse({"status": status}, 200 if status == "ok" else 503)

    @app.get("/metrics")
    async def metrics() -> PlainTextResponse:
        return PlainTextResponse(prometheus(engine), media_type="text/plain; version=0.0.4")

    @app.api_route("/", methods=["GET", "HEAD"], include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(PAGE / "index.html", headers=PAGE_HEADERS)

    app.mount("/page", PageFiles(directory=PAGE))
    return app


class PageFiles(StaticFiles):
    """The page's scripts and styles, with the headers of the page itself: an old script never meets a new page."""

    def file_response(self, *args, **kwargs) -> Response:
        response = super().file_response(*args, **kwargs)
        response.headers.update(PAGE_HEADERS)
        return response


async def events(http: Request, reply: Reply, has_usage: bool) -> AsyncIterator[str]:
    """Server-sent events; what fails after the first byte is said in an event of its own."""
    async with while_connected(http, reply.cancel):
        try:
            async for chunk in reply.chunks(has_usage):
                yield f"data: {json.dumps(chunk, ensure_ascii=False)}\n\n"
        except Exception as cause:
            yield f"data: {describe(cause).body.decode()}\n\n"
        yield "data: [DONE]\n\n"


class Server(uvicorn.Server):
    """The first signal lets those inside finish and turns others away; time or a second signal ends it."""

    def __init__(self, config: uvicorn.Config, app: FastAPI, grace_seconds: float = GRACE_SECONDS):
        super().__init__(config)
        self.name, self.engine, self.inside = app.state.name, app.state.engine, app.state.inside
        self.grace_seconds = grace_seconds
        self.leave_at: float | None = None

    def drain(self) -> None:
        self.engine.drain()
        self.leave_at = time.monotonic() + self.grace_seconds

    def handle_exit(self, sig, frame) -> None:
        if self.leave_at is None:
            self.drain()
        else:
            self.leave_at = 0.0

    async def startup(self, sockets: list | None = None) -> None:
        await super().startup(sockets)
        port = self.servers[0].sockets[0].getsockname()[1]
        print(f"{self.name} on http://{self.config.host}:{port}", flush=True)

    async def on_tick(self, counter: int) -> bool:
        if self.leave_at is not None and (not self.inside or time.monotonic() >= self.leave_at):
            await run_in_threadpool(self.engine.stop)
            self.should_exit = True
        return await super().on_tick(counter)


def run(ming: Ming, host: str = "127.0.0.1", port: int = 8000, **options) -> None:
    """Serve until a signal says otherwise."""
    app = build(ming, **options)
    config = uvicorn.Config(
        app, host, port, log_level="warning", timeout_keep_alive=KEEP_ALIVE_SECONDS, timeout_graceful_shutdown=5
    )
    Server(config, app).run()
