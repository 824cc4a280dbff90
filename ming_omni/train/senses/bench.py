"""Settings -> everything that a run works with: model, learner, sounds on the device, makers of batches, looks."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from ming_omni import checkpoint
from ming_omni import config as presets
from ming_omni.data.bank import Bank, stock
from ming_omni.evaluate.quick import quick_scores
from ming_omni.inputs.processor import MingProcessor
from ming_omni.inputs.tiny import tiny_tokenizer
from ming_omni.model.omni import MingForConditionalGeneration
from ming_omni.train.parallel import World
from ming_omni.train.senses import balancing, looks, sounds, texts
from ming_omni.train.senses.learner import Learner, Sizes, on_device
from ming_omni.train.senses.pictures import Labels, Pictures, film_grid, still_grid, still_sizes
from ming_omni.train.senses.rows import Writer
from ming_omni.train.senses.settings import Settings
from ming_omni.train.senses.workers import Feed
from ming_omni.train.timed import mark

DECODERS = 56
"""Processes that decode speech at the start; fewer where fewer are needed."""
LOOK_BATCH = 128


def load_model(name: str) -> tuple[MingForConditionalGeneration, MingProcessor]:
    if name == "tiny":
        model = checkpoint.load("tiny", dtype=torch.float32)
        model.config.audio.clip_isolation = True
        return model, MingProcessor.from_config(model.config, tiny_tokenizer())
    return checkpoint.load(name, dtype=torch.float32), MingProcessor.from_pretrained(name)


def load_writer(name: str) -> Writer:
    """Without the model's weights: what a worker needs."""
    if name == "tiny":
        config = presets.tiny()
        return Writer(MingProcessor.from_config(config, tiny_tokenizer()), config.thinker)
    config = presets.MingConfig.from_pretrained(name)
    return Writer(MingProcessor.from_pretrained(name), config.thinker)


# Makers: called in the process that makes the batches.


def make_pictures(settings: Settings, kind: str, split: str = "train") -> Pictures:
    materials = stock(Bank(settings.pictures.bank), split)
    writer, tokens = load_writer(settings.model), settings.tokens[kind]
    return Pictures(materials, writer, settings.pictures, kind, tokens, settings.seed)


def make_sounds(settings: Settings, cache: Path) -> sounds.Sounds:
    """From what has been decoded: handing over a list of all clips would keep whoever starts a worker waiting."""
    folders = [Path(folder) for folder in settings.speech.folders]
    clips = sounds.clips(sounds.decoded(folders, cache, 0), "train")
    return sounds.Sounds(clips, load_writer(settings.model), settings.speech, settings.tokens["speech"], settings.seed)


def make_texts(settings: Settings, split: str = "train") -> texts.Texts:
    exchanges = texts.read([Path(file) for file in settings.texts.files], split)
    writer = load_writer(settings.model)
    return texts.Texts(exchanges, writer, settings.texts.tokens, settings.tokens["texts"], settings.seed)


class Looks:
    """Cases to look at, made like a batch so that a worker can make them."""

    def __init__(self, settings: Settings, cache: Path):
        self.settings, self.cache = settings, cache

    def batch(self, number: int) -> list:
        settings = self.settings
        processor = load_writer(settings.model).processor
        found = []
        if {"pictures", "films"} & set(settings.kinds):
            materials = stock(Bank(settings.pictures.bank), settings.look_split)
            found += looks.scenes(materials, processor, settings, settings.look_cases)
        if settings.dev_speech:
            folders = [Path(folder) for folder in settings.dev_speech]
            chosen = sounds.choose(folders, self.cache, "dev", settings.look_cases)
            found += looks.sounds(chosen, processor, settings)
        return found


@dataclass
class Bench:
    settings: Settings
    device: torch.device
    model: MingForConditionalGeneration
    processor: MingProcessor
    learner: Learner
    store: Tensor
    """All speech, (n,) int16 on the device."""
    makers: dict[str, Callable]
    world: World
    loads: Tensor
    """How often each expert was chosen since the last report."""
    feed: Feed | None = None
    cases: list | None = None
    dev_texts: list | None = None

    @property
    def num_mel_bins(self) -> int:
        return self.model.config.audio.num_mel_bins

    def start_feed(self, call: int) -> None:
        """Every call of a run, and every process of it, draws other examples."""
        workers = self.settings.workers | {"looks": min(1, max(self.settings.workers.values()))}
        self.feed = Feed(self.makers, workers, call * 1_000_000 + self.world.rank * 100_000)

    def wait(self) -> None:
        mark(self.device)()

    def take_violations(self) -> dict[str, float]:
        found = balancing.max_violations(self.loads.cpu())
        self.loads.zero_()
        return found

    def look(self) -> dict[str, float]:
        """Scores on the development split, decoded as the product would."""
        if self.cases is None:
            self.cases = self.feed.next("looks")
        found = {}
        if "texts" in self.settings.kinds:
            if self.dev_texts is None:
                maker = make_texts(self.settings, "dev")
                self.dev_texts = [on_device(maker.batch(i), self.device, self.store, 0) for i in range(2)]
            found["look/perplexity"] = looks.perplexity_ratio(self.learner, self.dev_texts)
        if self.cases:
            with self.learner.merged() as model, self.learner.autocast():
                scores = quick_scores(model, self.processor, self.cases, LOOK_BATCH)
            found |= {f"look/{name}": value for name, value in scores.items()}
        return found


def build(settings: Settings, output: Path, world: World) -> Bench:
    torch.manual_seed(settings.seed)
    cache = Path(settings.speech.cache) if settings.speech.cache else output / "speech"
    folders = [Path(folder) for folder in settings.speech.folders]
    device = world.device
    with world.first_alone():
        decoders = min(DECODERS, os.cpu_count() or 1) if any(settings.workers.values()) else 0
        samples, clips = sounds.load(folders, cache, decoders, "train")
    model, processor = load_model(settings.model)
    writer, bank = Writer(processor, model.config.thinker), Bank(settings.pictures.bank)
    sizes = Sizes(
        still_grid(writer, settings.pictures.pixels),
        still_sizes(writer, settings.pictures.pixels),
        film_grid(writer, settings.pictures.film_pixels),
        Labels(bank).sizes,
        Labels(bank).names,
        len(sounds.alphabet(clips)),
    )
    learner = Learner(model, processor, settings, sizes)
    learner.to_device(device)
    world.same([parameter for parameter in learner.parameters() if parameter.requires_grad])
    torch.manual_seed(settings.seed + world.rank)  # what is drawn on the device: noise and rooms
    learner.train()
    if settings.compile:
        learner.network.compile()
    makers = {
        "pictures": partial(make_pictures, settings, "pictures"),
        "films": partial(make_pictures, settings, "films"),
        "speech": partial(make_sounds, settings, cache),
        "texts": partial(make_texts, settings),
    }
    makers = {kind: make for kind, make in makers.items() if kind in settings.kinds}
    makers["looks"] = partial(Looks, settings, cache)
    store = torch.from_numpy(samples).to(device)
    loads = torch.zeros_like(learner.biases.values)
    return Bench(settings, device, model, processor, learner, store, makers, world, loads)
