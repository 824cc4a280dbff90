"""Streams of tokens -> the choices of an answer, whole or piece by piece, in OpenAI's JSON."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from functools import cache

from ming_omni.engine.engine import Stream
from ming_omni.engine.request import Closing, Token
from ming_omni.engine.text import Answer
from ming_omni.inputs.tokenizer import Tokenizer

Placed = list[tuple[int, Token]]
"""Tokens, each with its place in the text in characters."""


@dataclass
class Piece:
    """What became certain of one choice; the last piece carries how it ended."""

    index: int
    text: str = ""
    tokens: Placed = field(default_factory=list)
    finish_reason: str | None = None


class Choice:
    """One answer of a request: an engine's stream, and its text."""

    def __init__(self, index: int, stream: Stream, answer: Answer, echo: str | None = None):
        """echo  the prompt's text, to be shown before the answer's"""
        self.index, self.stream, self.answer, self.echo = index, stream, answer, echo

    async def pieces(self) -> AsyncIterator[Piece]:
        is_echo_due = self.echo is not None
        async for token in self.stream:
            if is_echo_due:
                yield self._echoed()
                is_echo_due = False
            text, tokens = self.answer.push(token)
            if text or tokens:
                yield Piece(self.index, text, tokens)
            if self.answer.is_stopped:
                self.stream.cancel("stop")
                break
        if is_echo_due:
            yield self._echoed()
        text, tokens = self.answer.finish()
        if self.stream.finish == "cancelled":
            raise Closing("this server is shutting down; the answer is incomplete")
        reason = "stop" if self.answer.is_stopped else self.stream.finish
        yield Piece(self.index, text, tokens, reason)

    def _echoed(self) -> Piece:
        """The prompt; its tokens are placed before the answer's, so their places are negative."""
        place, placed = -len(self.echo), []
        decoder = self.answer.decoder.tokenizer.stream(skip_special_tokens=False)
        for score in self.stream.sequence.prompt_scores:
            placed.append((place, score))
            place += len(decoder.push(score.id))
        return Piece(self.index, self.echo, placed)


