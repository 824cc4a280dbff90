"""Thinker states at the query tokens (B, n², D) -> condition tokens -> latents -> pixels (B, 3, H, W).

The last grid of query tokens passes a bidirectional connector; its unit vectors, and perhaps tokens of a text to draw,
condition the diffusion transformer, which turns noise into latents. Specification section 6.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel, Qwen2Config
from transformers import initialization as init
from transformers.models.qwen2.modeling_qwen2 import Qwen2Model

from ming_omni.config import FlowConfig, PainterConfig, ThinkerConfig
from ming_omni.errors import InputError
from ming_omni.model import flow
from ming_omni.model.dit import DiT
from ming_omni.model.glyphs import GlyphEncoder, spell
from ming_omni.model.image_vae import ImageVAE
from ming_omni.model.recording import Recorded


@dataclass(frozen=True)
class Guidance:
    """How strongly the words, and the picture to edit, pull (spec 6.9).

    Four velocities can be mixed, by whether the network saw the words and the picture to edit:
    U neither, I only the picture, T only the words, F both.
    """

    text: float = 5.0
    image: float = 2.0
    mode: int = 1

    def __post_init__(self):
        if not math.isfinite(self.text) or not math.isfinite(self.image):
            raise InputError("guidance is a finite number")

    def weights(self, has_reference: bool) -> dict[str, float]:
        """Weight of each velocity in the sum; a velocity of weight zero is left out and never computed."""
        g, i = self.text, self.image
        if not has_reference:
            mix = {"U": 1 - g, "T": g}
        elif i <= 1:
            mix = {"I": 1 - g, "F": g}
        else:
            modes = {
                1: {"U": 1 - i, "I": i - g, "F": g},
                2: {"U": 1 - i, "I": i},
                3: {"T": 1 - i, "F": i},
                4: {"U": 1 - g, "T": g - i, "F": i},
                5: {"I": 1 - g, "F": g},
                6: {"U": 1 - g - i, "I": i, "T": g},
            }
            if self.mode not in modes:
                raise InputError(f"guidance mode {self.mode} is unknown; modes are 1 to 6")
            mix = modes[self.mode]
        return {branch: weight for branch, weight in mix.items() if weight}


@dataclass(frozen=True)
class Step:
    """One step of sampling: the latents (B, Z, h, w) at noise level `sigma`, and those one step before."""

    index: int
    num_steps: int
    sigma: float
    latents: Tensor
    sigma_before: float
    latents_before: Tensor

    def clean(self) -> Tensor:
        """The finished latents as this step sees them: straight on, along its velocity."""
        velocity = (self.latents - self.latents_before) / (self.sigma - self.sigma_before)
        return self.latents - self.sigma * velocity


def draw_seed() -> int:
    """A seed nobody chose, from the whole 64-bit range."""
    return secrets.randbits(64)


def noise(seeds: list[int], shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Unit noise (B, *shape) on the CPU, each picture from its own seed, so that no picture depends on its neighbours.

    Torch's CPU generator reads 32 bits of a seed, and those draw what the published model draws. The upper half of a
    larger seed draws a second field; the scaled sum of both is unit noise again.
    """

    def draw(seed: int) -> Tensor:
        return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)

    def picture(seed: int) -> Tensor:
        low, high = seed & 0xFFFFFFFF, seed >> 32
        return draw(low) if high == 0 else (draw(low) + draw(high)) * 0.5**0.5

    return torch.stack([picture(seed) for seed in seeds])


def sigmas(config: FlowConfig, num_steps: int, num_tokens: int) -> Tensor:
    """Noise levels (steps + 1,) from 1 to 0: the training levels are shifted, and the chosen ones once more (spec Q46).

    num_tokens  picture tokens of the diffusion transformer; they matter only when shifting is dynamic
    """
    least = torch.tensor(1 / config.num_train_steps)
    if config.use_dynamic_shifting:
        slope = (config.max_shift - config.base_shift) / (config.max_tokens - config.base_tokens)
        factor = torch.tensor(config.base_shift + slope * (num_tokens - config.base_tokens)).exp()
    else:
        factor = torch.tensor(config.shift)
        least = flow.shift(least, factor)
    levels = flow.shift(torch.linspace(1.0, float(least), num_steps), factor)
    return torch.cat([levels, torch.zeros(1)])


class ConditionMLP(nn.Sequential):
    """Unit condition tokens (B, S, X) -> context of the diffusion transformer (B, S, Y)."""

    def __init__(self, width: int, out_width: int):
        first = nn.Linear(width, width), nn.LayerNorm(width), nn.ReLU()
        super().__init__(*first, nn.Linear(width, out_width), nn.LayerNorm(out_width))


