"""Text ids -> speech latents, a patch at a time: language model, flow head, aggregator, stop head (spec 7.1, 7.2).

One step: the language model's last state conditions a flow from noise to the next patch; the aggregator turns that
patch into the language model's next input; the AudioVAE turns it into samples; the stop head tells the last one.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel

from ming_omni.config import LatentTransformerConfig, TalkerConfig
from ming_omni.model.audio_vae import AudioVAE, DecoderState
from ming_omni.model.backbone import Backbone, SlotCache
from ming_omni.model.flow import euler, flow_loss, speech_grid

NORM_EPS = 1e-6
TIME_CHANNELS = 256
ROTARY_BASE = 10_000.0


def rotate_pairs(x: Tensor, cos: Tensor, sin: Tensor, num_heads: int | None) -> Tensor:
    """Turn channels (2i, 2i + 1) of x (..., H, C), in all heads or some, by cos and signed sin (..., 1, C)."""
    if num_heads is not None:
        return torch.cat([rotate_pairs(x[..., :num_heads, :], cos, sin, None), x[..., num_heads:, :]], -2)
    swapped = x.unflatten(-1, (-1, 2)).flip(-1).flatten(-2)
    return (x * cos + swapped * sin).to(x.dtype)


class LatentAttention(nn.Module):
    """Fused q, k, v with biases; optional norms of q and k; rotary; every position sees every other."""

    def __init__(self, config: LatentTransformerConfig):
        super().__init__()
        self.config = config
        self.qkv = nn.Linear(config.hidden_size, 3 * config.hidden_size)
        self.out = nn.Linear(config.hidden_size, config.hidden_size)
        if config.use_qk_norm:
            self.q_norm, self.k_norm = nn.RMSNorm(config.head_dim, NORM_EPS), nn.RMSNorm(config.head_dim, NORM_EPS)

    def forward(self, x: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
        heads = self.config.num_attention_heads
        qk, v = self.qkv(x).unflatten(-1, (3, heads, -1)).split((2, 1), 2)  # (N, L, 2, H, C), (N, L, 1, H, C)
        if self.config.use_qk_norm:
            qk = torch.stack([self.q_norm(qk[:, :, 0]), self.k_norm(qk[:, :, 1])], 2)
        q, k, v = *rotate_pairs(qk, *rotary, self.config.rotary_heads).unbind(2), v[:, :, 0]  # (N, L, H, C) each
        mixed = F.scaled_dot_product_attention(*(t.transpose(1, 2) for t in (q, k, v)))  # (N, H, L, C)
        return self.out(mixed.transpose(1, 2).flatten(2))


class LatentBlock(nn.Module):
    """Attention, then MLP."""

    def __init__(self, config: LatentTransformerConfig):
        super().__init__()
        inner = int(config.hidden_size * config.mlp_ratio)
        self.attention_norm = nn.RMSNorm(config.hidden_size, NORM_EPS)
        self.attention = LatentAttention(config)
        self.mlp_norm = nn.RMSNorm(config.hidden_size, NORM_EPS)
        self.up = nn.Linear(config.hidden_size, inner)
        self.down = nn.Linear(inner, config.hidden_size)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
        x = x + self.dropout(self.attention(self.attention_norm(x), rotary))
        inner = F.gelu(self.up(self.mlp_norm(x)), approximate="tanh")
        return x + self.down(self.dropout(inner))


class LatentTransformer(nn.Module):
    """One leading token and L latents -> 1 + L outputs: what flow head and aggregator have in common."""

    def __init__(self, config: LatentTransformerConfig, latent_dim: int, out_dim: int):
        super().__init__()
        self.config = config
        self.embed = nn.Linear(latent_dim, config.hidden_size)
        self.blocks = nn.ModuleList(LatentBlock(config) for _ in range(config.num_hidden_layers))
        self.norm = nn.RMSNorm(config.hidden_size, NORM_EPS)
        self.out = nn.Linear(config.hidden_size, out_dim)

    def forward(self, lead: Tensor, latents: Tensor) -> Tensor:
        """lead (N, D), latents (N, L, Z) -> (N, 1 + L, out)."""
        tokens = torch.cat([lead[:, None], self.embed(latents)], 1)
        return self.mix(tokens, self.rotary(tokens.shape[1], tokens))

    def mix(self, tokens: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
        """Embedded tokens (N, 1 + L, D) -> outputs (N, 1 + L, out)."""
        for block in self.blocks:
            tokens = block(tokens, rotary)
        return self.out(self.norm(tokens))

    def rotary(self, length: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """cos, signed sin (L, 1, 1, C): fp32, or rounded to the model's dtype at every stage as published (Q74)."""
        dtype = like.dtype if self.config.numerics == "reference" else torch.float32
        channels = self.config.head_dim
        exponents = torch.arange(0, channels, 2, dtype=torch.float32, device=like.device) / channels
        angles = torch.arange(length, device=like.device).to(dtype)[:, None] * (ROTARY_BASE**-exponents).to(dtype)
        cos, sin = angles.cos(), angles.sin()
        pairs = torch.stack([cos, cos], -1), torch.stack([-sin, sin], -1)  # (L, C / 2, 2) each
        return pairs[0].flatten(1)[:, None, None], pairs[1].flatten(1)[:, None, None]


