"""A recipe file (TOML) and `--set a.b=value` -> Settings: everything that decides this run, as data."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from ming_omni.train.timed import read_settings

RECIPES = Path(__file__).parent / "recipes"


@dataclass
class SoundSettings:
    folders: dict[str, str] = field(default_factory=dict)
    """A name for each folder of shards. More shards may appear while the run goes on."""
    hours: dict[str, float] = field(default_factory=dict)
    """At most, of each folder: room for them is set aside at once."""
    rows: dict[str, int] = field(default_factory=lambda: {"made": 1})
    """How many rows of a batch each folder gives; `made` are tunes and noises that the program makes itself."""
    made_seconds: float = 1200.0
    cache: str = ""
    """Where decoded samples are kept; empty: beside the run."""
    workers: int = 5
    """Processes that decode; 0: done where it is needed, as a test does."""
    wait_seconds: float = 60.0
    """The first step waits that long for shards to be decoded; the others are used once they are."""
    quietest_db: float = -15.0
    loudest_db: float = 6.0
    """A row's level changes by as much; nothing is made to clip."""


@dataclass
class LearnSettings:
    encoder: bool = True
    """False: it stays as it is, and with it the latents, which a talker may have learned to speak already."""
    vae: float = 6e-4
    critics: float = 3e-4
    weight_decay: float = 0.01
    betas: list[float] = field(default_factory=lambda: [0.8, 0.99])
    clip_norm: float = 1.0
    warmup_steps: int = 200
    average: float = 0.999
    """How much of the mean of the weights stays at each step; the mean is what ships."""
    mel: float = 15.0
    kl: float = 0.05
    adversarial: float = 1.0
    features: float = 5.0
    """Weights of the losses."""
    critics_from: float = 0.25
    """Share of the time after which the critics are asked too."""
    critics_warmup: int = 200
    """Steps in which what they say comes to count."""
    noise: float = 0.2
    """The decoder learns with noise on the latents, of a deviation between zero and this: a talker errs too."""


@dataclass
class CriticSettings:
    segments: int = 64
    """Of a batch, that the critics look at."""
    samples: int = 16_384
    """Of each."""
    periods: list[int] = field(default_factory=lambda: [2, 3, 5, 7, 11])
    windows: list[int] = field(default_factory=lambda: [256, 512, 1024])
    width: int = 32


@dataclass
class Settings:
    name: str = ""
    about: str = ""
    model: str = "nano"
    """nano or tiny."""
    seconds: float = 1200.0
    """Of training, over all calls; the learning rate has reached zero when they are over. 0: this call is the last, and
    what it has left when all is ready is taken."""
    frames: int = 1024
    """Latents of a row, some clips long: a decoder that had only seen short rows could not speak long sentences."""
    windows: list[int] = field(default_factory=lambda: [64, 128, 256, 512, 1024, 2048])
    """Of the spectra that sounds are compared by."""
    seed: int = 0
    device: str = "cuda"
    compile: bool = False
    """Of the transformers; the critics' convolutions gain nothing."""
    save_seconds: float = 150.0
    look_seconds: float = 120.0
    look_clips: int = 16
    """Of each language, and of each kind of real recordings."""
    heard_clips: int = 12
    """Of those, to be listened to."""
    log_every: int = 20
    sounds: SoundSettings = field(default_factory=SoundSettings)
    learn: LearnSettings = field(default_factory=LearnSettings)
    critics: CriticSettings = field(default_factory=CriticSettings)


def read(recipe: Path | str, sets: list[str]) -> Settings:
    """recipe: a file, or the name of one beside this module."""
    return read_settings(Settings, recipe, sets, RECIPES)
