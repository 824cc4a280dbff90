"""Patches (P, C·T·p·p) of pictures and videos -> tokens (P/4, D): windowed attention, a merger, a projector."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from ming_omni.config import VisionConfig
from ming_omni.errors import InputError
from ming_omni.model.layers import Part, attend_both_ways


class Segments(NamedTuple):
    """Patches that attend to each other, segments of one length stacked."""

    groups: list[Tensor]
    """[(n, S)] patch numbers"""
    back: Tensor
    """(P,) where each patch stands once the groups are laid out one after another"""

    @classmethod
    def cut(cls, patches: Tensor, lengths: list[int], device: torch.device) -> Segments:
        """Cut patch numbers (P,) into segments of the given lengths."""
        groups: dict[int, list[Tensor]] = {}
        for piece in patches.split(lengths):
            groups.setdefault(len(piece), []).append(piece)
        stacked = [torch.stack(group) for group in groups.values()]
        back = torch.cat([group.flatten() for group in stacked]).argsort()
        return cls([group.to(device) for group in stacked], back.to(device))


class VisionRMSNorm(nn.Module):
    """RMS norm with a single rounding: the weight multiplies in float32, unlike the thinker's norm (spec N7)."""

    def __init__(self, width: int, eps: float):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        y = x.float()
        return (y * torch.rsqrt(y.square().mean(-1, keepdim=True) + self.eps) * self.weight.float()).to(x.dtype)


class PatchEmbedding(nn.Conv3d):
    """Patches (P, C·T·p·p) -> (P, D): the kernel is as large as its stride, so one matrix product does it."""

    def __init__(self, config: VisionConfig):
        kernel = (config.temporal_patch_size, config.patch_size, config.patch_size)
        super().__init__(config.in_channels, config.hidden_size, kernel, kernel, bias=False)

    def forward(self, patches: Tensor) -> Tensor:
        return F.linear(patches.to(self.weight), self.weight.flatten(1))


class VisionAttention(nn.Module):
    """Every patch attends to the patches of its own segment: a window, or a whole frame."""

    def __init__(self, config: VisionConfig):
        super().__init__()
        self.config = config
        self.qkv = nn.Linear(config.hidden_size, 3 * config.hidden_size)
        self.out = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, x: Tensor, rotary: tuple[Tensor, Tensor], segments: Segments) -> Tensor:
        """x (P, D), rotary cos and sin (P, C) -> (P, D)."""
        qkv = rearrange(self.qkv(x), "p (three h c) -> three p h c", three=3, h=self.config.num_attention_heads)
        q, k, v = rotate(qkv[0], *rotary), rotate(qkv[1], *rotary), qkv[2]
        # One unmasked call per segment length: nothing of size P x P is ever built.
        rows = []
        for group in segments.groups:
            heads = (t[group].transpose(1, 2) for t in (q, k, v))  # (n, H, S, C)
            attended = attend_both_ways(*heads, implementation=self.config._attn_implementation)
            rows.append(rearrange(attended, "n h s c -> (n s) (h c)"))
        return self.out(torch.cat(rows)[segments.back])


class VisionMLP(nn.Module):
    """SwiGLU with biases."""

    def __init__(self, config: VisionConfig):
        super().__init__()
        self.gate = nn.Linear(config.hidden_size, config.intermediate_size)
        self.up = nn.Linear(config.hidden_size, config.intermediate_size)
        self.down = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.silu(self.gate(x)) * self.up(x))


class VisionLayer(GradientCheckpointingLayer):
    """Attention, then MLP."""

    def __init__(self, config: VisionConfig):
        super().__init__()
        self.attention_norm = VisionRMSNorm(config.hidden_size, config.rms_norm_eps)
        self.attention = VisionAttention(config)
        self.mlp_norm = VisionRMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = VisionMLP(config)

    def forward(self, x: Tensor, rotary: tuple[Tensor, Tensor], segments: Segments) -> Tensor:
        x = x + self.attention(self.attention_norm(x), rotary, segments)
        return x + self.mlp(self.mlp_norm(x))


class Merger(nn.Module):
    """Each block of neighbouring patches (2 x 2) becomes one token."""

    def __init__(self, config: VisionConfig):
        super().__init__()
        self.cells = config.spatial_merge_size**2
        width = config.hidden_size * self.cells
        self.norm = VisionRMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, config.out_hidden_size))

    def forward(self, x: Tensor) -> Tensor:
        return self.mlp(rearrange(self.norm(x), "(t cells) d -> t (cells d)", cells=self.cells))


