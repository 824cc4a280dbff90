"""Clips of samples at 16 kHz -> packed mel frames (1, F, M), their lengths, and how many tokens each becomes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ming_omni.inputs.mel import log_mel
from ming_omni.inputs.sanm import sanm_features


class AudioProcessor:
    def __init__(
        self,
        num_mel_bins: int = 128,
        projector_stride: int = 2,
        projector_kernel: int = 3,
        max_seconds: float = 300.0,
    ):
        """max_seconds  the longest clip the encoder has positions for (published: 15,000 of 20 ms)."""
        self.num_mel_bins, self.max_seconds = num_mel_bins, max_seconds
        self.projector_stride, self.projector_kernel = projector_stride, projector_kernel

    def __call__(self, clips: Sequence[Tensor], use_whisper_encoder: bool = True) -> tuple[Tensor, Tensor]:
        """Clips one after another along time: features (1, ΣF, M), lengths (1, n)."""
        frames = [log_mel(clip, self.num_mel_bins) if use_whisper_encoder else sanm_features(clip) for clip in clips]
        return torch.cat(frames)[None], torch.tensor([[len(clip) for clip in frames]])

    def num_tokens(self, num_frames: int, use_whisper_encoder: bool = True) -> int:
        """Two strided convolutions, the encoder's and the projector's; the legacy features keep their length."""
        if not use_whisper_encoder:
            return num_frames
        encoded = (num_frames - 1) // 2 + 1
        return (encoded - self.projector_kernel % 2) // self.projector_stride + 1
