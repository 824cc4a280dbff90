"""Texts that should appear in the picture -> condition tokens (B, L, X): bytes, a T5 encoder, a mapper.

Specification section 6.6. Which text to draw is decided elsewhere: by the caller, or by the processor's rule on quotes.
"""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, T5Config
from transformers.models.t5.modeling_t5 import T5LayerNorm, T5Stack

from ming_omni.config import GlyphConfig

PAD, END, FIRST_BYTE = 0, 1, 3
"""byT5's alphabet: padding, end of text, unknown, then the 256 bytes."""


def as_prompt(text: str) -> str:
    """The published wording around a text to draw; an empty text stays empty."""
    return f'Text "{text}". ' if text else ""


def spell(texts: list[str], length: int) -> tuple[Tensor, Tensor]:
    """UTF-8 bytes and an end mark, cut and padded to `length`: ids (B, length), mask (B, length)."""
    ids = torch.full((len(texts), length), PAD)
    for row, text in zip(ids, texts, strict=True):
        letters = [FIRST_BYTE + byte for byte in text.encode()][: length - 1]
        row[: len(letters) + 1] = torch.tensor([*letters, END])
    return ids, (ids != PAD).long()


def encoder(config: T5Config, num_layers: int) -> T5Stack:
    """The encoder half of a T5, without dropout: the release left it on in the mapper, at every picture (spec Q40)."""
    config = deepcopy(config)
    config.num_layers, config.dropout_rate = num_layers, 0.0
    config.use_cache = config.is_encoder_decoder = config.is_decoder = False
    return T5Stack(config)


class GlyphEncoder(PreTrainedModel):
    """Byte ids -> tokens of the painter's condition; padding becomes zero and stays in the sequence, as published."""

    config_class = GlyphConfig
    main_input_name = "ids"

    def __init__(self, config: GlyphConfig):
        super().__init__(config)
        width = config.encoder.d_model
        self.encoder = encoder(config.encoder, config.encoder.num_layers)
        self.mapper = encoder(config.encoder, config.num_mapper_layers)
        self.mapper.embed_tokens = None  # it continues from the encoder's states
        self.out = nn.Linear(width, config.out_width)
        self.norm = T5LayerNorm(config.out_width, eps=config.encoder.layer_norm_epsilon)
        self.post_init()

    def encode(self, ids: Tensor, mask: Tensor) -> Tensor:
        """ids, mask (B, L) -> (B, L, D)"""
        return self.encoder(input_ids=ids, attention_mask=mask).last_hidden_state

    def map(self, states: Tensor, mask: Tensor) -> Tensor:
        """States (B, L, D) -> condition tokens (B, L, X), padding not yet cleared."""
        states = self.mapper(inputs_embeds=states, attention_mask=mask).last_hidden_state
        return self.norm(self.out(states))

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """ids, mask (B, L) -> (B, L, X)"""
        return self.map(self.encode(ids, mask), mask) * mask[..., None]