class Reply:
    """All choices of one request. Whoever leaves early calls `cancel`."""

    def __init__(self, kind: str, model: str, tokenizer: Tokenizer, choices: Sequence[Choice], has_logprobs: bool):
        """kind  chat or text"""
        self.kind, self.tokenizer, self.choices, self.has_logprobs = kind, tokenizer, choices, has_logprobs
        self.head = {
            "id": f"{'chatcmpl' if kind == 'chat' else 'cmpl'}-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": model,
        }

    def cancel(self) -> None:
        for choice in self.choices:
            choice.stream.cancel()

    async def whole(self) -> dict:
        """The response of a request that does not stream."""
        gathered = [Piece(choice.index) for choice in self.choices]
        async for piece in self._pieces():
            into = gathered[piece.index]
            into.text += piece.text
            into.tokens += piece.tokens
            into.finish_reason = piece.finish_reason
        name = "chat.completion" if self.kind == "chat" else "text_completion"
        choices = [self.shown(piece, "message") for piece in gathered]
        return {"object": name, **self.head, "choices": choices, "usage": self.usage()}

    async def chunks(self, has_usage: bool) -> AsyncIterator[dict]:
        """The events of a request that streams."""
        name = "chat.completion.chunk" if self.kind == "chat" else "text_completion"
        head = {"object": name, **self.head}
        tail = {"usage": None} if has_usage else {}
        if self.kind == "chat":
            for choice in self.choices:
                opening = {"index": choice.index, "delta": {"role": "assistant", "content": ""}}
                yield {**head, "choices": [{**opening, "logprobs": None, "finish_reason": None}], **tail}
        async for piece in self._pieces():
            yield {**head, "choices": [self.shown(piece, "delta")], **tail}
        if has_usage:
            yield {**head, "choices": [], "usage": self.usage()}

    def usage(self) -> dict:
        # Of several choices the first one counts: what the others find of a prompt, it has computed.
        prompts = {id(c.stream.sequence.prompt): c.stream.sequence for c in reversed(self.choices)}
        num_read = sum(len(sequence.prompt) for sequence in prompts.values())
        num_written = sum(choice.answer.num_tokens for choice in self.choices)
        return {
            "prompt_tokens": num_read,
            "completion_tokens": num_written,
            "total_tokens": num_read + num_written,
            "prompt_tokens_details": {"cached_tokens": sum(sequence.num_reused for sequence in prompts.values())},
        }

    async def _pieces(self) -> AsyncIterator[Piece]:
        """Pieces of all choices as they come."""
        if len(self.choices) == 1:
            async for piece in self.choices[0].pieces():
                yield piece
            return
        pieces: asyncio.Queue[Piece | Exception] = asyncio.Queue()

        async def forward(choice: Choice) -> None:
            try:
                async for piece in choice.pieces():
                    pieces.put_nowait(piece)
            except Exception as error:
                pieces.put_nowait(error)

        tasks = [asyncio.create_task(forward(choice)) for choice in self.choices]
        try:
            num_open = len(tasks)
            while num_open:
                piece = await pieces.get()
                if isinstance(piece, Exception):
                    raise piece
                yield piece
                num_open -= piece.finish_reason is not None
        finally:
            for task in tasks:
                task.cancel()

    def shown(self, piece: Piece, slot: str) -> dict:
        """One choice, or a piece of it, in JSON. slot  message or delta, where a chat's text goes"""
        logprobs = None
        if self.has_logprobs:
            logprobs = chat_logprobs(piece, self.tokenizer) if self.kind == "chat" else text_logprobs(piece, self)
        ending = {"logprobs": logprobs, "finish_reason": piece.finish_reason}
        if self.kind == "text":
            return {"index": piece.index, "text": piece.text, **ending}
        if slot == "message":
            return {
                "index": piece.index,
                "message": {"role": "assistant", "content": piece.text, "refusal": None},
                **ending,
            }
        return {"index": piece.index, "delta": {"content": piece.text} if piece.text else {}, **ending}


def chat_logprobs(piece: Piece, tokenizer: Tokenizer) -> dict:
    def entry(id_: int, logprob: float) -> dict:
        spelled = token_bytes(tokenizer, id_)
        return {"token": spelled.decode(errors="replace"), "logprob": logprob, "bytes": list(spelled)}

    return {
        "content": [
            {**entry(token.id, token.logprob), "top_logprobs": [entry(*pair) for pair in token.likeliest]}
            for _, token in piece.tokens
        ],
        "refusal": None,
    }


def text_logprobs(piece: Piece, reply: Reply) -> dict:
    def spell(id_: int) -> str:
        spelled = token_bytes(reply.tokenizer, id_)
        try:
            return spelled.decode()
        except UnicodeDecodeError:  # as OpenAI spells them, so that different parts of characters stay different
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in spelled)

    first_place = len(reply.choices[piece.index].echo or "")
    return {
        "text_offset": [first_place + place for place, _ in piece.tokens],
        "tokens": [spell(token.id) for _, token in piece.tokens],
        "token_logprobs": [token.logprob for _, token in piece.tokens],
        "top_logprobs": [
            {spell(id_): logprob for id_, logprob in token.likeliest} or None for _, token in piece.tokens
        ],
    }


def token_bytes(tokenizer: Tokenizer, id_: int) -> bytes:
    """What one token spells; a part of a character has bytes but no text of its own."""
    text = tokenizer.decode([id_])
    if "\ufffd" not in text:
        return text.encode()
    spelled, alphabet = tokenizer.core.id_to_token(id_) or "", byte_alphabet()
    if spelled.startswith("<0x"):
        return bytes([int(spelled[3:5], 16)])
    return bytes(alphabet[c] for c in spelled) if all(c in alphabet for c in spelled) else text.encode()


@cache
def byte_alphabet() -> dict[str, int]:
    """The letters in which byte-level tokenizers write bytes: printable ones as they are, the rest from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(others)}
