"""evaluate/painted: what a judge must see in a picture, what an edit may change, how masks overlap."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from ming_omni.data import edits, prompts
from ming_omni.data.bank import stock
from ming_omni.data.examples import Example
from ming_omni.data.judges import COLOUR_NAMES, Judge, Seen
from ming_omni.data.render import render
from ming_omni.data.scenes import Scene, Thing
from ming_omni.data.splits import generator
from ming_omni.data.sprites import SHAPES
from ming_omni.evaluate import painted
from tests.data_bank import THINGS, tiny_bank

NAMES = [*THINGS, *SHAPES]
TASKS = ["one object", "two objects", "counting", "colours", "attributes", "position", "scene"]
SIDE = 96


@pytest.fixture(scope="module")
def judge() -> Judge:
    torch.manual_seed(0)
    return Judge(NAMES, width=0.1, limits={"concept": 0.2, "count": 0.1, "colour": 0.2}).eval()


def see(scene: Scene) -> list[Seen]:
    """As a judge sees that is nearly sure of everything."""
    return [peak(thing.concept, thing.x, thing.y, thing.colour) for thing in scene.things]


def peak(name: str, x: float, y: float, colour: str | None = None) -> Seen:
    concepts, colours = torch.full((len(NAMES),), 0.01), torch.full((len(COLOUR_NAMES),), 0.01)
    concepts[NAMES.index(name)], colours[COLOUR_NAMES.index(colour)] = 0.9, 0.92
    return Seen(x, y, 0.95, concepts, colours)


def example(kind: str, index: int) -> Example:
    makers = prompts.TASK_MAKERS | edits.EDITS
    return makers[kind](generator(5, kind, index), stock(tiny_bank(), "train"), False)


def pictures(item: Example) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    drawn = render(tiny_bank(), item.scenes, SIDE)
    before, after = drawn.pictures.permute(0, 2, 3, 1).numpy()
    return before, after, drawn.owners[0].numpy()


@pytest.mark.parametrize(
    "kind", ["one object", "two objects", "counting", "colours", "attributes", "position", "scene"]
)
def test_a_picture_shows_what_was_asked_and_another_does_not(judge, kind):
    for index in range(4):
        item = example(kind, index)
        (scene,) = item.scenes
        assert painted.shows(judge, item.facts, see(scene))
        assert not painted.shows(judge, item.facts, see(scene)[1:])
        assert not painted.shows(judge, item.facts, [*see(scene), peak("key", 0.1, 0.1)])
        other = next(name for name in THINGS if name not in {t.concept for t in scene.things})
        assert not painted.shows(judge, item.facts, see(scene.with_thing(0, concept=other)))


@pytest.mark.parametrize("kind", ["position", "scene"])
def test_things_on_the_wrong_side_or_in_another_corner_do_not_count(judge, kind):
    item = example(kind, 1)
    mirrored = [replace(seen, x=1 - seen.x, y=1 - seen.y) for seen in see(item.scenes[0])]
    assert not painted.shows(judge, item.facts, mirrored)


def test_words_are_read_letter_by_letter_whatever_their_size():
    assert painted.reads("Open", ["12", "OP EN"])
    assert not painted.reads("Open", ["opens", "pen"]) and not painted.reads("Open", [])


@pytest.mark.parametrize("kind", list(edits.EDITS))
def test_an_edit_that_was_done_counts_and_one_that_was_not_does_not(judge, kind):
    for index in range(4):
        item = example(kind, index)
        before, after, owners = pictures(item)
        words = [line.text for line in item.scenes[1].words]
        done = painted.is_change_seen(judge, item, before, after, after, see(item.scenes[1]), words)
        undone = painted.is_change_seen(judge, item, before, before, after, see(item.scenes[0]), [])
        assert done and not undone
        assert painted.is_kept(item, before, after, owners)
        assert painted.are_recognised(judge, item, see(item.scenes[0]), see(item.scenes[1]))


@pytest.mark.parametrize("kind", ["add", "remove", "recolour", "change background"])
def test_an_edit_that_touches_the_rest_is_noticed(judge, kind):
    items = [item for item in (example(kind, index) for index in range(20)) if painted.untouched(item)]
    assert items
    for item in items[:4]:
        before, after, owners = pictures(item)
        assert not painted.is_kept(item, before, (after.astype(int) + 20).clip(0, 255).astype(np.uint8), owners)
        lost = [s for s in see(item.scenes[1]) if (s.x, s.y) != painted.place_of(painted.untouched(item)[0])]
        assert not painted.are_recognised(judge, item, see(item.scenes[0]), lost)


def test_the_judges_own_blindness_is_not_held_against_an_edit(judge):
    thing = Thing(0, "dog", "noto", 0.3, 0.3, 0.3)
    item = Example("edit", (Scene(None, (thing,)), Scene(None, (thing,))), "", facts={"edit": "add"}, targets=(1,))
    as_cat, as_key = [peak("cat", 0.3, 0.3)], [peak("key", 0.3, 0.3)]
    assert painted.are_recognised(judge, item, as_cat, as_cat)
    assert painted.are_recognised(judge, item, [], as_key)
    assert not painted.are_recognised(judge, item, as_cat, as_key)


def test_masks_overlap_by_what_they_share():
    left, top = np.zeros((4, 4), bool), np.zeros((4, 4), bool)
    left[:, :2] = top[:2] = True
    assert painted.overlap(left, top) == pytest.approx(4 / 12)
    assert painted.overlap(left, left) == 1.0 == painted.overlap(left & False, top & False)
