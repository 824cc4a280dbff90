"""A stock and a number -> a batch of requests: prompts in tokens as the product writes them, scenes before and after.

Nothing is drawn here. A request without letters to draw and one with them are conditioned on unlike many tokens, so
that each batch holds a fixed number of either: first those without.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from ming_omni.config import PainterConfig
from ming_omni.data import edits, prompts, segments
from ming_omni.data.bank import PAINTER_STYLES, Bank, Stock, stock
from ming_omni.data.examples import Example
from ming_omni.data.names import plural
from ming_omni.data.scenes import Scene, pick
from ming_omni.data.splits import generator
from ming_omni.inputs.canvas import glyph_text
from ming_omni.inputs.messages import Image, Message, Text
from ming_omni.model.glyphs import spell
from ming_omni.train.painter.settings import RequestSettings
from ming_omni.train.senses.pictures import Labels, still_grid
from ming_omni.train.senses.rows import PADDING, Row, Writer

COLORS = {
    "red": (255, 0, 0),
    "green": (0, 255, 0),
    "blue": (0, 0, 255),
    "yellow": (255, 255, 0),
    "magenta": (255, 0, 255),
    "cyan": (0, 255, 255),
    "orange": (255, 128, 0),
    "purple": (128, 0, 255),
    "white": (255, 255, 255),
    "black": (0, 0, 0),
}
"""As `paint.masks.COLORS`, which reads the masks back; a test holds them together."""
OPACITY = 0.6
"""How strongly a mask covers what lies below, as in `train.examples`."""
SLOTS = 4
"""Things that a prompt tells of, at most."""
ENGLISH_WRAPS = ("Draw {}", "Paint {}", "Draw {}.", "A picture of {}", "Please paint {}.", "draw me {}")
CHINESE_WRAPS = ("画{}", "请画{}", "画一张图：{}")


@dataclass(frozen=True)
class Request:
    """What is asked for, and the scenes that answer it: before (edits only) and after."""

    task: str
    prompt: str
    scenes: tuple[Scene, ...]
    covers: tuple[tuple[int, str], ...] = ()
    """Things of the last scene that are painted over, each with its colour."""
    told: tuple[tuple[str, str | None, int], ...] = ()
    """Name, colour and number of the things that the prompt tells of, in its order."""
    has_letters: bool = True
    """False: quotes of the prompt, if any, ask for no letters."""
    facts: dict = field(default_factory=dict)
    """What a judge checks."""


# Requests


def paint(numbers: np.random.Generator, chosen: Stock, settings: RequestSettings, has_letters: bool) -> Request:
    is_chinese = bool(numbers.random() < settings.chinese)
    task = "words" if has_letters else _draw(numbers, settings.tasks)
    example = prompts.TASK_MAKERS[task](numbers, chosen, is_chinese)
    prompt = example.prompt
    if numbers.random() < settings.wrapped:
        prompt = pick(numbers, CHINESE_WRAPS if is_chinese else ENGLISH_WRAPS).format(prompt)
    return Request(task, prompt, example.scenes, told=_told(example), facts=example.facts)


def edit(
    numbers: np.random.Generator, own: Stock, every: Stock, settings: RequestSettings, has_letters: bool
) -> Request:
    """own: drawings that the painter paints; every: those that it only sees, masks painted over them."""
    is_chinese = bool(numbers.random() < settings.chinese)
    task = "change words" if has_letters else _draw(numbers, settings.edits)
    if task in MASKS:
        return MASKS[task](numbers, every, is_chinese)
    example = edits.EDITS[task](numbers, own, is_chinese)
    asked = example.facts.get("thing")
    told = ((*asked, 1),) if asked else ()
    return Request(task, example.prompt, example.scenes, told=told, facts=example.facts)


def referring(numbers: np.random.Generator, chosen: Stock, is_chinese: bool) -> Request:
    example = segments.referring(numbers, chosen, is_chinese)
    what = example.answer if is_chinese else example.answer.removeprefix("the ")
    color = "red" if numbers.random() < 0.6 else pick(numbers, [*COLORS][:8])
    return _masked("referring", example, f"please segment the {what} using {color} mask", [(example.targets, color)])


def kind(numbers: np.random.Generator, chosen: Stock, is_chinese: bool) -> Request:
    """All things of a kind in one colour."""
    example = segments.semantic(numbers, chosen, is_chinese)
    name = example.scenes[0].things[example.targets[0]].concept
    what = chosen.bank.chinese(name) if is_chinese else plural(name) if len(example.targets) > 1 else name
    return _masked("kind", example, f"please segment the {what} using red mask", [(example.targets, "red")])


def classes(numbers: np.random.Generator, chosen: Stock, is_chinese: bool) -> Request:
    """Every kind in its own colour, or all kinds but one."""
    example = segments.semantic(numbers, chosen, is_chinese)
    things = example.scenes[0].things
    found = sorted({thing.concept for thing in things}, key=lambda _: numbers.random())
    asked = found if len(found) < 3 or numbers.random() < 0.5 else found[1:]
    covered = [(tuple(i for i, thing in enumerate(things) if thing.concept == name), name) for name in asked]
    parts, covers = [], []
    for (targets, name), color in zip(covered, COLORS, strict=False):
        parts.append(f"the {chosen.bank.chinese(name) if is_chinese else name} using {color} mask")
        covers.append((targets, color))
    return _masked("classes", example, f"please segment {', '.join(parts)}", covers)


def each(numbers: np.random.Generator, chosen: Stock, is_chinese: bool) -> Request:
    """Every thing of a kind in a colour of its own, from left to right."""
    example = segments.semantic(numbers, chosen, is_chinese)
    things = example.scenes[0].things
    targets = sorted(example.targets, key=lambda i: things[i].x)
    name = things[targets[0]].concept
    what = chosen.bank.chinese(name) if is_chinese else name
    prompt = f"please segment each {what} using masks of different colors: {', '.join(COLORS)}"
    return _masked("each", example, prompt, [((i,), color) for i, color in zip(targets, COLORS, strict=False)])


MASKS: dict[str, Callable[[np.random.Generator, Stock, bool], Request]] = {
    "referring": referring,
    "kind": kind,
    "classes": classes,
    "each": each,
}
"""Segmentation in the product's own words, see `paint.segment.request`."""


