"""A model behind HTTP: OpenAI's routes, a page, health and metrics; one server, one process."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import uvicorn
from anyio import CapacityLimiter
from fastapi import FastAPI
from fastapi.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.concurrency import run_in_threadpool
from starlette.middleware.cors import CORSMiddleware
from starlette.staticfiles import StaticFiles

from ming_omni import __version__
from ming_omni.ming import Ming
from ming_omni.serve import chat, images, speech, transcriptions, voices
from ming_omni.serve.capabilities import capabilities
from ming_omni.serve.connection import Connection
from ming_omni.serve.door import Door, add_error_handlers, check_model
from ming_omni.serve.fetch import Web
from ming_omni.serve.gate import Gate
from ming_omni.serve.media import Media
from ming_omni.serve.metrics import prometheus
from ming_omni.serve.realtime import socket as realtime
from ming_omni.serve.realtime.socket import Lounge
from ming_omni.serve.rules import OPEN, Rules
from ming_omni.serve.work import Seats

PAGE = Path(__file__).parent / "page"
PAGE_HEADERS = {
    "Cache-Control": "no-cache",
    # Nothing from elsewhere is loaded, and what is shown reaches nobody but this server.
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data: blob:; media-src data: blob:; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
}
MOST_SPEAKING = 16
"""Texts; the talker takes half of them at a time."""
GRACE_SECONDS = 30.0
SWITCH_SECONDS = 0.0002
"""How long a thread may keep the interpreter while another wants it. A step of a model wants it hundreds of times: at
Python's 5 ms, writing beside speaking and painting would wait for seconds. For the same reason no thread has a lower
priority: it would keep the interpreter while it is not run."""
KEEP_ALIVE_SECONDS = 75
"""Longer than clients keep idle connections, so that it is they who hang up and no request meets a closed one."""


def build(ming: Ming, rules: Rules = OPEN) -> FastAPI:
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
    app.add_middleware(Door, rules=rules, inside=inside)
    app.add_middleware(Gate, rules=rules)
    if rules.origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=rules.origins,
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["*"],
            expose_headers=["x-request-id", "retry-after"],
        )
    add_error_handlers(app)

    speaking = Seats(MOST_SPEAKING, "texts are being spoken", thread_name_prefix="speak")
    media = Media(ming, Web(allows_http=rules.http_media))
    app.include_router(chat.router(ming, preparing, speaking, media))
    app.include_router(speech.router(ming, speaking))
    app.include_router(voices.router(ming))
    app.include_router(images.router(ming))
    app.include_router(transcriptions.router(ming))
    app.state.realtime = Lounge()
    app.include_router(realtime.router(ming, app.state.realtime, inside))
    card = {"id": ming.name, "object": "model", "created": started_at, "owned_by": "ming-omni"}
    card["capabilities"] = capabilities(ming)

    @app.get("/v1/models")
    async def models() -> dict:
        return {"object": "list", "data": [card]}

    @app.get("/v1/models/{name:path}")
    async def model(name: str) -> Response:
        check_model(ming, name)
        return JSONResponse(card)

    @app.head("/health", include_in_schema=False)
    @app.get("/health")
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
        sys.setswitchinterval(SWITCH_SECONDS)
        await super().startup(sockets)
        port = self.servers[0].sockets[0].getsockname()[1]
        print(f"{self.name} on http://{self.config.host}:{port}", flush=True)

    async def on_tick(self, counter: int) -> bool:
        if self.leave_at is not None and (not self.inside or time.monotonic() >= self.leave_at):
            await run_in_threadpool(self.engine.stop)
            self.should_exit = True
        return await super().on_tick(counter)


def run(ming: Ming, host: str = "127.0.0.1", port: int = 8000, rules: Rules = OPEN) -> None:
    """Serve until a signal says otherwise."""
    log_requests()
    app = build(ming, rules)
    Server(config_of(app, host, port), app).run()


def config_of(app: FastAPI, host: str, port: int) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        host,
        port,
        http=Connection,
        log_level="warning",
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        ws_max_size=app.state.realtime.caps.event_bytes,  # a longer event ends its session with code 1009
        timeout_graceful_shutdown=5,
    )


def log_requests() -> None:
    """One line a request on standard error."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    log = logging.getLogger("ming_omni.access")
    log.setLevel(logging.INFO)
    log.handlers, log.propagate = [handler], False