class FlowHead(nn.Module):
    """Velocity of a noisy patch, given the language model's state, the patch before, and the time."""

    def __init__(self, config: TalkerConfig):
        super().__init__()
        width, latent_dim = config.flow.hidden_size, config.vae.latent_dim
        self.time = nn.Sequential(nn.Linear(TIME_CHANNELS, width), nn.SiLU(), nn.Linear(width, width))
        self.condition = nn.Linear(config.backbone.hidden_size, width)
        self.body = LatentTransformer(config.flow, latent_dim, latent_dim)

    def outputs(self, patch: Tensor, time: Tensor, hidden: Tensor, history: Tensor) -> Tensor:
        """patch, history (N, p, Z), time () or (N,), hidden (N, D) -> all 1 + 2p outputs (N, 1 + 2p, Z)."""
        return self.body(self._lead(time, hidden), torch.cat([history, patch], 1))

    def forward(self, patch: Tensor, time: Tensor, hidden: Tensor, history: Tensor) -> Tensor:
        """The velocity (N, p, Z): the outputs at the patch itself."""
        return self.outputs(patch, time, hidden, history)[:, -patch.shape[1] :]

    def guided(
        self, times: Tensor, hidden: Tensor, history: Tensor, guidance: float
    ) -> Callable[[Tensor, int], Tensor]:
        """The guided velocity as a function of the patch (N, p, Z) and of which of the times (steps,) it is.

        Whatever the patch does not change is computed here, once for all times. Both branches run in one batch; the
        unconditional one keeps the history and loses the state.
        """
        is_guided = guidance >= 1e-5
        if is_guided:
            hidden = torch.cat([hidden, torch.zeros_like(hidden)])
        leads = self._lead(times[:, None], hidden)[:, :, None]  # (steps, N or 2N, 1, D)
        branches = hidden.shape[0] // history.shape[0]
        before = self.body.embed(history).repeat(branches, 1, 1)
        length = history.shape[1]
        rotary = self.body.rotary(1 + 2 * length, before)

        def velocity(patch: Tensor, index: int) -> Tensor:
            tokens = torch.cat([leads[index], before, self.body.embed(patch).repeat(branches, 1, 1)], 1)
            out = self.body.mix(tokens, rotary)[:, -length:]
            if not is_guided:
                return out
            conditional, unconditional = out.chunk(2)
            return conditional + guidance * (conditional - unconditional)

        return velocity

    def _lead(self, time: Tensor, hidden: Tensor) -> Tensor:
        """Time and condition make the leading token: time (..., N or 1), hidden (N, D) -> (..., N, D)."""
        return self._embed_time(time, hidden.dtype) + self.condition(hidden)

    def _embed_time(self, time: Tensor, dtype: torch.dtype) -> Tensor:
        half = TIME_CHANNELS // 2
        steps = torch.arange(half, dtype=torch.float32, device=time.device)
        frequencies = torch.exp(steps * (-math.log(10_000) / (half - 1)))
        angles = 1000 * time.float()[..., None] * frequencies
        return self.time(torch.cat([angles.sin(), angles.cos()], -1).to(dtype))


