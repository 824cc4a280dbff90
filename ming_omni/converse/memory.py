"""Items of a conversation -> the prompt of its next answer, put together from pieces that were each read once.

Prompts of later turns begin with the very tokens of earlier ones, answers included, so the engine finds them in its
cache and computes only what is new. What is forgotten, and when, is decided here too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from torch import Tensor

from ming_omni.converse.said import Said
from ming_omni.engine.request import Prompt, read_prompt
from ming_omni.errors import InputError
from ming_omni.inputs.mel import SAMPLE_RATE_HZ
from ming_omni.inputs.messages import UNHEARD, Audio, Image, Part
from ming_omni.inputs.processor import MingProcessor
from ming_omni.model.omni import MingForConditionalGeneration

Role = Literal["system", "user", "assistant"]
BETWEEN_TOLD = "\n\n"
"""What separates instructions and system items in a prompt, empty ones too."""
FRAMES_PER_TURN = 4
"""Pictures that one turn of the user keeps; a fifth pushes out the first."""


class Reader:
    """Text, pictures and sounds -> pieces of prompts for one model."""

    def __init__(
        self,
        model: MingForConditionalGeneration,
        processor: MingProcessor,
        words: Callable[[np.ndarray], str] | None = None,
    ):
        """words  tells what is said in samples (n,) at 16 kHz, for a model that does not answer sounds themselves"""
        self.model, self.processor, self.words = model, processor, words
        template = processor.template
        self.around = {
            "user": tuple(map(self.marks, template.user.split("{content}"))),
            "assistant": tuple(map(self.marks, template.assistant.split("{content}"))),
        }
        self.answer = self.marks(template.answer)
        self.between_told = self.marks(BETWEEN_TOLD)
        self.line_break = self.marks("\n")

    def marks(self, text: str) -> Prompt:
        """Text of ours, in which special tokens are obeyed."""
        return Prompt.of_ids(self.processor.tokenizer.encode(text))

    def system(self, text: str | None) -> Prompt:
        """None: what the model's template says."""
        template, tokenizer = self.processor.template, self.processor.tokenizer
        mode = template.thinking[False] if template.thinking else ""
        text = template.default_system if text is None else text
        return self.marks(template.system.format(system=tokenizer.escape(text), thinking=mode))

    def text(self, text: str) -> Prompt:
        tokenizer = self.processor.tokenizer
        return Prompt.of_ids(tokenizer.encode(tokenizer.escape(text)))

    def media(self, part: Part) -> Prompt:
        """One picture or sound."""
        return read_prompt(self.model, self.processor.prepare_content([part]))


@dataclass(eq=False)
class Content:
    """One part of an item."""

    kind: Literal["text", "sound", "picture"]
    piece: Prompt
    text: str | None = ""
    """what is written, or is said in a sound; None: a sound whose words nobody has written down"""
    samples: np.ndarray | None = None
    """(n,) int16 at 16 kHz, of a sound that came in"""

    @property
    def num_bytes(self) -> int:
        media = [t for m in self.piece.media for t in (*m.inputs, m.tokens) if isinstance(t, Tensor)]
        samples = 0 if self.samples is None else self.samples.nbytes
        # A token has ids and positions; a character, which a client may send beside a sound, up to four bytes.
        return samples + sum(t.nbytes for t in media) + 100 * len(self.piece) + 4 * len(self.text or "")


@dataclass(eq=False)
class Item:
    id: str
    role: Role
    contents: list[Content] = field(default_factory=list)
    is_complete: bool = True
    said: Said | None = None
    """of a spoken answer: what can be cut to what was heard"""
    heard_seconds: float | None = None
    """of its sound, once it has been cut"""

    @property
    def num_tokens(self) -> int:
        return sum(len(content.piece) for content in self.contents)

    @property
    def text(self) -> str:
        return "".join(content.text or "" for content in self.contents)

    def cut(self, reader: Reader, seconds: float) -> bool:
        """Keep of a spoken answer only what was heard in the first seconds. False: that was all of it."""
        seconds = seconds if self.heard_seconds is None else min(seconds, self.heard_seconds)
        text = self.said.heard(seconds)
        if text == self.text:
            return False
        self.heard_seconds = seconds
        self.contents = [text_content(reader, text)] if text else []
        return True


@dataclass(frozen=True)
class Bounds:
    """What a conversation may take up."""

    tokens: int
    """after the instructions"""
    num_bytes: int = 64_000_000
    """of sounds, pictures and what they were turned into"""
    retention: float = 0.7
    """Once a bound is passed, only so much of it stays: forgetting costs the cache, so it is done seldom."""
    may_forget: bool = True


