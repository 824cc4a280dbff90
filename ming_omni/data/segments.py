"""Scenes with a mask to find: the one thing a phrase refers to, all of a kind, or every thing on its own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ming_omni.data.bank import Stock
from ming_omni.data.examples import Example
from ming_omni.data.names import PLACES, plural
from ming_omni.data.scenes import Scene, background, concepts, describe_thing, pick, places, thing

SEGMENTS = ("referring", "semantic", "instance")


def segment(generator: np.random.Generator, stock: Stock, is_chinese: bool) -> Example:
    return MAKERS[pick(generator, SEGMENTS)](generator, stock, is_chinese)


def referring(generator: np.random.Generator, stock: Stock, is_chinese: bool) -> Example:
    """By name when the name is enough; by place when there are two of the kind."""
    ground = background(generator, stock)
    spots = [list(PLACES)[i] for i in generator.permutation(len(PLACES))]
    names = concepts(generator, stock, int(generator.integers(2, 4)))
    has_twin = generator.random() < 0.5
    names = [names[0], *names] if has_twin else names
    things = [
        thing(generator, stock, name, *PLACES[spot][1], float(generator.uniform(0.24, 0.32)), background=ground.name)
        for name, spot in zip(names, spots, strict=False)
    ]
    if has_twin:
        things[1] = replace(things[1], sprite=things[0].sprite, style=things[0].style, colour=things[0].colour)
    text = describe_thing(stock, things[0], is_chinese)
    if has_twin:
        place = PLACES[spots[0]][0] if is_chinese else spots[0]
        text = f"{place}的{text}" if is_chinese else f"{text} {'in' if place == 'middle' else 'at'} the {place}"
    order = generator.permutation(len(things)).tolist()
    scene = Scene(ground, tuple(things[i] for i in order))
    prompt = f"分割{text}" if is_chinese else f"Segment the {text}"
    return _example("referring", scene, prompt, text if is_chinese else f"the {text}", is_chinese, (order.index(0),))


def semantic(generator: np.random.Generator, stock: Stock, is_chinese: bool) -> Example:
    """All of a kind, each drawn by whichever artist, among others."""
    ground = background(generator, stock)
    wanted, *others = concepts(generator, stock, 3)
    names = [wanted] * int(generator.integers(1, 5)) + others
    things = [
        thing(generator, stock, name, *spot, background=ground.name)
        for name, spot in zip(names, places(generator, len(names)), strict=True)
    ]
    order = generator.permutation(len(things)).tolist()
    targets = tuple(place for place, i in enumerate(order) if names[i] == wanted)
    text = f"所有的{stock.bank.chinese(wanted)}" if is_chinese else f"all {plural(wanted)}"
    prompt = f"分割{text}" if is_chinese else f"Segment {text}"
    return _example("semantic", Scene(ground, tuple(things[i] for i in order)), prompt, text, is_chinese, targets)


def instance(generator: np.random.Generator, stock: Stock, is_chinese: bool) -> Example:
    """Every thing: the owners of the pixels tell them apart."""
    ground = background(generator, stock)
    names = concepts(generator, stock, int(generator.integers(2, 6)))
    things = tuple(
        thing(generator, stock, name, *spot, background=ground.name)
        for name, spot in zip(names, places(generator, len(names)), strict=True)
    )
    text = "每个物体" if is_chinese else "every object"
    prompt = f"分割{text}" if is_chinese else f"Segment {text}"
    return _example("instance", Scene(ground, things), prompt, text, is_chinese, tuple(range(len(things))))


MAKERS = dict(zip(SEGMENTS, (referring, semantic, instance), strict=True))


def _example(task: str, scene: Scene, prompt: str, what: str, is_chinese: bool, targets: tuple[int, ...]) -> Example:
    return Example("segment", (scene,), prompt, what, is_chinese, targets, facts={"task": task})
