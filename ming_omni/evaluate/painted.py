"""Painted pictures, beside the scenes that were asked for -> what is right about them: things, edits, words, masks.

The judge (`data.judges`) names what it sees; a picture is never compared with the scene pixel by pixel, because the
painter is free in whatever the prompt leaves open. Only what an edit must leave alone is.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import permutations

import numpy as np
import torch
from torch.nn import functional as F

from ming_omni.data.examples import Example
from ming_omni.data.judges import COLOUR_NAMES, Judge, Seen
from ming_omni.data.names import PLACES, SIDES
from ming_omni.data.scenes import Scene, Thing

OUTSIDE = 0.02
"""Of the full range: how much may change, in the mean, where nothing was asked."""
ROOM = 1.2
"""Size of the square around a thing, in sizes of the thing, within which an edit may paint."""
NEAR = 0.15
"""Of the picture: a thing seen nearer to a place than this is at the place."""
CLEAR = 0.05
"""Of the picture: one thing is clearly to a side of another."""
SURE = 0.5
"""A thing is taken to be there when the judge is this certain of it."""
CHANGED = 0.02
"""Of the full range: a thing drawn anew differs by more, in the mean of its square."""
EDGE = 3
LIKE = 0.12
"""Of the full range: a background looks, from afar, as one that was asked for."""

Found = Sequence[Seen]


# New pictures


def shows(judge: Judge, facts: dict, seen: Found) -> bool:
    """Exactly the asked things, in their colours, on their sides, at their places."""
    if not facts["things"]:
        return not any(item.certainty > SURE for item in seen)
    if not judge.agrees(facts, seen):
        return False
    if "position" in facts:
        first, side, second = facts["position"]
        one, other = assigned(judge, [(first, None), (second, None)], seen)
        dx, dy = SIDES[side][1]
        return (one.x - other.x) * dx + (one.y - other.y) * dy > CLEAR
    if "places" in facts:
        items = assigned(judge, [(name, None) for name, _ in facts["places"]], seen)
        return all(is_at(item, PLACES[spot][1]) for item, (_, spot) in zip(items, facts["places"], strict=True))
    return True


def assigned(judge: Judge, wanted: Sequence[tuple[str, str | None]], seen: Found) -> list[Seen]:
    """Which of the surest peaks is which of the wanted things, as the judge believes most."""

    def belief(order: tuple[Seen, ...]) -> float:
        return sum(math.log(believed(judge, item, *thing) + 1e-9) for item, thing in zip(order, wanted, strict=True))

    return list(max(permutations(seen[: len(wanted)]), key=belief))


def believed(judge: Judge, item: Seen, name: str, colour: str | None) -> float:
    hue = float(item.colours[COLOUR_NAMES.index(colour)]) if colour else 1.0
    return float(item.concepts[judge.concepts.index(name)]) * hue


def is_at(item: Seen, place: tuple[float, float]) -> bool:
    return math.hypot(item.x - place[0], item.y - place[1]) < NEAR


def is_thing(judge: Judge, item: Seen, name: str, colour: str | None) -> bool:
    """As sure as the judge has to be, see `Judge.limits`."""
    if float(item.concepts[judge.concepts.index(name)]) <= judge.limits["concept"]:
        return False
    return not colour or float(item.colours[COLOUR_NAMES.index(colour)]) > judge.limits["colour"]


def nearest(seen: Found, place: tuple[float, float]) -> Seen | None:
    """The nearest thing that is surely there, if it is at the place."""
    sure = [item for item in seen if item.certainty > SURE and is_at(item, place)]
    return min(sure, key=lambda item: math.hypot(item.x - place[0], item.y - place[1]), default=None)


# Words


def reads(text: str, lines: Iterable[str]) -> bool:
    """Letter by letter, as one line of what was read; spaces, and whether letters are large, do not count."""
    return bare(text) in {bare(line) for line in lines}


def bare(text: str) -> str:
    return "".join(text.split()).casefold()


# Edits; pictures are (S, S, 3) uint8: before as the autoencoder gives it back, and after.


def is_change_seen(
    judge: Judge, example: Example, before: np.ndarray, after: np.ndarray, truth: np.ndarray, seen: Found,
    lines: Sequence[str],
) -> bool:  # fmt: skip
    """The asked change, in the eyes of the judge.

    truth  the edited scene as it might have been drawn
    seen   things in the edited picture; lines: words read in it
    """
    facts, (old, new) = example.facts, example.scenes
    edit = facts["edit"]
    if edit == "change words":
        return reads(facts["words"], lines)
    if edit == "change background":
        return is_background(old, before, after, truth)
    (number,) = example.targets
    if edit == "remove":
        rows, columns = square(old.things[number], len(after))
        has_changed = difference(before[rows, columns], after[rows, columns]) > CHANGED
        return has_changed and nearest(seen, place_of(old.things[number])) is None
    thing = new.things[number]
    found = nearest(seen, place_of(thing))
    if found is None or not is_thing(judge, found, thing.concept, None if edit == "move" else thing.colour):
        return False
    if edit == "move":
        return nearest(seen, place_of(old.things[number])) is None
    if edit == "replace":
        return believed(judge, found, thing.concept, None) > believed(judge, found, old.things[number].concept, None)
    if edit == "recolour":
        return COLOUR_NAMES[int(found.colours.argmax())] == thing.colour
    if edit == "restyle":
        rows, columns = square(thing, len(after))
        return difference(before[rows, columns], after[rows, columns]) > CHANGED
    assert edit == "add"
    return True


def is_background(old: Scene, before: np.ndarray, after: np.ndarray, truth: np.ndarray) -> bool:
    """From afar the background is near to one as asked for, and nearer than to what it was."""
    inside = np.ones(after.shape[:2], bool)
    for thing in old.things:
        inside[square(thing, len(after))] = False

    def far(picture: np.ndarray) -> torch.Tensor:
        kept = torch.from_numpy(np.concatenate([picture * inside[..., None], 255 * inside[..., None]], -1) / 255)
        return F.adaptive_avg_pool2d(kept.permute(2, 0, 1)[None], 8)[0]

    shares = far(after)[3].clamp(min=1e-6)
    to_truth, to_before = (
        float((far(after)[:3] - far(other)[:3]).abs().mean(0).sum() / shares.sum()) for other in (truth, before)
    )
    return to_truth < LIKE and to_truth < to_before


def is_kept(example: Example, before: np.ndarray, after: np.ndarray, owners: np.ndarray) -> bool:
    """What nobody asked to change has not changed by more than OUTSIDE; owners (S, S) of the scene before."""
    outside = ~region(example, owners)
    return not outside.any() or difference(before[outside], after[outside]) <= OUTSIDE


def region(example: Example, owners: np.ndarray) -> np.ndarray:
    """(S, S) bool: where an edit may paint. A new background may come as near to things as EDGE pixels."""
    side = len(owners)
    old, new = example.scenes
    if example.facts["edit"] == "change background":
        ground = torch.from_numpy((owners == 0).astype(np.float32))[None]
        return F.max_pool2d(ground, 2 * EDGE + 1, 1, EDGE)[0].numpy() > 0
    inside = np.zeros((side, side), bool)
    for scene in example.scenes:
        for number in example.targets:
            if number < len(scene.things) and scene.things[number] not in _shared(old, new):
                inside[square(scene.things[number], side)] = True
        if old.words != new.words:
            for line in scene.words:
                top, bottom = (round((line.y + half * line.size) * side) for half in (-0.75, 0.75))
                inside[max(0, top) : bottom] = True
    return inside


def untouched(example: Example) -> list[Thing]:
    old, new = example.scenes
    return [thing for thing in old.things if thing in _shared(old, new)]


def are_recognised(judge: Judge, example: Example, seen_before: Found, seen: Found) -> bool:
    """Untouched things are named rightly, or as before the edit: what the judge cannot name is not the edit's fault."""
    for thing in untouched(example):
        was, is_now = (nearest(found, place_of(thing)) for found in (seen_before, seen))
        if was is None:
            continue
        if is_now is None or not (
            judge.name(is_now) == judge.name(was) or is_thing(judge, is_now, thing.concept, thing.colour)
        ):
            return False
    return True


def _shared(old: Scene, new: Scene) -> set[Thing]:
    return set(old.things) & set(new.things)


def place_of(thing: Thing) -> tuple[float, float]:
    return thing.x, thing.y


def square(thing: Thing, side: int, room: float = ROOM) -> tuple[slice, slice]:
    """Rows and columns around a thing."""
    half = thing.size * room / 2

    def part(middle: float) -> slice:
        return slice(max(0, round((middle - half) * side)), min(side, round((middle + half) * side)))

    return part(thing.y), part(thing.x)


def difference(one: np.ndarray, other: np.ndarray) -> float:
    """Mean distance of pixels, of the full range."""
    return float(np.abs(one.astype(np.float32) - other.astype(np.float32)).mean() / 255) if one.size else 0.0


# Masks


def overlap(found: np.ndarray, truth: np.ndarray) -> float:
    """Intersection over union of masks (S, S); two empty ones agree."""
    union = (found | truth).sum()
    return float((found & truth).sum() / union) if union else 1.0
