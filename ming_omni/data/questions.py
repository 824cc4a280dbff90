"""Scenes with a question and its one right answer: the answer is drawn first, evenly, and the scene is built around it.

Whoever guesses without the picture therefore cannot do better than chance; `blind.py` measures it.
"""

from __future__ import annotations

import numpy as np

from ming_omni.data.bank import Stock
from ming_omni.data.examples import Example
from ming_omni.data.names import COLOURS, NUMBERS, PLACES, SIDES, article, beside, is_plural, plural
from ming_omni.data.scenes import Scene, background, concepts, pair, pick, places, thing, tintable, words

MAX_COUNT = 6


def what(generator: np.random.Generator, stock: Stock, is_chinese: bool) -> Example:
    """One thing alone, or the one beside another."""
    ground = background(generator, stock)
    answer, other = concepts(generator, stock, 2)
    if generator.random() < 0.6:
        scene = Scene(ground, (_alone(generator, stock, answer, ground.name),))
        question = "图里有什么？" if is_chinese else "What is in the picture?"
        template = "what"
    else:
        side = pick(generator, SIDES)
        scene = pair(generator, stock, answer, other, side, ground)
        question = (
            f"{stock.bank.chinese(other)}的{SIDES[side][0]}是什么？"
            if is_chinese
            else f"What is {beside(side)} the {other}?"
        )
        template = f"what {side}"
    return _example(scene, question, _name(stock, answer, is_chinese), is_chinese, template)


def how_many(generator: np.random.Generator, stock: Stock, is_chinese: bool) -> Example:
    """Zero to six of a kind, mostly in one style, beside a few other things."""
    ground = background(generator, stock)
    counted, *others = concepts(generator, stock, 3)
    count = int(generator.integers(0, MAX_COUNT + 1))
    others = (others * 3)[: int(generator.integers(0 if count else 1, 4))]
    names = [counted] * count + others
    spots = places(generator, len(names))
    style = pick(generator, stock.sprites[counted])
    style = stock.bank.keys[style][1]
    things = [
        thing(
            generator, stock, name, *spot, background=ground.name,
            style=style if name == counted and generator.random() < 0.7 else None,
        )
        for name, spot in zip(names, spots, strict=True)
    ]  # fmt: skip
    order = generator.permutation(len(things))
    question = (
        f"图里有多少个{stock.bank.chinese(counted)}？" if is_chinese else f"How many {plural(counted)} are there?"
    )
    answer = ("零一二三四五六"[count]) if is_chinese else NUMBERS[count]
    return _example(Scene(ground, tuple(things[i] for i in order)), question, answer, is_chinese, "how many")


def where(generator: np.random.Generator, stock: Stock, is_chinese: bool) -> Example:
    """A corner or the middle, while others stand elsewhere; or the side of one thing seen from another."""
    ground = background(generator, stock)
    if generator.random() < 0.5:
        side = pick(generator, SIDES)
        first, second = concepts(generator, stock, 2)
        scene = pair(generator, stock, first, second, side, ground)
        question = (
            f"{stock.bank.chinese(first)}在{stock.bank.chinese(second)}的哪一边？"
            if is_chinese
            else f"On which side of the {second} {_is(first)} the {first}?"
        )
        return _example(scene, question, SIDES[side][0] if is_chinese else side, is_chinese, "side")
    spots = list(PLACES)
    generator.shuffle(spots)
    names = concepts(generator, stock, int(generator.integers(1, 4)))
    things = tuple(
        thing(generator, stock, name, *_near(generator, PLACES[spot][1]), 0.3, background=ground.name)
        for name, spot in zip(names, spots, strict=False)
    )
    question = f"{stock.bank.chinese(names[0])}在哪里？" if is_chinese else f"Where {_is(names[0])} the {names[0]}?"
    return _example(Scene(ground, things), question, _place(spots[0], is_chinese), is_chinese, "where")


