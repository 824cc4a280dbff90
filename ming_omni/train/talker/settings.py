"""A recipe file (TOML) and `--set a.b=value` -> Settings: everything that decides this run, as data."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from ming_omni.train.timed import read_settings

RECIPES = Path(__file__).parent / "recipes"


@dataclass
class RowSettings:
    patches: int = 6144
    """Of a batch, filling included: its rows have room for one of the numbers below, so that all batches are alike."""
    shapes: list[list[int]] = field(default_factory=lambda: [[80, 32], [160, 64], [224, 96], [288, 128]])
    """Room of a row: symbols of text, patches of speech."""
    alone: float = 0.25
    """Share of clips without a prompt; the others follow another clip of their speaker."""
    silent: float = 0.1
    """Share of prompts whose transcript is not told."""
    spelled: float = 0.06
    """Share of English words read by their letters, as unknown words are."""


@dataclass
class LearnSettings:
    rate: float = 1e-3
    weight_decay: float = 0.01
    betas: list[float] = field(default_factory=lambda: [0.9, 0.98])
    clip_norm: float = 1.0
    warmup_steps: int = 200
    average: float = 0.999
    """How much of the mean of the weights stays at each step; the mean is what ships."""
    draws: int = 2
    """Times and noises that each patch is learned at in one step."""
    flow_patches: int = 4608
    """Of a batch, that the flow learns; drawn anew where there are more."""
    stop: float = 0.3
    phonemes: float = 0.3
    voices: float = 0.3
    """Weights of the losses. The phonemes of the next patch, read off the state, teach where in the text we are; the
    voice, read off it too, teaches to listen to the prompt."""
    input_noise: float = 0.25
    """What was spoken before is heard with noise of a standard deviation up to this: a talker hears its own errors."""


@dataclass
class DistillSettings:
    share: float = 0.25
    """Of the time, at its end: the flow learns to do guidance and many steps in few."""
    rate: float = 5e-4
    patches: int = 2048
    """Of a batch."""
    guidance: float = 1.5
    steps: int = 4
    """Of the new flow, and of the talker that ships."""
    substeps: int = 4
    """Steps of the old flow for each of the new."""


@dataclass
class Settings:
    name: str = ""
    about: str = ""
    model: str = "nano"
    """nano or tiny."""
    store: str = "store"
    """What `talker.speak` wrote."""
    vae: str = ""
    """The folder with audio_vae.safetensors and .json; empty: an untrained one, as a test does."""
    seconds: float = 1000.0
    """Of training, over all calls; the learning rate has reached zero when they are over. 0: this call is the last, and
    what it has left when all is ready is taken."""
    seed: int = 0
    device: str = "cuda"
    compile: bool = False
    workers: int = 3
    """Processes that make batches; 0: made where they are needed, as a test does."""
    save_seconds: float = 150.0
    look_seconds: float = 120.0
    look_rows: int = 256
    """Development clips whose loss is looked at."""
    heard_rows: int = 8
    """Of those, spoken, to be listened to."""
    log_every: int = 20
    rows: RowSettings = field(default_factory=RowSettings)
    learn: LearnSettings = field(default_factory=LearnSettings)
    distill: DistillSettings = field(default_factory=DistillSettings)

    @property
    def learn_seconds(self) -> float:
        return self.seconds * (1 - self.distill.share)


def read(recipe: Path | str, sets: list[str]) -> Settings:
    """recipe: a file, or the name of one beside this module."""
    return read_settings(Settings, recipe, sets, RECIPES)
