"""What to ask the model about a sound, word by word as published (spec 5.4), and how to read its answer."""

from __future__ import annotations

from collections.abc import Sequence

from ming_omni.errors import InputError

BASE = "Please recognize the language of this speech and transcribe it. Format: oral."
TOPIC = "This is an audio about {}."
WORDS = "This audio may contains the following words or phrases:{}."
LONGEST_LANGUAGE = 32
"""Characters before the tab; a longer beginning names no language."""


def question(topic: str = "", words: Sequence[str] = ()) -> str:
    """The text that goes before the sound; nothing stands between the sentences."""
    about = TOPIC.format(topic) if topic else ""
    listed = WORDS.format(",".join(words)) if words else ""
    return BASE + about + listed


def answer_start(written: str | None) -> str:
    """What is put into the model's mouth to force a language."""
    if written is None:
        return ""
    if "\t" in written or "\n" in written:
        raise InputError("the name of a language is one word")
    return f"{written}\t"


class LanguageFirst:
    """Pieces of an answer `<Language>\\t<transcript>` as they come -> pieces of the transcript alone.

    A beginning that is no name, or has no tab after it, is part of the transcript.
    """

    def __init__(self, is_forced: bool):
        """is_forced  the language was put into the model's mouth, so all of the answer is transcript"""
        self.language: str | None = None
        self._held: str | None = None if is_forced else ""

    def push(self, piece: str) -> str:
        if self._held is None:
            return piece
        self._held += piece
        name, tab, rest = self._held.partition("\t")
        if tab and _is_name(name):
            self.language, self._held = name.strip(), None
            return rest
        return "" if not tab and _may_become_name(name) else self.finish()

    def finish(self) -> str:
        """What was held back: no name comes any more."""
        held, self._held = self._held or "", None
        return held


def _is_name(text: str) -> bool:
    return bool(text.strip()) and _may_become_name(text)


def _may_become_name(text: str) -> bool:
    return len(text) <= LONGEST_LANGUAGE and all(letter.isalpha() or letter in " -()" for letter in text)
