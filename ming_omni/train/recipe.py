"""A recipe file (TOML) and `--set a.b.c=value` -> Recipe: everything that decides a training run, as data.

A wrong name is answered with the right ones, a wrong type with the type that is expected.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import tomllib
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ming_omni.errors import InputError
from ming_omni.train.balance import BalanceSettings

RECIPES = Path(__file__).parent / "recipes"
LEAST = {
    **dict.fromkeys(("steps", "examples_per_step", "max_tokens", "micro_batches", "max_bad_steps", "lora_rank"), 1),
    **dict.fromkeys(("log_every", "output.keep", "parallel.experts"), 1),
    "sound_seconds": 0.05,
    "seed": -math.inf,
}
"""The least that a number may be, by its name or its last words; 0 for all others."""


@dataclass
class ModelSettings:
    name: str = "tiny"
    """nano, tiny, a folder or a hub id."""
    painter: bool = False
    talker: bool = False
    start_from: str = ""
    """A `trained.safetensors` of another run: its tensors replace the model's, and the optimiser warms up anew."""
    config: dict[str, Any] = field(default_factory=dict)
    """Sizes of a model that is built here (tiny): `model.config.thinker.moe.num_experts = 16`."""


@dataclass
class LearnSettings:
    parts: list[str] = field(default_factory=list)
    """What learns: names of modules or parameters; `*` stands for anything, `!` before a name takes it out again."""
    lora: list[str] = field(default_factory=list)
    """Linear layers that learn through LoRA instead, named the same way."""
    lora_rank: int = 8
    lora_alpha: float = 16.0
    precision: Literal["fp32", "bf16"] = "fp32"
    checkpoint_activations: bool = False
    """Compute each layer again in the backward pass instead of keeping its insides."""


@dataclass
class DataSettings:
    folder: str = ""
    file: str = "train.jsonl"
    examples_per_step: int = 4
    strength: float = 1.0
    """Factor of this set's loss."""
    max_tokens: int = 2048
    """Of one example; a longer one counts as bad."""
    image_size: int = 0
    """Side in pixels of pictures to paint or code; 0: the painter's own."""
    sound_seconds: float = 1.0
    """Length of the pieces that the sound autoencoder learns from."""


@dataclass
class WordSettings:
    """Context lists for transcription: what a model is told about words that may occur."""

    keep: float = 0.7
    """Chance that a word of the transcript stays in its list."""
    distractors: int = 4
    """Most words of other transcripts that are added."""
    without_list: float = 0.2
    """Share of examples that are asked without any list."""
    only_absent: float = 0.1
    """Share of examples whose list holds only words that do not occur."""


@dataclass
class LossSettings:
    stop: float = 0.5
    """Of the talker's stop head, beside its flow."""
    edited_region: float = 4.0
    """Weight of what an edit changes, where the rest has 1."""
    drop_condition: float = 0.1
    """Share of pictures painted without their words, for guidance."""
    kl: float = 1e-4
    features: float = 0.5
    """Pictures: features of the small classifier. Sounds: features of the critic."""
    mel: float = 15.0
    adversarial: float = 0.1
    adversarial_from: int = 0
    """The critic learns from the start; the autoencoder listens to it from this step on."""


@dataclass
class OptimizerSettings:
    learning_rate: float = 1e-3
    warmup_steps: int = 10
    schedule: Literal["constant", "cosine"] = "cosine"
    weight_decay: float = 0.01
    betas: list[float] = field(default_factory=lambda: [0.9, 0.95])
    clip_norm: float = 1.0
    micro_batches: int = 1
    """Pieces that a step's examples are read in, one after another."""


@dataclass
class GuardSettings:
    bad_examples: Literal["skip", "stop"] = "stop"
    """A damaged line or file: leave it out and say so, or stop."""
    max_bad_steps: int = 3
    """Steps in a row whose loss or gradient is not finite; each is skipped and its batch saved, then training stops."""


@dataclass
class OutputSettings:
    log_every: int = 1
    save_every: int = 100
    keep: int = 2
    """Checkpoints kept."""
    sample_every: int = 0
    heatmap_every: int = 0
    tensorboard: bool = True
    save_model: bool = True
    """At the end, write the whole model, ready to be loaded."""


@dataclass
class ParallelSettings:
    mode: Literal["data", "fsdp"] = "data"
    """data: every process holds everything; fsdp: every process holds a shard of each tensor."""
    experts: int = 1
    """Processes that share one set of routed experts."""


