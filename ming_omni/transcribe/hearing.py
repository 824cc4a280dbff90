"""One stretch of speech -> one segment of text: prompts for the engine, its answer, and the same again with context."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ming_omni.engine.engine import Engine, Stream
from ming_omni.engine.request import Busy, Closing, Prompt, Request, Token, read_prompt
from ming_omni.engine.text import Answer
from ming_omni.inputs.mel import SAMPLE_RATE_HZ
from ming_omni.inputs.messages import Audio, Message, Text
from ming_omni.model.omni import MingForConditionalGeneration
from ming_omni.model.sampling import Sampling
from ming_omni.transcribe import dialects
from ming_omni.transcribe.context import Context
from ming_omni.transcribe.guard import guard
from ming_omni.transcribe.narrow import Lexicon
from ming_omni.transcribe.prompts import LanguageFirst, answer_start, question
from ming_omni.transcribe.result import Segment
from ming_omni.transcribe.segments import Speech

SPARE_TOKENS, TOKENS_PER_SECOND = 32, 30
"""An answer that is longer has run away: fast speech has 20 letters a second, and a token is a letter or more."""
RETRY_SECONDS = 0.1


class Hearing(Protocol):
    """What a transcription needs of `Ming`."""

    model: MingForConditionalGeneration
    processor: Any
    name: str
    sampling: Sampling
    stop_ids: frozenset[int]

    @property
    def engine(self) -> Engine: ...


class Cancelled(Exception):
    """Nobody listens any more."""


@dataclass(frozen=True)
class Answered:
    text: str
    written: str | None
    """the word that names the language"""
    confidence: float | None
    logprob: float | None
    is_cut: bool


class Recognizer:
    """What all segments of one recording have in common. Segments are recognized in threads, side by side."""

    def __init__(
        self, ming: Hearing, context: Context, written: str | None, *, temperature: float, seed: int | None, user: str
    ):
        self.ming, self.context, self.written, self.user = ming, context, written, user
        self.sampling = Sampling(temperature=temperature, seed=seed, banned=ming.sampling.banned)
        self.lexicon = Lexicon(context.words)

    def recognize(self, speech: Speech, work: Work) -> Segment:
        """One segment; its pieces of text go to `work`, without context as they come, else once they are compared."""
        prompt = self.prompt(speech, self.written)
        plain = self.ask(prompt, speech, work, self.written, is_scored=True, put=None if self.context else work.put)
        heard, text, leaks = plain, plain.text, ()
        words = self.lexicon.plausible(plain.text)
        if plain.text and (words or self.context.about):  # nothing heard: context must not put words there
            # The language is known by now: the second answer is text only.
            again = self.prompt(speech, plain.written, self.context.about, words)
            for mine, known in zip(again.media, prompt.media, strict=True):
                mine.tokens = known.tokens  # the same sound, encoded once
            heard = self.ask(again, speech, work, plain.written)
            found = guard(plain.text, heard.text, (*self.context.words, self.context.topic, self.context.text))
            text, leaks = found.text, found.leaks
        if self.context:
            work.put(text)
        language, dialect = dialects.read(plain.written)
        return Segment(
            round(speech.start, 3),
            round(speech.end, 3),
            text,
            language,
            dialect,
            plain.confidence,
            speech.probability,
            heard.logprob,
            heard.is_cut,
            leaks,
        )

    def prompt(self, speech: Speech, written: str | None, topic: str = "", words: Sequence[str] = ()) -> Prompt:
        """written  the language to force"""
        message = Message("user", [Text(question(topic, words)), Audio((speech.samples, SAMPLE_RATE_HZ))])
        inputs = self.ming.processor.prepare(message, answer_start=answer_start(written))
        return read_prompt(self.ming.model, inputs)

    def ask(
        self,
        prompt: Prompt,
        speech: Speech,
        work: Work,
        written: str | None,
        *,
        is_scored: bool = False,
        put: Callable[[str], None] | None = None,
    ) -> Answered:
        """Submit, and read the answer to its end.

        written    the language that the prompt forces
        is_scored  how likely is that language?
        put        takes pieces of the transcript as they come
        """
        is_scored = is_scored and written is not None
        limit = SPARE_TOKENS + math.ceil(TOKENS_PER_SECOND * (speech.end - speech.start))
        room = self.ming.engine.longest - len(prompt)
        request = Request(
            prompt,
            self.sampling,
            min(limit, room) if room > 0 else limit,
            self.ming.stop_ids,
            self.user,
            score_prompt=is_scored,
        )
        answer, parser = Answer(self.ming.processor.tokenizer.stream()), LanguageFirst(written is not None)
        whole, tokens = "", []

        def take(piece: str, placed: Sequence[tuple[int, Token]]) -> None:
            nonlocal whole
            whole += piece
            tokens.extend(placed)
            if (text := parser.push(piece)) and put is not None:
                put(text)

        with work.submit(self.ming.engine, request) as stream:
            for token in stream:
                take(*answer.push(token))
        if stream.finish == "cancelled":
            raise Cancelled if work.is_cancelled else Closing("this server is shutting down; the answer is incomplete")
        take(*answer.finish())
        if (held := parser.finish()) and put is not None:
            put(held)

        text_at, confidence = 0, None
        if parser.language is not None:
            text_at = whole.index("\t") + 1
            confidence = _probability([token for place, token in tokens if place < text_at])
        elif is_scored:
            confidence = _probability(stream.sequence.prompt_scores[-self._num_tokens(answer_start(written)) :])
        logprobs = [token.logprob for place, token in tokens if place >= text_at]
        return Answered(
            whole[text_at:].strip(),
            written or parser.language,
            confidence,
            sum(logprobs) / len(logprobs) if logprobs else None,
            stream.finish == "length",
        )

    def _num_tokens(self, text: str) -> int:
        tokenizer = self.ming.processor.tokenizer
        return len(tokenizer.encode(tokenizer.escape(text)))


def _probability(path: Sequence[Token]) -> float:
    return math.exp(sum(token.logprob for token in path))


class Work:
    """One segment in the making, seen from the outside: its pieces of text, and a way to stop it."""

    def __init__(self, on_piece: Callable[[str], None]):
        self.put = on_piece
        self.is_cancelled = False
        self._stream: Stream | None = None
        self._lock = threading.Lock()

    def submit(self, engine: Engine, request: Request) -> Stream:
        """Wait in line while the engine's own line is full: what began must not fail because others came."""
        while True:
            with self._lock:
                if self.is_cancelled:
                    raise Cancelled
                try:
                    self._stream = engine.submit(request)
                    return self._stream
                except Busy:
                    pass
            time.sleep(RETRY_SECONDS)

    def cancel(self) -> None:
        with self._lock:
            self.is_cancelled = True
            if self._stream is not None:
                self._stream.cancel()
