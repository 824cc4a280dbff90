"""Waiting and running requests -> the rows of the next step: who starts, who decodes, who reads more of a prompt."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ming_omni.engine.pages import Pages
from ming_omni.engine.request import Busy, Media, Sequence


@dataclass(frozen=True)
class Span:
    """Tokens [start, stop) of one request, to be computed in this step."""

    sequence: Sequence
    start: int
    stop: int

    @property
    def num_rows(self) -> int:
        return self.stop - self.start

    @property
    def is_last(self) -> bool:
        """Nothing is left to read: the step ends with a new token."""
        return self.stop == len(self.sequence)

    def media(self) -> Iterator[tuple[Media, int, int]]:
        """Media that provide tokens of this span, and which of theirs, from and to."""
        if self.start < len(self.sequence.prompt):
            for media in self.sequence.prompt.media:
                first, last = np.searchsorted(media.places, (self.start, self.stop))
                if last > first:
                    yield media, first, last


class Rotation:
    """A line of requests: first come, first served for one user, and users take turns."""

    def __init__(self):
        self.lines: OrderedDict[str, deque[Sequence]] = OrderedDict()

    def __len__(self) -> int:
        return sum(map(len, self.lines.values()))

    def __contains__(self, sequence: Sequence) -> bool:
        return sequence in self.lines.get(sequence.user, ())

    def add(self, sequence: Sequence, is_first: bool = False) -> None:
        """Join the end of the user's line, or its head."""
        line = self.lines.setdefault(sequence.user, deque())
        line.appendleft(sequence) if is_first else line.append(sequence)

    def heads(self) -> Iterator[Sequence]:
        """Each user's next request, the user who has waited longest first."""
        return iter([line[0] for line in self.lines.values()])

    def remove(self, sequence: Sequence) -> None:
        """Leave the line; the user's next turn comes after everybody else's."""
        line = self.lines.pop(sequence.user)
        line.remove(sequence)
        if line:
            self.lines[sequence.user] = line


class Scheduler:
    """Decides the rows of each step. Decoding never waits for prefill, and prefill gets its share of every step."""

    def __init__(self, pages: Pages, *, step_tokens: int, shared_step_tokens: int, max_running: int, max_waiting: int):
        self.pages = pages
        self.step_tokens = step_tokens  # prompt tokens a step reads when nobody decodes,
        self.shared_step_tokens = shared_step_tokens  # and when somebody does
        self.max_running = max_running
        self.max_waiting = max_waiting
        self.waiting = Rotation()
        self.prefilling = Rotation()
        self.running: dict[Sequence, None] = {}  # in order of their start
        self.promised: dict[bytes, Sequence] = {}  # pages that somebody is about to fill
        self.num_preempted = 0
        self.num_reused_tokens = 0
        self.num_refused = 0

    def add(self, sequence: Sequence) -> None:
        self.check_room()
        self.waiting.add(sequence)

    def check_room(self) -> None:
        # Who waits although there is a free place starts with the next step, and takes up no room in the line.
        if len(self.running) + len(self.waiting) >= self.max_running + self.max_waiting:
            self.num_refused += 1
            raise Busy(f"{len(self.waiting)} requests are waiting already; try again shortly")

    def plan(self) -> list[Span]:
        """The next step: one row for everyone who decodes, then prompt chunks in turn."""
        self._start_waiting()
        spans = []
        for sequence in list(self.running):
            # An older request may have pushed this one out a moment ago.
            if sequence in self.running and sequence not in self.prefilling and self._make_room(sequence):
                spans.append(Span(sequence, sequence.num_computed, sequence.num_computed + 1))
        budget = self.shared_step_tokens if spans else self.step_tokens
        for sequence in self._in_turn():
            if budget == 0:
                break
            stop = min(len(sequence), sequence.num_computed + budget)
            spans.append(Span(sequence, sequence.num_computed, stop))
            budget -= spans[-1].num_rows
        return spans

    def advance(self, span: Span) -> None:
        """The span is computed: share its full pages; what is left of a prompt waits for its next turn."""
        sequence = span.sequence
        sequence.num_computed = span.stop
        first, last = span.start // self.pages.page_tokens, span.stop // self.pages.page_tokens
        if last > first:
            for page, key in zip(
                sequence.pages[first:last], sequence.page_keys(self.pages.page_tokens, last)[first:], strict=True
            ):
                self.pages.publish(page, key)
                if self.promised.get(key) is sequence:
                    del self.promised[key]
        if sequence in self.prefilling:
            self.prefilling.remove(sequence)
            if not span.is_last:
                self.prefilling.add(sequence)

    def drop(self, sequence: Sequence) -> None:
        """Finished or cancelled: let go of everything it holds."""
        if sequence in self.waiting:
            self.waiting.remove(sequence)
        if sequence in self.running:
            self._stop(sequence)

    def _start_waiting(self) -> None:
        is_moving = True
        while is_moving:
            is_moving = False
            for sequence in self.waiting.heads():
                if len(self.running) == self.max_running:
                    return
                keys = sequence.shareable_keys(self.pages.page_tokens)
                shared = self.pages.share(keys)
                missing = keys[len(shared) :]
                if missing and missing[0] in self.promised:
                    # Somebody is computing the very page this one needs next: wait and share it.
                    self.pages.release(shared)
                    continue
                num_new = self.pages.count(len(sequence)) - len(shared)
                # One spare page for everyone who runs, so that a newcomer does not push somebody out at once.
                if num_new + len(self.running) > len(self.pages.idle):
                    self.pages.release(shared)
                    return
                self._start(sequence, shared, num_new, missing)
                is_moving = True

    def _start(self, sequence: Sequence, shared: list[int], num_new: int, missing: list[bytes]) -> None:
        self.waiting.remove(sequence)
        sequence.pages = shared
        for _ in range(num_new):
            sequence.pages.append(self.pages.take(after=sequence.pages[-1] if sequence.pages else None))
        sequence.num_computed = (len(sequence.pages) - num_new) * self.pages.page_tokens
        if not sequence.num_reused and not sequence.num_answered:
            sequence.num_reused = sequence.num_computed
        self.num_reused_tokens += sequence.num_computed
        for key in missing:
            self.promised.setdefault(key, sequence)
        self.running[sequence] = None
        self.prefilling.add(sequence)

    def _make_room(self, sequence: Sequence) -> bool:
        """A page for the next token; the youngest request makes way when there is none. False: it was this one."""
        if sequence.num_computed < len(sequence.pages) * self.pages.page_tokens:
            return True
        while (page := self.pages.take(after=sequence.pages[-1])) is None:
            youngest = next(reversed(self.running))
            self._stop(youngest)
            self.waiting.add(youngest, is_first=True)
            self.num_preempted += 1
            if youngest is sequence:
                return False
        sequence.pages.append(page)
        return True

    def _stop(self, sequence: Sequence) -> None:
        del self.running[sequence]
        if sequence in self.prefilling:
            self.prefilling.remove(sequence)
        for key in [k for k, owner in self.promised.items() if owner is sequence]:
            del self.promised[key]
        self.pages.release(sequence.pages)
        sequence.pages, sequence.num_computed = [], 0

    def _in_turn(self) -> Iterator[Sequence]:
        """Prefilling requests, users in turn: everybody's first, then everybody's second, and so on."""
        lines = [list(line) for line in self.prefilling.lines.values()]
        for place in range(max(map(len, lines), default=0)):
            yield from (line[place] for line in lines if place < len(line))
