"""One long conversation over /v1/realtime, turn by turn: how long until the answer begins, what is computed, memory.

    python -m benchmarks.converse                     tiny: random weights that hear and speak
    python -m benchmarks.converse --model nano        what ships

The server is a process of its own. A model that hears is spoken to: real words, streamed as fast as they were said, and
the clock starts when the last of them has been sent, so the half second of silence that ends a turn counts. One that
does not hear is written to, and the clock starts with the request. Prints a line of JSON for each turn, then a summary.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
import statistics
import time
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import soxr
import websockets

from benchmarks.load import serving
from ming_omni.inputs.audio import load_audio

SPEECH = Path(__file__).parent.parent / "tests" / "fixtures" / "speech"
WORDS = ("english-three.wav", "english-nine.wav", "english-seven.wav")
QUESTIONS = ("Name a colour.", "Why do you like it?", "And another one?", "Which of the two is brighter?")
WIRE_HZ = 24_000
PIECE_SECONDS = 0.05
SILENCE_MS = 500
SOUND = "response.output_audio.delta"
PATIENCE_SECONDS = 120


class Call:
    """One session, and when each of its events came."""

    def __init__(self, socket: websockets.ClientConnection):
        self.socket = socket

    async def send(self, kind: str, **fields: Any) -> None:
        await self.socket.send(json.dumps({"type": kind, **fields}))

    async def answer(self) -> tuple[dict[str, float], dict[str, Any]]:
        """When the first event of each kind came, up to the end of the response; and the response."""
        first: dict[str, float] = {}
        num_bytes = 0
        while True:
            event = json.loads(await asyncio.wait_for(self.socket.recv(), PATIENCE_SECONDS))
            assert event["type"] != "error", event["error"]["message"]
            began = first.setdefault(event["type"], time.monotonic())
            if event["type"] == SOUND:
                num_bytes += len(base64.b64decode(event["delta"]))
                played_at = began + num_bytes / 2 / WIRE_HZ
            if event["type"] == "response.done":
                if num_bytes:  # nobody interrupts here
                    await asyncio.sleep(max(0.0, played_at - time.monotonic()))
                return first, event["response"]

    async def say(self, sound: bytes) -> float:
        """Stream pcm16 as fast as it was spoken. Returns when its last word was over."""
        size, began = int(WIRE_HZ * PIECE_SECONDS) * 2, time.monotonic()
        silence = bytes(size)
        pieces = [sound[i : i + size] for i in range(0, len(sound), size)]
        for i, piece in enumerate(pieces + [silence] * int(SILENCE_MS / 1000 / PIECE_SECONDS + 6)):
            await asyncio.sleep(max(0.0, began + i * PIECE_SECONDS - time.monotonic()))
            await self.send("input_audio_buffer.append", audio=base64.b64encode(piece).decode())
        return began + len(pieces) * PIECE_SECONDS


def words() -> bytes:
    """A second or so of real speech, as pcm16."""
    samples = np.concatenate([load_audio(SPEECH / name).numpy() for name in WORDS])
    return (soxr.resample(samples, 16_000, WIRE_HZ) * 32_767).astype("<i2").tobytes()


async def converse(port: int, pid: int, model: str, num_turns: int, max_tokens: int) -> list[dict[str, Any]]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/models") as reply:
        able = json.load(reply)["data"][0]["capabilities"]
    hears, speaks, sound = "audio_in" in able, "speech_out" in able, words()
    turns = []
    async with websockets.connect(f"ws://127.0.0.1:{port}/v1/realtime?model={model}") as socket:
        call = Call(socket)
        await call.send("session.update", session={"type": "realtime", "max_output_tokens": max_tokens})
        for turn in range(num_turns):
            if hears:
                speaking = asyncio.create_task(call.say(sound))
                first, response = await call.answer()
                asked_at = await speaking
            else:
                content = [{"type": "input_text", "text": QUESTIONS[turn % len(QUESTIONS)]}]
                item = {"type": "message", "role": "user", "content": content}
                await call.send("conversation.item.create", item=item)
                asked_at = time.monotonic()
                await call.send("response.create")
                first, response = await call.answer()
            usage, text = response["usage"], "response.output_audio_transcript.delta"
            text = text if speaks else "response.output_text.delta"
            num_read, num_cached = usage["input_tokens"], usage["input_token_details"]["cached_tokens"]
            figures = {
                "turn": turn,
                "first_text_s": round(first[text] - asked_at, 3),
                "first_sound_s": round(first[SOUND] - asked_at, 3) if speaks else None,
                "prompt_tokens": num_read,
                "computed_tokens": num_read - num_cached,
                "memory_mb": resident_mb(pid),
            }
            print(json.dumps(figures), flush=True)
            turns.append(figures)
    return turns


def resident_mb(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 1e6, 1)


def summary(model: str, turns: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians, and the first half of the conversation against the second; the first turn, which loads things, apart."""
    first, *rest = turns
    kinds = [kind for kind in ("first_text_s", "first_sound_s") if first[kind] is not None]
    halves = rest[: len(rest) // 2], rest[len(rest) // 2 :]
    return {
        "model": model,
        "turns": len(turns),
        "first_turn": {kind: first[kind] for kind in kinds},
        "median": {kind: round(statistics.median(turn[kind] for turn in rest), 3) for kind in kinds},
        "median_of_halves": {
            kind: [round(statistics.median(turn[kind] for turn in half), 3) for half in halves] for kind in kinds
        },
        "most_computed_tokens": max(turn["computed_tokens"] for turn in rest),
        "most_prompt_tokens": max(turn["prompt_tokens"] for turn in rest),
        "memory_growth_mb": round(rest[-1]["memory_mb"] - rest[0]["memory_mb"], 1),
        "hears_and_speaks": first["first_sound_s"] is not None,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--turns", type=int, default=20)
    parser.add_argument("--max-tokens", type=int, default=40)
    options = parser.parse_args()
    with serving(options.model) as (port, pid):
        turns = asyncio.run(converse(port, pid, Path(options.model).name, options.turns, options.max_tokens))
    print(json.dumps(summary(options.model, turns)))


if __name__ == "__main__":
    main()
