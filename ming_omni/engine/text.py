"""Answer tokens -> text that may be shown: nothing of a stop string, no half character, each token's place in it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ming_omni.engine.request import Token


class Decoder(Protocol):
    """Ids one by one -> pieces of text, as `inputs.tokenizer.StreamDecoder`."""

    def push(self, index: int) -> str: ...

    def finish(self) -> str: ...


class Answer:
    """Collects one answer. It ends before the first of the stop strings, wherever tokens begin and end."""

    def __init__(self, decoder: Decoder, stops: Sequence[str] = ()):
        self.decoder = decoder
        self.stops = stops
        self.is_stopped = False
        self.num_shown = 0
        """characters"""
        self.num_tokens = 0
        """tokens read, those of a stop string included"""
        self._held = ""  # may be the beginning of a stop string
        self._unshown: list[tuple[int, Token]] = []  # tokens whose text is still held, with its place

    def push(self, token: Token) -> tuple[str, list[tuple[int, Token]]]:
        """One more token -> the text that became certain, and the tokens it is made of with their places in it."""
        self._unshown.append((self.num_shown + len(self._held), token))
        self.num_tokens += 1
        self._held += self.decoder.push(token.id)
        return self._show(is_final=False)

    def finish(self) -> tuple[str, list[tuple[int, Token]]]:
        """No more tokens come: what was held back, unless it is a stop string after all."""
        if self.is_stopped:
            return "", []
        self._held += self.decoder.finish()
        return self._show(is_final=True)

    def _show(self, is_final: bool) -> tuple[str, list[tuple[int, Token]]]:
        stop_at = first_stop(self._held, self.stops)
        if stop_at is not None:
            self.is_stopped = True
            num_certain = stop_at
        else:
            num_certain = len(self._held) - (0 if is_final else len_of_begun_stop(self._held, self.stops))
        piece, self._held = self._held[:num_certain], self._held[num_certain:]
        self.num_shown += num_certain
        is_whole = is_final and not self.is_stopped  # then tokens without text are shown too
        shown = [pair for pair in self._unshown if pair[0] < self.num_shown or is_whole]
        self._unshown = self._unshown[len(shown) :]
        return piece, shown


def first_stop(text: str, stops: Sequence[str]) -> int | None:
    """Where the stop string that is complete first begins; of several, the longest."""
    found = [(place + len(stop), place) for stop in stops if (place := text.find(stop)) >= 0]
    return min(found)[1] if found else None


def len_of_begun_stop(text: str, stops: Sequence[str]) -> int:
    """Length of the longest end of the text that may grow into a stop string."""
    longest = min(len(text), max(map(len, stops), default=0))
    return next((n for n in range(longest, 0, -1) if any(stop.startswith(text[-n:]) for stop in stops)), 0)