def _masked(task: str, example: Example, prompt: str, parts: Sequence[tuple[tuple[int, ...], str]]) -> Request:
    (scene,) = example.scenes
    covers = tuple((i, color) for targets, color in parts for i in targets)
    first = scene.things[parts[0][0][0]]
    told = ((first.concept, first.colour, len(parts[0][0])),)
    return Request(task, prompt, (scene, scene), covers, told, False, example.facts)


def _draw(numbers: np.random.Generator, chances: dict[str, float]) -> str:
    share = np.array(list(chances.values()))
    return str(numbers.choice(list(chances), p=share / share.sum()))


def _told(example: Example) -> tuple[tuple[str, str | None, int], ...]:
    things = list(example.scenes[0].things)
    if "position" in example.facts:
        things.sort(key=lambda thing: thing.concept != example.facts["position"][0])
    counts: dict[tuple[str, str | None], int] = {}
    for thing in things:
        counts[thing.concept, thing.colour] = counts.get((thing.concept, thing.colour), 0) + 1
    return tuple((*thing, count) for thing, count in counts.items())[:SLOTS]


# Batches


@dataclass
class Batch:
    """Requests of one kind, first those without letters to draw; plain data."""

    kind: str
    ids: np.ndarray
    """(B, T) int32, filled up on the right"""
    places: np.ndarray
    """(3, B, T) int32"""
    modality: np.ndarray
    """(B, T) int8, PADDING where no token is"""
    starts: np.ndarray
    """(B,) position of the first token that follows the prompt"""
    letters: np.ndarray
    """(L, M) bytes of the letters that the last L requests ask for, as `glyphs.spell` gives them"""
    letters_mask: np.ndarray
    scenes: list[tuple[Scene, ...]]
    covers: list[tuple[tuple[int, str], ...]]
    cells: np.ndarray
    """(B, h, w, 4) int16: what each cell of the picture is to show, see `Labels.cells`"""
    told: np.ndarray
    """(B, SLOTS, 3) int16: thing, colour and number that the prompt tells of; zeros where it tells no more"""
    requests: list[Request]


