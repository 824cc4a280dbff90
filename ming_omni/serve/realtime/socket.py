"""The door of /v1/realtime: who may come in, how many at once, and how large their messages may be."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np
from fastapi import APIRouter, WebSocket
from starlette.websockets import WebSocketDisconnect, WebSocketState

from ming_omni.converse.memory import Reader
from ming_omni.engine.request import Closing, Request
from ming_omni.inputs.mel import SAMPLE_RATE_HZ
from ming_omni.inputs.messages import Audio
from ming_omni.ming import Ming
from ming_omni.serve.capabilities import capabilities
from ming_omni.serve.door import Refused, check_model, check_running, describe, error
from ming_omni.serve.realtime.session import MOST_RESPONSES, Caps, Session

PROTOCOL = "realtime"
"""What browsers name beside their key: `new WebSocket(url, ["realtime", "openai-insecure-api-key.KEY"])`."""

CLOSE_SECONDS = 1.0


@dataclass
class Lounge:
    """The sessions of one server."""

    caps: Caps = field(default_factory=Caps)
    sessions: set[Session] = field(default_factory=set)
    is_warm: bool = False


def router(ming: Ming, lounge: Lounge, inside: set[int]) -> APIRouter:
    """inside  who is being served: a server that shuts down waits for them"""
    routes = APIRouter()
    able = capabilities(ming)
    # A thread for each voice that speaks and each recording that is written down.
    threads = ThreadPoolExecutor(lounge.caps.sessions * (MOST_RESPONSES + 1), thread_name_prefix="realtime")

    @routes.websocket("/v1/realtime")
    async def realtime(socket: WebSocket) -> None:
        if refusal := refuse(socket):
            await socket.send_denial_response(refusal)
            return
        user = socket.client.host if socket.client else ""
        session = Session(ming, lounge.caps, socket.send_text, threads, able, user)
        lounge.sessions.add(session)
        inside.add(id(session))
        if not lounge.is_warm:
            lounge.is_warm = True
            threads.submit(warm, ming, able)
        try:
            await socket.accept(PROTOCOL if PROTOCOL in socket.scope["subprotocols"] else None)
            code, reason = await session.run(lambda: receive(socket))
            if socket.application_state is WebSocketState.CONNECTED is socket.client_state:
                with suppress(TimeoutError):  # one who does not read cannot be told either
                    await asyncio.wait_for(socket.close(code, reason[:120]), CLOSE_SECONDS)
        finally:
            lounge.sessions.discard(session)
            inside.discard(id(session))

    def refuse(socket: WebSocket):
        """Why this client cannot come in, before the handshake ends."""
        try:
            check_running(ming)
            check_model(ming, socket.query_params.get("model"))
        except (Closing, Refused) as cause:
            return describe(cause)
        if len(lounge.sessions) >= lounge.caps.sessions:
            message = f"{lounge.caps.sessions} conversations are held already; try again shortly"
            return error(429, message, code="busy", **{"Retry-After": "5"})
        return None

    return routes


def warm(ming: Ming, able: list[str]) -> None:
    """Load what the first turn would wait for: ears and what writes down; the talker, and how numbers are said."""
    if "audio_in" in able:
        silence = np.zeros(SAMPLE_RATE_HZ, np.float32), SAMPLE_RATE_HZ
        request = Request(Reader(ming.model, ming.processor).media(Audio(silence)), max_tokens=0)
        with ming.engine.submit(request) as stream:
            list(stream)
        ming.transcribe(silence)
    if "speech_out" in able:
        for text in ("1", "一"):
            next(ming.speak(text, stream=True), None)


async def receive(socket: WebSocket) -> str | None:
    """The next event, None when the client has left."""
    try:
        message = await socket.receive()
    except WebSocketDisconnect:
        return None
    if message["type"] == "websocket.disconnect":
        return None
    text = message.get("text")
    return text if text is not None else message["bytes"].decode(errors="replace")