@dataclass
class Recipe:
    name: str = ""
    about: str = ""
    seed: int = 0
    steps: int = 100
    model: ModelSettings = field(default_factory=ModelSettings)
    learn: LearnSettings = field(default_factory=LearnSettings)
    data: dict[str, DataSettings] = field(default_factory=dict)
    """One table per data set: `[data.voice]`."""
    words: WordSettings = field(default_factory=WordSettings)
    losses: LossSettings = field(default_factory=LossSettings)
    balance: BalanceSettings = field(default_factory=BalanceSettings)
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    guard: GuardSettings = field(default_factory=GuardSettings)
    output: OutputSettings = field(default_factory=OutputSettings)
    parallel: ParallelSettings = field(default_factory=ParallelSettings)


def read(path: str | Path, sets: list[str] | tuple[str, ...] = ()) -> Recipe:
    """A file, or the name of one that comes with the package; then `name=value` for each of `sets`."""
    file = find(path, RECIPES)
    recipe = build(Recipe, tables(file, sets))
    recipe.name = recipe.name or file.stem
    return recipe


def find(path: str | Path, folder: Path) -> Path:
    """The file itself, or the recipe of that name in the folder."""
    file = Path(path)
    if not file.is_file():
        file = folder / f"{path}.toml"
    if not file.is_file():
        known = ", ".join(sorted(recipe.stem for recipe in folder.glob("*.toml")))
        raise InputError(f"{path} is neither a file nor a recipe; recipes are {known}")
    return file


def tables(file: Path, sets: list[str] | tuple[str, ...] = ()) -> dict[str, Any]:
    """What a file says, then `name=value` for each of `sets`, as nested tables."""
    try:
        values = tomllib.loads(file.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{file} is not TOML: {error}") from error
    for text in sets:
        name, equals, value = text.partition("=")
        if not equals:
            raise InputError(f"--set takes name=value, not {text!r}")
        _put(values, name.strip(), _value(value.strip()))
    return values


def build(kind: type, values: dict[str, Any], where: str = "", base: Any = None) -> Any:
    """Nested tables -> nested settings, each name and type checked; what they leave out is as in `base`."""
    base = kind() if base is None else base
    types_by_name = typing.get_type_hints(kind)
    if unknown := [name for name in values if name not in types_by_name]:
        raise InputError(_unknown(where + unknown[0], unknown[0], list(types_by_name)))
    checked = {
        name: _checked(types_by_name[name], value, where + name, getattr(base, name)) for name, value in values.items()
    }
    return dataclasses.replace(base, **checked)


def to_dict(recipe: Recipe) -> dict[str, Any]:
    return dataclasses.asdict(recipe)


def _checked(kind: Any, value: Any, where: str, base: Any = None) -> Any:
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        if not isinstance(value, dict):
            names = ", ".join(field.name for field in dataclasses.fields(kind))
            raise InputError(f"{where} is a table of {names}, not {value!r}")
        return build(kind, value, where + ".", base)
    if origin is dict and isinstance(value, dict):
        if inner[1] is Any:
            return value
        return {name: _checked(inner[1], item, f"{where}.{name}") for name, item in value.items()}
    if origin is list:
        items = value if isinstance(value, list) else [value]
        return [_checked(inner[0], item, where) for item in items]
    if origin is Literal:
        if value not in inner:
            raise InputError(f"{where} is one of {', '.join(inner)}, not {value!r}")
        return value
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if kind in (int, float) and isinstance(value, kind) and not isinstance(value, bool):
        return _in_range(value, where)
    if kind is str and isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    if origin is not dict and isinstance(value, kind) and (kind is bool or not isinstance(value, bool)):
        return value
    words = {int: "a whole number", float: "a number", str: "text", bool: "true or false", dict: "a table"}
    raise InputError(f"{where} is {words.get(origin or kind, kind)}, not {value!r}")


def _in_range(value: float, where: str) -> float:
    least = next((number for name, number in LEAST.items() if f".{where}".endswith(f".{name}")), 0)
    if not least <= value < math.inf:
        raise InputError(f"{where} is a number from {least}, not {value}")
    return value


def _put(values: dict[str, Any], name: str, value: Any) -> None:
    *tables, last = name.split(".")
    for table in tables:
        values = values.setdefault(table, {})
        if not isinstance(values, dict):
            raise InputError(f"{name}: {table} is a single value, not a table")
    values[last] = value


def _value(text: str) -> Any:
    """As TOML would read it; what is no TOML value is text, so that quotes may be left out."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _unknown(full: str, name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, 1)
    meant = f"; did you mean {near[0]}?" if near else "."
    return f"there is no setting {full}{meant} There are {', '.join(known)}"
