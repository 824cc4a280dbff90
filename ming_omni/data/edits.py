"""Pairs of scenes that differ in exactly one thing, and the instruction that leads from the first to the second."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ming_omni.data.bank import Stock
from ming_omni.data.examples import Example
from ming_omni.data.names import COLOURS, PLACES, STYLE_NAMES, article
from ming_omni.data.scenes import (
    Scene,
    background,
    concepts,
    describe_background,
    describe_thing,
    pick,
    text_width,
    thing,
    tintable,
    words,
)  # fmt: skip
from ming_omni.data.sprites import SHAPES

SIZE = 0.28


def edit(generator: np.random.Generator, stock: Stock, is_chinese: bool) -> Example:
    return EDITS[pick(generator, EDITS)](generator, stock, is_chinese)


def add(generator: np.random.Generator, stock: Stock, is_chinese: bool) -> Example:
    """At a place that was free."""
    scene, free = _scene(generator, stock)
    (name,) = concepts(generator, stock, 1, without=tuple(t.concept for t in scene.things))
    new = thing(generator, stock, name, *PLACES[free][1], SIZE, background=scene.background.name)
    after = replace(scene, things=(*scene.things, new))
    text = describe_thing(stock, new, is_chinese)
    instruction = f"在{PLACES[free][0]}加一个{text}" if is_chinese else f"Add {article(text)} {_at(free)}"
    return _example(
        "add", scene, after, instruction, is_chinese, (len(scene.things),), thing=[name, new.colour], place=free
    )


def remove(generator: np.random.Generator, stock: Stock, is_chinese: bool) -> Example:
    scene, _ = _scene(generator, stock)
    number = int(generator.integers(len(scene.things)))
    gone = scene.things[number]
    after = replace(scene, things=scene.things[:number] + scene.things[number + 1 :])
    text = describe_thing(stock, gone, is_chinese)
    instruction = f"去掉{text}" if is_chinese else f"Remove the {text}"
    return _example("remove", scene, after, instruction, is_chinese, (number,), thing=[gone.concept, gone.colour])


def replace_thing(generator: np.random.Generator, stock: Stock, is_chinese: bool) -> Example:
    scene, _ = _scene(generator, stock)
    number = int(generator.integers(len(scene.things)))
    old = scene.things[number]
    (name,) = concepts(generator, stock, 1, without=tuple(t.concept for t in scene.things))
    new = thing(generator, stock, name, old.x, old.y, old.size, background=scene.background.name)
    after = replace(scene, things=(*scene.things[:number], new, *scene.things[number + 1 :]))
    texts = [describe_thing(stock, item, is_chinese) for item in (old, new)]
    instruction = f"把{texts[0]}换成{texts[1]}" if is_chinese else f"Replace the {texts[0]} with {article(texts[1])}"
    return _example("replace", scene, after, instruction, is_chinese, (number,), thing=[name, new.colour])


def recolour(generator: np.random.Generator, stock: Stock, is_chinese: bool) -> Example:
    scene, free = _scene(generator, stock)
    (name,) = tintable(generator, stock, 1, without=tuple(t.concept for t in scene.things))
    before, after = pick_two(generator, [c for c in COLOURS if c not in scene.background.name.split()])
    item = thing(generator, stock, name, *PLACES[free][1], SIZE, colour=before)
    scene = replace(scene, things=(*scene.things, item))
    number = len(scene.things) - 1
    text = describe_thing(stock, item, is_chinese)
    instruction = f"把{text}变成{COLOURS[after][0]}" if is_chinese else f"Make the {text} {after}"
    changed = scene.with_thing(number, colour=after)
    return _example("recolour", scene, changed, instruction, is_chinese, (number,), thing=[name, after])


def move(generator: np.random.Generator, stock: Stock, is_chinese: bool) -> Example:
    scene, free = _scene(generator, stock)
    number = int(generator.integers(len(scene.things)))
    item = scene.things[number]
    x, y = PLACES[free][1]
    text = describe_thing(stock, item, is_chinese)
    instruction = f"把{text}移到{PLACES[free][0]}" if is_chinese else f"Move the {text} {_to(free)}"
    changed, moved = scene.with_thing(number, x=x, y=y), [item.concept, item.colour]
    return _example("move", scene, changed, instruction, is_chinese, (number,), thing=moved, place=free)


def restyle(generator: np.random.Generator, stock: Stock, is_chinese: bool) -> Example:
    """The same thing by another artist."""
    by_style = {
        name: sorted({stock.bank.keys[i][1] for i in indexes} & STYLE_NAMES.keys())
        for name, indexes in stock.sprites.items()
        if name not in SHAPES
    }
    several = [name for name, styles in by_style.items() if len(styles) > 1]
    if not several:  # a tiny stock may have one artist only
        return recolour(generator, stock, is_chinese)
    scene, free = _scene(generator, stock)
    present = {t.concept for t in scene.things}
    name = pick(generator, [name for name in several if name not in present] or several)
    before, after = pick_two(generator, by_style[name])
    items = [thing(generator, stock, name, *PLACES[free][1], SIZE, style=style) for style in (before, after)]
    first = replace(scene, things=(*scene.things, items[0]))
    number = len(first.things) - 1
    second = first.with_thing(number, sprite=items[1].sprite, style=after)
    text = describe_thing(stock, items[0], is_chinese)
    style = STYLE_NAMES[after][is_chinese]
    instruction = f"把{text}改成{style}风格" if is_chinese else f"Draw the {text} in the {style} style"
    return _example("restyle", first, second, instruction, is_chinese, (number,), thing=[name, None], style=after)


def change_words(generator: np.random.Generator, stock: Stock, is_chinese: bool) -> Example:
    """Font, place and colour stay."""
    has_chinese_words = bool(generator.random() < (0.7 if is_chinese else 0.15)) and bool(stock.chinese_fonts)
    ground = background(generator, stock)
    (name,) = concepts(generator, stock, 1)
    item = thing(generator, stock, name, float(generator.uniform(0.3, 0.7)), 0.3, 0.4, background=ground.name)
    old = words(generator, stock, has_chinese_words, 0.75, ground.name)
    new = words(generator, stock, has_chinese_words, 0.75, ground.name)
    size = min(old.size, 0.9 / max(text_width(stock, old.font, line.text) for line in (old, new)))
    lines = [replace(old, text=line.text, x=0.5, size=size) for line in (old, new)]
    scenes = [Scene(ground, (item,), (line,)) for line in lines]
    instruction = (
        f"把文字“{old.text}”改成“{new.text}”" if is_chinese else f'Change the word "{old.text}" to "{new.text}"'
    )
    return _example("change words", *scenes, instruction, is_chinese, (), words=new.text)


def change_background(generator: np.random.Generator, stock: Stock, is_chinese: bool) -> Example:
    scene, _ = _scene(generator, stock)
    ground, colours = scene.background, {item.colour for item in scene.things}
    while ground.name == scene.background.name or colours & set(ground.name.split()):
        ground = background(generator, stock, pick(generator, ("plain", "landscape", "pattern")))
    text = describe_background(ground, is_chinese)
    instruction = f"把背景换成{text}" if is_chinese else f"Change the background to {_backdrop(text)}"
    changed = replace(scene, background=ground)
    return _example("change background", scene, changed, instruction, is_chinese, (), background=ground.name)


EDITS = {
    "add": add, "remove": remove, "replace": replace_thing, "recolour": recolour, "move": move, "restyle": restyle,
    "change words": change_words, "change background": change_background,
}  # fmt: skip


def pick_two(generator: np.random.Generator, options: list) -> tuple:
    first, second = generator.choice(len(options), 2, replace=False)
    return options[first], options[second]


def _scene(generator: np.random.Generator, stock: Stock) -> tuple[Scene, str]:
    """One to three different things at named places, and a place that is still free."""
    ground = background(generator, stock)
    spots = [list(PLACES)[i] for i in generator.permutation(len(PLACES))]
    names = concepts(generator, stock, int(generator.integers(1, 4)))
    things = tuple(
        thing(generator, stock, name, *PLACES[spot][1], float(generator.uniform(0.24, 0.3)), background=ground.name)
        for name, spot in zip(names, spots, strict=False)
    )
    return Scene(ground, things), spots[-1]


def _example(
    edit: str, before: Scene, after: Scene, instruction: str, is_chinese: bool, targets: tuple[int, ...], **facts
) -> Example:
    facts = {"edit": edit, **facts}
    return Example("edit", (before, after), instruction, is_chinese=is_chinese, targets=targets, facts=facts)


def _at(place: str) -> str:
    return "in the middle" if place == "middle" else f"at the {place}"


def _to(place: str) -> str:
    return f"to the {place}"


def _backdrop(text: str) -> str:
    """`a blue background with dots` -> `blue with dots`; a landscape keeps its article."""
    if " background" not in text:
        return text
    return text.replace(" background", "").removeprefix("a ").removeprefix("an ")
