"""The audio encoder and its front end: samples -> mel frames -> encoded frames -> unit vectors."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from ming_omni.checkpoint import load_part
from ming_omni.inputs.mel import log_mel, mel_filters
from ming_omni.model.audio_encoder import AudioEncoder
from tests.parity import Check, difference, keys, same, tensors

EMBEDDINGS, MEL, FILTERS = 1e-5, 1e-4, 1e-6
CLIP = re.compile(r"clip(\d+)_(alone_embeds|encoder_only)")


def matches(folder: Path) -> bool:
    return {"packed_embeds", "packed_lengths"} <= keys(folder / "outputs.safetensors")


def compare(folder: Path) -> Iterator[Check]:
    encoder = load_part(folder, "audio", dtype=torch.float32)
    inputs, recorded = tensors(folder / "inputs.safetensors"), tensors(folder / "outputs.safetensors")
    produced = _clips(encoder, inputs, recorded) | _front_end(encoder, inputs)
    produced["real_mel_embeds"], produced["real_mel_lengths"] = _embed(
        encoder, recorded["mel_packed"], recorded["mel_lengths"]
    )
    for key, expected in recorded.items():
        if key not in produced:
            yield Check(f"{key} is not produced", float("inf"), 0.0)
        elif not expected.is_floating_point():
            yield same(key, produced[key], expected)
        else:
            tolerance = FILTERS if key.startswith("mel_filters") else MEL if key.startswith("mel") else EMBEDDINGS
            yield difference(key, produced[key], expected, tolerance)


def _embed(encoder: AudioEncoder, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    tokens, counts = encoder(features, lengths)
    return tokens[None], counts


def _clips(encoder: AudioEncoder, inputs: dict[str, Tensor], recorded: dict[str, Tensor]) -> dict[str, Tensor]:
    """The recorded mel frames, packed as published, each clip alone, and without unit length."""
    features, lengths = inputs["audio_feats"], inputs["audio_feats_lengths"]
    produced = dict(zip(("packed_embeds", "packed_lengths"), _embed(encoder, features, lengths), strict=True))
    clips = features.split(lengths[0].tolist(), 1)
    for key, (number, kind) in ((key, match.groups()) for key in recorded if (match := CLIP.fullmatch(key))):
        clip, length = clips[int(number)], lengths[:, int(number), None]
        is_whole = kind == "alone_embeds"
        produced[key] = _embed(encoder, clip, length)[0] if is_whole else encoder.encode(clip, length)
    encoder.config.normalize, normalize = False, encoder.config.normalize
    produced["packed_embeds_without_normalise"] = _embed(encoder, features, lengths)[0]
    encoder.config.normalize = normalize
    return produced


def _front_end(encoder: AudioEncoder, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """The recorded waveforms as mel frames; the one named second comes second."""
    num_mel_bins = encoder.config.num_mel_bins
    names = sorted((key for key in inputs if key.startswith("waveform")), key=lambda key: "second" in key)
    mels = [log_mel(inputs[name], num_mel_bins) for name in names]
    lengths = torch.tensor([[len(mel) for mel in mels]])
    return {
        f"mel_filters_{num_mel_bins}": mel_filters(num_mel_bins),
        "mel_single_clip": mels[0],
        "mel_packed": torch.cat(mels)[None],
        "mel_lengths": lengths,
        "encoder_token_lengths": encoder.num_tokens(lengths),
    }
