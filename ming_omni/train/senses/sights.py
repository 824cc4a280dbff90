"""Before the senses' run: many crowded pictures that only name their cells -> a vision encoder that tells things apart.

    python -m ming_omni.train.senses.sights nano_understanding --output sights.safetensors --for 300

The encoder alone reads thirty times as many pictures a second as the whole model does. `senses.run --start-from` takes
what it writes beside the pieces of a run, or alone. Processes plan scenes; the device draws them into a pool.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ming_omni.data.bank import Bank, Stock, stock
from ming_omni.data.concepts import TINTABLE
from ming_omni.data.eyes import Eyes as PhotographEyes
from ming_omni.data.names import COLOURS
from ming_omni.data.render import render
from ming_omni.data.scenes import Scene, background, concepts, pick, places, thing
from ming_omni.data.splits import generator
from ming_omni.train.senses import eyes
from ming_omni.train.senses.bench import load_model, load_writer
from ming_omni.train.senses.cells import NOTHING, Cells, Words
from ming_omni.train.senses.pictures import Labels, lines, still_grid, still_sizes
from ming_omni.train.senses.settings import Settings, read
from ming_omni.train.senses.workers import Feed
from ming_omni.train.timed import rate_factor

LARGEST_CROWD = 8
LINES, TINTED = 0.4, 0.3
"""Shares of pictures that hold type, of things that are dyed where they may be."""
LOOK_PICTURES = 512
RESERVE_SECONDS = 5.0


class Sights:
    """Batches of scenes and the labels of their cells, every number another."""

    def __init__(self, stock: Stock, side: int, count: int, seed: int, unnamed: Stock | None = None, share: float = 0):
        """side: cells of a picture in a row; unnamed: drawings whose pictures, that share of all, nobody judges."""
        self.stock, self.side, self.count, self.seed = stock, side, count, seed
        self.labels = Labels(stock.bank)
        self.unnamed, self.share = unnamed, share

    def batch(self, number: int) -> tuple[list[Scene], np.ndarray]:
        """scenes, labels (count, side, side, 4)"""
        scenes, labels = [], []
        for i in range(number * self.count, (number + 1) * self.count):
            numbers = generator(self.seed, f"{self.stock.split} sights", i)
            if self.unnamed and numbers.random() < self.share:
                scenes.append(crowd(numbers, self.unnamed))
                labels.append(np.full((self.side, self.side, 4), NOTHING, np.int16))
            else:
                scenes.append((lines if numbers.random() < LINES else crowd)(numbers, self.stock))
                labels.append(self.labels.cells(self.stock, scenes[-1], self.side))
        return scenes, np.stack(labels)


def crowd(numbers: np.random.Generator, stock: Stock) -> Scene:
    """One to eight different things anywhere."""
    ground = background(numbers, stock)
    names = concepts(numbers, stock, int(numbers.integers(1, LARGEST_CROWD + 1)))
    found = []
    for name, spot in zip(names, places(numbers, len(names)), strict=True):
        is_dyed = name in TINTABLE and numbers.random() < TINTED
        colour = pick(numbers, list(COLOURS)) if is_dyed else None
        found.append(thing(numbers, stock, name, *spot, background=ground.name, colour=colour))
    return Scene(ground, tuple(found))


def make_sights(settings: Settings, side: int, split: str = "train") -> Sights:
    bank, chosen = Bank(settings.pictures.bank), settings.sights
    named = stock(bank, split)
    added = add_unnamed(bank, settings)
    unnamed = unnamed_stock(named, added) if added else None
    return Sights(named, side, chosen.fresh, settings.seed, unnamed, chosen.unnamed_share)


def add_unnamed(bank: Bank, settings: Settings) -> list[int]:
    """Places of the drawings without names, which the bank holds from now on."""
    return bank.add(Bank(settings.sights.unnamed, bank.device)) if settings.sights.unnamed else []


def unnamed_stock(named: Stock, indexes: Sequence[int]) -> Stock:
    """The same backgrounds, other things: each drawing is a thing of its own."""
    return replace(named, sprites={"/".join(named.bank.keys[i]): [i] for i in indexes})


class Pool:
    """Pictures (N, 3, S, S) and labels (N, side, side, 4) on a device; new ones take the place of the oldest."""

    def __init__(self, bank: Bank, size: int, pixels: int, side: int):
        self.bank, self.pixels, self.drawn = bank, pixels, 0
        self.pictures = torch.empty(size, 3, pixels, pixels, dtype=torch.uint8, device=bank.device)
        self.labels = torch.empty(size, side, side, 4, dtype=torch.int16, device=bank.device)

    def __len__(self) -> int:
        return min(self.drawn, len(self.pictures))

    def add(self, scenes: Sequence[Scene], labels: np.ndarray) -> None:
        places = (torch.arange(len(scenes), device=self.bank.device) + self.drawn) % len(self.pictures)
        self.pictures[places] = render(self.bank, scenes, self.pixels).pictures
        self.labels[places] = torch.from_numpy(labels).to(self.bank.device)
        self.drawn += len(scenes)

    def batch(self, size: int) -> tuple[Tensor, Tensor]:
        """Some of them and their labels."""
        chosen = torch.randint(len(self), (size,), device=self.bank.device)
        return self.pictures[chosen], self.labels[chosen].long()


class Photographs(nn.Module):
    """What eyes trained on photographs see in each cell: what drawings by different artists share, they share too."""

    def __init__(self, file: str, side: int):
        super().__init__()
        self.side, self.eyes = side, PhotographEyes()
        self.eyes.load_state_dict(load_file(file))
        self.eyes.eval().requires_grad_(False)
        self.normal = nn.BatchNorm1d(sum(self.eyes.channels), affine=False)

    @torch.no_grad()
    def forward(self, pictures: Tensor) -> Tensor:
        """(n, 3, S, S) uint8 -> (n M, C), each channel with mean 0 and variance 1"""
        seen = [F.interpolate(x.float(), size=(self.side, self.side), mode="area") for x in self.eyes(pictures.float())]
        return self.normal(torch.cat(seen, 1).permute(0, 2, 3, 1).flatten(0, 2))


class Learner(nn.Module):
    """The vision encoder, its projector and the helpers."""

    def __init__(self, settings: Settings, bank: Bank):
        super().__init__()
        torch.manual_seed(settings.seed)
        model, processor = load_model(settings.model)
        writer = load_writer(settings.model)
        self.grid = still_grid(writer, settings.pictures.pixels)
        self.sizes = still_sizes(writer, settings.pictures.pixels)
        self.image_processor = processor.image_processor
        self.eyes = eyes.Eyes(model.vision)
        labels = Labels(bank)
        self.cells = Cells(model.config.vision.out_hidden_size, labels.sizes)
        self.words = Words(model.thinker.embedding.weight.detach(), processor.tokenizer.encode, labels.names)
        self.requires_grad_(True)
        self.photographs, self.photographs_weight = None, settings.sights.alike
        if settings.sights.photographs:
            self.photographs = Photographs(settings.sights.photographs, self.grid[1] // 2)
            width = sum(self.photographs.eyes.channels)
            self.alike = nn.Linear(model.config.vision.out_hidden_size, width)

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """(n, 3, S, S) uint8 -> tokens (n, M, D), features (n, M, E) before them"""
        patches = eyes.still_patches(pictures, self.sizes, self.image_processor)
        see = self.eyes if torch.is_grad_enabled() else self.eyes.forward  # a look is not worth compiling again
        with self.autocast(pictures):
            return see(patches, len(pictures), self.grid)

    def losses(self, pictures: Tensor, labels: Tensor) -> dict[str, Tensor]:
        tokens, merged = self(pictures)
        with self.autocast(pictures):
            shown = self.cells(merged)
            found = {}
            if self.photographs is not None:
                wanted = self.photographs(pictures).clamp(-4, 4)
                distance = F.mse_loss(self.alike(merged).flatten(0, 1).float(), wanted)
                found["photographs"] = self.photographs_weight * distance
        found |= {f"word/{name}": loss for name, loss in self.words.losses(tokens, labels).items()}
        return self.cells.losses(shown, labels) | found

    def autocast(self, pictures: Tensor) -> torch.autocast:
        return torch.autocast(pictures.device.type, torch.bfloat16, enabled=pictures.device.type == "cuda")


@torch.no_grad()
def look(learner: Learner, dev: tuple[Tensor, Tensor]) -> dict[str, float]:
    """Of the cells that show something of the kind, the share that is named right."""
    shown, found = [], {}
    for pictures in dev[0].split(256):
        _, merged = learner(pictures)
        with learner.autocast(pictures):
            shown.append({name: logits.argmax(-1) for name, logits in learner.cells(merged).items()})
    for number, name in enumerate(shown[0]):
        guesses, wanted = torch.cat([part[name] for part in shown]), dev[1][..., number].flatten()
        asked = wanted > 0
        found[f"look/{name}"] = float((guesses[asked] == wanted[asked]).float().mean())
    return found


def names(learner: Learner) -> dict[str, nn.Parameter]:
    """What is exported, as the senses' run names it."""
    found = {f"vision.{name}": p for name, p in learner.eyes.vision.named_parameters()}
    return found | {f"helpers.cells.{name}": p for name, p in learner.cells.named_parameters()}


