"""A name, folder or hub id -> the folder to load and what it holds, told from its contents and never from its name."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

from ming_omni.checkpoint import settings, shards
from ming_omni.checkpoint.shards import Entry
from ming_omni.errors import InputError
from ming_omni.inputs.folder import is_hub_id

NANO = Path(__file__).parent.parent / "weights" / "nano"
OURS = "ming_omni"
"""`model_type` of a folder that `save_pretrained` wrote, and of nano."""
PREVIEW, FLASH_2 = "Ming-flash-omni Preview", "Ming-flash-omni 2.0"
LITE_1, LITE_15 = "Ming-lite-omni v1", "Ming-lite-omni v1.5"
LITE_VOCABULARY = 126_464

Layout = Literal["published", "ours"]


class Found(NamedTuple):
    """A folder that can be loaded."""

    folder: Path
    layout: Layout
    config: dict[str, Any]

    @property
    def is_bare(self) -> bool:
        """The language model in a folder of its own, its names without the leading `model.`"""
        return self.layout == "published" and not _parts(self.config)


def _parts(config: dict[str, Any]) -> set[str]:
    return {"llm_config", "vision_config", "audio_config"} & config.keys()


def locate(name: str | Path, **hub: Any) -> Path:
    """The local folder of a built-in name, a path, or a hub id (which is downloaded once, with the hub's options)."""
    if name == "nano":
        if not NANO.is_dir():
            raise InputError("this installation came without nano; `ming build nano-base` makes its base")
        return NANO
    if not isinstance(name, str | Path):
        raise InputError(f"a model is a name, a folder or a hub id, not {type(name).__name__}")
    path = Path(name).expanduser()
    if os.path.isdir(path):  # unlike Path.is_dir it takes a name of any length
        return path
    if os.path.exists(path):
        raise InputError(f"{name} is a file; give the folder that holds config.json and the weights")
    if is_hub_id(name):
        return _download(str(name), hub)
    raise InputError(f"there is no model {str(name)!r}: it is no built-in name (nano, tiny), no folder and no hub id")


def _download(hub_id: str, options: dict[str, Any]) -> Path:
    from huggingface_hub import snapshot_download

    with hub_errors(hub_id):
        # Python files are never fetched: nothing of a model folder is ever run.
        return Path(snapshot_download(hub_id, ignore_patterns=["*.py", "*.bin", "*.pth"], **options))


@contextmanager
def hub_errors(hub_id: str) -> Iterator[None]:
    """What the hub answers, as one sentence."""
    from huggingface_hub.errors import HFValidationError, HTTPError, RepositoryNotFoundError

    try:
        yield
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise InputError(f"the hub knows no model {hub_id!r} (or it is private)") from error
    except (HTTPError, OSError) as error:  # the hub's own errors are HTTPErrors, and so is a network that is down
        raise InputError(f"{hub_id!r} is no local folder and could not be fetched from the hub") from error


def recognise(folder: Path) -> Found:
    """What the folder holds; another release is refused by its name."""
    if not any(folder.iterdir()):
        raise InputError(f"{folder} is empty")
    if not (folder / "config.json").is_file():
        raise InputError(f"{folder} holds no config.json, so it is no model folder")
    config = shards.read_json(folder / "config.json")
    if config.get("model_type") == OURS:
        return Found(folder, "ours", config)
    if other := other_release(folder, config):
        raise InputError(f"{folder} holds {other}; this package reads {PREVIEW}")
    if config.get("model_type") not in (settings.MODEL_TYPE, settings.LLM_TYPE) and not _parts(config):
        raise InputError(f"{folder} is no Ming model: its config.json has model_type {config.get('model_type')!r}")
    return Found(folder, "published", config)


def other_release(folder: Path, config: dict[str, Any]) -> str | None:
    """The name of a release that this package does not read, from traits that survive any change of size (spec 8)."""
    llm, vision = config.get("llm_config") or config, config.get("vision_config") or {}
    audio = config.get("audio_config") or {}
    # 2.0 has a vision tower with learned positions and larger patches; its mlp/config.json chooses the painter.
    if (
        {"deepstack_visual_indexes", "num_position_embeddings"} & vision.keys()
        or vision.get("patch_size", 14) == 16
        or (folder / "mlp" / "config.json").is_file()
    ):
        return FLASH_2
    # The lite models are another language model: softmax routing behind a `multi_gate` switch, another vocabulary.
    if (
        "bailing_moe" in (llm.get("model_type"), config.get("model_type"))
        or config.get("model_type") == "bailingmm"
        or "multi_gate" in llm
        or llm.get("vocab_size") == LITE_VOCABULARY
    ):
        # v1.5 gave pictures 3-D positions and dropped the second audio encoder.
        has_3d = (llm.get("rope_scaling") or {}).get("type") == "3D"
        return LITE_15 if has_3d and "audio_encoder_config_sanm" not in audio else LITE_1
    return None


def check_tensors(found: Found, entries: dict[str, Entry]) -> None:
    """Refuse, by its tensors, another release whose config.json gave no sign."""
    if found.layout != "published":
        return
    if any(re.match(r"vision\.(pos_embed|deepstack_merger_list)\.", name) for name in entries):
        raise InputError(f"{found.folder} holds {FLASH_2}; this package reads {PREVIEW}")
    gates = [name for name in entries if name.endswith((".mlp.gate.weight", ".mlp.gate.expert_bias"))]
    if gates and not any(name.endswith("expert_bias") for name in gates):
        has_3d = settings.read(found.config).thinker.rope_variant == "3d"
        raise InputError(f"{found.folder} holds {LITE_15 if has_3d else LITE_1}; this package reads {PREVIEW}")
