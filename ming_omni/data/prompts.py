"""Text to picture: scenes and the prompt that asks for them, with the facts a judge checks (as GenEval does)."""

from __future__ import annotations

from collections import Counter

import numpy as np

from ming_omni.data.bank import Stock
from ming_omni.data.examples import Example
from ming_omni.data.names import (
    CHINESE_NUMBERS,
    COLOURS,
    INKS,
    NUMBERS,
    PLACES,
    SIDES,
    STYLE_NAMES,
    article,
    beside,
    plural,
)
from ming_omni.data.scenes import (
    Background,
    Scene,
    Thing,
    background,
    concepts,
    describe_background,
    describe_thing,
    pair,
    pick,
    places,
    thing,
    tintable,
    words,
)  # fmt: skip

TASKS = ("one object", "two objects", "counting", "colours", "position", "attributes", "words", "scene")


def paint(generator: np.random.Generator, stock: Stock, is_chinese: bool) -> Example:
    return TASK_MAKERS[pick(generator, TASKS)](generator, stock, is_chinese)


def caption(generator: np.random.Generator, stock: Stock, is_chinese: bool) -> Example:
    """Everything in the picture, in one sentence, as the painter's prompts are written."""
    example = paint(generator, stock, is_chinese)
    chinese, english = ("描述这张图片。", "请说说图里的内容。"), ("Describe the picture.", "What do you see?")
    question = pick(generator, chinese if is_chinese else english)
    facts = {"template": "caption zh" if is_chinese else "caption en"}
    return Example("caption", example.scenes, question, example.prompt, is_chinese, facts=facts)


def one_object(generator: np.random.Generator, stock: Stock, is_chinese: bool) -> Example:
    """Its style is named now and then, so that it can be asked for."""
    ground = background(generator, stock)
    (name,) = concepts(generator, stock, 1)
    item = thing(generator, stock, name, *_spot(generator, 0.5, 0.75), background=ground.name)
    with_style = item.style in STYLE_NAMES and generator.random() < 0.3
    text = _one(stock, item, is_chinese, with_style)
    facts = {"style": item.style} if with_style else {}
    return _example(stock, "one object", Scene(ground, (item,)), text, is_chinese, facts)


def two_objects(generator: np.random.Generator, stock: Stock, is_chinese: bool) -> Example:
    ground = background(generator, stock)
    things = _things(generator, stock, concepts(generator, stock, 2), ground)
    return _example(stock, "two objects", Scene(ground, things), _list(stock, things, is_chinese), is_chinese)


def counting(generator: np.random.Generator, stock: Stock, is_chinese: bool) -> Example:
    """Two to six of one drawing."""
    ground = background(generator, stock)
    (name,) = concepts(generator, stock, 1)
    count = int(generator.integers(2, 7))
    spots = places(generator, count)
    first = thing(generator, stock, name, *spots[0], background=ground.name)
    things = tuple(
        Thing(first.sprite, name, first.style, *spot, angle=float(generator.uniform(-12, 12)), colour=first.colour)
        for spot in spots
    )
    return _example(stock, "counting", Scene(ground, things), _list(stock, things, is_chinese), is_chinese)


def colours(generator: np.random.Generator, stock: Stock, is_chinese: bool) -> Example:
    things, ground = _coloured(generator, stock, 1)
    return _example(stock, "colours", Scene(ground, things), _list(stock, things, is_chinese), is_chinese)


def attributes(generator: np.random.Generator, stock: Stock, is_chinese: bool) -> Example:
    """Two things of two colours: the model must not swap them."""
    things, ground = _coloured(generator, stock, 2)
    return _example(stock, "attributes", Scene(ground, things), _list(stock, things, is_chinese), is_chinese)


def position(generator: np.random.Generator, stock: Stock, is_chinese: bool) -> Example:
    ground = background(generator, stock)
    first, second = concepts(generator, stock, 2)
    side = pick(generator, SIDES)
    scene = pair(generator, stock, first, second, side, ground)
    one, other = sorted(scene.things, key=lambda item: item.concept != first)
    if is_chinese:
        text = f"{describe_thing(stock, one, True)}在{describe_thing(stock, other, True)}的{SIDES[side][0]}"
    else:
        text = f"{article(one.name)} {beside(side)} {article(other.name)}"
    return _example(stock, "position", scene, text, is_chinese, {"position": [first, side, second]})


