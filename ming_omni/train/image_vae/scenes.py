"""A stock and a number -> plans of pictures: scenes, and what of them is painted over; plans -> pictures on a device.

Planning takes half a millisecond a picture on a CPU; drawing hundreds at once is work for the GPU.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from ming_omni.data.bank import Bank, Stock, stock
from ming_omni.data.edits import edit
from ming_omni.data.prompts import paint
from ming_omni.data.render import render
from ming_omni.data.scenes import Scene, background, words
from ming_omni.data.segments import segment
from ming_omni.data.splits import generator
from ming_omni.train.image_vae.settings import PictureSettings, Settings

LETTER = 255
"""Owner of a pixel that shows a letter, see `data.render`."""
LEVELS = (0, 128, 255)
"""Of red, green and blue: masks are painted in such colours."""


@dataclass
class Plan:
    """Pictures to draw, as plain data."""

    scenes: list[Scene] = field(default_factory=list)
    covered: list[tuple[int, ...]] = field(default_factory=list)
    """Things of each scene, counted from 0, that are painted over."""
    colours: list[tuple[int, int, int]] = field(default_factory=list)
    opacities: list[float] = field(default_factory=list)


class Planner:
    """Batches of plans, every number another; the kinds mixed, or one alone."""

    def __init__(self, stock: Stock, settings: PictureSettings, seed: int, count: int, kind: str = ""):
        self.stock, self.settings, self.seed, self.count, self.kind = stock, settings, seed, count, kind

    def batch(self, number: int) -> Plan:
        plan, chances = Plan(), self.settings.kinds
        for i in range(number * self.count, (number + 1) * self.count):
            numbers = generator(self.seed, f"{self.stock.split} autoencoder {self.kind}", i)
            share = np.array(list(chances.values())) / sum(chances.values())
            kind = self.kind or str(numbers.choice(list(chances), p=share))
            scene, covered = self.scene(kind, numbers)
            plan.scenes.append(scene)
            plan.covered.append(covered)
            plan.colours.append(tuple(int(numbers.choice(LEVELS)) for _ in range(3)))
            plan.opacities.append(float(numbers.uniform(0.4, 1.0)) if numbers.random() < 0.5 else 1.0)
        return plan

    def scene(self, kind: str, numbers: np.random.Generator) -> tuple[Scene, tuple[int, ...]]:
        is_chinese = bool(numbers.random() < self.settings.chinese)
        if kind == "words":
            return self._lines(numbers), ()
        if kind == "ground":
            return Scene(background(numbers, self.stock)), ()
        if kind == "segment":
            example = segment(numbers, self.stock, is_chinese)
            return example.scenes[0], example.targets
        example = edit(numbers, self.stock, is_chinese) if kind == "edit" else paint(numbers, self.stock, is_chinese)
        return example.scenes[-1], ()

    def _lines(self, numbers: np.random.Generator) -> Scene:
        """One to five lines of type, large and small."""
        ground = background(numbers, self.stock)
        count, found = int(numbers.integers(1, 6)), []
        for i in range(count):
            y = (i + 0.5) / count + float(numbers.uniform(-0.1, 0.1)) / count
            is_chinese = bool(self.stock.chinese_fonts) and bool(numbers.random() < 0.5)
            line = words(numbers, self.stock, is_chinese, y, ground.name)
            size = min(line.size * float(numbers.uniform(0.5, 1.2)), line.size, 0.75 / count)
            found.append(replace(line, size=size))
        return Scene(ground, (), tuple(found))


def make_planner(settings: Settings) -> Planner:
    """For training; called in the process that plans."""
    pictures = settings.pictures
    return Planner(stock(Bank(pictures.bank), "train"), pictures, settings.seed, pictures.fresh)


@torch.no_grad()
def draw(bank: Bank, plan: Plan, size: int) -> Tensor:
    """(B, 4, S, S) uint8: red, green, blue, and 255 where a letter is seen."""
    drawn = render(bank, plan.scenes, size)
    table = torch.zeros(len(plan.scenes), 256)
    for i, covered in enumerate(plan.covered):
        table[i, [number + 1 for number in covered]] = plan.opacities[i]
    table, owners = table.to(bank.device), drawn.owners
    opacity = table.gather(1, owners.flatten(1).long()).view(owners.shape)[:, None]  # (B, 1, S, S)
    colours = torch.tensor(plan.colours, dtype=torch.float32, device=bank.device)[:, :, None, None]
    pictures = torch.lerp(drawn.pictures.float(), colours.expand_as(drawn.pictures), opacity.expand_as(drawn.pictures))
    letters = 255 * (owners == LETTER)[:, None].float()
    return torch.cat([pictures.round(), letters], 1).to(torch.uint8)


class Pool:
    """Pictures on the device that batches are drawn from; new ones take the place of the oldest."""

    def __init__(self, bank: Bank, settings: PictureSettings):
        self.bank, self.settings, self.oldest, self.count = bank, settings, 0, 0
        shape = settings.pool, 4, settings.pixels, settings.pixels
        self.pictures = torch.empty(shape, dtype=torch.uint8, device=bank.device)

    @property
    def is_full(self) -> bool:
        return self.count == len(self.pictures)

    def add(self, plan: Plan) -> None:
        drawn = draw(self.bank, plan, self.settings.pixels)
        places = (torch.arange(len(drawn), device=drawn.device) + self.oldest) % len(self.pictures)
        self.pictures[places] = drawn
        self.oldest = (self.oldest + len(drawn)) % len(self.pictures)
        self.count = min(self.count + len(drawn), len(self.pictures))

    def batch(self, size: int) -> Tensor:
        """(B, 4, S, S) uint8; the colours of some have changed places."""
        device = self.pictures.device
        chosen = self.pictures[torch.randint(self.count, (size,), device=device)]
        order = torch.rand(size, 3, device=device).argsort(1)
        is_kept = torch.rand(size, 1, device=device) >= self.settings.recoloured
        order = torch.where(is_kept, torch.arange(3, device=device), order)
        order = torch.cat([order, torch.full_like(order[:, :1], 3)], 1)
        return chosen.gather(1, order[:, :, None, None].expand_as(chosen))
