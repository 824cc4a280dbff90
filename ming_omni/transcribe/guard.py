"""The answers with and without context -> the first, less the context words that nobody said: the leak guard."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rapidfuzz.distance import Levenshtein

from ming_omni.transcribe.result import Leak, gap
from ming_omni.transcribe.sounds import Sound, Unit, likenesses, units

SUPPORTED = 0.8
"""Likeness from which on a context word counts as heard; below, it is flagged,"""
UNSUPPORTED = 0.55
"""and below this, removed. Measured by benchmarks/transcribe.py."""
_SEPARATORS = " ,，、;；:："


@dataclass(frozen=True)
class Guarded:
    text: str
    leaks: tuple[Leak, ...] = ()


@dataclass(frozen=True)
class Occurrence:
    """A context word at units [start, stop) of the answer with context."""

    word: str
    start: int
    stop: int


@dataclass
class Block:
    """Units of both answers that stand for the same moment: plain [p0, p1), heard [h0, h1)."""

    p0: int
    p1: int
    h0: int
    h1: int
    is_equal: bool

    def absorb(self, other: Block) -> None:
        self.p1, self.h1, self.is_equal = other.p1, other.h1, False


def guard(plain: str, heard: str, words: Sequence[str]) -> Guarded:
    """Compare both answers position by position.

    plain   what the model hears without context: its own errors, but nothing that the context put there
    heard   what it hears with context
    words   the words of the context

    Where a context word differs from the plain answer, it must sound like what stands there. If it does not, the plain
    answer is taken at this place, with those context words that do. Everything else stays as it was heard.
    """
    before, after = units(plain), units(heard)
    found = occurrences(after, words)
    # Context may correct words, never silence the speaker.
    if 2 * len(after) < len(before):
        said = {o.word for o in occurrences(before, words)}
        return Guarded(plain, tuple(dict.fromkeys(Leak(o.word, "removed", plain) for o in found if o.word not in said)))
    leaks: list[Leak] = []
    pieces = [heard[: after[0].start] if after else ""]
    is_end_removed = False
    for block in blocks(before, after, found):
        inside = [o for o in found if block.h0 <= o.start < block.h1] if not block.is_equal else []
        claims = _claims(before[block.p0 : block.p1], after, inside)
        taken = {o: (start, stop, score) for o, start, stop, score in claims}
        for o in inside:
            if o not in taken:
                leaks.append(Leak(o.word, "removed", _unclaimed(plain, before, block, claims)))
            elif taken[o][2] < SUPPORTED:
                stood = _text(plain, before, block.p0 + taken[o][0], block.p0 + taken[o][1])
                leaks.append(Leak(o.word, "flagged", stood.strip(_SEPARATORS)))
        if len(taken) == len(inside):
            piece = _text(heard, after, block.h0, block.h1)
        else:
            piece = _rebuilt(plain, before, block, claims)
            is_end_removed = block.h1 == len(after) and not piece
        if piece:
            pieces.append(gap(pieces[-1], piece) + piece)
    text = "".join(pieces)
    if is_end_removed:
        text = text.rstrip(_SEPARATORS) + heard[after[-1].stop :]
    return Guarded(text.strip(), tuple(dict.fromkeys(leaks)))


def occurrences(units_heard: Sequence[Unit], words: Sequence[str]) -> list[Occurrence]:
    """Where context words stand, from left to right; of overlapping ones the longer."""
    keys = [unit.key for unit in units_heard]
    spelled = {tuple(unit.key for unit in units(word)): word for word in words}
    found: list[Occurrence] = []
    place = 0
    sizes = sorted({len(key) for key in spelled if key}, reverse=True)
    while place < len(keys):
        size = next((n for n in sizes if place + n <= len(keys) and tuple(keys[place : place + n]) in spelled), 0)
        if size:
            found.append(Occurrence(spelled[tuple(keys[place : place + size])], place, place + size))
        place += max(size, 1)
    return found


def blocks(before: Sequence[Unit], after: Sequence[Unit], found: Sequence[Occurrence]) -> list[Block]:
    """Both answers cut into blocks, in order: equal units one by one, neighbouring differences together.

    A context word that differs anywhere is never cut.
    """
    steps = []
    for tag, p0, p1, h0, h1 in Levenshtein.opcodes([u.key for u in before], [u.key for u in after]):
        if tag == "equal":
            steps += [Block(p0 + i, p0 + i + 1, h0 + i, h0 + i + 1, True) for i in range(p1 - p0)]
        else:
            steps.append(Block(p0, p1, h0, h1, False))
    differing = {i for step in steps if not step.is_equal for i in range(step.h0, step.h1)}
    whole = {i for o in found if differing & set(range(o.start, o.stop)) for i in range(o.start, o.stop - 1)}
    joined: list[Block] = []
    for step in steps:
        last = joined[-1] if joined else None
        # `last.h1 - 1` and the unit after it belong to one context word
        if last and (not (last.is_equal or step.is_equal) or last.h1 - 1 in whole):
            last.absorb(step)
        else:
            joined.append(step)
    return joined


Claim = tuple[Occurrence, int, int, float]


def _claims(stood: Sequence[Unit], after: Sequence[Unit], inside: Sequence[Occurrence]) -> list[Claim]:
    """Which context words of a block resemble which passages of the plain answer, each passage for one word only.

    Returns (word, start, stop, likeness), from left to right; the order of the words is that of the passages.
    """
    candidates = []
    for o in inside:
        most = min(len(stood), o.stop - o.start + 3)
        places = [(i, i + n) for n in range(1, most + 1) for i in range(len(stood) - n + 1)]
        passages = [Sound.of(stood[start:stop]) for start, stop in places]
        scores = likenesses([Sound.of(after[o.start : o.stop])], passages)[0]
        candidates += [(o, *place, float(score)) for place, score in zip(places, scores, strict=True)]
    candidates = [claim for claim in candidates if claim[3] >= UNSUPPORTED]
    taken: list[Claim] = []
    for claim in sorted(candidates, key=lambda c: -c[3]):
        o, start, stop, _ = claim
        if all((o.stop <= q.start and stop <= a) or (q.stop <= o.start and b <= start) for q, a, b, _ in taken):
            taken.append(claim)
    return sorted(taken, key=lambda c: c[1])


def _unclaimed(plain: str, before: Sequence[Unit], block: Block, claims: Sequence[Claim]) -> str:
    """What a block of the plain answer says besides the passages that context words took."""
    edges = [block.p0, *(block.p0 + edge for _, start, stop, _ in claims for edge in (start, stop)), block.p1]
    rest = (_text(plain, before, *edges[i : i + 2]).strip(_SEPARATORS) for i in range(0, len(edges), 2))
    return " ".join(filter(None, rest))


def _rebuilt(plain: str, before: Sequence[Unit], block: Block, claims: Sequence[Claim]) -> str:
    """The plain answer's part of a block, with context words where they resemble it."""
    pieces, place = [], block.p0
    for o, start, stop, _ in claims:
        pieces.append(_text(plain, before, place, block.p0 + start))
        passage = _text(plain, before, block.p0 + start, block.p0 + stop)
        end = before[block.p0 + stop - 1].stop - before[block.p0 + start].start
        pieces.append(o.word + passage[end:])
        place = block.p0 + stop
    return "".join([*pieces, _text(plain, before, place, block.p1)])


def _text(text: str, spelled: Sequence[Unit], start: int, stop: int) -> str:
    """Units [start, stop) as they are written, with the marks and spaces after each."""
    if start == stop:
        return ""
    return text[spelled[start].start : spelled[stop].start if stop < len(spelled) else len(text)]
