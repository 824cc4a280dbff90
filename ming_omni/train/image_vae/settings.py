"""A recipe file (TOML) and `--set a.b=value` -> Settings: everything that decides this run, as data."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from ming_omni.train.timed import read_settings

RECIPES = Path(__file__).parent / "recipes"


@dataclass
class PictureSettings:
    bank: str = ""
    """What `ming data sprites` made."""
    pixels: int = 256
    """Side of a picture."""
    pool: int = 24_576
    """Pictures that lie ready on the device, 256 kB each."""
    fresh: int = 256
    """Drawn at once; they take the place of the oldest."""
    fresh_every: int = 16
    """Steps between that, as long as plans for them are ready."""
    chinese: float = 0.35
    recoloured: float = 0.25
    """Share of pictures whose three colours change places: a dozen photographs are few."""
    kinds: dict[str, float] = field(
        default_factory=lambda: {"words": 4.0, "paint": 3.0, "edit": 1.0, "segment": 1.5, "ground": 0.5}
    )
    """What is drawn, and how often."""


@dataclass
class LossSettings:
    square: float = 4.0
    edges: float = 1.0
    features: float = 0.1
    kl: float = 3e-4
    """Weights beside that of the mean distance, which is 1."""
    letters: float = 4.0
    """Pixels near printed letters weigh this much more."""
    eyes: str = ""
    """safetensors of `data.eyes.Eyes`, for the features; empty: none are compared."""


@dataclass
class LearnSettings:
    rate: float = 8e-4
    weight_decay: float = 0.01
    betas: list[float] = field(default_factory=lambda: [0.9, 0.99])
    clip_norm: float = 1.0
    warmup_steps: int = 200
    average: float = 0.999
    """What a step keeps of the averaged weights, which are those that ship."""


@dataclass
class Settings:
    name: str = ""
    about: str = ""
    model: str = "tiny"
    """tiny or nano: whose autoencoder."""
    seconds: float = 500.0
    """Of training, over all calls; the learning rate has reached zero when they are over."""
    batch: int = 24
    seed: int = 0
    device: str = "cuda"
    compile: bool = False
    workers: int = 4
    """Processes that plan scenes; 0: planned where they are needed, as a test does."""
    save_seconds: float = 180.0
    look_seconds: float = 120.0
    """Between looks at the development set."""
    look_cases: int = 32
    """Of each kind."""
    look_split: str = "dev"
    """Whose drawings, words and fonts are looked at."""
    log_every: int = 50
    pictures: PictureSettings = field(default_factory=PictureSettings)
    losses: LossSettings = field(default_factory=LossSettings)
    learn: LearnSettings = field(default_factory=LearnSettings)


def read(recipe: Path | str, sets: list[str]) -> Settings:
    """recipe: a file, or the name of one beside this module."""
    return read_settings(Settings, recipe, sets, RECIPES)