class Aggregator(nn.Module):
    """A patch (N, p, Z) -> one input of the language model (N, D)."""

    def __init__(self, config: TalkerConfig):
        super().__init__()
        self.start = nn.Embedding(1, config.aggregator.hidden_size)
        self.body = LatentTransformer(config.aggregator, config.vae.latent_dim, config.backbone.hidden_size)

    def forward(self, patch: Tensor) -> Tensor:
        return self.body(self.start.weight.expand(patch.shape[0], -1), patch)[:, 0]


class TalkerState:
    """What many sentences remember between steps; each lives in a slot, and nothing of it is on the model."""

    def __init__(self, talker: Talker, num_slots: int, capacity: int = 256, latent_capacity: int = 256):
        config, like = talker.config, talker.backbone.embedding.weight
        self.cache = SlotCache(config.backbone, num_slots, capacity, like)
        self.hidden = like.new_zeros(num_slots, config.backbone.hidden_size)
        self.history = like.new_zeros(num_slots, config.patch_frames, config.vae.latent_dim)
        self.decoder = DecoderState(config.vae, num_slots, latent_capacity, like)

    def free(self, slot: int) -> None:
        self.cache.free(slot)
        self.decoder.free(slot)


class Step(NamedTuple):
    """One patch for each of R sentences."""

    patch: Tensor  # (R, p, Z)
    stop: Tensor  # (R,) probability that this patch is the last
    samples: Tensor  # (R, p hops); the first `vae.trim` of a sentence are to be dropped
    rest: Tensor  # (R, trim) what follows if this patch is the last
    next_embedding: Tensor  # (R, D)


