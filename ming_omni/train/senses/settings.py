"""A recipe file (TOML) and `--set a.b=value` -> Settings: everything that decides this run, as data."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from ming_omni.train.balance import Strengths
from ming_omni.train.timed import read_settings

RECIPES = Path(__file__).parent / "recipes"


@dataclass
class PictureSettings:
    bank: str = ""
    """What `ming data sprites` made."""
    pixels: int = 256
    """Side of a picture as it is drawn."""
    tokens: int = 256
    """Of a row: one picture and as many turns as fit."""
    varied: bool = True
    """Bent, tinted and noisy, so that drawings nobody has seen are recognised too."""
    film_pixels: int = 140
    film_tokens: int = 192
    chinese: float = 0.35
    """Share of rows whose questions are Chinese."""
    kinds: dict[str, float] = field(
        default_factory=lambda: {
            "what": 1.0, "how_many": 1.5, "where": 1.0, "which_colour": 1.0, "is_there": 0.5, "what_says": 3.0,
            "lines": 2.0, "caption": 3.0,
        }
    )  # fmt: skip
    """What a scene is built around, and how often."""


@dataclass
class SightSettings:
    """Of what comes before the run, `sights.py`."""

    rate: float = 1e-3
    batch: int = 256
    fresh: int = 512
    """Pictures planned and drawn at once."""
    fresh_every: int = 6
    """Steps between that."""
    pool: int = 49_152
    """Pictures on the device, 200 kB each."""
    workers: int = 10
    photographs: str = ""
    """safetensors of `data.eyes.Eyes`, whose features the encoder learns to guess; empty: it does not."""
    alike: float = 10.0
    """Weight of that."""
    unnamed: str = ""
    """What `ming data unnamed` made: drawings whose name nobody tells; their features are guessed all the same."""
    unnamed_share: float = 0.33
    """Of the pictures."""
    weight_decay: float = 0.05
    look_seconds: float = 30.0


@dataclass
class SpeechSettings:
    folders: list[str] = field(default_factory=list)
    """With shards, real recordings among them."""
    cache: str = ""
    """Where decoded samples are kept; empty: beside the run."""
    weights: dict[str, float] = field(default_factory=dict)
    """How often a clip of a kind is heard, where 1 is usual."""
    lengths: list[int] = field(default_factory=lambda: [128, 192, 256, 384])
    """Sizes of rows in tokens."""
    seconds: float = 14.0
    """Longer clips are left out."""
    plain: float = 0.25
    """Share of clips that are heard as they are."""
    without_list: float = 0.25
    only_absent: float = 0.15
    with_name: float = 0.5
    """Of named clips: without any list, with other names only, with the name surely among them."""
    misleading: float = 0.25
    """Share of clips without names that come with a list of names nobody says."""
    distractors: int = 12
    misread: float = 0.12
    """Share of a transcript's tokens that are read wrongly while the next is learned: who knows sentences by heart
    must listen all the same."""
    masked: bool = True
    """Spans of time and bands of frequency are blotted out (SpecAugment, arXiv:1904.08779)."""
    letters: float = 0.5
    """Weight of the auxiliary loss: letters read off the audio tokens alone (CTC)."""
    languages: float = 0.5
    """Likewise: the language or dialect, read off the mean of what all audio tokens say."""


@dataclass
class TextSettings:
    files: list[str] = field(default_factory=list)
    tokens: int = 256
    """Of a row."""
    likeness: float = 3.0
    """Weight of the distance to what the base would have said next (KL)."""
    answers: float = 0.0
    """Weight of the text itself: what others wrote is read, but not learned."""


@dataclass
class LearnSettings:
    rank: int = 32
    """Of the low-rank additions to attention."""
    vision: float = 1e-3
    projector: float = 1e-3
    """Of the sounds; that of the pictures belongs to vision."""
    experts: float = 1e-3
    routers: float = 1e-3
    low_rank: float = 5e-4
    heads: float = 1e-3
    """Of what only helps to learn."""
    audio_layers: int = 0
    """Last layers of the audio encoder that learn too."""
    audio: float = 1e-4
    weight_decay: float = 0.02
    betas: list[float] = field(default_factory=lambda: [0.9, 0.98])
    clip_norm: float = 1.0
    warmup_steps: int = 60
    cells: float = 0.5
    """Weight of the auxiliary loss: what each cell of a picture shows, read off its features alone."""
    words: float = 0.5
    """Likewise: a cell's token points the way of the thinker's own words for what it shows."""


@dataclass
class BalanceSettings:
    auxiliary: Strengths = field(default_factory=lambda: Strengths(1e-3, 1e-3, 1e-3))
    bias_rate: Strengths = field(default_factory=lambda: Strengths(1e-3, 1e-3, 1e-3))
    z_loss: float = 3.5e-6


@dataclass
class Settings:
    name: str = ""
    about: str = ""
    model: str = "tiny"
    """tiny or a folder."""
    seconds: float = 840.0
    """Of training, over all calls; the learning rate has reached zero when they are over."""
    tokens: dict[str, int] = field(
        default_factory=lambda: {"pictures": 15_360, "speech": 15_360, "films": 7_680, "texts": 7_680}
    )
    """Of each kind's batch, filling included: a multiple of its rows' lengths. Those that are read in turn have as
    many, so that all steps have one size."""
    always: list[str] = field(default_factory=lambda: ["pictures", "speech"])
    """Kinds that every step reads."""
    in_turn: list[str] = field(default_factory=lambda: ["films", "texts"])
    """Kinds of which every step reads one."""
    seed: int = 0
    device: str = "cuda"
    compile: bool = False
    workers: dict[str, int] = field(default_factory=lambda: {"pictures": 7, "films": 5, "speech": 2, "texts": 1})
    """Processes that make batches; 0 of a kind: made where they are needed, as a test does."""
    save_seconds: float = 120.0
    look_seconds: float = 210.0
    """Between looks at the development sets."""
    look_cases: int = 32
    """Of each kind."""
    look_split: str = "dev"
    """Whose drawings, words and fonts are looked at."""
    dev_speech: list[str] = field(default_factory=list)
    """Folders of shards that are only listened to when looking."""
    log_every: int = 20
    pictures: PictureSettings = field(default_factory=PictureSettings)
    sights: SightSettings = field(default_factory=SightSettings)
    speech: SpeechSettings = field(default_factory=SpeechSettings)
    texts: TextSettings = field(default_factory=TextSettings)
    learn: LearnSettings = field(default_factory=LearnSettings)
    balance: BalanceSettings = field(default_factory=BalanceSettings)

    @property
    def kinds(self) -> list[str]:
        return [*self.always, *self.in_turn]


def read(recipe: Path | str, sets: list[str]) -> Settings:
    """recipe: a file, or the name of one beside this module."""
    return read_settings(Settings, recipe, sets, RECIPES)
