"""Short films (a scene for each frame) and a question only the whole film answers: direction, order, change, count."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ming_omni.data.bank import Stock
from ming_omni.data.examples import Example
from ming_omni.data.names import MOVES, NUMBERS, article, plural
from ming_omni.data.scenes import Background, Scene, Thing, background, concepts, pick, places, thing

FRAMES = 8


def film(generator: np.random.Generator, stock: Stock, is_chinese: bool) -> Example:
    return FILMS[pick(generator, FILMS)](generator, stock, is_chinese)


def direction(generator: np.random.Generator, stock: Stock, is_chinese: bool) -> Example:
    """One thing moves straight on; where it starts says nothing about where it goes."""
    ground = background(generator, stock)
    name, *others = concepts(generator, stock, 2)
    towards = pick(generator, MOVES)
    dx, dy = MOVES[towards][1]
    path = float(generator.uniform(0.3, 0.5))
    x, y = generator.uniform(0.3, 0.7, 2).tolist()
    mover = thing(generator, stock, name, x, y, 0.26, background=ground.name)
    still = ()
    if generator.random() < 0.5:
        # Beside the track, never on it.
        away = (x, 0.15 if y > 0.5 else 0.85) if dx else (0.15 if x > 0.5 else 0.85, y)
        still = (thing(generator, stock, others[0], *away, 0.22, background=ground.name),)
    scenes = []
    for frame in range(FRAMES):
        step = (frame / (FRAMES - 1) - 0.5) * path
        scenes.append(Scene(ground, (*still, replace(mover, x=x + dx * step, y=y + dy * step))))
    question = (
        f"{stock.bank.chinese(name)}往哪个方向移动？" if is_chinese else f"In which direction does the {name} move?"
    )
    return _example(scenes, question, MOVES[towards][0] if is_chinese else towards, is_chinese, "direction")


def order(generator: np.random.Generator, stock: Stock, is_chinese: bool) -> Example:
    """Two things come in one after the other; the question names them in either order."""
    ground = background(generator, stock)
    names = concepts(generator, stock, 2)
    things = [
        thing(generator, stock, name, *spot, background=ground.name)
        for name, spot in zip(names, places(generator, 2), strict=True)
    ]
    early, late = int(generator.integers(1, 3)), int(generator.integers(4, 7))
    scenes = _entering(ground, things, (early, late))
    asked = names if generator.random() < 0.5 else names[::-1]
    if is_chinese:
        question = f"先出现的是{stock.bank.chinese(asked[0])}还是{stock.bank.chinese(asked[1])}？"
    else:
        question = f"Which comes first, the {asked[0]} or the {asked[1]}?"
    answer = stock.bank.chinese(names[0]) if is_chinese else f"the {names[0]}"
    return _example(scenes, question, answer, is_chinese, "order", options=[asked.index(names[0])])


def appearance(generator: np.random.Generator, stock: Stock, is_chinese: bool) -> Example:
    """One of three things comes or goes; the other two stay."""
    ground = background(generator, stock)
    names = concepts(generator, stock, 3)
    things = [
        thing(generator, stock, name, *spot, background=ground.name)
        for name, spot in zip(names, places(generator, 3), strict=True)
    ]
    changing, comes = int(generator.integers(3)), bool(generator.integers(2))
    moment = int(generator.integers(2, FRAMES - 1))
    scenes = [
        Scene(ground, tuple(t for i, t in enumerate(things) if i != changing or (frame >= moment) == comes))
        for frame in range(FRAMES)
    ]
    if is_chinese:
        question = "后来出现了什么？" if comes else "什么消失了？"
    else:
        question = "What appears?" if comes else "What disappears?"
    answer = stock.bank.chinese(names[changing]) if is_chinese else article(names[changing])
    return _example(scenes, question, answer, is_chinese, "appears" if comes else "disappears")


def count(generator: np.random.Generator, stock: Stock, is_chinese: bool) -> Example:
    """One to six of a kind come in one by one and stay."""
    ground = background(generator, stock)
    (name,) = concepts(generator, stock, 1)
    total = int(generator.integers(1, 7))
    spots = places(generator, total)
    first = thing(generator, stock, name, *spots[0], background=ground.name)
    things = [replace(first, x=x, y=y, size=size) for x, y, size in spots]
    starts = sorted(generator.integers(0, FRAMES, total).tolist())
    scenes = _entering(ground, things, starts)
    question = (
        f"最后有多少个{stock.bank.chinese(name)}？" if is_chinese else f"How many {plural(name)} are there in the end?"
    )
    return _example(
        scenes, question, "零一二三四五六"[total] if is_chinese else NUMBERS[total], is_chinese, "film count"
    )


FILMS = {"direction": direction, "order": order, "appearance": appearance, "count": count}


def _example(scenes: list[Scene], question: str, answer: str, is_chinese: bool, template: str, **facts) -> Example:
    facts = {"template": f"{template} {'zh' if is_chinese else 'en'}", **facts}
    return Example("film", tuple(scenes), question, answer, is_chinese, facts=facts)


def _entering(ground: Background, things: list[Thing], starts: Sequence[int]) -> list[Scene]:
    """Each thing is there from its frame on."""
    return [
        Scene(ground, tuple(item for item, start in zip(things, starts, strict=True) if frame >= start))
        for frame in range(FRAMES)
    ]