class Planner:
    """Makes batches, each number another; called in the process that plans."""

    def __init__(
        self, writer: Writer, own: Stock, every: Stock, settings: RequestSettings, painter: PainterConfig, kind: str,
        seed: int, side: int,
    ):  # fmt: skip
        """side: cells of the picture that are labelled, each way"""
        self.writer, self.own, self.every, self.settings, self.painter = writer, own, every, settings, painter
        self.kind, self.seed, self.side = kind, seed, side
        self.counts = getattr(settings, kind)
        self.length = settings.paint_tokens if kind == "paint" else settings.edit_tokens
        self.labels = Labels(own.bank)
        self.beginning = None
        if kind == "edit":
            self.beginning = writer.looking(Image, still_grid(writer, painter.default_size))

    def batch(self, number: int) -> Batch:
        found: list[tuple[Request, Row]] = []
        for has_letters, count in ((False, self.counts["plain"]), (True, self.counts["lettered"])):
            numbers = generator(self.seed, f"{self.own.split} {self.kind} requests {has_letters}", number)
            kept = []
            while len(kept) < count:
                request = self.request(numbers, has_letters)
                row = self.row(request)
                if len(row) <= self.length:
                    kept.append((request, row))
            found += kept
        return self.collate(found)

    def request(self, numbers: np.random.Generator, has_letters: bool) -> Request:
        if self.kind == "paint":
            return paint(numbers, self.own, self.settings, has_letters)
        return edit(numbers, self.own, self.every, self.settings, has_letters)

    def row(self, request: Request) -> Row:
        """The prompt, up to where the answer would begin, as the processor writes it."""
        writer = self.writer
        asked = writer.encode(writer.escape(request.prompt) + writer.after)
        if self.beginning is None:
            ids = writer.before + asked
            places = np.broadcast_to(np.arange(len(ids)), (3, len(ids)))
            return Row(ids, [PADDING] * len(ids), places, end=len(ids))
        start = self.beginning
        places = np.broadcast_to(start.end + np.arange(len(asked)), (3, len(asked)))
        places = np.concatenate([start.places, places], 1)
        return Row(start.ids + asked, start.source + [PADDING] * len(asked), places, end=start.end + len(asked))

    def text(self, request: Request) -> str:
        """The letters to draw, in their published wording; the rule looks at the whole conversation."""
        if not request.has_letters:
            return ""
        processor = self.writer.processor
        asked = processor.apply_chat_template([Message("user", [Text(request.prompt)])])
        return glyph_text(processor.tokenizer.unescape(asked))

    def collate(self, found: Sequence[tuple[Request, Row]]) -> Batch:
        shape = len(found), self.length
        ids = np.full(shape, self.writer.tokenizer.pad_token_id or 0, np.int32)
        places, modality = np.zeros((3, *shape), np.int32), np.full(shape, PADDING, np.int8)
        cells = np.zeros((len(found), self.side, self.side, 4), np.int16)
        told = np.zeros((len(found), SLOTS, 3), np.int16)
        for i, (request, row) in enumerate(found):
            n = len(row)
            ids[i, :n], places[:, i, :n] = row.ids, row.places
            modality[i, :n] = np.where(np.array(row.source) >= 0, row.modality, 0)
            cells[i] = self.labels.cells(self.own, request.scenes[-1], self.side)
            for slot, (name, colour, count) in enumerate(request.told):
                told[i, slot] = self.labels.things[name], self.labels.colours.get(colour, 0), count
        requests = [request for request, _ in found]
        letters, mask = torch.zeros(0, 1, dtype=torch.long), torch.zeros(0, 1)
        texts = [self.text(request) for request in requests]
        lettered = [text for text in texts if text]
        assert all(texts[len(texts) - len(lettered) :]), "requests with letters stand last"
        if self.painter.glyphs is not None and lettered:
            letters, mask = spell(lettered, self.painter.glyphs.max_length)
        return Batch(
            self.kind, ids, places, modality, np.array([row.end for _, row in found], np.int32), letters.numpy(),
            mask.numpy(), [request.scenes for request in requests], [request.covers for request in requests], cells,
            told, requests,
        )  # fmt: skip


def stocks(bank: Bank, split: str) -> tuple[Stock, Stock]:
    """What the painter paints, and what it may be shown.

    Drawings are those of training, also for looking: a painter cannot paint what it has never seen. Words, fonts and
    photos are the split's own.
    """
    own = stock(bank, "train", PAINTER_STYLES)
    if split == "train":
        return own, stock(bank, "train")
    held = stock(bank, split)
    return replace(held, styles=own.styles, sprites=own.sprites), held
