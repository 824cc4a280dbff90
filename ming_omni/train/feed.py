"""Training sets -> the batches of every step for this process, read ahead, and the totals that their losses share."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import torch

from ming_omni.errors import InputError
from ming_omni.train.batches import Batch, DataSet
from ming_omni.train.folder import BadExample
from ming_omni.train.learner import Totals
from ming_omni.train.parallel import World
from ming_omni.train.recipe import Recipe


def batches_of(sets: list[DataSet], recipe: Recipe, world: World, step: int) -> tuple[list[Batch], list[BadExample]]:
    """This process's batches of one step: of every set, as many as there are micro-batches."""
    pieces = recipe.optimizer.micro_batches * world.size
    batches, bad = [], []
    for data in sets:
        if data.settings.examples_per_step % pieces:
            raise InputError(
                f"data.{data.name}.examples_per_step is {data.settings.examples_per_step}; "
                f"{world.size} processes with {recipe.optimizer.micro_batches} micro-batches "
                f"need a multiple of {pieces}"
            )
        for micro in range(recipe.optimizer.micro_batches):
            batch, errors = data.batch(step, micro * world.size + world.rank, pieces)
            batches.append(batch)
            bad += errors
    return batches, bad


def prefetch(
    sets: list[DataSet], recipe: Recipe, world: World, start: int
) -> Iterator[tuple[int, list[Batch], list[BadExample]]]:
    """Each step and its batches, read in the background while the step before is computed."""
    if start >= recipe.steps:
        return
    with ThreadPoolExecutor(1) as reader:
        following = reader.submit(batches_of, sets, recipe, world, start)
        for step in range(start, recipe.steps):
            ready = following.result()
            if step + 1 < recipe.steps:
                following = reader.submit(batches_of, sets, recipe, world, step + 1)
            yield step, *ready


def count(batches: list[Batch], step: int, world: World) -> dict[str, Totals]:
    """What the losses of a step are means over, for each set by name."""
    names = list(dict.fromkeys(batch.name for batch in batches))
    of_sets = torch.tensor(
        [
            [sum(batch.count for batch in batches if batch.name == name) for name in names],
            [sum(batch.num_tokens for batch in batches if batch.name == name) for name in names],
        ],
        dtype=torch.float64,
        device=world.device,
    )
    read = [batch for batch in batches if batch.packed is not None]  # by the thinker
    present = sum((batch.present for batch in read), torch.zeros(3)).to(of_sets)
    num_tokens = torch.tensor([sum(batch.num_tokens for batch in read)]).to(of_sets)
    sums = world.total(torch.cat([of_sets.flatten(), present, num_tokens]))
    counts, tokens = sums[: of_sets.numel()].view(2, -1).tolist()
    present, num_tokens = sums[-4:-1].float(), float(sums[-1])
    return {name: Totals(counts[i], present, num_tokens, len(read), step, tokens[i]) for i, name in enumerate(names)}
