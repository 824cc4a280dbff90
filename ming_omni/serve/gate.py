"""A request from anywhere -> one that may come in: its id, origin, key and how many there were; a line in the log.

The log says when, what kind, how it ended and how long it took, and never what was asked or answered.
"""

from __future__ import annotations

import hmac
import logging
import re
import time
import uuid
from collections.abc import Callable, Iterable
from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ming_omni.serve.door import REQUEST_ID, error
from ming_omni.serve.rules import Rules

log = logging.getLogger("ming_omni.access")
ID = re.compile(r"[\w.:-]{1,128}", re.ASCII)
KEY_PROTOCOL = "openai-insecure-api-key."
"""How browsers, which cannot add headers to a WebSocket, hand over a key."""


class Bucket:
    """Holds as many tokens as a minute allows, and is filled steadily."""

    def __init__(self, size: int, clock: Callable[[], float] = time.monotonic):
        self.size, self.level, self.clock, self.seen_at = size, float(size), clock, clock()

    def take(self) -> float:
        """Seconds to wait; 0: there was a token, and it is taken."""
        now = self.clock()
        self.level = min(self.size, self.level + (now - self.seen_at) * self.size / 60)
        self.seen_at = now
        if self.level < 1:
            return (1 - self.level) * 60 / self.size
        self.level -= 1
        return 0.0


class Gate:
    """In front of everything: refuses before a byte of the body is read."""

    def __init__(self, app: ASGIApp, rules: Rules):
        self.app, self.rules = app, rules
        self.keys = [key.encode() for key in rules.api_keys]
        self.buckets: dict[str, Bucket] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        headers, started_at, status = Headers(scope=scope), time.monotonic(), 0
        given = headers.get("x-request-id", "")
        request_id = given if ID.fullmatch(given) else uuid.uuid4().hex
        REQUEST_ID.set(request_id)

        async def send_named(message: Message) -> None:
            nonlocal status
            if message["type"] in ("http.response.start", "websocket.accept"):
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", request_id.encode())]
            status = 101 if message["type"] == "websocket.accept" else message.get("status", status)
            await send(message)

        who, refusal = self._check(scope, headers)
        try:
            if refusal is None:
                await self.app(scope, receive, send_named)
            elif scope["type"] == "http":
                await refusal(scope, receive, send_named)
            else:
                status = refusal.status_code
                await send({"type": "websocket.close", "code": 1008, "reason": "not allowed"})
        finally:
            self._note(scope, request_id, who, status, time.monotonic() - started_at)

    def _check(self, scope: Scope, headers: Headers):
        """Who it is, for the log and for counting; and the answer that refuses, or None."""
        address = scope["client"][0] if scope.get("client") else "-"
        if self.rules.is_local and not self.keys and not self._is_here(headers.get("host", "")):
            return address, error(403, "this server answers only under its own address", code="wrong_host")
        origin = headers.get("origin")
        is_own = origin is not None and origin.partition("://")[2] == headers.get("host")
        if origin is not None and not is_own and origin not in self.rules.origins:
            return address, error(403, "this server takes no requests from pages of other sites", code="wrong_origin")
        if not scope["path"].startswith(("/v1/", "/metrics")):
            return address, None
        who = address
        if self.keys:
            number = self._key(headers)
            if number is None:
                wanted = {"WWW-Authenticate": "Bearer"}
                return address, error(
                    401,
                    "this server asks for an API key, and yours is missing or wrong",
                    code="invalid_api_key",
                    **wanted,
                )
            who = f"key-{number + 1}"
        seconds = self._bucket(who).take() if self.rules.requests_per_minute else 0.0
        if seconds:
            message = f"more than {self.rules.requests_per_minute} requests a minute; slow down"
            return who, error(429, message, code="rate_limit_exceeded", **{"Retry-After": str(int(seconds) + 1)})
        return who, None

    def _is_here(self, host: str) -> bool:
        """Whether this is how a local server is called. A name from elsewhere that leads here is a page's trick."""
        known = {"localhost", *(urlsplit(origin).hostname for origin in self.rules.origins)}
        try:
            name = urlsplit(f"//{host}").hostname or ""
            return name in known or bool(ip_address(name))
        except ValueError:
            return False

    def _key(self, headers: Headers) -> int | None:
        """The number of the key that was given. Each comparison takes the same time, right or wrong."""
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            protocols = (name.strip() for name in headers.get("sec-websocket-protocol", "").split(","))
            given = next((name[len(KEY_PROTOCOL) :] for name in protocols if name.startswith(KEY_PROTOCOL)), "")
        matches = [hmac.compare_digest(key, given.strip().encode()) for key in self.keys]
        return matches.index(True) if any(matches) else None

    def _bucket(self, who: str) -> Bucket:
        if len(self.buckets) > MANY:
            self.buckets = dict(_busy(self.buckets.items()))
        return self.buckets.setdefault(who, Bucket(self.rules.requests_per_minute))

    def _note(self, scope: Scope, request_id: str, who: str, status: int, seconds: float) -> None:
        # A path may hold what a user wrote; the route it led to does not.
        route = getattr(scope.get("route"), "path", None) or "-"
        method = scope.get("method", "WEBSOCKET")
        log.info("%s %s %s %s %d %.3fs", request_id, who, method, route, status, seconds)


MANY = 10_000
"""Buckets, beyond which those that have filled up again are forgotten."""


def _busy(buckets: Iterable[tuple[str, Bucket]]) -> Iterable[tuple[str, Bucket]]:
    now = time.monotonic()
    return ((who, bucket) for who, bucket in buckets if now - bucket.seen_at < 60)