class VisionEncoder(Part):
    """Pictures and videos, packed one after another, each described by its grid of patches (frames, height, width)."""

    config_class = VisionConfig
    config: VisionConfig
    main_input_name = "patches"
    supports_gradient_checkpointing = True
    _no_split_modules = ["VisionLayer"]

    def __init__(self, config: VisionConfig):
        super().__init__(config)
        self.patch_embedding = PatchEmbedding(config)
        self.layers = nn.ModuleList(VisionLayer(config) for _ in range(config.num_hidden_layers))
        self.merger = Merger(config)
        steps = [nn.Linear(config.out_hidden_size, config.token_width)]
        for _ in range(config.projector_depth - 1):
            steps += [nn.GELU(), nn.Linear(config.token_width, config.token_width)]
        self.projector = nn.Sequential(*steps)
        self.post_init()

    def forward(self, patches: Tensor, grid: Tensor) -> Tensor:
        """patches (P, C·T·p·p), grid (n, 3) -> vectors of one length (P/4, D), in the order of the patches."""
        return self.normalize(self.projector(self.tower(patches, grid)))

    def tower(self, patches: Tensor, grid: Tensor) -> Tensor:
        """patches (P, C·T·p·p), grid (n, 3) -> merged tokens (P/4, out_hidden_size), before the projector."""
        grids = self.check(patches, grid)
        x = self.patch_embedding(patches)  # (P, D)
        rotary = self.rotary(grids, x.device)
        windows, frames = self.segments(grids, x.device)
        for index, layer in enumerate(self.layers):
            x = layer(x, rotary, frames if index in self.config.full_attention_layers else windows)
        return self.merger(x)  # (P/4, out_hidden_size)

    def check(self, patches: Tensor, grid: Tensor) -> list[tuple[int, int, int]]:
        """The grids as numbers, once they are known to describe these patches."""
        c = self.config
        merge, size = c.spatial_merge_size, c.in_channels * c.temporal_patch_size * c.patch_size**2
        grids = [tuple(row) for row in grid.tolist()]
        for t, h, w in grids:
            if min(t, h, w) < 1 or h % merge or w % merge:
                raise InputError(f"{t} x {h} x {w} patches cannot be merged in blocks of {merge} x {merge}")
        expected = (sum(t * h * w for t, h, w in grids), size)
        if not grids or tuple(patches.shape) != expected:
            raise InputError(f"the grids describe {expected} patch values; pixel values are {tuple(patches.shape)}")
        return grids

    def angles(self, grids: list[tuple[int, int, int]]) -> Tensor:
        """Rotary angles (P, C/2) of each patch: first of its row, then of its column."""
        channels = self.config.hidden_size // self.config.num_attention_heads // 2
        # The published scripts compute the whole table in the model's dtype (spec N3).
        dtype = self.dtype if self.config.numerics == "reference" else torch.float32
        frequency = 10_000.0 ** -(torch.arange(0, channels, 2).float() / channels)
        size = max(max(h, w) for _, h, w in grids)
        table = torch.outer(torch.arange(size).to(dtype), frequency.to(dtype))  # (size, C/4)
        rows = []
        for t, h, w in grids:
            row, column = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
            # Patches arrive block by block, so that each four neighbours are merged into one token.
            m = self.config.spatial_merge_size
            place = [rearrange(p, "(h a) (w b) -> (h w a b)", a=m, b=m) for p in (row, column)]
            rows.append(torch.cat([table[p] for p in place], -1).repeat(t, 1))
        return torch.cat(rows)

    def rotary(self, grids: list[tuple[int, int, int]], device: torch.device) -> tuple[Tensor, Tensor]:
        """cos and sin (P, C): the angles serve both halves of a head's channels."""
        angles = self.angles(grids).to(device).repeat(1, 2)
        return angles.cos(), angles.sin()

    def windows(self, grids: list[tuple[int, int, int]]) -> tuple[Tensor, list[int]]:
        """Token numbers (P/4,) window by window, and the number of tokens in each window; smaller at the borders."""
        side = self.config.window_size // self.config.patch_size // self.config.spatial_merge_size
        order, sizes, start = [], [], 0
        for t, h, w in grids:
            h, w = h // self.config.spatial_merge_size, w // self.config.spatial_merge_size
            frame, row, column = torch.meshgrid(torch.arange(t), torch.arange(h), torch.arange(w), indexing="ij")
            down, across = -(-h // side), -(-w // side)  # windows, rounded up
            window = ((frame * down + row // side) * across + column // side).flatten()
            order.append(start + window.argsort(stable=True))
            sizes += window.bincount().tolist()
            start += t * h * w
        return torch.cat(order), sizes

    def segments(self, grids: list[tuple[int, int, int]], device: torch.device) -> tuple[Segments, Segments]:
        """Which patches attend to each other: per window, and per frame."""
        cells = self.config.spatial_merge_size**2
        order, sizes = self.windows(grids)
        patches = (order[:, None] * cells + torch.arange(cells)).flatten()
        frames = [h * w for t, h, w in grids for _ in range(t)]
        return (
            Segments.cut(patches, [size * cells for size in sizes], device),
            Segments.cut(torch.arange(len(patches)), frames, device),
        )

    def normalize(self, tokens: Tensor) -> Tensor:
        if self.config.numerics == "reference":
            return (
                F.normalize(tokens, dim=-1) * self.config.token_norm
            )  # rounded to the model's dtype at every step (spec N8)
        return (F.normalize(tokens.float(), dim=-1) * self.config.token_norm).to(tokens.dtype)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn each channel pair (i, i + C/2) of x (P, H, C) by its angle, in float32."""
    first, second = x.float().chunk(2, -1)
    turned = x.float() * cos[:, None].float() + torch.cat([-second, first], -1) * sin[:, None].float()
    return turned.to(x.dtype)
