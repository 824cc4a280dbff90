"""What is known about a recording before it is heard: Context(topic, words, text), from code, files and HTTP forms."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ming_omni.errors import InputError

MAX_WORDS = 10_000
MAX_WORD_CHARACTERS = 100
MAX_TEXT_CHARACTERS = 2_000
"""A topic or text is read in front of every segment of the sound."""
_SEPARATORS = re.compile(r"[,，、;；\n]")
_SENTENCES = re.compile(r"[.!?]\s+\S|[。！？]")


@dataclass(frozen=True)
class Context:
    topic: str = ""
    """what the recording is about, in a few words"""
    words: Sequence[str] = ()
    """names and terms that may occur in it; long lists are narrowed to what the sound resembles"""
    text: str = ""
    """anything else, such as notes or what was said before; a plain enumeration counts as words"""

    def __post_init__(self):
        is_list = isinstance(self.words, Collection) and not isinstance(self.words, str | Mapping)
        if not is_list or not all(isinstance(word, str) for word in self.words):
            raise InputError("the words of a context are a list of texts")
        for name in ("topic", "text"):
            value = getattr(self, name)
            if not isinstance(value, str):
                raise InputError(f"the {name} of a context is text, not {type(value).__name__}")
            if len(value) > MAX_TEXT_CHARACTERS:
                raise InputError(
                    f"the {name} of a context has at most {MAX_TEXT_CHARACTERS} characters, not {len(value)}; "
                    "give names and terms as words"
                )
        listed = enumerated(self.text)
        words = [_tidy(word) for word in (*self.words, *listed)]
        for word in words:
            if len(word) > MAX_WORD_CHARACTERS:
                raise InputError(f"a word of a context has at most {MAX_WORD_CHARACTERS} characters: {word[:40]}...")
        known: dict[str, str] = {}
        for word in filter(None, words):
            known.setdefault(word.casefold(), word)
        distinct = tuple(known.values())
        if len(distinct) > MAX_WORDS:
            raise InputError(f"a context has at most {MAX_WORDS} words, not {len(distinct)}")
        object.__setattr__(self, "topic", _tidy(self.topic))
        object.__setattr__(self, "text", "" if listed else _tidy(self.text))
        object.__setattr__(self, "words", distinct)

    def __bool__(self) -> bool:
        return bool(self.topic or self.words or self.text)

    @property
    def about(self) -> str:
        """What the prompt names as the topic."""
        return "; ".join(filter(None, (self.topic, self.text)))

    @classmethod
    def of(cls, value: Any) -> Context:
        """A Context, a dictionary with its fields, a list of words, or text."""
        if isinstance(value, Context):
            return value
        if value is None:
            return cls()
        if isinstance(value, str):
            return cls(text=value)
        if isinstance(value, list | tuple):
            return cls(words=value)
        if not isinstance(value, dict):
            raise InputError(f"a context is text, a list of words, or topic, words and text, not {value!r:.60}")
        if unknown := value.keys() - cls.__dataclass_fields__.keys():
            raise InputError(f"a context has topic, words and text, but no {', '.join(sorted(map(str, unknown)))}")
        return cls(**value)

    @classmethod
    def from_json(cls, text: str) -> Context:
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InputError(f"the context is not valid JSON: {error}") from error
        return cls.of(value)

    @classmethod
    def from_file(cls, path: Path) -> Context:
        """A .json file holds what `of` takes; any other holds one word or phrase on each line."""
        try:
            text = path.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"the context file {path} cannot be read: {error}") from error
        return cls.from_json(text) if path.suffix == ".json" else cls(words=text.splitlines())


def enumerated(text: str) -> list[str]:
    """The items of a text that only enumerates names and terms; no items if it says something."""
    items = [item for item in (_tidy(item) for item in _SEPARATORS.split(text)) if item]
    is_list = len(items) > 1 and all(len(item) <= 40 and item.count(" ") < 5 for item in items)
    return items if is_list and not _SENTENCES.search(text) else []


def _tidy(text: str) -> str:
    return " ".join(text.split())
