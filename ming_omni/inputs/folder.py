"""The processor files of a model folder <-> the arguments of MingProcessor.

`preprocessor_config.json` has the published keys, and ours, which begin with `ming_`. What it leaves out comes from the
model's configuration.
"""

from __future__ import annotations

import os
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ming_omni.config import MingConfig
from ming_omni.errors import InputError
from ming_omni.inputs.frames import AudioProcessor
from ming_omni.inputs.patches import ImageProcessor
from ming_omni.inputs.tokenizer import Tokenizer, read_json, write_json
from ming_omni.inputs.video import FrameOptions

FILE = "preprocessor_config.json"
FILES = ["tokenizer.json", "tokenizer_config.json", FILE, "config.json"]
NANO = Path(__file__).parent.parent / "weights" / "nano"
POSITIONS_PER_SECOND = 50
"""The audio encoder has one position for every 20 ms."""


def read(folder: Path, config: MingConfig | None = None) -> dict[str, Any]:
    """Tokenizer, processors and options of a folder; its own config.json is used when it has our form."""
    if config is None and read_json(folder / "config.json").get("model_type") == MingConfig.model_type:
        config = MingConfig.from_pretrained(folder)
    settings = read_json(folder / FILE)
    pictures = {key: settings[key] for key in vars(ImageProcessor()) if settings.get(key) is not None}
    sounds = dict(settings.get("ming_audio") or {})
    if num_mel_bins := (settings.get("whisper_frontend_args") or {}).get("n_mels"):
        sounds["num_mel_bins"] = num_mel_bins
    try:
        return {
            "tokenizer": Tokenizer.from_pretrained(folder),
            "image_processor": image_processor(config, **pictures),
            "audio_processor": audio_processor(config, **sounds),
            "video_options": FrameOptions(**settings.get("ming_video") or {}),
            "chat_format": settings.get("ming_chat_format"),
            "system_prompt": settings.get("ming_system_prompt"),
        }
    except TypeError as error:
        raise InputError(f"{folder / FILE} has a setting that is not known here: {error}") from error


def write(processor, folder: Path) -> None:
    """What `read` gives back. `processor_class` is for the auto classes of transformers."""
    processor.tokenizer.save_pretrained(folder)
    sounds = processor.audio_processor
    usual = asdict(FrameOptions(factor=processor.video_options.factor))
    video = {key: value for key, value in asdict(processor.video_options).items() if value != usual[key]}
    settings = {
        "processor_class": type(processor).__name__,
        **vars(processor.image_processor),
        "whisper_frontend_args": {"n_mels": sounds.num_mel_bins},
        "ming_audio": {name: value for name, value in vars(sounds).items() if name != "num_mel_bins"},
        "ming_video": video,
        "ming_chat_format": processor.chat_format,
        "ming_system_prompt": processor.template.default_system,
    }
    write_json(folder / FILE, settings)


def image_processor(config: MingConfig | None, **settings) -> ImageProcessor:
    if config is not None and config.vision is not None:
        vision = config.vision
        settings = {
            "patch_size": vision.patch_size,
            "temporal_patch_size": vision.temporal_patch_size,
            "merge_size": vision.spatial_merge_size,
        } | settings
    return ImageProcessor(**settings)


def audio_processor(config: MingConfig | None, **settings) -> AudioProcessor:
    if config is not None and config.audio is not None:
        audio = config.audio
        settings = {
            "num_mel_bins": audio.num_mel_bins,
            "projector_stride": audio.projector_stride,
            "projector_kernel": audio.projector_kernel,
            "max_seconds": audio.max_positions / POSITIONS_PER_SECOND,
        } | settings
    return AudioProcessor(**settings)


def is_hub_id(name: object) -> bool:
    """Only `owner/name` is ever looked for on the hub: a mistyped local name stays on this machine."""
    return re.fullmatch(r"\w[\w.-]*/[\w.-]+", str(name)) is not None


def locate(name_or_folder: str | Path, hub: dict[str, Any]) -> Path:
    """A folder as it is, nano where it is installed, or the processor files, and no others, of a model on the hub."""
    if name_or_folder == "nano":
        return NANO
    if isinstance(name_or_folder, str | Path) and os.path.isdir(folder := Path(name_or_folder).expanduser()):
        return folder
    if not is_hub_id(name_or_folder):
        raise InputError(f"{name_or_folder!r} is neither a folder nor a hub id")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    known = ("revision", "cache_dir", "token", "local_files_only", "force_download")
    options = {key: value for key, value in hub.items() if key in known}
    try:
        return Path(snapshot_download(str(name_or_folder), allow_patterns=FILES, **options))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError) as error:
        raise InputError(f"{name_or_folder} is neither a folder nor a model on the hub in reach") from error
