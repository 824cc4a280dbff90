"""Settings -> everything that a run works with: model, learner, drawings on the device, planners of requests, looks."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from ming_omni import config as presets
from ming_omni.checkpoint import detect
from ming_omni.data.bank import Bank
from ming_omni.data.judges import Judge
from ming_omni.errors import InputError
from ming_omni.inputs.messages import Image
from ming_omni.inputs.processor import MingProcessor
from ming_omni.model.omni import MingForConditionalGeneration
from ming_omni.model.painter import Painter
from ming_omni.train.image_vae import states as image_vae
from ming_omni.train.painter import looks, pictures
from ming_omni.train.painter.learner import Learner, Moved
from ming_omni.train.painter.reader import Prompts
from ming_omni.train.painter.requests import Batch, Planner, stocks
from ming_omni.train.painter.settings import Settings
from ming_omni.train.parallel import World
from ming_omni.train.senses import eyes
from ming_omni.train.senses.bench import load_model, load_writer
from ming_omni.train.senses.pictures import Labels, still_grid, still_sizes
from ming_omni.train.senses.rows import Writer
from ming_omni.train.senses.workers import Feed
from ming_omni.train.timed import mark

KINDS = ("paint", "edit")


def source(settings: Settings) -> str:
    """tiny, or the folder of the model: also of the package's own, by its name."""
    return settings.model if settings.model == "tiny" else str(detect.locate(settings.model))


def painter_config(settings: Settings) -> presets.PainterConfig:
    """Sizes by name; the autoencoder's, and the scale of its latents, as its run left them."""
    config = {"tiny": presets.tiny_painter, "nano": presets.nano_painter}[settings.painter]()
    if settings.vae:
        about = (Path(settings.vae) / image_vae.ABOUT).read_text(encoding="utf-8")
        config.vae = presets.ImageVAEConfig(**json.loads(about)["vae"])
    return config


def make_painter(settings: Settings) -> Painter:
    """New, with the trained autoencoder."""
    painter = Painter(painter_config(settings))
    # A dropped condition is zeros. Without a bias it would stay zeros, where the gradient of a norm has no bounds.
    torch.nn.init.normal_(painter.condition_mlp[0].bias, std=0.02)
    if settings.vae:
        painter.vae.load_state_dict(image_vae.load(Path(settings.vae)).state_dict())
    return painter


def num_cells(config: presets.PainterConfig) -> int:
    """Patches of a square picture, each way."""
    return config.default_size // (config.vae.downscale * config.dit.patch_size)


