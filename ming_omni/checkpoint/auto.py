"""The auto classes of transformers -> this package: Ming folders load through them, and code in a folder never runs."""

from __future__ import annotations

import functools
import sys
from pathlib import Path
from typing import Any

import transformers
from transformers import PreTrainedTokenizerFast, dynamic_module_utils
from transformers.utils import cached_file

from ming_omni.checkpoint import detect, settings, shards
from ming_omni.checkpoint.pretrained import HUB_OPTIONS, MingForConditionalGeneration
from ming_omni.config import MingConfig
from ming_omni.errors import InputError

MODEL_TYPES = (detect.OURS, settings.MODEL_TYPE)


class PublishedConfig(MingConfig):
    """What AutoConfig finds under the published `model_type`: it reads as a MingConfig."""

    model_type = settings.MODEL_TYPE

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> MingConfig:
        return MingConfig.from_dict(settings.read(config_dict).to_dict(), **kwargs)


@functools.cache
def register() -> None:
    """Teach AutoConfig, AutoModel, AutoTokenizer and AutoProcessor about Ming folders; once per process."""
    transformers.AutoConfig.register(detect.OURS, MingConfig)
    transformers.AutoConfig.register(settings.MODEL_TYPE, PublishedConfig)
    for auto in (
        transformers.AutoModel,
        transformers.AutoModelForCausalLM,
        transformers.AutoModelForImageTextToText,
        transformers.AutoModelForMultimodalLM,
    ):
        auto.register(MingConfig, MingForConditionalGeneration)
    # Registration is not enough for these two: with trust_remote_code they prefer a class that the folder brings.
    _redirect(transformers.AutoTokenizer, lambda: PreTrainedTokenizerFast)
    _redirect(transformers.AutoProcessor, _processor)
    _close_door()


def _processor() -> type:
    from ming_omni.inputs.processor import MingProcessor

    return MingProcessor


def _redirect(auto: type, ours) -> None:
    """Let an auto class hand Ming folders to our class, and everything else to itself."""
    original = auto.from_pretrained

    def from_pretrained(name_or_folder, *args: Any, **kwargs: Any):
        if "subfolder" in kwargs or not is_ming(name_or_folder, **kwargs):
            return original(name_or_folder, *args, **kwargs)
        return ours().from_pretrained(name_or_folder, *args, **kwargs | {"trust_remote_code": False})

    auto.from_pretrained = staticmethod(functools.wraps(original)(from_pretrained))


def _close_door() -> None:
    """All code of model folders enters through one function of transformers: for Ming folders it now refuses."""
    original = dynamic_module_utils.get_class_from_dynamic_module

    @functools.wraps(original)
    def get_class_from_dynamic_module(class_reference, name_or_folder, *args: Any, **kwargs: Any):
        if is_ming(name_or_folder, **kwargs):
            raise InputError(f"{class_reference} in {name_or_folder} was not run: ming_omni brings its own code")
        return original(class_reference, name_or_folder, *args, **kwargs)

    for name, module in list(sys.modules.items()):
        if name.startswith("transformers.") and vars(module).get(original.__name__) is original:
            setattr(module, original.__name__, get_class_from_dynamic_module)


def is_ming(name_or_folder: str | Path, **kwargs: Any) -> bool:
    """Whether config.json, here or in a folder around, says that this is (a part of) a Ming model."""
    path = Path(name_or_folder)
    if path.exists():
        candidates = [folder / "config.json" for folder in (path, *path.absolute().parents[:2])]
    else:
        options = {name: kwargs[name] for name in HUB_OPTIONS if name in kwargs}
        quiet = dict.fromkeys(("missing_entries", "gated_repo", "connection_errors"), False)
        options |= {f"_raise_exceptions_for_{name}": value for name, value in quiet.items()}
        try:
            candidates = [cached_file(str(name_or_folder), "config.json", **options)]
        except (OSError, ValueError):  # no such model: the caller's own error says it best
            return False
    return any(_says_ming(Path(file)) for file in candidates if file is not None)


def _says_ming(config: Path) -> bool:
    try:
        return config.is_file() and shards.read_json(config).get("model_type") in MODEL_TYPES
    except InputError:
        return False