class Memory:
    """The items of one conversation, in order."""

    def __init__(self, reader: Reader, items: Iterable[Item] = ()):
        self.reader = reader
        self.items: list[Item] = list(items)

    def __contains__(self, id_: str) -> bool:
        return any(item.id == id_ for item in self.items)

    def get(self, id_: str) -> Item:
        for item in self.items:
            if item.id == id_:
                return item
        raise InputError(f"there is no item {id_} in this conversation")

    def before(self, item: Item) -> str | None:
        """The id of the item that precedes this one."""
        place = self.items.index(item)
        return self.items[place - 1].id if place else None

    def add(self, item: Item, after: str | None = None) -> None:
        """after  an item's id, "root" for the beginning, None for the end"""
        if item.id in self:
            raise InputError(f"there is an item {item.id} already")
        place = len(self.items) if after is None else 0 if after == "root" else self.items.index(self.get(after)) + 1
        self.items.insert(place, item)

    def remove(self, item: Item) -> None:
        self.items.remove(item)

    def prompt(self, instructions: str | None) -> Prompt:
        """Everything the model reads before its next answer; system items follow the instructions, as in a chat."""
        told = [content.text for item in self.items if item.role == "system" for content in item.contents]
        told = ([instructions] if instructions else []) + told
        pieces = [self.reader.system(BETWEEN_TOLD.join(told) if told or instructions == "" else None)]
        for items in self._runs():
            first, last = self.reader.around[items[0].role]
            pieces += [first, *self._contents(items), last]
        return Prompt.join([*pieces, self.reader.answer])

    def size(self, items: Iterable[Item] | None = None) -> tuple[int, int]:
        """Tokens, the marks of roles counted, and bytes: of these items, or of all."""
        items = self.items if items is None else list(items)
        marks = {role: sum(map(len, around)) for role, around in self.reader.around.items()}
        marks["system"] = len(self.reader.between_told)
        num_tokens = sum(item.num_tokens + marks[item.role] for item in items)
        return num_tokens, sum(content.num_bytes for item in items for content in item.contents)

    def forget(self, bounds: Bounds) -> list[Item]:
        """Make room: pictures of past turns first, oldest first; then whole turns, a question with its answers.

        The turn that is not answered yet stays, and so do system items. Returns the items that are gone.
        """
        if self._fits(bounds, 1.0):
            return []
        if not bounds.may_forget:
            raise InputError(f"the conversation has more than {bounds.tokens} tokens, and truncation is disabled")
        staying = [item for item in self.items if item.role == "system"] + self._current()
        if not self._fits(bounds, 1.0, staying):
            raise InputError(
                "this turn has {} tokens and {} bytes; a conversation holds {} and {}".format(
                    *self.size(staying), bounds.tokens, bounds.num_bytes
                )
            )
        gone: list[Item] = []
        past = self._past()
        for item in [item for turn in past for item in turn]:
            if self._fits(bounds, bounds.retention):
                return gone
            if pictures := [content for content in item.contents if content.kind == "picture"]:
                item.contents = [content for content in item.contents if content not in pictures]
                if not item.contents:
                    self.remove(item)
                    gone.append(item)
        for turn in past:
            if self._fits(bounds, bounds.retention):
                return gone
            for item in (item for item in turn if item in self.items):
                self.remove(item)
                gone.append(item)
        return gone

    def thin_frames(self) -> list[Item]:
        """Keep the newest pictures of the current turn. Returns the items that are gone: they held nothing else."""
        shown = [(item, c) for item in self._current() for c in item.contents if c.kind == "picture"]
        gone = []
        for item, content in shown[: max(0, len(shown) - FRAMES_PER_TURN)]:
            item.contents.remove(content)
            if not item.contents:
                self.remove(item)
                gone.append(item)
        return gone

    def _fits(self, bounds: Bounds, share: float, items: Iterable[Item] | None = None) -> bool:
        num_tokens, num_bytes = self.size(items)
        return num_tokens <= share * bounds.tokens and num_bytes <= share * bounds.num_bytes

    def _runs(self) -> list[list[Item]]:
        """Neighbours of one role that say something, together; system items aside."""
        runs: list[list[Item]] = []
        for item in self.items:
            if item.role == "system" or not item.num_tokens:
                continue
            if not runs or runs[-1][0].role != item.role:
                runs.append([])
            runs[-1].append(item)
        return runs

    def _contents(self, items: Sequence[Item]) -> list[Prompt]:
        """Texts of different items each begin on a line of their own."""
        pieces, last = [], None
        for item in items:
            for content in item.contents:
                is_written = last is not None and not last[1].piece.media and not content.piece.media
                if is_written and last[0] is not item:
                    pieces.append(self.reader.line_break)
                pieces.append(content.piece)
                last = item, content
        return pieces

    def _past(self) -> list[list[Item]]:
        """Turns that have been answered: what the user said, and the answers up to his next words."""
        turns: list[list[Item]] = []
        for item in self.items:
            if item.role == "system":
                continue
            if not turns or (item.role == "user" and turns[-1][-1].role == "assistant"):
                turns.append([])
            turns[-1].append(item)
        return turns[:-1] if turns and turns[-1][-1].role == "user" else turns

    def _current(self) -> list[Item]:
        """What the user has said since the last answer."""
        items = []
        for item in reversed(self.items):
            if item.role == "assistant":
                break
            if item.role == "user":
                items.insert(0, item)
        return items


def text_content(reader: Reader, text: str) -> Content:
    return Content("text", reader.text(text), text)


def picture_content(reader: Reader, url: str, max_pixels: int | None) -> Content:
    return Content("picture", reader.media(Image(url, max_pixels=max_pixels)))


def sound_content(reader: Reader, samples: np.ndarray, text: str | None = None) -> Content:
    """A turn as the model reads it: the sound itself, or its words where the reader has to write them down.

    samples  (n,) float32 at 16 kHz
    text     what is said in them, where that is known
    """
    if reader.words is None:
        piece = reader.media(Audio((samples, SAMPLE_RATE_HZ)))
    else:
        text = reader.words(samples) if text is None else text
        piece = reader.text(text or UNHEARD)
    return Content("sound", piece, text, np.rint(samples.clip(-1, 1) * 32_767).astype(np.int16))
