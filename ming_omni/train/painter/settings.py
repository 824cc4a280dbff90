"""A recipe file (TOML) and `--set a.b=value` -> Settings: everything that decides this run, as data."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from ming_omni.train.timed import read_settings

RECIPES = Path(__file__).parent / "recipes"


@dataclass
class RequestSettings:
    bank: str = ""
    """What `ming data sprites` made."""
    paint: dict[str, int] = field(default_factory=lambda: {"plain": 92, "lettered": 44})
    edit: dict[str, int] = field(default_factory=lambda: {"plain": 64, "lettered": 8})
    """Requests of a step: new pictures, and pictures to edit; without letters to draw, and with."""
    paint_tokens: int = 77
    edit_tokens: int = 149
    """Of a prompt; longer ones are left out. With the 83 of the queries a multiple of eight."""
    chinese: float = 0.15
    """Share of Chinese requests: what nano's thinker was made from knows little Chinese."""
    wrapped: float = 0.2
    """Share of prompts that begin with `Draw` or the like."""
    tasks: dict[str, float] = field(
        default_factory=lambda: {
            "one object": 2.0, "two objects": 1.0, "counting": 1.5, "colours": 1.0, "position": 1.5, "attributes": 1.5,
            "scene": 1.0,
        }
    )  # fmt: skip
    """What is painted without letters, and how often."""
    edits: dict[str, float] = field(
        default_factory=lambda: {
            "add": 1.0, "remove": 1.0, "replace": 1.0, "recolour": 1.0, "move": 1.0, "restyle": 0.7,
            "change background": 0.8, "referring": 3.0, "kind": 1.0, "classes": 1.0, "each": 0.7,
        }
    )  # fmt: skip
    """How pictures without letters are edited; the last four paint masks over things."""


@dataclass
class LearnSettings:
    painter: float = 8e-4
    queries: float = 3e-4
    """Their gradient passes through the whole thinker; 0: they stay as they are, which is faster."""
    helpers: float = 1e-3
    """Of what only helps to learn."""
    weight_decay: float = 0.01
    betas: list[float] = field(default_factory=lambda: [0.9, 0.98])
    clip_norm: float = 1.0
    warmup_steps: int = 100
    average: float = 0.998
    """What a step keeps of the averaged weights, which are those that ship."""
    noises: int = 4
    """Noisy versions of each picture in a step: a prompt costs more to read than a picture to learn."""
    drop: float = 0.1
    """Share of pictures painted without their words, for guidance."""
    things: float = 2.0
    letters: float = 4.0
    """Weight of the error where a thing or a letter is, beside 1 for the background."""
    edited: float = 4.0
    """Weight of the error where an edit changes something, beside 1."""
    cells: float = 0.1
    """Weight of the auxiliary loss: what each cell of the picture is to show, read off the middle of the network."""
    told: float = 0.1
    """Weight of the other one: what things the prompt asks for, read off the condition alone."""


@dataclass
class DistilSettings:
    share: float = 0.22
    """Of the seconds, at their end: the painter learns to do in few steps what it does in many with guidance."""
    rate: float = 3e-4
    substeps: int = 3
    """Of the teacher, for one step of the student."""
    guidance: float = 3.0
    edit_guidance: float = 2.0
    noises: int = 2


@dataclass
class Settings:
    name: str = ""
    about: str = ""
    model: str = "tiny"
    """tiny, or a folder whose thinker and eyes have been trained; nano: the package's own."""
    painter: str = "tiny"
    """tiny or nano: the painter's sizes."""
    vae: str = ""
    """The folder with the pieces of the autoencoder's run; empty: random weights, as a test takes."""
    seconds: float = 1400.0
    """Of training, over all calls; the learning rate has reached zero when they are over."""
    seed: int = 0
    device: str = "cuda"
    compile: bool = False
    workers: dict[str, int] = field(default_factory=lambda: {"paint": 3, "edit": 3})
    """Processes that plan requests; 0 of a kind: planned where they are needed, as a test does."""
    save_seconds: float = 120.0
    look_seconds: float = 180.0
    look_split: str = "dev"
    """Whose words, fonts and photos are looked at."""
    look_cases: int = 64
    """Of each kind, for the loss; the first pictures of them are shown."""
    judge: str = ""
    """`judge.safetensors` of `ming data judges`, which then says how many of these paintings show what was asked."""
    log_every: int = 20
    requests: RequestSettings = field(default_factory=RequestSettings)
    learn: LearnSettings = field(default_factory=LearnSettings)
    distil: DistilSettings = field(default_factory=DistilSettings)


def read(recipe: Path | str, sets: list[str]) -> Settings:
    """recipe: a file, or the name of one beside this module."""
    return read_settings(Settings, recipe, sets, RECIPES)