def printed_words(generator: np.random.Generator, stock: Stock, is_chinese: bool) -> Example:
    ground = background(generator, stock)
    has_chinese_words = bool(generator.random() < (0.7 if is_chinese else 0.15)) and bool(stock.chinese_fonts)
    line = words(generator, stock, has_chinese_words, float(generator.uniform(0.2, 0.8)), ground.name)
    ink = INKS[line.colour][0] if is_chinese else line.colour
    text = f"{ink}的文字“{line.text}”" if is_chinese else f'the word "{line.text}" in {ink}'
    things: tuple[Thing, ...] = ()
    if generator.random() < 0.5:
        (name,) = concepts(generator, stock, 1)
        y = 0.27 if line.y > 0.5 else 0.73
        if abs(line.y - y) > 0.33:
            things = (
                thing(generator, stock, name, float(generator.uniform(0.3, 0.7)), y, 0.38, background=ground.name),
            )
            joined = _list(stock, things, is_chinese)
            text = f"{joined}和{text}" if is_chinese else f"{joined} and {text}"
    return _example(stock, "words", Scene(ground, things, (line,)), text, is_chinese, {"words": line.text})


def busy_scene(generator: np.random.Generator, stock: Stock, is_chinese: bool) -> Example:
    """Three or four things, each in its corner, all told."""
    ground = background(generator, stock)
    names = concepts(generator, stock, int(generator.integers(2, 5)))
    spots = [list(PLACES)[i] for i in generator.permutation(len(PLACES))[: len(names)]]
    things = tuple(
        thing(generator, stock, name, *PLACES[spot][1], float(generator.uniform(0.24, 0.32)), background=ground.name)
        for name, spot in zip(names, spots, strict=True)
    )
    if is_chinese:
        parts = [f"{PLACES[s][0]}是{describe_thing(stock, t, True)}" for s, t in zip(spots, things, strict=True)]
        text = "，".join(parts)
    else:
        text = ", ".join(
            f"{article(t.name)} {'in' if s == 'middle' else 'at'} the {s}" for s, t in zip(spots, things, strict=True)
        )
    placed = [[name, spot] for name, spot in zip(names, spots, strict=True)]
    return _example(stock, "scene", Scene(ground, things), text, is_chinese, {"places": placed})


TASK_MAKERS = dict(
    zip(
        TASKS,
        (one_object, two_objects, counting, colours, position, attributes, printed_words, busy_scene),
        strict=True,
    )
)


# Pieces


def _example(stock: Stock, task: str, scene: Scene, text: str, is_chinese: bool, facts: dict | None = None) -> Example:
    ground = describe_background(scene.background, is_chinese)
    if ground:
        text = f"{text}，{ground}" if is_chinese else f"{text} {_on(scene.background)} {ground}"
    things = [[t.concept, t.colour] for t in scene.things]
    return Example(
        "paint", (scene,), text, is_chinese=is_chinese, facts={"task": task, "things": things, **(facts or {})}
    )


def _on(ground: Background) -> str:
    if ground.name in ("sunset", "night sky"):
        return "in front of"
    return "in" if ground.name in ("meadow", "desert", "snow", "room") else "on"


def _spot(generator: np.random.Generator, low: float, high: float) -> tuple[float, float, float]:
    size = float(generator.uniform(low, high))
    x, y = generator.uniform(size / 2 + 0.02, 0.98 - size / 2, 2).tolist()
    return x, y, size


def _things(generator: np.random.Generator, stock: Stock, names: list[str], ground: Background) -> tuple[Thing, ...]:
    return tuple(
        thing(generator, stock, name, *spot, background=ground.name)
        for name, spot in zip(names, places(generator, len(names)), strict=True)
    )


def _coloured(generator: np.random.Generator, stock: Stock, count: int) -> tuple[tuple[Thing, ...], Background]:
    kind = pick(generator, ("landscape", "photo", "plain") if stock.photos else ("landscape", "plain"))
    ground = background(generator, stock, kind)
    options = [name for name in COLOURS if name not in ground.name.split()]
    chosen = [options[i] for i in generator.choice(len(options), count, replace=False)]
    things = tuple(
        thing(generator, stock, name, *spot, colour=colour)
        for name, colour, spot in zip(tintable(generator, stock, count), chosen, places(generator, count), strict=True)
    )
    return things, ground


def _one(stock: Stock, item: Thing, is_chinese: bool, with_style: bool = False) -> str:
    name = describe_thing(stock, item, is_chinese, with_style)
    return f"一个{name}" if is_chinese else article(name)


def _list(stock: Stock, things: tuple[Thing, ...], is_chinese: bool) -> str:
    """`three dogs`, `a red car and a cat`."""
    counts = Counter(describe_thing(stock, item, is_chinese) for item in things)
    if is_chinese:
        return "和".join(f"{CHINESE_NUMBERS[n]}个{name}" for name, n in counts.items())
    return " and ".join(article(name) if n == 1 else f"{NUMBERS[n]} {plural(name)}" for name, n in counts.items())
