"""HTTP in -> requests small enough and callers still there; errors out -> one sentence in OpenAI's form."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ming_omni.engine.request import Busy, Closing
from ming_omni.errors import InputError
from ming_omni.ming import Ming
from ming_omni.serve.schema import sentence

log = logging.getLogger(__name__)


class Door:
    """Counts requests inside, and refuses bodies above a size, however they arrive."""

    def __init__(self, app: ASGIApp, max_body_bytes: int, inside: set[int]):
        self.app, self.max_body_bytes, self.inside = app, max_body_bytes, inside

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        self.inside.add(id(scope))
        try:
            length = dict(scope["headers"]).get(b"content-length", b"0")
            if length.isdigit() and int(length) > self.max_body_bytes:
                await self._too_large()(scope, receive, send)
            else:
                await self._enter(scope, self._measured(receive), send)
        finally:
            self.inside.discard(id(scope))

    async def _enter(self, scope: Scope, receive: Receive, send: Send) -> None:
        has_begun = False

        async def send_noted(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            await self.app(scope, receive, send_noted)
        except Exception as cause:
            if has_begun:
                raise
            await describe(cause)(scope, receive, send)

    def _measured(self, receive: Receive) -> Receive:
        num_bytes = 0

        async def receive_measured() -> Message:
            nonlocal num_bytes
            message = await receive()
            num_bytes += len(message.get("body", b""))
            if num_bytes > self.max_body_bytes:
                raise HTTPException(413, self._reason())
            return message

        return receive_measured

    def _reason(self) -> str:
        return f"the body is larger than {self.max_body_bytes / 1e6:g} MB"

    def _too_large(self) -> JSONResponse:
        return error(413, self._reason())


class Refused(Exception):
    """Why a request is not served, with the status that says so."""

    def __init__(self, status: int, message: str, param: str | None = None, code: str | None = None):
        super().__init__(message)
        self.status, self.param, self.code = status, param, code


def check_model(ming: Ming, name: str | None) -> None:
    """One server has one model; routes on which OpenAI leaves the name out pass None."""
    if name not in (None, ming.name):
        message = f"there is no model {name!r} here; this server has {ming.name!r}"
        raise Refused(404, message, "model", "model_not_found")


def check_running(ming: Ming) -> None:
    """Refuse what would begin while the server ends."""
    if ming.engine.is_draining or not ming.engine.is_alive:
        raise Closing("this server is shutting down")


@asynccontextmanager
async def while_connected(http: Request, leave: Callable[[], None]) -> AsyncIterator[None]:
    """Call `leave` as soon as the client is gone, or when the block ends."""

    async def watch() -> None:
        while (await http.receive())["type"] != "http.disconnect":
            pass
        leave()

    watcher = asyncio.create_task(watch())
    try:
        yield
    finally:
        watcher.cancel()
        leave()


ERROR_TYPES = {429: "rate_limit_error", 500: "server_error", 503: "service_unavailable_error"}


def error_body(status: int, message: str, param: str | None = None, code: str | None = None) -> dict:
    kind = ERROR_TYPES.get(status, "invalid_request_error")
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def error(status: int, message: str, param: str | None = None, code: str | None = None, **headers: str) -> JSONResponse:
    return JSONResponse(error_body(status, message, param, code), status, headers)


def describe(cause: Exception) -> JSONResponse:
    """What went wrong -> a response."""
    if isinstance(cause, Busy):
        return error(429, str(cause), code="busy", **{"Retry-After": str(cause.retry_after_seconds)})
    if isinstance(cause, Closing):
        return error(503, str(cause), code="closing", **{"Retry-After": "5"})
    if isinstance(cause, Refused):
        return error(cause.status, str(cause), cause.param, cause.code)
    if isinstance(cause, InputError):
        return error(400, str(cause))
    if isinstance(cause, RequestValidationError):
        message, param = sentence(cause.errors()[0])
        return error(400, message, param)
    if isinstance(cause, StarletteHTTPException):
        return error(cause.status_code, str(cause.detail), **(cause.headers or {}))
    log.error("a request failed", exc_info=cause)
    return error(500, "something went wrong inside this server; its log says what")


def add_error_handlers(app: FastAPI) -> None:
    async def handle(http: Request, cause: Exception) -> JSONResponse:
        if isinstance(cause, StarletteHTTPException) and cause.status_code == 404:
            return error(404, f"there is nothing at {http.url.path}")
        if isinstance(cause, StarletteHTTPException) and cause.status_code == 405:
            return error(405, f"{http.url.path} does not take {http.method}", **(cause.headers or {}))
        return describe(cause)

    for kind in (InputError, Refused, Busy, Closing, RequestValidationError, StarletteHTTPException):
        app.add_exception_handler(kind, handle)
