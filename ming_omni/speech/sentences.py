"""Pieces of a text, as they are written -> sentences, each as soon as it is certain that it has ended.

Sentences keep their Markdown, so that `plain.py` sees it; fenced code is left out, as nobody wants code read aloud.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from ming_omni.speech.english_names import ABBREVIATIONS, SHORT_DAYS, SHORT_MONTHS, TITLES

LIMIT = 60
"""Words or Chinese characters a sentence may have before it is cut at a clause."""
FIRST_CLAUSE = 12
"""The very first sentence may end at a clause this long, so that speech starts early."""
LIMIT_CHARACTERS = 400
"""A cut even where nothing looks like a word, so that no input can make a sentence grow without end."""
FEED = 256  # characters looked at together when a text arrives whole

CLOSER = r"[\"'”’」』）)\]*_~]"
# The end of a sentence, and what shows that it is one: Chinese marks need no space after them.
END = re.compile(rf"(?:[。！？…]+|[!?]+(?=\s|{CLOSER}|[\u4e00-\u9fff])|\.+(?=\s|{CLOSER})){CLOSER}*\s*")
CLAUSE = re.compile(r"[，；：、—]+|[,;:](?=\s)")
FENCE = re.compile(r"\s*(`{3,}|~{3,})")
ABBREVIATED = {f"{word}." for word in (*TITLES, *SHORT_MONTHS, *SHORT_DAYS, "St", "No", "no", "Nos")}
ABBREVIATED |= {word for word in ABBREVIATIONS if word.endswith(".") and word != "etc."}


def sentences(text: str | Iterable[str]) -> Iterator[str]:
    """Sentences of a whole text, or of one that is still being written; the pieces may break anywhere."""
    splitter = Splitter()
    pieces = (text[i : i + FEED] for i in range(0, len(text), FEED)) if isinstance(text, str) else text
    for piece in pieces:
        yield from splitter.feed(piece)
    yield from splitter.finish()


def length(text: str) -> int:
    """Chinese characters, and runs of anything else that is no space."""
    return len(re.findall(r"[\u3400-\u9fff]|[^\s\u3400-\u9fff]+", text))


class Splitter:
    """Holds back only what may still belong to the next sentence."""

    def __init__(self):
        self.line = ""  # of the line being read, what is not yet in a sentence
        self.head = ""  # the first sentence of that line, once it is out: a block's marks stand nowhere else
        self.fence = ""  # the marks that will close the code block we are in
        self.is_first = True

    def feed(self, piece: str) -> Iterator[str]:
        *complete, rest = (self.line + piece).replace("\r\n", "\n").split("\n")
        for i, line in enumerate(complete):
            following = complete[i + 1] if i + 1 < len(complete) else rest
            if self._continues(line, following):
                # A wrapped line: it is read on together with the next one.
                if i + 1 < len(complete):
                    complete[i + 1] = f"{line} {following}"
                else:
                    rest = f"{line} {following}"
                continue
            if i + 1 == len(complete) and not following and self._may_continue(line):
                rest = f"{line}\n"
                continue
            yield from self._end_line(line)
        self.line = rest
        if not self.fence and not (not self.head and _may_open_fence(rest)):
            while (end := self._end(self.line)) is not None:
                sentence, self.line = self.line[:end], self.line[end:]
                yield from self._emit(sentence)

    def finish(self) -> Iterator[str]:
        """The rest, which nothing can follow."""
        line, self.line = self.line.removesuffix("\n"), ""
        yield from self._end_line(line)

    def _continues(self, line: str, following: str) -> bool:
        return bool(following[:1].islower()) and self._may_continue(line)

    def _may_continue(self, line: str) -> bool:
        """Whether a line break may be mere wrapping: the text is prose, and no sentence has ended."""
        is_block = re.match(r"\s*([#>|]|[-*+]\s|\d+[.)]\s)", self.head or line)
        return bool(
            not self.fence
            and line.strip()
            and not is_block
            and line.rstrip()[-1:].isalnum() | (line.rstrip()[-1:] == ",")
        )

    def _end_line(self, line: str) -> Iterator[str]:
        if not self.head and (fence := FENCE.match(line)):
            if not self.fence:
                self.fence = fence[1]
                return
            if fence[1].startswith(self.fence) and line.strip() == fence[1]:
                self.fence = ""
                return
        if self.fence:
            return
        while line:
            end = self._end(line + "\n") or len(line)
            yield from self._emit(line[:end])
            line = line[end:]
        self.head = ""

    def _emit(self, sentence: str) -> Iterator[str]:
        self.head = self.head or sentence
        if sentence.strip():
            self.is_first = False
            yield sentence.strip()

    def _end(self, text: str) -> int | None:
        """Where the first sentence of the text ends for certain; None if it may go on."""
        text = text[: LIMIT_CHARACTERS + 1]  # what lies beyond must not matter, since it may not have come yet
        is_table_row = not self.head and text.lstrip().startswith("|")  # it is one sentence
        ends = [
            None if is_table_row else _sentence_end(text),
            _clause_end(text, FIRST_CLAUSE) if self.is_first else None,
        ]
        end = min((end for end in ends if end), default=None)
        if end and length(text[:end]) <= LIMIT:
            return end
        if length(text) > LIMIT or len(text) > LIMIT_CHARACTERS:
            return _clause_end(text, LIMIT // 4, last=True) or _word_end(text)
        return None


def _may_open_fence(line: str) -> bool:
    """Whether the line is a code fence, or so short that it may become one."""
    start = line.strip()
    return bool(start) and (start in ("`", "``", "~", "~~") or FENCE.match(line) is not None)


def _sentence_end(text: str) -> int | None:
    for match in END.finditer(text):
        is_certain = match.end() < len(text) or text.endswith("\n")
        if is_certain and not _is_inside(text, match):
            return match.end()
    return None


def _is_inside(text: str, match: re.Match) -> bool:
    """A dot of an abbreviation, an initial or a list number does not end the sentence."""
    before, after = text[: match.end()].rstrip(), text[match.end() :]
    if not before.rstrip("\"'”’」』）)]*_~").endswith("."):
        return False
    if after[:1].islower():
        return True
    word = re.search(r"\S*$", before)[0].lstrip("(\"'“‘[*_")
    is_list_number = re.fullmatch(r"\s*\d{1,3}\.", before) is not None
    return is_list_number or word in ABBREVIATED or re.fullmatch(r"(?:[A-Z]\.)+", word) is not None


def _clause_end(text: str, at_least: int, last: bool = False) -> int | None:
    """The end of the first clause that is long enough, or of the last one within the limit."""
    found = None
    for match in CLAUSE.finditer(text):
        if match.end() == len(text) or length(text[: match.end()]) > LIMIT:
            break
        if length(text[: match.end()]) >= at_least:
            found = match.end()
            if not last:
                break
    return found


def _word_end(text: str) -> int:
    """Within the limit, the last space; without any, just the limit."""
    words = list(re.finditer(r"[\u3400-\u9fff]|[^\s\u3400-\u9fff]+", text))
    end = words[LIMIT - 1].end() if len(words) >= LIMIT else len(text)
    if end <= LIMIT_CHARACTERS:
        return end
    space = text.rfind(" ", 1, LIMIT_CHARACTERS)
    return space if space > 0 else LIMIT_CHARACTERS
