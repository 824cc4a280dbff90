"""Parts of a store and a frozen AudioVAE -> patches on the device, and a table of clips: who says what, and where.

Every process encodes and keeps parts of its own; gradients are all that processes exchange.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ming_omni.config import TalkerConfig
from ming_omni.errors import InputError
from ming_omni.model.audio_vae import AudioVAE
from ming_omni.train.talker.speak import PHONEME_SAMPLES

SLOTS = 3
"""Moments of a patch whose phoneme is known."""
NUM_PHONEMES = 178
"""Of the teacher; 0 is silence."""
VOICE_SIZE = 256
"""Numbers by which the teacher knows a voice."""
ENCODED_SECONDS = 600
"""Of sound, encoded in one batch."""


@dataclass(frozen=True)
class Clip:
    speaker: int
    sounds: list[list[int]]
    letters: list[list[int] | None]
    first: int
    """Of its patches in the store."""
    num_patches: int
    text: str = ""
    language: str = ""
    row: int = 0
    """Of its part."""

    @property
    def num_symbols(self) -> int:
        """At most."""
        return sum(
            max(len(sounds), len(letters or ())) for sounds, letters in zip(self.sounds, self.letters, strict=True)
        )


@dataclass
class Store:
    patches: Tensor
    """(P, p, Z) fp16"""
    phonemes: Tensor
    """(P, SLOTS) uint8: what the teacher says in each third of a patch."""
    voices: Tensor
    """(clips, V) fp16: what the voice of each clip is like."""
    clips: Tensor
    """(P,): the clip of a patch."""
    hours: float


def parts(folder: Path, rank: int = 0, size: int = 1) -> list[Path]:
    """Paths without suffix of this process's finished parts."""
    found = [path.with_suffix("") for path in sorted(folder.glob("part-?????.json"))]
    if len(found) < size:
        raise InputError(f"{folder} holds {len(found)} parts of speech, which are too few for {size} processes")
    return found[rank::size]


def clips(paths: Sequence[Path], split: str, patch_samples: int) -> Iterator[tuple[Path, dict, Clip]]:
    """Clips of a split with the part they lie in and its line; their patches count from the first one's."""
    first = 0
    for path in paths:
        for row, about in enumerate(json.loads(path.with_suffix(".json").read_text())):
            if about["split"] != split:
                continue
            count = -(-about["length"] // patch_samples)  # the last one is filled up with silence
            clip = Clip(
                about["speaker"], about["sounds"], about["letters"], first, count, about["text"], about["language"], row
            )
            yield path, about, clip
            first += count


@torch.no_grad()
def build(paths: Sequence[Path], split: str, vae: AudioVAE, config: TalkerConfig) -> Store:
    """Encode all clips of a split, in the order of `clips`."""
    patch = config.patch_frames * config.vae.hop_samples
    found = list(clips(paths, split, patch))
    total = sum(clip.num_patches for _, _, clip in found)
    device = vae.device
    patches = torch.zeros(total, config.patch_frames, config.vae.latent_dim, dtype=torch.float16, device=device)
    phonemes = np.zeros((total, SLOTS), np.uint8)
    voices = [np.zeros((0, VOICE_SIZE), np.float16)]
    for path in dict.fromkeys(path for path, _, _ in found):
        samples = np.load(path.with_suffix(".npy"), mmap_mode="r")
        symbols, likenesses = np.load(path.with_suffix(".phonemes.npy")), np.load(path.with_suffix(".voices.npy"))
        own = [(about, clip) for at, about, clip in found if at == path]
        voices.append(likenesses[[clip.row for _, clip in own]])
        own.sort(key=lambda pair: -pair[1].num_patches)
        for about, clip in own:
            times = (np.arange(clip.num_patches * SLOTS) + 0.5) * patch / SLOTS + about["start"]
            end = about["start"] + about["length"]
            rows = symbols[(times.clip(max=end - 1) // PHONEME_SAMPLES).astype(int)] * (times < end)
            phonemes[clip.first : clip.first + clip.num_patches] = rows.reshape(-1, SLOTS)
        while own:
            longest = own[0][1].num_patches
            count = max(1, int(ENCODED_SECONDS * config.vae.sample_rate_hz // (longest * patch)))
            chosen, own = own[:count], own[count:]
            sounds = np.zeros((len(chosen), longest * patch), np.float32)
            for row, (about, _) in zip(sounds, chosen, strict=True):
                own_samples = samples[about["start"] : about["start"] + about["length"]]
                row[: len(own_samples)] = own_samples.astype(np.float32) / 32768
            with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
                latents = vae.encode(torch.from_numpy(sounds).to(device)).mean
            latents = latents.unflatten(1, (longest, -1)).half()  # (B, N, p, Z)
            for row, (_, clip) in zip(latents, chosen, strict=True):
                patches[clip.first : clip.first + clip.num_patches] = row[: clip.num_patches]
    number = np.repeat(np.arange(len(found)), [clip.num_patches for _, _, clip in found])
    hours = total * config.patch_seconds / 3600
    rest = (torch.from_numpy(array).to(device) for array in (phonemes, np.concatenate(voices), number))
    return Store(patches, *rest, hours)
