"""Random prompts for a tiny model, in the processor's published keys: pieces of text and media -> tensors."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ming_omni.config import MingConfig

PATCH_VALUES = 3 * 2 * 14 * 14
VIDEO_END, AUDIO_END = 297, 306


class Prompts:
    """Builds rows of one batch. A row is a list of pieces: a number is that many text tokens, a pair is a medium:
    ("image", grid), ("video", grid) or ("audio", mel frames)."""

    def __init__(self, config: MingConfig, seed: int = 0):
        self.config = config
        self.random = torch.Generator().manual_seed(seed)
        self.rows: list[list[int]] = []
        self.spans: list[list[tuple[int, int]]] = []
        self.media: dict[str, list] = {"image": [], "video": [], "audio": []}

    def add(self, *pieces: int | tuple) -> Prompts:
        thinker, ids, spans = self.config.thinker, [], []
        for piece in pieces:
            if isinstance(piece, int):
                ids += torch.randint(32, 280, (piece,), generator=self.random).tolist()
                continue
            kind, size = piece
            if kind == "audio":
                num_tokens = ((size - 1) // 2) // 2 + 1
                spans.append((len(ids) + 1, num_tokens))
                ids += [thinker.audio_start_token, *[thinker.audio_patch_token] * num_tokens, AUDIO_END]
                self.media[kind].append(self._random(size, self.config.audio.num_mel_bins))
                continue
            is_video, num_patches = kind == "video", size[0] * size[1] * size[2]
            start = thinker.video_marker_token if is_video else thinker.image_start_token
            patch = thinker.video_patch_token if is_video else thinker.image_patch_token
            ids += [start, *[patch] * (num_patches // 4), VIDEO_END if is_video else start + 1]
            self.media[kind].append((self._random(num_patches, PATCH_VALUES), size))
        self.rows.append(ids)
        self.spans.append(spans)
        return self

    def tensors(self) -> dict[str, Tensor]:
        """One row per prompt, padded on the left."""
        length = max(map(len, self.rows))
        pad = self.config.thinker.pad_token_id
        inputs = {
            "input_ids": torch.tensor([[pad] * (length - len(row)) + row for row in self.rows]),
            "attention_mask": torch.tensor([[0] * (length - len(row)) + [1] * len(row) for row in self.rows]),
        }
        for kind, values, grid in (
            ("image", "pixel_values", "image_grid_thw"),
            ("video", "pixel_values_videos", "video_grid_thw"),
        ):
            if self.media[kind]:
                inputs[values] = torch.cat([patches for patches, _ in self.media[kind]])
                inputs[grid] = torch.tensor([size for _, size in self.media[kind]])
        if self.media["audio"]:
            moved = [
                torch.tensor([(start + length - len(row), size) for start, size in spans]).view(-1, 2)
                for row, spans in zip(self.rows, self.spans, strict=True)
            ]
            inputs["audio_feats"] = torch.cat(self.media["audio"])[None]
            inputs["audio_feats_lengths"] = torch.tensor([[len(clip) for clip in self.media["audio"]]])
            inputs["audio_placeholder_loc_lens"] = pad_sequence(moved, batch_first=True)
        return inputs

    def _random(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.random)


def prompt(config: MingConfig, *pieces: int | tuple, seed: int = 0) -> dict[str, Tensor]:
    """One prompt alone."""
    return Prompts(config, seed).add(*pieces).tensors()
