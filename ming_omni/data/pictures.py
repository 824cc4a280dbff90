"""A kind, a seed and an index -> one example; many -> batches drawn at once. Example i is the same in any batch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ming_omni.data.bank import Stock
from ming_omni.data.edits import edit
from ming_omni.data.examples import Example
from ming_omni.data.films import film
from ming_omni.data.prompts import caption, paint
from ming_omni.data.questions import question
from ming_omni.data.render import Rendered, render
from ming_omni.data.segments import segment
from ming_omni.data.splits import generator

KINDS = {"question": question, "caption": caption, "paint": paint, "edit": edit, "segment": segment, "film": film}
CHINESE_PART = 0.35


def example(stock: Stock, kind: str, seed: int, index: int) -> Example:
    """The split is part of the name, so that no two splits share a stream of random numbers."""
    numbers = generator(seed, f"{stock.split} {kind}", index)
    return KINDS[kind](numbers, stock, bool(numbers.random() < CHINESE_PART))


def batches(
    stock: Stock, kind: str, seed: int, indexes: Iterable[int], size: int = 256, batch: int = 16
) -> Iterator[tuple[list[Example], list[Rendered]]]:
    """Examples and, for each, its pictures: one, two for an edit, one for each frame of a film."""
    waiting: list[Example] = []
    for index in indexes:
        waiting.append(example(stock, kind, seed, index))
        if len(waiting) == batch:
            yield waiting, draw(stock, waiting, size)
            waiting = []
    if waiting:
        yield waiting, draw(stock, waiting, size)


def draw(stock: Stock, examples: list[Example], size: int = 256) -> list[Rendered]:
    """All scenes of all examples in one call, handed back example by example."""
    drawn = render(stock.bank, [scene for example in examples for scene in example.scenes], size)
    counts = [len(example.scenes) for example in examples]
    parts = zip(drawn.pictures.split(counts), drawn.owners.split(counts), strict=True)
    return [Rendered(pictures, owners) for pictures, owners in parts]
