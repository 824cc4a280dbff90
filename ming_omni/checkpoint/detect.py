"""A name, folder or hub id -> the folder to load and what it holds, told from its contents and never from its name."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal, NamedTuple

from ming_omni.checkpoint import settings, shards
from ming_omni.checkpoint.shards import Entry
from ming_omni.errors import InputError

NANO = Path(__file__).parent.parent / "weights" / "nano"
OURS = "ming_omni"
"""`model_type` of a folder that `save_pretrained` wrote."""

Layout = Literal["published", "ours", "packed"]


class Found(NamedTuple):
    """A folder that can be loaded."""

    folder: Path
    layout: Layout
    config: dict[str, Any]


def locate(name: str | Path) -> Path:
    """The local folder of a built-in name, a path, or a hub id (which is downloaded once)."""
    if name == "nano":
        return NANO
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    if path.exists():
        raise InputError(f"{name} is a file; give the folder that holds config.json and the weights")
    if re.fullmatch(r"[\w.-]+/[\w.-]+", str(name)) and not str(name).startswith((".", "/")):
        return _download(str(name))
    raise InputError(f"there is no model {str(name)!r}: it is no built-in name (nano, tiny), no folder and no hub id")


def _download(hub_id: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    try:
        # Python files are never fetched: nothing of a model folder is ever run.
        return Path(snapshot_download(hub_id, ignore_patterns=["*.py", "*.bin", "*.pth"]))
    except RepositoryNotFoundError as error:
        raise InputError(f"the hub knows no model {hub_id!r} (or it is private)") from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise InputError(f"{hub_id!r} is no local folder and could not be fetched from the hub") from error


def recognise(folder: Path) -> Found:
    """What the folder holds; another release is refused by its name."""
    if not any(folder.iterdir()):
        raise InputError(f"{folder} is empty")
    if not (folder / "config.json").is_file():
        raise InputError(f"{folder} holds no config.json, so it is no model folder")
    config = shards.read_json(folder / "config.json")
    if config.get("model_type") == OURS:
        return Found(folder, "packed" if "packed" in config else "ours", config)
    if config.get("model_type") not in (settings.MODEL_TYPE, settings.LLM_TYPE) and not (
        {"llm_config", "vision_config", "audio_config"} & config.keys()
    ):
        raise InputError(f"{folder} is no Ming model: its config.json has model_type {config.get('model_type')!r}")
    if other := other_release(folder, config):
        raise InputError(f"{folder} holds {other}; this package reads Ming-flash-omni Preview")
    return Found(folder, "published", config)


def other_release(folder: Path, config: dict[str, Any]) -> str | None:
    """The name of a release that this package does not read (spec 8), from traits that survive any change of size."""
    llm = config.get("llm_config") or {}
    vision = config.get("vision_config") or {}
    # 2.0 replaced the vision tower by one with learned positions, and lets mlp/config.json choose the painter.
    if {"deepstack_visual_indexes", "num_position_embeddings"} & vision.keys() or (
        folder / "mlp/config.json"
    ).is_file():
        return "Ming-flash-omni 2.0"
    # The lite models route with a softmax: no expert bias, one `multi_gate` switch, and another vocabulary.
    if "multi_gate" in llm or llm.get("model_type") == "bailing_moe":
        # v1.5 gave images 3-D positions and dropped the second audio encoder.
        is_newer = (llm.get("rope_scaling") or {}).get("type") == "3D"
        return "Ming-lite-omni v1.5" if is_newer else "Ming-lite-omni v1"
    return None


def check_release(folder: Path, names: dict[str, Entry]) -> None:
    """Refuse, by its tensors, a release whose config.json gave no sign."""
    if any(name.startswith(("vision.pos_embed.", "vision.deepstack_merger_list.")) for name in names):
        raise InputError(f"{folder} holds Ming-flash-omni 2.0; this package reads Ming-flash-omni Preview")
    gates = [name for name in names if re.search(r"\.mlp\.gate\.(weight|expert_bias)$", name)]
    if gates and not any(name.endswith("expert_bias") for name in gates):
        raise InputError(
            f"{folder} holds Ming-lite-omni (its routers have no bias); this package reads Ming-flash-omni"
        )
