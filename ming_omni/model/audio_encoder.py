"""Mel frames of packed clips (1, F, M) -> audio tokens (ΣL, D): two convolutions, a transformer, a projector."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from einops.layers.torch import Rearrange
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import initialization
from transformers.modeling_layers import GradientCheckpointingLayer

from ming_omni.config import AudioConfig
from ming_omni.errors import InputError
from ming_omni.model.layers import Part, attend_both_ways


def sinusoids(length: int, width: int) -> Tensor:
    """Whisper's table of positions (length, width): sines in the first half of the channels, cosines in the second."""
    scales = torch.exp(-torch.arange(width // 2) * (math.log(10_000) / (width // 2 - 1)))
    angles = torch.outer(torch.arange(length), scales)
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


class AudioAttention(nn.Module):
    """Every frame attends to every frame of its clip; the key has no bias, as it could not change the softmax."""

    def __init__(self, config: AudioConfig):
        super().__init__()
        self.config = config
        self.query = nn.Linear(config.hidden_size, config.hidden_size)
        self.key = nn.Linear(config.hidden_size, config.hidden_size, bias=False)
        self.value = nn.Linear(config.hidden_size, config.hidden_size)
        self.out = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """x (n, L, D), mask (n, L) of the frames of a clip -> (n, L, D)."""
        heads = self.config.num_attention_heads
        q, k, v = (rearrange(f(x), "n l (h c) -> n h l c", h=heads) for f in (self.query, self.key, self.value))
        y = attend_both_ways(q, k, v, mask, self.config._attn_implementation)
        return self.out(rearrange(y, "n h l c -> n l (h c)"))


class AudioMLP(nn.Module):
    def __init__(self, config: AudioConfig):
        super().__init__()
        self.up = nn.Linear(config.hidden_size, 4 * config.hidden_size)
        self.down = nn.Linear(4 * config.hidden_size, config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.gelu(self.up(x)))


class AudioLayer(GradientCheckpointingLayer):
    """Attention, then MLP."""

    def __init__(self, config: AudioConfig):
        super().__init__()
        self.attention_norm = nn.LayerNorm(config.hidden_size)
        self.attention = AudioAttention(config)
        self.mlp_norm = nn.LayerNorm(config.hidden_size)
        self.mlp = AudioMLP(config)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        x = x + self.attention(self.attention_norm(x), mask)
        return x + self.mlp(self.mlp_norm(x))


class AudioEncoder(Part):
    """Clips of one request, packed along time, each described by its number of mel frames."""

    config_class = AudioConfig
    config: AudioConfig
    main_input_name = "features"
    supports_gradient_checkpointing = True
    _no_split_modules = ["AudioLayer"]

    def __init__(self, config: AudioConfig):
        super().__init__(config)
        width, stride = config.hidden_size, config.projector_stride
        self.conv1 = nn.Conv1d(config.num_mel_bins, width, kernel_size=3, padding=1)
        self.conv2 = nn.Conv1d(width, width, kernel_size=3, stride=2, padding=1)
        self.register_buffer("positions", sinusoids(config.max_positions, width))
        self.layers = nn.ModuleList(AudioLayer(config) for _ in range(config.num_hidden_layers))
        self.norm = nn.LayerNorm(width)
        steps = [
            nn.Conv1d(width, config.token_width, config.projector_kernel, stride, config.projector_kernel // 2),
            Rearrange("n d l -> n l d"),
        ]
        for _ in range(config.projector_depth - 1):
            steps += [nn.GELU(), nn.Linear(config.token_width, config.token_width)]
        self.projector = nn.Sequential(*steps)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module):
        super()._init_weights(module)
        if module is self:  # a checkpoint may lack the table of positions
            initialization.copy_(self.positions, sinusoids(*self.positions.shape))

    def num_tokens(self, frames: Tensor) -> Tensor:
        """Mel frames of each clip -> audio tokens of each clip."""
        # The convolution is padded by half its kernel, rounded down: an even kernel gives one position more.
        return (self._halved(frames) - self.config.projector_kernel % 2) // self.config.projector_stride + 1

    @staticmethod
    def _halved(frames: Tensor) -> Tensor:
        return (frames - 1) // 2 + 1

    def forward(self, features: Tensor, lengths: Tensor, owners: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Clips -> vectors of one length (ΣL, D) and how many belong to each clip (1, n).

        features (1, F, M)
        lengths  (1, n)  mel frames of each clip
        owners   (n,)    number of the request that each clip belongs to; None: all to one
        """
        tokens = self.projector(self.encode(features, lengths, owners).transpose(1, 2))  # (n, L, D)
        if self.config.normalize:
            tokens = (F.normalize(tokens.float(), dim=-1) * self.config.token_norm).to(tokens.dtype)
        counts = self.num_tokens(lengths)
        return torch.cat([clip[:n] for clip, n in zip(tokens, counts.flatten().tolist(), strict=True)]), counts

    def encode(self, features: Tensor, lengths: Tensor, owners: Tensor | None = None) -> Tensor:
        """Clips, as in `forward` -> encoded clips (n, L, D), padded, before the projector."""
        x = pad_sequence(self.clips(features, lengths), batch_first=True).transpose(1, 2)  # (n, M, F)
        seen = self._seen(lengths.flatten(), owners).to(x.device)
        inside = mask = None
        if (seen < x.shape[-1]).any():
            inside = torch.arange(x.shape[-1], device=x.device) < seen[:, None]  # (n, F)
            mask = inside[:, ::2]  # (n, L)
        x = F.gelu(self.conv1(x))
        if inside is not None:
            x = x * inside[:, None]
        x = F.gelu(self.conv2(x)).transpose(1, 2)  # (n, L, D)
        x = x + self.positions[: x.shape[1]].to(x.dtype)
        for layer in self.layers:
            x = layer(x, mask)
        x = self.norm(x)
        return x if mask is None else x * mask[..., None]

    def _seen(self, lengths: Tensor, owners: Tensor | None) -> Tensor:
        """Frames each clip sees, (n,): as published, a short clip sees its padding up to the longest of its request."""
        if self.config.clip_isolation:
            return lengths
        if owners is None:
            return lengths.max().expand_as(lengths)
        owners = owners.to(lengths.device)
        longest = lengths.new_zeros(int(owners.max()) + 1).scatter_reduce(0, owners, lengths, "amax")
        return longest[owners]

    def clips(self, features: Tensor, lengths: Tensor) -> list[Tensor]:
        """Unpack features (1, F, M) into clips [(frames, M)], once the lengths are known to describe them."""
        sizes = lengths.flatten().tolist()
        if features.shape[0] != 1 or features.shape[-1] != self.config.num_mel_bins or sum(sizes) != features.shape[1]:
            raise InputError(
                f"clips of {sizes} mel frames need features (1, {sum(sizes)}, {self.config.num_mel_bins}), "
                f"not {tuple(features.shape)}"
            )
        limit = 2 * self.config.max_positions
        if not sizes or min(sizes) < 1 or max(sizes) > limit:
            raise InputError(f"a clip has 1 to {limit} mel frames; these have {sizes}")
        return list(features[0].to(self.positions.device, self.dtype).split(sizes))