def make_planner(settings: Settings, kind: str, split: str = "train", count: int = 0) -> Planner:
    """Called in the process that plans. count: of each sort of requests, instead of those of a step."""
    requests, config = settings.requests, painter_config(settings)
    own, every = stocks(Bank(requests.bank), split)
    writer = load_writer(source(settings))
    planner = Planner(writer, own, every, requests, config, kind, settings.seed, num_cells(config))
    if count:
        planner.counts = {"plain": count, "lettered": count // 4}
    return planner


@dataclass
class Bench:
    settings: Settings
    device: torch.device
    model: MingForConditionalGeneration
    processor: MingProcessor
    learner: Learner
    bank: Bank
    eyes: eyes.Eyes
    grid: tuple[int, int, int]
    """of a picture to edit, in patches"""
    sizes: list[tuple[int, int]]
    """of it, after the loader's and the processor's resize"""
    first: int
    """where its tokens stand in a prompt"""
    makers: dict[str, Callable]
    world: World
    feed: Feed | None = None
    stream: torch.cuda.Stream | None = None
    """Pictures are drawn and coded beside the learning."""
    cases: list[tuple[Batch, Moved]] = field(default_factory=list)

    def start_feed(self, call: int) -> None:
        """Every call of a run, and every process of it, draws other requests."""
        self.feed = Feed(self.makers, self.settings.workers, call * 1_000_000 + self.world.rank * 100_000)

    def read(self) -> list[Moved]:
        """The batches of the next step."""
        batches = [self.feed.next(kind) for kind in self.makers]
        if self.stream is None:
            return [self.move(batch) for batch in batches]
        with torch.cuda.stream(self.stream):
            moved = [self.move(batch) for batch in batches]
            event = torch.cuda.Event()
            event.record(self.stream)
        for batch in moved:
            batch.event = event
        return moved

    @torch.no_grad()
    def move(self, batch: Batch) -> Moved:
        """A batch -> what `Learner` reads: its pictures drawn and coded, those to edit seen."""

        def put(array, dtype: torch.dtype) -> Tensor:
            tensor = torch.from_numpy(array).to(dtype)
            return tensor.pin_memory().to(self.device, non_blocking=True) if self.device.type == "cuda" else tensor

        painter = self.learner.painter
        drawn = pictures.draw(self.bank, painter, batch, self.sizes[0], self.settings.learn)
        prompts = Prompts(
            *(put(array, torch.long) for array in (batch.ids, batch.places, batch.modality, batch.starts))
        )
        if drawn.seen is not None:
            prompts.media, prompts.first = self.see(drawn.seen), self.first
        letters = put(batch.letters, torch.long), put(batch.letters_mask, torch.float32)
        return Moved(batch.kind, prompts, drawn, letters, put(batch.cells, torch.long), put(batch.told, torch.long))

    def see(self, seen: Tensor) -> Tensor:
        """Pictures (n, 3, S, S) uint8 -> tokens (n, M, D)"""
        rows = eyes.still_patches(seen, self.sizes, self.processor.image_processor)
        with self.learner.autocast():
            tokens, _ = self.eyes(rows, len(seen), self.grid)
        return tokens

    def wait(self) -> None:
        mark(self.device)()

    def look(self, sheet: Path | None = None) -> dict[str, float]:
        """Losses on the held-out split; a sheet of pictures."""
        if not self.cases:
            for kind in self.makers:
                batch = make_planner(self.settings, kind, self.settings.look_split, self.settings.look_cases).batch(0)
                self.cases.append((batch, self.move(batch)))
        found = looks.look(self.learner, self.cases)
        if self.settings.judge:
            judge = Judge.load(Path(self.settings.judge)).to(self.device)
            found |= looks.judged(self.learner, self.cases, judge)
        if sheet is not None:
            looks.write(self.learner, self.cases, sheet)
        return {f"look/{name}": value for name, value in found.items()}


def build(settings: Settings, world: World) -> Bench:
    torch.manual_seed(settings.seed)
    model, processor = load_model(source(settings))
    model.require("vision")
    model.painter = make_painter(settings)
    if model.painter.config.thinker_width != model.config.thinker.hidden_size:
        raise InputError(f"the painter {settings.painter} does not fit the thinker of {settings.model}")
    device, writer = world.device, Writer(processor, model.config.thinker)
    torch.backends.cudnn.benchmark = True  # every step codes as many pictures
    bank = Bank(settings.requests.bank, device)
    learner = Learner(model, settings, Labels(bank).sizes)
    learner.to_device(device)
    world.same(list(learner.parameters()))
    learner.average = {name: p.detach().clone() for name, p in learner.names().items()}
    torch.manual_seed(settings.seed + world.rank)  # what is drawn on the device: noise and its levels
    learner.train()
    if settings.compile:
        learner.network.compile()
    side = model.painter.config.default_size
    beginning = writer.looking(Image, still_grid(writer, side))
    makers = {kind: partial(make_planner, settings, kind) for kind in KINDS}
    stream = torch.cuda.Stream(device) if device.type == "cuda" else None
    if stream is not None:
        torch.cuda.synchronize(device)
    return Bench(
        settings, device, model, processor, learner, bank, eyes.Eyes(model.vision), still_grid(writer, side),
        still_sizes(writer, side), beginning.source.index(0), makers, world, stream=stream,
    )  # fmt: skip
