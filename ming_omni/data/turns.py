"""A scene -> many questions about it with their right answers, in the words of `questions.py` and `prompts.py`.

One picture is dear, a question about it is cheap. What can be guessed is thinned out: most things occur once, so "one"
is rarely asked for, and things that are not there are asked about as often as those that are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np

from ming_omni.data.bank import Stock
from ming_omni.data.names import COLOURS, NUMBERS, PLACES, SIDES, article, beside, is_plural, plural
from ming_omni.data.scenes import Scene, Thing, concepts, describe_background, describe_thing, pick

Turn = tuple[str, str]

MIDDLE, REACH = 0.15, 0.12
"""Further from the middle than MIDDLE, a thing stands to a side; nearer than REACH to a place, it stands there."""
KEPT = {0: 0.15, 1: 0.12}
"""Counts that nearly every scene has; each is asked for with this chance."""


def turns(generator: np.random.Generator, stock: Stock, scene: Scene, is_chinese: bool) -> list[Turn]:
    """Everything worth asking, shuffled, the list of all things first."""
    found = [
        *_names(stock, scene, is_chinese),
        *_counts(generator, stock, scene, is_chinese),
        *_places(stock, scene, is_chinese),
        *_sides(stock, scene, is_chinese),
        *_colours(stock, scene, is_chinese),
        *_presence(generator, stock, scene, is_chinese),
        *_background(scene, is_chinese),
        *_words(scene, is_chinese),
    ]
    order = generator.permutation(len(found))
    return [*_listing(generator, stock, scene, is_chinese), *(found[i] for i in order)]


def _names(stock: Stock, scene: Scene, is_chinese: bool) -> Iterator[Turn]:
    if len(scene.things) == 1:
        name = scene.things[0].concept
        yield ("图里有什么？" if is_chinese else "What is in the picture?", _name(stock, name, is_chinese))


def _counts(generator: np.random.Generator, stock: Stock, scene: Scene, is_chinese: bool) -> Iterator[Turn]:
    counts = Counter(thing.concept for thing in scene.things)
    (absent,) = concepts(generator, stock, 1, tuple(counts))
    for name, count in [*counts.items(), (absent, 0)]:
        if count < len(NUMBERS) and generator.random() < KEPT.get(count, 1.0):
            asked = f"图里有多少个{stock.bank.chinese(name)}？" if is_chinese else f"How many {plural(name)} are there?"
            yield asked, "零一二三四五六"[count] if is_chinese else NUMBERS[count]


def _places(stock: Stock, scene: Scene, is_chinese: bool) -> Iterator[Turn]:
    for thing in _single(scene):
        for place, (chinese, (x, y)) in PLACES.items():
            if np.hypot(thing.x - x, thing.y - y) < REACH:
                where = chinese if is_chinese else f"{'in' if place == 'middle' else 'at'} the {place}"
                name = stock.bank.chinese(thing.concept) if is_chinese else thing.concept
                yield (f"{name}在哪里？" if is_chinese else f"Where {_is(name)} the {name}?"), where


def _sides(stock: Stock, scene: Scene, is_chinese: bool) -> Iterator[Turn]:
    things = _single(scene)
    for first in things:
        for second in things:
            if first is second or (side := _side(first, second)) is None:
                continue
            if is_chinese:
                one, other = stock.bank.chinese(first.concept), stock.bank.chinese(second.concept)
                yield f"{one}在{other}的哪一边？", SIDES[side][0]
                if len(scene.things) == 2:
                    yield f"{other}的{SIDES[side][0]}是什么？", one
            else:
                one, other = first.concept, second.concept
                yield f"On which side of the {other} {_is(one)} the {one}?", side
                if len(scene.things) == 2:
                    yield f"What is {beside(side)} the {other}?", article(one)


def _colours(stock: Stock, scene: Scene, is_chinese: bool) -> Iterator[Turn]:
    for thing in _single(scene):
        if thing.colour:
            name = stock.bank.chinese(thing.concept) if is_chinese else thing.concept
            asked = f"{name}是什么颜色的？" if is_chinese else f"What colour {_is(name)} the {name}?"
            yield asked, COLOURS[thing.colour][0] if is_chinese else thing.colour


def _presence(generator: np.random.Generator, stock: Stock, scene: Scene, is_chinese: bool) -> Iterator[Turn]:
    there = list(dict.fromkeys(thing.concept for thing in scene.things))
    if not there:
        return
    (absent,) = concepts(generator, stock, 1, tuple(there))
    for name, is_there in ((pick(generator, there), True), (absent, False)):
        if is_chinese:
            yield f"图里有{stock.bank.chinese(name)}吗？", "有" if is_there else "没有"
        else:
            asked = f"Are there {name}" if is_plural(name) else f"Is there {article(name)}"
            yield f"{asked} in the picture?", "yes" if is_there else "no"


def _background(scene: Scene, is_chinese: bool) -> Iterator[Turn]:
    if described := describe_background(scene.background, is_chinese):
        yield ("背景是什么？" if is_chinese else "What is the background?"), described


def _words(scene: Scene, is_chinese: bool) -> Iterator[Turn]:
    """From top to bottom where there are several lines."""
    if scene.words:
        lines = " ".join(line.text for line in sorted(scene.words, key=lambda line: line.y))
        yield ("图上写着什么？" if is_chinese else "What does it say?"), lines


def _listing(generator: np.random.Generator, stock: Stock, scene: Scene, is_chinese: bool) -> Iterator[Turn]:
    """Every thing with its colour and place, then the words: a target that cannot be met without seeing all."""
    parts = []
    for thing in sorted(scene.things, key=lambda thing: (round(thing.y * 3), thing.x)):
        name = describe_thing(stock, thing, is_chinese)
        place = _place(thing, is_chinese)
        parts.append(f"{place}{name}" if is_chinese else f"{article(name)} {place}")
    for line in scene.words:
        parts.append(f"文字{line.text}" if is_chinese else f"the text {line.text}")
    if parts:
        asked = "列出图里的一切。" if is_chinese else "List everything in the picture."
        yield asked, ("，" if is_chinese else ", ").join(parts)


# Pieces


def _single(scene: Scene) -> list[Thing]:
    """Things whose name says which one is meant."""
    counts = Counter(thing.concept for thing in scene.things)
    return [thing for thing in scene.things if counts[thing.concept] == 1]


def _side(first: Thing, second: Thing) -> str | None:
    """Where the first stands, seen from the second; None where nobody would say so."""
    dx, dy = first.x - second.x, first.y - second.y
    if max(abs(dx), abs(dy)) < 0.25 or min(abs(dx), abs(dy)) > 0.4 * max(abs(dx), abs(dy)):
        return None
    if abs(dx) > abs(dy):
        return "left" if dx < 0 else "right"
    return "above" if dy < 0 else "below"


def _place(thing: Thing, is_chinese: bool) -> str:
    """One of nine."""
    column, row = (-1 if v < 0.5 - MIDDLE else 1 if v > 0.5 + MIDDLE else 0 for v in (thing.x, thing.y))
    if is_chinese:
        names = {(0, 0): "中间", (-1, 0): "左边", (1, 0): "右边", (0, -1): "上面", (0, 1): "下面"}
        corner = {-1: "左", 1: "右"}.get(column, "") + {-1: "上", 1: "下"}.get(row, "") + "角"
        return names.get((column, row), corner)
    if not column and not row:
        return "in the middle"
    words = [{-1: "top", 1: "bottom"}.get(row), {-1: "left", 1: "right"}.get(column)]
    return f"at the {' '.join(word for word in words if word)}"


def _name(stock: Stock, concept: str, is_chinese: bool) -> str:
    return stock.bank.chinese(concept) if is_chinese else article(concept)


def _is(concept: str) -> str:
    return "are" if is_plural(concept) else "is"
