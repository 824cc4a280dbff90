"""HTTP in -> requests small enough and callers still there; errors out -> one sentence in OpenAI's form."""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar

from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ming_omni.engine.request import Busy, Closing
from ming_omni.errors import InputError
from ming_omni.ming import Ming
from ming_omni.serve.rules import Rules
from ming_omni.serve.schema import sentence

log = logging.getLogger(__name__)
RETRY = {"Retry-After": "1"}
MAX_JSON_VALUES = 200_000


REQUEST_ID: ContextVar[str] = ContextVar("request_id", default="-")


class Door:
    """Counts requests inside, and sees that their bodies are small, arrive in time, and are answered in time."""

    def __init__(self, app: ASGIApp, rules: Rules, inside: set[int]):
        self.app, self.rules, self.inside = app, rules, inside
        self.num_arriving = 0
        """Bytes of all bodies that are held."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        # Of several headers of one name the first holds, for FastAPI too.
        body = ArrivingBody(self, receive, is_json="json" in headers.get("content-type", "").lower())
        self.inside.add(id(scope))
        try:
            length = headers.get("content-length", "0")
            if length.isdigit() and int(length) > self.rules.max_body_bytes:
                await describe(body.too_large())(scope, receive, send)
            else:
                await self._enter(scope, body.receive, send)
        finally:
            self.inside.discard(id(scope))
            self.num_arriving -= body.num_bytes

    async def _enter(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun: Message | None = None

        async def send_noted(message: Message) -> None:
            nonlocal begun
            begun = begun or message
            await send(message)

        try:
            async with asyncio.timeout(self.rules.request_seconds):
                await self.app(scope, receive, send_noted)
        except ClientDisconnect:
            return  # nobody hears what went wrong
        except Exception as cause:
            if isinstance(cause, TimeoutError):
                cause = Refused(408, f"this took longer than {self.rules.request_seconds:g} seconds and was stopped")
            if begun is None:
                await describe(cause)(scope, receive, send)
            elif (b"content-type", b"text/event-stream; charset=utf-8") in begun["headers"]:
                await send({"type": "http.response.body", "body": b"data: " + describe(cause).body + b"\n\n"})
            else:
                raise


class ArrivingBody:
    """A body as it arrives, measured."""

    def __init__(self, door: Door, receive: Receive, is_json: bool):
        self.door, self.wait, self.is_json = door, receive, is_json
        self.num_bytes, self.num_values, self.is_complete = 0, 0, False
        self.deadline = asyncio.get_running_loop().time() + door.rules.body_seconds

    async def receive(self) -> Message:
        if self.is_complete:  # what comes now is that the client leaves
            return await self.wait()
        try:
            async with asyncio.timeout_at(self.deadline):
                message = await self.wait()
        except TimeoutError:
            reason = f"the body did not arrive within {self.door.rules.body_seconds:g} seconds"
            raise HTTPException(408, reason, {"Connection": "close"}) from None
        self.is_complete = not message.get("more_body", False)
        data = message.get("body", b"")
        size = len(data)
        self.num_bytes += size
        if self.is_json:
            # As Python objects, many small values take a hundred times their bytes. No long text that a model could
            # read has as many of these marks, and no file in base64 has any.
            self.num_values += sum(map(data.count, (b",", b"[", b"{")))
            if self.num_values > MAX_JSON_VALUES:
                raise HTTPException(413, f"the JSON has more than {MAX_JSON_VALUES:,} values")
        self.door.num_arriving += size
        if self.num_bytes > self.door.rules.max_body_bytes:
            raise self.too_large()
        if self.door.num_arriving > self.door.rules.max_arriving_bytes:
            raise HTTPException(429, "too much is being sent to this server at once; try again shortly", RETRY)
        return message

    def too_large(self) -> HTTPException:
        return HTTPException(413, f"the body is larger than {self.door.rules.max_body_bytes / 1e6:g} MB")


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


ERROR_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "service_unavailable_error",
}


def error_body(status: int, message: str, param: str | None = None, code: str | None = None) -> dict:
    kind = ERROR_TYPES.get(status, "invalid_request_error")
    message = message.encode(errors="backslashreplace").decode()  # half a character of a client's cannot be sent back
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
    # Where it happened, but not the message, which may hold what a user wrote.
    places = "".join(traceback.format_tb(cause.__traceback__))
    log.error("request %s failed: %s\n%s", REQUEST_ID.get(), type(cause).__name__, places)
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
