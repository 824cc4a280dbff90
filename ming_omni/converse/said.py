"""What an answer says and how much of it has sounded -> the part of its text that somebody has heard.

The rule: a sentence whose sound has ended was heard to its end; of the sentence that was sounding, as large a part of
its letters as of its sound, cut back to whole words. Where speech was broken off, the length of that sentence is
estimated from the letters a second of those before it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ming_omni.speech.breaths import seconds_of

MILLISECOND = 0.001
"""Clients count in whole ones."""
_WORD = re.compile(r"[\u3400-\u9fff]|(?:(?![\u3400-\u9fff])[\w'’-])+")


@dataclass
class Sentence:
    """A stretch of the text and of the sound."""

    start: int
    stop: int
    """characters"""
    begins: float
    seconds: float = 0.0
    is_whole: bool = False


class Said:
    """Grows with the answer."""

    def __init__(self):
        self.text = ""
        self.seconds = 0.0
        """of sound"""
        self.sentences: list[Sentence] = []

    def write(self, piece: str) -> None:
        self.text += piece

    def begin(self, sentence: str) -> None:
        """The next sentence that is spoken, as the splitter found it in the text."""
        start, stop = self._find(sentence)
        self.sentences.append(Sentence(start, stop, self.seconds))

    def sound(self, seconds: float) -> None:
        """More sound: of the sentence that has begun, or a pause behind one that has ended."""
        self.seconds += seconds
        if not self.sentences[-1].is_whole:
            self.sentences[-1].seconds += seconds

    def end(self) -> None:
        """The sentence has been spoken to its end."""
        self.sentences[-1].is_whole = True

    def heard(self, seconds: float) -> str:
        """The text of the first seconds of sound."""
        begun = [s for s in self.sentences if s.begins < seconds]
        if not begun:
            return ""
        last = begun[-1]
        if last.is_whole and last.begins + last.seconds <= seconds + MILLISECOND:
            is_all = last is self.sentences[-1] and not self.text[last.stop :].strip()
            return self.text if is_all else self.text[: last.stop]
        length = last.seconds if last.is_whole else max(last.seconds, self._expected(last))
        letters = int((last.stop - last.start) * (seconds - last.begins) / length) if length else 0
        return self.text[: self._word_end(last.start, last.start + letters)].rstrip()

    def _find(self, sentence: str) -> tuple[int, int]:
        """Where a sentence stands: the splitter changes white space, and skips what nobody reads."""
        after = self.sentences[-1].stop if self.sentences else 0
        found = re.compile(r"\s+".join(map(re.escape, sentence.split()))).search(self.text, after)
        assert found, "the splitter gives sentences of the text"
        return found.span()

    def _expected(self, sentence: Sentence) -> float:
        """Seconds that all of a broken-off sentence would have taken."""
        whole = [s for s in self.sentences if s.is_whole and s.seconds]
        text = self.text[sentence.start : sentence.stop]
        if whole:
            return len(text) * sum(s.seconds for s in whole) / sum(s.stop - s.start for s in whole)
        return seconds_of(text)

    def _word_end(self, start: int, stop: int) -> int:
        """The end of the last whole word in [start, stop)."""
        return max((m.end() for m in _WORD.finditer(self.text, start) if m.end() <= stop), default=start)
