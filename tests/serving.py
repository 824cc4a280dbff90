"""A real server on localhost, in a thread, around the tiny model."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import openai
from fastapi import FastAPI

from ming_omni.engine.engine import Engine, Options
from ming_omni.inputs.processor import MingProcessor
from ming_omni.inputs.tiny import tiny_tokenizer
from ming_omni.ming import Ming
from ming_omni.serve.api import Server, build, config_of
from ming_omni.serve.rules import OPEN, Rules
from ming_omni.speak.speaker import tiny_speaker
from ming_omni.speech.voices import Shelf
from tests.painters import tiny_painter
from tests.recipes import tiny_model


@dataclass
class Served:
    url: str
    app: FastAPI
    server: Server
    ming: Ming

    @property
    def engine(self) -> Engine:
        return self.ming.engine

    @property
    def is_idle(self) -> bool:
        """Nothing runs, waits, or holds a page."""
        e = self.engine
        return not e.streams and not e.scheduler.running and len(e.pages.idle) == e.pages.num_pages


def tiny_ming(**options) -> Ming:
    model = tiny_model()
    ming = Ming(model, MingProcessor.from_config(model.config, tiny_tokenizer()), name="tiny")
    ming.__dict__["engine"] = Engine(model, Options(**{"cache_tokens": 8192} | options)).start()
    return ming


def whole_ming(voices: Path) -> Ming:
    """Tiny with every part, and a shelf of its own."""
    ming = Ming.load("tiny")
    ming.model.painter = tiny_painter()
    ming.__dict__["engine"] = Engine(ming.model, Options(cache_tokens=8192)).start()
    ming.__dict__["speaker"] = tiny_speaker(Shelf(voices))
    return ming


@contextmanager
def serving(ming: Ming, grace_seconds: float = 5.0, rules: Rules = OPEN) -> Iterator[Served]:
    app = build(ming, rules)
    server = Server(config_of(app, "127.0.0.1", 0), app, grace_seconds)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until(lambda: server.started)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield Served(f"http://127.0.0.1:{port}", app, server, ming)
    finally:
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()


def openai_client(served: Served) -> openai.OpenAI:
    """The official client, which asks once and says at once what went wrong."""
    return openai.OpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0, timeout=60)


def until(holds: Callable[[], bool], timeout_seconds: float = 20.0) -> None:
    """Wait for something to become true."""
    deadline = time.monotonic() + timeout_seconds
    while not holds():
        assert time.monotonic() < deadline, "this did not come true in time"
        time.sleep(0.005)