def which_colour(generator: np.random.Generator, stock: Stock, is_chinese: bool) -> Example:
    """Of things that may have any colour, beside others of another colour."""
    ground = background(generator, stock, pick(generator, ("landscape", "photo") if stock.photos else ("landscape",)))
    names = tintable(generator, stock, int(generator.integers(1, 4)))
    colours = [list(COLOURS)[i] for i in generator.choice(len(COLOURS), len(names), replace=False)]
    things = tuple(
        thing(generator, stock, name, *spot, colour=colour)
        for name, colour, spot in zip(names, colours, places(generator, len(names)), strict=True)
    )
    question = (
        f"{stock.bank.chinese(names[0])}是什么颜色的？"
        if is_chinese
        else f"What colour {_is(names[0])} the {names[0]}?"
    )
    answer = COLOURS[colours[0]][0] if is_chinese else colours[0]
    return _example(Scene(ground, things), question, answer, is_chinese, "colour")


def is_there(generator: np.random.Generator, stock: Stock, is_chinese: bool) -> Example:
    """Yes and no in equal parts, with the same number of things in the picture either way."""
    ground = background(generator, stock)
    count = int(generator.integers(1, 5))
    asked, *names = concepts(generator, stock, count + 1)
    is_present = bool(generator.integers(2))
    if is_present:
        names[generator.integers(count)] = asked
    things = tuple(
        thing(generator, stock, name, *spot, background=ground.name)
        for name, spot in zip(names, places(generator, count), strict=True)
    )
    question = (
        f"图里有{stock.bank.chinese(asked)}吗？"
        if is_chinese
        else (
            f"Are there {asked} in the picture?" if is_plural(asked) else f"Is there {article(asked)} in the picture?"
        )
    )
    answer = ("没有", "有")[is_present] if is_chinese else ("no", "yes")[is_present]
    return _example(Scene(ground, things), question, answer, is_chinese, "is there")


def what_says(generator: np.random.Generator, stock: Stock, is_chinese: bool) -> Example:
    """Printed words to read, alone or above or below a thing or two. The words' language need not be the question's."""
    ground = background(generator, stock)
    has_chinese_words = bool(generator.random() < (0.7 if is_chinese else 0.25)) and bool(stock.chinese_fonts)
    line = words(generator, stock, has_chinese_words, float(generator.uniform(0.15, 0.85)), ground.name)
    count = int(generator.integers(0, 3))
    band = (0.28, 0.28, 0.4) if line.y > 0.5 else (0.28, 0.72, 0.4)
    things = []
    for number, name in enumerate(concepts(generator, stock, count)):
        if abs(line.y - band[1]) > 0.3:
            things.append(thing(generator, stock, name, 0.28 + 0.44 * number, band[1], 0.3, background=ground.name))
    question = "图上写着什么？" if is_chinese else "What does it say?"
    return _example(Scene(ground, tuple(things), (line,)), question, line.text, is_chinese, "says")


QUESTIONS = {f.__name__: f for f in (what, how_many, where, which_colour, is_there, what_says)}


def question(generator: np.random.Generator, stock: Stock, is_chinese: bool) -> Example:
    return QUESTIONS[pick(generator, QUESTIONS)](generator, stock, is_chinese)


# Pieces


def _example(scene: Scene, question: str, answer: str, is_chinese: bool, template: str) -> Example:
    facts = {"template": f"{template} {'zh' if is_chinese else 'en'}"}
    return Example("question", (scene,), question, answer, is_chinese, facts=facts)


def _name(stock: Stock, concept: str, is_chinese: bool) -> str:
    return stock.bank.chinese(concept) if is_chinese else article(concept)


def _is(concept: str) -> str:
    return "are" if is_plural(concept) else "is"


def _place(place: str, is_chinese: bool) -> str:
    return PLACES[place][0] if is_chinese else f"in the {place}" if place == "middle" else f"at the {place}"


def _near(generator: np.random.Generator, spot: tuple[float, float]) -> tuple[float, float]:
    return tuple(float(np.clip(c + generator.uniform(-0.05, 0.05), 0.17, 0.83)) for c in spot)


def _alone(generator: np.random.Generator, stock: Stock, name: str, ground: str):
    size = float(generator.uniform(0.3, 0.6))
    x, y = generator.uniform(size / 2 + 0.02, 0.98 - size / 2, 2).tolist()
    return thing(generator, stock, name, x, y, size, background=ground)