class Talker(PreTrainedModel):
    """Everything that speaks, except what a text and a voice are."""

    config_class = TalkerConfig
    main_input_name = "ids"

    def __init__(self, config: TalkerConfig):
        super().__init__(config)
        self.backbone = Backbone(config.backbone)
        self.flow = FlowHead(config)
        self.aggregator = Aggregator(config)
        self.stop_head = nn.Linear(config.backbone.hidden_size, 2)
        self.vae = AudioVAE(config.vae)
        self.post_init()

    def get_input_embeddings(self) -> nn.Embedding:
        return self.backbone.embedding

    def patches(self, latents: Tensor) -> Tensor:
        """latents (T, Z) of a prompt -> (n, p, Z); frames that fill no patch are dropped."""
        size = self.config.patch_frames
        return latents[: latents.shape[0] // size * size].view(-1, size, latents.shape[1])

    def prefill(self, state: TalkerState, slot: int, ids: Tensor, prompt: Tensor | None = None) -> Tensor:
        """Read text ids (T,), and the patches (n, p, Z) of a voice, into a free slot -> hidden states (T + n, D)."""
        x = self.backbone.embedding(ids)
        state.history[slot] = 0
        if prompt is not None and len(prompt):
            x = torch.cat([x, self.aggregator(prompt)])
            state.history[slot] = prompt[-1]
        slots = torch.tensor([slot], device=ids.device)
        hidden = self.backbone(x[None], state.cache.rows(slots, x.shape[0]))[0]
        state.hidden[slot] = hidden[-1]
        return hidden

    def step(
        self, state: TalkerState, slots: Tensor, noise: Tensor, extent: int, latent_extent: int, grid: Tensor
    ) -> Step:
        """Speak one patch for each sentence in `slots` (R,), from noise (R, p, Z).

        extent, latent_extent: no sentence is longer than this after the step, in positions and in latents.
        grid: `time_grid()`, made once so that a step is nothing but work on the device.
        """
        hidden, history = state.hidden.index_select(0, slots), state.history.index_select(0, slots)
        patch = self.sample(hidden, history, noise, grid)
        stop = self.stop_head(hidden).float().softmax(-1)[:, 1]
        samples, rest = self.vae.decode_step(patch, state.decoder, slots, latent_extent)
        embedding = self.aggregator(patch)
        following = self.backbone(embedding[:, None], state.cache.rows(slots, extent))[:, 0]
        state.hidden.index_copy_(0, slots, following)
        state.history.index_copy_(0, slots, patch)
        return Step(patch, stop, samples, rest, embedding)

    def sample(self, hidden: Tensor, history: Tensor, noise: Tensor, grid: Tensor) -> Tensor:
        """Follow the flow from noise (R, p, Z) to a patch, given the state (R, D) and the patch before."""
        velocity, steps = self.flow.guided(grid[:-1], hidden, history, self.config.guidance), itertools.count()
        *_, patch = euler(lambda patch, _: velocity(patch, next(steps)), noise, grid)
        return patch

    def time_grid(self, steps: int | None = None) -> Tensor:
        """The flow's times (steps + 1,), rounded to the model's dtype if the published roundings are asked for."""
        dtype = self.dtype if self.config.numerics == "reference" else torch.float32
        return speech_grid(steps or self.config.steps, dtype).to(self.device)

    def forward(
        self, ids: Tensor, text_lengths: Tensor, latents: Tensor, num_patches: Tensor, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Training losses of the flow and of the stop head.

        ids (B, T), text_lengths (B,)        right-padded text
        latents (B, N, p, Z), num_patches (B,)  right-padded speech
        """
        hidden = self.states(ids, text_lengths, latents)
        index = torch.arange(latents.shape[1], device=ids.device)
        is_real = index < num_patches[:, None]  # (B, N)
        history = torch.cat([torch.zeros_like(latents[:, :1]), latents[:, :-1]], 1)
        stop = F.cross_entropy(self.stop_head(hidden[is_real]), (index == num_patches[:, None] - 1)[is_real].long())
        return {"flow": self._flow_loss(hidden[is_real], history[is_real], latents[is_real], generator), "stop": stop}

    def states(self, ids: Tensor, text_lengths: Tensor, latents: Tensor) -> Tensor:
        """The states (B, N, D) from which each patch is spoken, all at once; arguments as in `forward`."""
        num_rows, num_speech = latents.shape[:2]
        spoken = self.aggregator(latents.flatten(0, 1)).view(num_rows, num_speech, -1)
        # Speech follows the text without a gap, so that positions are those of generation.
        x = torch.cat([self.backbone.embedding(ids), torch.zeros_like(spoken)], 1)
        places = text_lengths[:, None] + torch.arange(num_speech, device=ids.device)  # (B, N)
        x = x.scatter(1, places[..., None].expand_as(spoken), spoken.to(x.dtype))
        hidden = self.backbone(x)
        # The state before a patch speaks it: that of the last text token for the first patch.
        return hidden.gather(1, (places - 1)[..., None].expand(-1, -1, hidden.shape[-1]))

    def _flow_loss(self, hidden: Tensor, history: Tensor, patch: Tensor, generator: torch.Generator) -> Tensor:
        """Every patch at its own random time; some lose their condition, which teaches the unconditional branch."""
        count = patch.shape[0]
        kept = torch.rand(count, generator=generator).to(hidden) >= self.config.condition_dropout
        noise = torch.randn(patch.shape, generator=generator).to(patch)
        time = torch.rand(count, generator=generator).to(patch)
        hidden = hidden * kept[:, None]
        return flow_loss(lambda point, place: self.flow(point, place, hidden, history), noise, patch, time)
