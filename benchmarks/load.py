"""Many clients at once against `ming serve`: every answer checked to be its own, some clients vanish; prints JSON.

    python -m benchmarks.load                            tiny, 200 streams, 10 seconds
    python -m benchmarks.load --seconds 600              is memory flat?
    python -m benchmarks.load --model nano --streams 8   how fast; answers of tiny only are checked

The server is a process of its own. Each client asks its own prompts with its own seeds over and over. What it must hear
comes from the model's plain loop.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch

WORDS = "red green blue small large round flat warm cold river stone cloud paper window garden number letter".split()  # noqa: SIM905
VANISHING = 0.2
PROMPTS_PER_CLIENT = 3


@dataclass
class Job:
    """One question, and the answer that belongs to it."""

    prompt: str
    seed: int
    num_tokens: int
    expected: str | None = None


@dataclass
class Tally:
    num_right: int = 0
    num_wrong: int = 0
    num_vanished: int = 0
    num_refused: int = 0
    num_tokens: int = 0
    first_token_seconds: list[float] = field(default_factory=list)
    memory_mb: list[float] = field(default_factory=list)


def jobs_of(num_streams: int, num_tokens: int) -> list[list[Job]]:
    """Different prompts of different lengths for every client."""
    dice = random.Random(0)
    return [
        [
            Job(
                f"client {client}, question {i}: " + " ".join(dice.choices(WORDS, k=dice.randint(1, 12))),
                seed=client * PROMPTS_PER_CLIENT + i,
                num_tokens=dice.randint(num_tokens // 2, num_tokens),
            )
            for i in range(PROMPTS_PER_CLIENT)
        ]
        for client in range(num_streams)
    ]


def answer_plainly(model: str, jobs: list[Job]) -> None:
    """Fill in what the model's own loop answers, many rows at a time."""
    from ming_omni.ming import Ming
    from ming_omni.model.sampling import Sampling

    ming = Ming.load(model)
    inputs = ming.processor.prepare([[{"role": "user", "content": job.prompt}] for job in jobs])
    sampling = [Sampling(1.0, seed=job.seed, banned=ming.sampling.banned) for job in jobs]
    most = max(job.num_tokens for job in jobs)
    steps = ming.model.steps(inputs, sampling, max_new_tokens=most, eos_token_id=sorted(ming.stop_ids))
    answers = torch.stack([step.ids for step in steps], 1).tolist()
    for job, ids in zip(jobs, answers, strict=True):
        decoder, text = ming.processor.tokenizer.stream(), ""
        for id_ in ids[: job.num_tokens]:
            if id_ in ming.stop_ids:
                break
            text += decoder.push(id_)
        job.expected = text + decoder.finish()