def connector(config: Qwen2Config) -> Qwen2Model:
    """A Qwen2 without word embeddings; `Painter.condition` lets every token see every other."""
    config = deepcopy(config)
    config.vocab_size, config.pad_token_id, config.use_cache = 1, None, False
    config._attn_implementation = "sdpa"  # flash attention would read our mask as padding, and look back only
    model = Qwen2Model(config)
    model.embed_tokens = None
    return model


class Painter(PreTrainedModel):
    """Query tokens, connector, condition MLP, diffusion transformer, autoencoder and, where present, glyph encoder."""

    config_class = PainterConfig
    config: PainterConfig
    base_model_prefix = "painter"
    main_input_name = "states"
    supports_gradient_checkpointing = True

    def __init__(self, config: PainterConfig):
        super().__init__(config)
        self.queries = nn.ParameterDict(
            {f"{n}x{n}": nn.Parameter(torch.empty(n * n, config.thinker_width)) for n in config.query_scales}
        )
        self.proj_in = nn.Linear(config.thinker_width, config.connector.hidden_size)
        self.connector = connector(config.connector)
        self.proj_out = nn.Linear(config.connector.hidden_size, config.condition_width)
        self.condition_mlp = ConditionMLP(config.condition_width, config.dit.context_width)
        self.dit = DiT(config.dit)
        self.vae = ImageVAE(config.vae)
        self.glyphs = GlyphEncoder(config.glyphs) if config.glyphs else None
        self.recorded_dit = Recorded(self.dit)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if module is self.queries:
            for query in self.queries.values():
                init.copy_(query, F.normalize(torch.randn_like(query), dim=-1))

    # Query tokens: what the painter appends to a prompt.

    def query_ids(self, thinker: ThinkerConfig) -> Tensor:
        """Ids (Q,) to append: every grid of queries is spelled as a picture of n² patches."""
        start, patch = thinker.image_start_token, thinker.image_patch_token
        end = start + 1  # in every vocabulary of this family
        return torch.tensor([id for n in self.config.query_scales for id in (start, *[patch] * (n * n), end)])

    def query_grid(self) -> Tensor:
        """Grids (scales, 3) in vision patches: one row of n² tokens each."""
        return torch.tensor([[1, 2, 2 * n * n] for n in self.config.query_scales])

    def query_tokens(self) -> Tensor:
        """Embeddings (queries, D) of all patches in `query_ids`, in order."""
        return torch.cat([self.queries[f"{n}x{n}"] for n in self.config.query_scales])

    # Condition: what the diffusion transformer is told.

    def condition(self, states: Tensor) -> Tensor:
        """Thinker states of the last query grid (B, n², D) -> unit vectors (B, n², X)."""
        x = self.proj_in(states)
        everyone = torch.ones(1, 1, x.shape[1], x.shape[1], dtype=torch.bool, device=x.device)
        masks = {"full_attention": everyone, "sliding_attention": everyone}
        x = self.connector(inputs_embeds=x, attention_mask=masks).last_hidden_state
        return F.normalize(self.proj_out(x), dim=-1)

    def spell(self, texts: list[str]) -> Tensor:
        """Texts to draw, in their published wording (`glyphs.as_prompt`) -> condition tokens (B, L, X)."""
        if self.glyphs is None:
            raise InputError("this model has no glyph branch; it cannot be told which letters to draw")
        ids, mask = spell(texts, self.config.glyphs.max_length)
        return self.glyphs(ids.to(self.device), mask.to(self.device))

    def context(self, condition: Tensor) -> tuple[Tensor, Tensor]:
        """Condition (B, S, X) -> context (B, S, Y) and its summary (B, Y'): the mean token, neighbours averaged."""
        context = self.condition_mlp(condition)
        pooled = context.mean(1)
        return context, pooled.unflatten(-1, (self.config.dit.pooled_width, -1)).mean(-1)

    # Sampling: noise -> latents -> pixels.

    @property
    def cell(self) -> int:
        """Pixels per patch, each way: sides of a picture are multiples of it."""
        return self.config.vae.downscale * self.config.dit.patch_size

    def sample(
        self,
        condition: Tensor,
        *,
        size: tuple[int, int],
        seeds: list[int],
        num_steps: int = 30,
        guidance: Guidance | None = None,
        negative: Tensor | None = None,
        reference: Tensor | None = None,
    ) -> Iterator[Step]:
        """Paint B pictures together, yielding after every step; whoever stops iterating cancels the rest.

        condition  (B, S, X)     what to paint
        size       height, width in pixels
        seeds      B integers of up to 64 bits
        negative   (B, S, X)     what to avoid; None: zeros, as published
        reference  (B, Z, h, w)  latents of the pictures to edit
        """
        height, width = size
        if height % self.cell or width % self.cell or min(size) < self.cell:
            raise InputError(f"a picture of {width}x{height} cannot be painted; sides are multiples of {self.cell}")
        if num_steps < 1:
            raise InputError("painting takes at least one step")
        scale = self.config.vae.downscale
        before = noise(seeds, (self.config.vae.latent_channels, height // scale, width // scale), condition.dtype)
        before = before.to(condition.device)
        grid = sigmas(self.config.flow, num_steps, (height // self.cell) * (width // self.cell))
        velocity = self._guided(condition, guidance or Guidance(), negative, reference)
        levels = grid.tolist()
        for index, after in enumerate(flow.euler(velocity, before, grid)):
            yield Step(index, num_steps, levels[index + 1], after, levels[index], before)
            before = after

    def _guided(
        self, condition: Tensor, guidance: Guidance, negative: Tensor | None, reference: Tensor | None
    ) -> Callable[[Tensor, Tensor], Tensor]:
        """The mixed velocity as a function of latents (B, Z, h, w) and noise level; all branches run as one batch."""
        weights = guidance.weights(reference is not None)
        negative = torch.zeros_like(condition) if negative is None else negative
        context, pooled = self.context(torch.cat([condition if b in "TF" else negative for b in weights]))
        if reference is not None:
            nothing = torch.zeros_like(reference)  # a zero latent, not a coded black picture
            reference = torch.cat([reference if b in "IF" else nothing for b in weights])
        mix = torch.tensor([*weights.values()], device=condition.device).view(-1, 1, 1, 1, 1)
        dit = self.recorded_dit if context.is_cuda else self.dit

        def velocity(x: Tensor, sigma: Tensor) -> Tensor:
            time = (sigma * self.config.flow.num_train_steps).to(x.device).expand(len(context))
            v = dit(x.repeat(len(weights), 1, 1, 1), time, context, pooled, reference)
            return (mix * v.unflatten(0, (len(weights), -1))).sum(0).to(v.dtype)

        return velocity

    def preview(self, step: Step, max_cells: int = 32) -> Tensor:
        """A small picture (B, 3, ., .) in [0, 1] of where a step is heading: the autoencoder at a low rate."""
        latents = step.clean()
        shrink = -(-max(latents.shape[2:]) // max_cells)
        return to_unit(self.vae.decode(F.avg_pool2d(latents, shrink, ceil_mode=True)))

    def decode(self, latents: Tensor) -> Tensor:
        """Latents (B, Z, h, w) -> pixels (B, 3, H, W) in [0, 1]."""
        return to_unit(self.vae.decode(latents))

    # Training.

    def forward(
        self,
        states: Tensor,
        latents: Tensor,
        sigma: Tensor,
        noise: Tensor,
        *,
        texts: list[str] | None = None,
        reference: Tensor | None = None,
        keep: Tensor | None = None,
        weight: Tensor | None = None,
    ) -> Tensor:
        """Flow matching loss of pictures whose prompts the thinker has read.

        states     (B, n², D)    thinker states at the last query grid
        latents    (B, Z, h, w)  of the pictures, coded by the autoencoder
        sigma      (B,)          noise levels
        noise      (B, Z, h, w)
        texts      B strings     to draw, in their published wording; None when no picture of the batch has one
        reference  (B, Z, h, w)  latents of the pictures to edit
        keep       (B,)          False drops the condition, so that the model learns to paint without (for guidance)
        weight     (B, 1, h, w)  of the error at each cell
        """
        condition = self.condition(states)
        if texts is not None:
            condition = torch.cat([condition, self.spell(texts)], dim=1)
        if keep is not None:
            condition = condition * keep.to(condition)[:, None, None]
        context, pooled = self.context(condition)

        def velocity(x: Tensor, sigma: Tensor) -> Tensor:
            return self.dit(x, sigma * self.config.flow.num_train_steps, context, pooled, reference)

        return flow.flow_loss(velocity, latents, noise, sigma, weight)


def to_unit(pixels: Tensor) -> Tensor:
    """[-1, 1] -> [0, 1], clamped."""
    return (pixels.float() / 2 + 0.5).clamp(0, 1)