@torch.no_grad()
def restore(learner: Learner, pieces: Sequence[Path]) -> None:
    stored = {name: tensor for path in pieces for name, tensor in load_file(path).items()}
    for name, parameter in names(learner).items():
        if name in stored:
            parameter.copy_(stored[name])


def train(settings: Settings, output: Path, seconds: float, start_from: Sequence[Path] = ()) -> dict[str, float]:
    """seconds: of everything; start_from: pieces of a run, or of an earlier call; returns the last look."""
    called, chosen, device = time.perf_counter(), settings.sights, torch.device(settings.device)
    torch.set_float32_matmul_precision("high")
    bank = Bank(settings.pictures.bank, device)
    judged = stock(bank, settings.look_split)
    add_unnamed(bank, settings)
    learner = Learner(settings, bank).to(device)
    if start_from:
        restore(learner, start_from)
    side = learner.grid[1] // 2
    feed = Feed({"sights": partial(make_sights, settings, side)}, {"sights": chosen.workers})
    pool = Pool(bank, chosen.pool, settings.pictures.pixels, side)
    dev = Pool(bank, LOOK_PICTURES, settings.pictures.pixels, side)
    maker = Sights(judged, side, LOOK_PICTURES if chosen.workers else 8, settings.seed)
    dev.add(*maker.batch(0))
    dev_batch = dev.pictures[: len(dev)], dev.labels[: len(dev)].long()
    if settings.compile:
        look(learner, dev_batch)  # lays out the windows, once: nothing for a compiler
        learner.eyes.compile(dynamic=False)
    rate, betas, decay = chosen.rate, tuple(settings.learn.betas), chosen.weight_decay
    optimizer = torch.optim.AdamW(learner.parameters(), rate, betas, weight_decay=decay, fused=True)
    step, began, last_look, found = 0, time.perf_counter(), time.perf_counter(), {}
    span = seconds - RESERVE_SECONDS - (began - called)
    try:
        while time.perf_counter() - began < span:
            if not pool or (step % chosen.fresh_every == 0 and (not chosen.workers or feed.waiting()["sights"])):
                pool.add(*feed.next("sights"))
            elapsed = time.perf_counter() - began
            for group in optimizer.param_groups:
                group["lr"] = rate * rate_factor(settings, elapsed / span * settings.seconds, step)
            pictures, labels = pool.batch(chosen.batch)  # each is shown a few times, each time varied anew
            if settings.pictures.varied:
                pictures = eyes.varied(pictures)
            losses = learner.losses(pictures, labels)
            sum(losses.values()).backward()
            nn.utils.clip_grad_norm_(learner.parameters(), settings.learn.clip_norm)
            optimizer.step()
            optimizer.zero_grad()
            step += 1
            if time.perf_counter() - last_look > chosen.look_seconds:
                values = {name: round(float(loss.detach()), 4) for name, loss in losses.items()}
                found = look(learner, dev_batch)
                last_look = time.perf_counter()
                print(json.dumps({"step": step, "seconds": elapsed, "drawn": pool.drawn} | values | found), flush=True)
    finally:
        feed.close()
    found = look(learner, dev_batch)
    facts = {"step": 0, "seconds": 0.0, "calls": 0, "warm_from": 0}  # a run that starts from this starts
    tensors = {name: p.detach().to(torch.bfloat16).cpu().contiguous() for name, p in names(learner).items()}
    save_file(tensors, output, metadata={"facts": json.dumps(facts)})
    print(json.dumps({"steps": step, "drawn": pool.drawn} | found), flush=True)
    return found


def main(arguments: list[str] | None = None, train: Callable = train) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("recipe", help="that of the senses' run")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--for", type=float, default=300, dest="seconds", help="seconds of this call")
    parser.add_argument("--set", action="append", default=[], dest="sets", metavar="NAME=VALUE")
    parser.add_argument("--start-from", type=Path, nargs="*", default=[], help="pieces of a run, or what this wrote")
    given = parser.parse_args(arguments)
    train(read(given.recipe, given.sets), given.output, given.seconds, given.start_from)


if __name__ == "__main__":
    main()