@contextlib.contextmanager
def serving(model: str) -> Iterator[tuple[int, int]]:
    """A server process: its port and its process id."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "ming_omni.cli", "serve", "--model", model, "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120
        while not is_healthy(port):
            assert process.poll() is None and time.monotonic() < deadline, "the server does not start"
            time.sleep(0.1)
        yield port, process.pid
    finally:
        process.terminate()
        process.wait(60)


def is_healthy(port: int) -> bool:
    try:
        return urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).status == 200
    except OSError:
        return False


def metrics(port: int) -> dict[str, float]:
    text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30).read().decode()
    return {name: float(value) for name, value in (s.rsplit(" ", 1) for s in text.splitlines() if s[0] != "#")}


async def ask(port: int, model: str, job: Job, tally: Tally, vanishes: bool) -> None:
    """One request over a connection of its own; a client that vanishes hangs up without a word."""
    body = {
        "model": model,
        "messages": [{"role": "user", "content": job.prompt}],
        "seed": job.seed,
        "temperature": 1.0,
        "max_tokens": job.num_tokens,
        "stream": True,
    }
    data = json.dumps(body).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    started = time.monotonic()
    writer.write(f"{head}connection: close\r\ncontent-length: {len(data)}\r\n\r\n".encode() + data)
    text, num_pieces = "", 0
    try:
        if b" 200 " not in await reader.readline():
            tally.num_refused += 1
            return
        async for line in reader:
            if not line.startswith(b"data: {"):
                continue
            piece = json.loads(line[6:])["choices"][0]["delta"].get("content")
            if not piece:
                continue
            if not num_pieces:
                tally.first_token_seconds.append(time.monotonic() - started)
            num_pieces += 1
            text += piece
            # Pieces are fewer than tokens: tiny writes many broken characters.
            if vanishes and num_pieces >= job.num_tokens // 4:
                tally.num_vanished += 1
                writer.transport.abort()
                return
        is_right = job.expected is None or text == job.expected
        tally.num_right += is_right
        tally.num_wrong += not is_right
    finally:
        writer.close()


async def client(port: int, model: str, jobs: list[Job], tally: Tally, dice: random.Random, until: float) -> None:
    while time.monotonic() < until:
        await ask(port, model, dice.choice(jobs), tally, dice.random() < VANISHING)


async def watch_memory(pid: int, tally: Tally, every_seconds: float) -> None:
    page_mb = os.sysconf("SC_PAGE_SIZE") / 1e6
    while True:
        tally.memory_mb.append(round(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * page_mb, 1))
        await asyncio.sleep(every_seconds)


async def drive(port: int, pid: int, model: str, clients: list[list[Job]], seconds: float) -> Tally:
    tally, until = Tally(), time.monotonic() + seconds
    watcher = asyncio.create_task(watch_memory(pid, tally, seconds / 20))
    await asyncio.gather(*(client(port, model, jobs, tally, random.Random(i), until) for i, jobs in enumerate(clients)))
    watcher.cancel()
    return tally


def load(model: str = "tiny", num_streams: int = 200, seconds: float = 10, num_tokens: int = 24) -> dict:
    """Run it and report."""
    clients = jobs_of(num_streams, num_tokens)
    is_checked = model == "tiny"
    if is_checked:
        answer_plainly(model, [job for jobs in clients for job in jobs])
    with serving(model) as (port, pid):
        before, started = metrics(port), time.monotonic()
        tally = asyncio.run(drive(port, pid, model, clients, seconds))
        took = time.monotonic() - started
        deadline = time.monotonic() + 10
        while (after := metrics(port))["ming_cache_pages_held"] and time.monotonic() < deadline:
            time.sleep(0.05)
    answers = {job.expected for jobs in clients for job in jobs}
    first = sorted(tally.first_token_seconds)
    half = len(tally.memory_mb) // 2
    return {
        "model": model,
        "streams": num_streams,
        "seconds": round(took, 1),
        "answers_right": tally.num_right if is_checked else None,
        "answers_wrong": tally.num_wrong if is_checked else None,
        "answers_complete": tally.num_right + tally.num_wrong,
        "different_answers_expected": len(answers) if is_checked else None,
        "vanished": tally.num_vanished,
        "refused": tally.num_refused,
        "tokens_per_second": round((after["ming_answer_tokens_total"] - before["ming_answer_tokens_total"]) / took, 1),
        "first_token_seconds": {
            "p50": round(statistics.median(first), 3),
            "p99": round(first[int(len(first) * 0.99)], 3),
        },
        "memory_mb": tally.memory_mb,
        "memory_growth_mb": round(tally.memory_mb[-1] - tally.memory_mb[half], 1),
        "left_running": after["ming_running_requests"] + after["ming_waiting_requests"],
        "left_pages_held": after["ming_cache_pages_held"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--streams", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--tokens", type=int, default=24, help="of the longest answer")
    options = parser.parse_args()
    print(json.dumps(load(options.model, options.streams, options.seconds, options.tokens), indent=2))


if __name__ == "__main__":
    main()
