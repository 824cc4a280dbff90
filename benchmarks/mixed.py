"""Chat, speech, pictures, transcription and a conversation, each alone and then all at once: who waits, and how long?

    python -m benchmarks.mixed                       tiny, 10 seconds alone for each kind, 30 seconds together
    python -m benchmarks.mixed --model FOLDER        a model with every part

The server is a process of its own. `wait` is what a person notices: the first word of a chat, the first sound of a
speech, the whole picture, the whole transcript, the first sound after one's own last word in a conversation. `slowdown`
is the median wait together over the median wait alone. `fairness` is Jain's index of the slowdowns: 1 when everybody
waits longer by the same factor, 1/5 when one bears all of it. Prints JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import itertools
import json
import os
import platform
import statistics
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import httpx
import soundfile
import websockets

from benchmarks.converse import SOUND, WIRE_HZ, Call, words
from benchmarks.load import serving

TEXT = "The river is wide and slow here. A boat goes by. Nobody on it looks up."
CLIENTS = {"chat": 4, "speech": 1, "pictures": 1, "transcription": 1, "conversation": 1}


@dataclass
class Site:
    """The server, as clients see it."""

    http: httpx.AsyncClient
    port: int
    model: str
    sound: bytes = field(default_factory=lambda: _wav())

    async def first_piece(self, path: str, body: dict[str, Any], is_it: Callable[[bytes], bool]) -> float:
        """Seconds to the first piece that counts; the rest is read to its end."""
        began, found = time.monotonic(), None
        async with self.http.stream("POST", path, json=body) as answer:
            answer.raise_for_status()
            async for piece in answer.aiter_bytes():
                if found is None and is_it(piece):
                    found = time.monotonic() - began
        return found if found is not None else time.monotonic() - began

    async def whole(self, path: str, **request: Any) -> float:
        began = time.monotonic()
        (await self.http.post(path, **request)).raise_for_status()
        return time.monotonic() - began


async def chat(site: Site) -> AsyncIterator[float]:
    for turn in itertools.count():
        messages = [{"role": "user", "content": f"{turn}: what is a river?"}]
        body = {"model": site.model, "messages": messages, "max_tokens": 48, "stream": True, "temperature": 1}
        yield await site.first_piece("/v1/chat/completions", body, lambda piece: b'"content": "' in piece)


async def speech(site: Site) -> AsyncIterator[float]:
    while True:
        body = {"model": site.model, "input": TEXT, "response_format": "pcm"}
        yield await site.first_piece("/v1/audio/speech", body, bool)


async def pictures(site: Site) -> AsyncIterator[float]:
    while True:
        yield await site.whole("/v1/images/generations", json={"model": site.model, "prompt": "a red boat"})


async def transcription(site: Site) -> AsyncIterator[float]:
    while True:
        files = {"file": ("words.wav", site.sound)}
        yield await site.whole("/v1/audio/transcriptions", files=files, data={"model": site.model})


async def conversation(site: Site) -> AsyncIterator[float]:
    spoken = words()
    async with websockets.connect(f"ws://127.0.0.1:{site.port}/v1/realtime?model={site.model}") as socket:
        call = Call(socket)
        await call.send("session.update", session={"type": "realtime", "max_output_tokens": 24})
        while True:
            speaking = asyncio.create_task(call.say(spoken))
            first, _ = await call.answer()
            asked_at = await speaking
            if SOUND in first:
                yield max(0.0, first[SOUND] - asked_at)


KINDS: dict[str, Callable[[Site], AsyncIterator[float]]] = {
    "chat": chat,
    "speech": speech,
    "pictures": pictures,
    "transcription": transcription,
    "conversation": conversation,
}


def _wav() -> bytes:
    file = io.BytesIO()
    soundfile.write(file, memoryview(words()).cast("h"), WIRE_HZ, format="WAV")
    return file.getvalue()


async def drive(site: Site, kinds: list[str], seconds: float) -> dict[str, list[float]]:
    """Waits of each kind while all of these are asked for; a client that got nothing has waited the whole time."""
    waits: dict[str, list[float]] = {kind: [] for kind in kinds}

    async def client(kind: str) -> None:
        began = time.monotonic()
        try:
            async for wait in KINDS[kind](site):
                waits[kind].append(wait)
                began = time.monotonic()
        except asyncio.CancelledError:
            if not waits[kind]:
                waits[kind].append(time.monotonic() - began)
            raise

    tasks = [asyncio.create_task(client(kind)) for kind in kinds for _ in range(CLIENTS[kind])]
    done, open_ = await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_EXCEPTION)
    for task in open_:
        task.cancel()
    for task in done:
        task.result()  # a client that failed is no figure
    for task in open_:
        with suppress(asyncio.CancelledError):
            await task
    return waits


async def measure(port: int, model: str, alone_seconds: float, mixed_seconds: float) -> dict[str, Any]:
    async with _site(port, model) as site:
        for kind in KINDS:  # what is loaded on first use does not count
            await anext(KINDS[kind](site))
        alone = {}
        for kind in KINDS:
            alone |= await drive(site, [kind], alone_seconds)
        mixed = await drive(site, list(KINDS), mixed_seconds)
    return report(model, alone, mixed)


@asynccontextmanager
async def _site(port: int, model: str) -> AsyncIterator[Site]:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=300) as http:
        yield Site(http, port, model)


def report(model: str, alone: dict[str, list[float]], mixed: dict[str, list[float]]) -> dict[str, Any]:
    kinds = {
        kind: {
            "clients": CLIENTS[kind],
            "alone": quantiles(alone[kind]),
            "mixed": quantiles(mixed[kind]),
            "slowdown": round(statistics.median(mixed[kind]) / max(statistics.median(alone[kind]), 1e-3), 2),
        }
        for kind in KINDS
    }
    slowdowns = [figures["slowdown"] for figures in kinds.values()]
    return {
        "model": model,
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "kinds": kinds,
        "fairness": round(fairness(slowdowns), 3),
    }


def quantiles(waits: list[float]) -> dict[str, float]:
    ordered = sorted(waits)
    return {
        "count": len(ordered),
        "p50_s": round(statistics.median(ordered), 3),
        "p99_s": round(ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))], 3),
    }


def fairness(slowdowns: list[float]) -> float:
    """Jain's index."""
    return sum(slowdowns) ** 2 / (len(slowdowns) * sum(s * s for s in slowdowns))


def mixed(model: str = "tiny", alone_seconds: float = 10, mixed_seconds: float = 30) -> dict[str, Any]:
    with serving(model) as (port, _):
        return asyncio.run(measure(port, model, alone_seconds, mixed_seconds))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--alone-seconds", type=float, default=10)
    parser.add_argument("--mixed-seconds", type=float, default=30)
    options = parser.parse_args()
    print(json.dumps(mixed(options.model, options.alone_seconds, options.mixed_seconds), indent=2))


if __name__ == "__main__":
    main()
