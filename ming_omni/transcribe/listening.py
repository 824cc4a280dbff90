"""Any sound -> a transcript, whole or as it comes: the verb `transcribe`, for any Ming model that hears."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from ming_omni.errors import InputError
from ming_omni.transcribe import dialects
from ming_omni.transcribe.context import Context
from ming_omni.transcribe.hearing import Cancelled, Hearing, Recognizer, Work
from ming_omni.transcribe.result import Segment, Transcript, gap
from ming_omni.transcribe.segments import MARGIN_SECONDS, SUBTITLES, WHOLE_SENTENCES, Cuts, Speech, Track, speech

AHEAD = 8
"""Segments of one recording that the engine computes side by side."""


@dataclass(frozen=True)
class Update:
    """What became certain. The texts of all updates, joined, are the text of the transcript."""

    text: str = ""
    segment: Segment | None = None
    """once its text is complete"""
    transcript: Transcript | None = None
    """at the end"""


def transcribe(
    ming: Hearing,
    audio: Any,
    *,
    context: Any = None,
    language: str | None = None,
    dialect: str | None = None,
    timestamps: bool = False,
    stream: bool = False,
    temperature: float = 0.0,
    seed: int | None = None,
    user: str = "",
) -> Transcript | Listening:
    """What is said in a sound of any length.

    audio       path, bytes, open file, data: URL, or (samples, sample_rate_hz)
    context     a Context, a list of words, text, or a dictionary of topic, words and text
    language    forces one: English name or ISO 639-1 code; None: the model tells
    dialect     forces one of the 15 dialects, in English or Chinese
    timestamps  short segments, cut at every pause, as subtitles need them; times are those of the segments
    stream      a Listening, which yields text as it becomes certain
    user        users of an engine take turns
    """
    context, written = Context.of(context), dialects.written(language, dialect)
    if ming.model.audio is None:
        raise InputError(f"{ming.name} cannot hear: this model has no audio encoder")
    recognizer = Recognizer(ming, context, written, temperature=temperature, seed=seed, user=user)
    cuts = SUBTITLES if timestamps else WHOLE_SENTENCES
    room = ming.processor.audio_processor.max_seconds - 2 * MARGIN_SECONDS
    cuts = replace(cuts, longest_seconds=min(cuts.longest_seconds, room))
    listening = Listening(recognizer, Track(audio), cuts)
    if stream:
        return listening
    for update in listening:
        last = update
    return last.transcript


class Listening(Iterator[Update]):
    """A recording being transcribed. Whoever leaves early calls `cancel`, from any thread, or just drops it."""

    def __init__(self, recognizer: Recognizer, track: Track, cuts: Cuts):
        # Threads know the desk but not this object, so that dropping it ends their work.
        self._desk = Desk(recognizer, track, cuts)
        self._updates = _updates(self._desk)

    def __next__(self) -> Update:
        return next(self._updates)

    def cancel(self) -> None:
        self._desk.cancel()

    @property
    def is_over(self) -> bool:
        return self._desk.is_cancelled


def _updates(desk: Desk) -> Iterator[Update]:
    segments: list[Segment] = []
    last = ""  # what was shown
    try:
        for job in desk.jobs():
            trim, is_first = Trim(), True
            while (piece := job.pieces.get()) is not None:
                if piece := trim.push(piece):
                    yield Update((gap(last, piece) if is_first else "") + piece)
                    last, is_first = piece, False
            segment = job.future.result()
            segments.append(segment)
            yield Update(segment=segment)
        yield Update(transcript=Transcript.of(segments, round(desk.track.seconds, 3)))
    except Cancelled:
        return
    finally:
        desk.cancel()


class Trim:
    """Pieces of a text -> the same pieces without the spaces at either end of the text."""

    def __init__(self):
        self._is_begun, self._held = False, ""

    def push(self, piece: str) -> str:
        text = self._held + piece if self._is_begun else piece.lstrip()
        shown = text.rstrip()
        self._is_begun = self._is_begun or bool(shown)
        self._held = text[len(shown) :]
        return shown


class Job:
    """One segment in the making."""

    def __init__(self):
        self.pieces: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        """of text, then None"""
        self.work = Work(self.pieces.put)
        self.future: Future[Segment] | None = None


class Desk:
    """Hands stretches of speech to threads, a few ahead of what is read, and their results back in order."""

    def __init__(self, recognizer: Recognizer, track: Track, cuts: Cuts):
        self.recognizer, self.track, self.cuts = recognizer, track, cuts
        self.is_cancelled = False
        self._room = threading.Semaphore(AHEAD)
        self._jobs: queue.SimpleQueue[Job | BaseException | None] = queue.SimpleQueue()
        self._at_work: list[Job] = []

    def jobs(self) -> Iterator[Job]:
        with ThreadPoolExecutor(AHEAD + 1, thread_name_prefix="transcribe") as pool:
            pool.submit(self._listen, pool)
            try:
                while (job := self._jobs.get()) is not None:
                    if isinstance(job, BaseException):
                        raise job
                    yield job
                    self._at_work.remove(job)
                    self._room.release()
            finally:
                self.cancel()

    def cancel(self) -> None:
        self.is_cancelled = True
        for job in list(self._at_work):
            job.work.cancel()
        self._room.release()
        self._jobs.put(Cancelled())

    def _listen(self, pool: ThreadPoolExecutor) -> None:
        """Find speech, and have it recognized."""
        try:
            for stretch in speech(self._wanted(), self.cuts):
                self._room.acquire()
                job = Job()
                if self.is_cancelled:
                    raise Cancelled
                self._at_work.append(job)
                job.future = pool.submit(self._recognize, stretch, job)
                self._jobs.put(job)
            self._jobs.put(None)
        except BaseException as error:
            self._jobs.put(error)

    def _recognize(self, stretch: Speech, job: Job) -> Segment:
        try:
            return self.recognizer.recognize(stretch, job.work)
        finally:
            job.pieces.put(None)

    def _wanted(self) -> Iterator[Tensor]:
        for block in self.track:
            if self.is_cancelled:
                raise Cancelled
            yield block
