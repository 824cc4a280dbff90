"""A small folder like nano's, random weights: packed thinker, encoders, tokenizer; and what training would export."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from ming_omni.config import AudioConfig, MingConfig, MoEConfig, ThinkerConfig, VisionConfig, all_settings
from ming_omni.inputs.processor import MingProcessor
from ming_omni.inputs.tiny import tiny_tokenizer
from ming_omni.model.omni import MingForConditionalGeneration
from ming_omni.nano.files import file_of, round_off, stored, write_index, write_json, write_weights
from ming_omni.packed import Packed, pack

RANK, ALPHA = 8, 16.0


def small_nano() -> MingConfig:
    return MingConfig(
        thinker=ThinkerConfig(
            hidden_size=128,
            intermediate_size=256,
            num_hidden_layers=3,
            use_qk_norm=False,
            tie_word_embeddings=True,
            video_positions="3d",
            video_start_token=296,
            moe=MoEConfig(num_experts=4, expert_width=64, num_shared_experts=2, routed_scale=1.0),
        ),
        vision=VisionConfig(token_norm=3.0),
        audio=AudioConfig(hidden_size=64, num_mel_bins=80, max_positions=300, token_norm=3.0, clip_isolation=True),
    )


def small_folder(folder: Path) -> Path:
    """As `ming build nano-start` writes it."""
    config = small_nano()
    torch.manual_seed(0)
    model = MingForConditionalGeneration(config)
    files: dict[str, dict[str, Tensor]] = {}
    for name, weight in model.state_dict().items():
        if name not in ("thinker.head.weight", "audio.positions"):
            files.setdefault(file_of(name), {}).update(stored({name: _stored(name, weight)}))
    folder.mkdir(parents=True, exist_ok=True)
    write_weights(folder, files)
    write_index(folder)
    write_json(folder / "config.json", all_settings(config))
    write_json(folder / "generation_config.json", {"do_sample": False, "eos_token_id": [31]})
    MingProcessor.from_config(config, tiny_tokenizer()).save_pretrained(folder)
    return folder


def _stored(name: str, weight: Tensor) -> Packed | Tensor:
    is_base = name.startswith("thinker.") and ".experts." not in name and ".routers." not in name
    if not is_base:
        return round_off(name, weight)
    if weight.ndim == 1:
        return weight
    weight = torch.randn_like(weight) * weight.shape[-1] ** -0.5
    return pack(weight, 32, bits=8) if "embedding" in name else pack(weight, 32)


LEARNS = (".experts.", ".routers.", "vision.", "audio.projector.")


def small_export(folder: Path, path: Path) -> Path:
    """A trained file as `train.checkpoints.export` names things: some tensors moved, and LoRA on attention."""
    from ming_omni import checkpoint

    model = checkpoint.load(folder)
    torch.manual_seed(1)
    found = {}
    for name, weight in model.named_parameters():
        if any(part in name for part in LEARNS):
            moved = weight.detach() + 0.02 * torch.randn_like(weight)
            found[f"model.{name}"] = (
                moved.float() if ".routers." in name and name.endswith("bias") else moved.bfloat16()
            )
    for i in range(model.config.thinker.num_hidden_layers):
        for part in ("qkv", "out"):
            layer = f"thinker.layers.{i}.attention.{part}"
            rows, width = model.get_parameter(f"{layer}.weight").shape
            found[f"model.{layer}.lora_A.default.weight"] = torch.randn(RANK, width).mul(width**-0.5).bfloat16()
            found[f"model.{layer}.lora_B.default.weight"] = torch.randn(rows, RANK).mul(0.05).bfloat16()
    save_file(found, path, metadata={"format": "pt", "step": "1", "lora_scale": str(ALPHA / RANK)})
    return path
