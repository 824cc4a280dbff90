"""A recipe -> everything that a run works with: model, training sets, learner; and back to files at the end."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ming_omni.errors import InputError
from ming_omni.inputs.processor import MingProcessor
from ming_omni.model.omni import MingForConditionalGeneration
from ming_omni.train import parts, seeds
from ming_omni.train.batches import DataSet
from ming_omni.train.examples import Reader
from ming_omni.train.folder import BadExample, read
from ming_omni.train.learner import Learner
from ming_omni.train.recipe import Recipe


@dataclass
class Bench:
    """Everything a run works with."""

    model: MingForConditionalGeneration
    processor: MingProcessor
    sets: list[DataSet]
    learner: Learner
    adapted: Any
    """The PEFT model around it, where there is LoRA."""
    bad_lines: list[BadExample]
    first_step: int
    """Where the steps of an imported run go on."""


def build(recipe: Recipe) -> Bench:
    """Load the model, read the folders, choose what learns."""
    if not recipe.data:
        raise InputError("the recipe has no training set: --set data.NAME.folder=PATH")
    torch.manual_seed(seeds.mix(recipe.seed, "new weights"))
    found = {name: read(_folder(name, data.folder), data.file) for name, data in recipe.data.items()}
    bad_lines = [error for _, bad in found.values() for error in bad]
    if bad_lines and recipe.guard.bad_examples == "stop":
        raise bad_lines[0]
    model, processor = parts.load(recipe.model)
    sets = []
    for name, (lines, _) in found.items():
        reader = Reader(model, processor, recipe.data[name], recipe.words, lines, recipe.seed)
        sets.append(DataSet(name, recipe.data[name], lines, reader, recipe.guard.bad_examples))
    adapted = parts.choose(model, recipe.learn)
    labels = sorted({line.values["label"] for data in sets for line in data.lines if "label" in line.values})
    learner = Learner(model, recipe, labels)
    learner.add_critics({data.kind for data in sets})
    if recipe.learn.checkpoint_activations:
        parts.checkpoint_activations(model)
    first_step = parts.import_trained(learner, recipe.model.start_from) if recipe.model.start_from else 0
    return Bench(model, processor, sets, learner, adapted, bad_lines, first_step)


def _folder(name: str, folder: str) -> str:
    if not folder:
        raise InputError(f"say where the training set is: --set data.{name}.folder=PATH")
    return folder


def save_model(bench: Bench, recipe: Recipe, output: Path) -> None:
    """What can be loaded afterwards: with LoRA the adapter alone, and the whole model with the adapter merged in."""
    if bench.adapted is not None:
        bench.adapted.save_pretrained(output / "adapter")
    if recipe.output.save_model:
        if bench.adapted is not None:
            bench.adapted.merge_and_unload()
        bench.model.save_pretrained(output / "model")
        bench.processor.save_pretrained(output / "model")
