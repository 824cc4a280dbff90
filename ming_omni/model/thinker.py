"""Embeddings (B, T, D) and positions (3, B, T) -> hidden states (B, T, D) -> next-token logits (B, T, V)."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from transformers import initialization as init
from transformers.modeling_layers import GradientCheckpointingLayer

from ming_omni.config import ThinkerConfig
from ming_omni.model.layers import MLP, Attention, Cache, KVCache, Part, RMSNorm, rotary_tables
from ming_omni.model.moe import Experts, MoE, Router, Routing


@dataclass
class ThinkerOutput:
    hidden: Tensor
    """(B, T, D) after the final norm"""
    hidden_states: list[Tensor] = field(default_factory=list)
    """when asked for: the embeddings, each layer's output but the last, and `hidden`"""
    routing: list[Routing] = field(default_factory=list)
    """when asked for: one entry per mixture-of-experts layer, over B * T tokens"""


class ThinkerLayer(GradientCheckpointingLayer):
    """Attention, then experts (the first layers: one dense MLP); each reads a normed copy and adds to the stream."""

    def __init__(self, config: ThinkerConfig, layer: int):
        super().__init__()
        width = config.hidden_size
        self.attention_norm = RMSNorm(width, config.rms_norm_eps)
        self.attention = Attention(config, layer)
        self.mlp_norm = RMSNorm(width, config.rms_norm_eps)
        is_dense = layer < config.num_dense_layers
        self.mlp = MLP(width, config.intermediate_size) if is_dense else MoE(width, config.moe, config.numerics)

    def forward(
        self,
        x: Tensor,
        rotary: tuple[Tensor, Tensor],
        modality: Tensor | None,
        mask: Tensor | None,
        cache: Cache | None = None,
    ) -> tuple[Tensor, Routing | None]:
        x = x + self.attention(self.attention_norm(x), rotary, cache, mask)
        normed = self.mlp_norm(x)
        if isinstance(self.mlp, MLP):
            return x + self.mlp(normed), None
        flat_modality = None if modality is None else modality.flatten()
        flat_mask = None if mask is None else mask[:, -x.shape[1] :].flatten()
        mixed, routing = self.mlp(normed.flatten(0, 1), flat_modality, flat_mask)
        return x + mixed.view_as(x), routing


class Thinker(Part):
    """The language model. It holds no request: positions, cache and mask come from the caller."""

    config_class = ThinkerConfig
    base_model_prefix = "thinker"
    supports_gradient_checkpointing = True
    _no_split_modules = ["ThinkerLayer"]
    _tied_weights_keys = {"head.weight": "embedding.weight"}

    def __init__(self, config: ThinkerConfig):
        super().__init__(config)
        self.embedding = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(ThinkerLayer(config, layer) for layer in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        std = self.config.initializer_range
        if isinstance(module, nn.Linear | nn.Embedding):
            init.normal_(module.weight, std=std)
        elif isinstance(module, RMSNorm):
            init.ones_(module.weight)
        elif isinstance(module, Router):
            init.kaiming_uniform_(module.weight, a=5**0.5)
            init.zeros_(module.bias)
        elif isinstance(module, Experts):
            for weight in module.parameters():
                init.normal_(weight, std=std)

    def get_input_embeddings(self) -> nn.Embedding:
        return self.embedding

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        self.embedding = value

    def get_output_embeddings(self) -> nn.Linear:
        return self.head

    def set_output_embeddings(self, value: nn.Linear) -> None:
        self.head = value

    def new_cache(self) -> KVCache:
        return KVCache(self.config._attn_implementation)

    def embed(self, ids: Tensor) -> Tensor:
        """ids (B, T) -> (B, T, D); ids outside the vocabulary are clipped, as published."""
        return self.embedding(ids.clamp(0, self.config.vocab_size - 1))

    def logits(self, hidden: Tensor) -> Tensor:
        return self.head(hidden)

    def forward(
        self,
        embeddings: Tensor,
        positions: Tensor,
        *,
        modality: Tensor | None = None,
        cache: Cache | None = None,
        mask: Tensor | None = None,
        collect_hidden_states: bool = False,
        collect_routing: bool = False,
    ) -> ThinkerOutput:
        """Read T tokens that follow whatever the cache holds.

        embeddings (B, T, D)
        positions  (3, B, T)  time, height, width, see positions.py
        modality   (B, T)     which router each token uses, None for all text
        mask       (B, S)     True for real tokens among cached and new ones, None when all are
        """
        rotary = rotary_tables(self.config, positions, embeddings.dtype)
        x = embeddings
        hidden_states, routings = [], []
        for layer in self.layers:
            if collect_hidden_states:
                hidden_states.append(x)
            x, routing = layer(x, rotary, modality, mask, cache=cache)
            if collect_routing and routing is not None:
                routings.append(routing)
        hidden = self.norm(x)
        if collect_hidden_states:
            hidden_states.append(hidden)
        return ThinkerOutput(hidden, hidden_states, routings)
