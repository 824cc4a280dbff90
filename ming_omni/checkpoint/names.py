"""Published tensor names <-> ours, both ways; the only place where the published names are written down."""

from __future__ import annotations

import re
from typing import NamedTuple

# Published on the left, ours on the right. `*` is a number, carried over in order; `.@` is `.weight` or `.bias`; `[*]`
# says that the last number is a slot of one stacked tensor: the experts of a layer are one (E, ., .) parameter here.
TABLE = (
    ("model.model.word_embeddings.@", "thinker.embedding.@"),
    ("model.model.layers.*.input_layernorm.@", "thinker.layers.*.attention_norm.@"),
    ("model.model.layers.*.attention.query_key_value.@", "thinker.layers.*.attention.qkv.@"),
    ("model.model.layers.*.attention.dense.@", "thinker.layers.*.attention.out.@"),
    ("model.model.layers.*.attention.q_norm.@", "thinker.layers.*.attention.q_norm.@"),
    ("model.model.layers.*.attention.k_norm.@", "thinker.layers.*.attention.k_norm.@"),
    ("model.model.layers.*.post_attention_layernorm.@", "thinker.layers.*.mlp_norm.@"),
    ("model.model.layers.*.mlp.gate_proj.@", "thinker.layers.*.mlp.gate.@"),
    ("model.model.layers.*.mlp.up_proj.@", "thinker.layers.*.mlp.up.@"),
    ("model.model.layers.*.mlp.down_proj.@", "thinker.layers.*.mlp.down.@"),
    ("model.model.layers.*.mlp.gate.weight", "thinker.layers.*.mlp.routers.text.weight"),
    ("model.model.layers.*.mlp.image_gate.weight", "thinker.layers.*.mlp.routers.image.weight"),
    ("model.model.layers.*.mlp.audio_gate.weight", "thinker.layers.*.mlp.routers.audio.weight"),
    ("model.model.layers.*.mlp.gate.expert_bias", "thinker.layers.*.mlp.routers.text.bias"),
    ("model.model.layers.*.mlp.image_gate.expert_bias", "thinker.layers.*.mlp.routers.image.bias"),
    ("model.model.layers.*.mlp.audio_gate.expert_bias", "thinker.layers.*.mlp.routers.audio.bias"),
    ("model.model.layers.*.mlp.experts.*.gate_proj.weight", "thinker.layers.*.mlp.experts.gate[*]"),
    ("model.model.layers.*.mlp.experts.*.up_proj.weight", "thinker.layers.*.mlp.experts.up[*]"),
    ("model.model.layers.*.mlp.experts.*.down_proj.weight", "thinker.layers.*.mlp.experts.down[*]"),
    ("model.model.layers.*.mlp.shared_experts.gate_proj.@", "thinker.layers.*.mlp.shared.gate.@"),
    ("model.model.layers.*.mlp.shared_experts.up_proj.@", "thinker.layers.*.mlp.shared.up.@"),
    ("model.model.layers.*.mlp.shared_experts.down_proj.@", "thinker.layers.*.mlp.shared.down.@"),
    ("model.model.norm.@", "thinker.norm.@"),
    ("model.lm_head.@", "thinker.head.@"),
    ("vision.patch_embed.proj.@", "vision.patch_embedding.@"),
    ("vision.blocks.*.norm1.@", "vision.layers.*.attention_norm.@"),
    ("vision.blocks.*.attn.qkv.@", "vision.layers.*.attention.qkv.@"),
    ("vision.blocks.*.attn.proj.@", "vision.layers.*.attention.out.@"),
    ("vision.blocks.*.norm2.@", "vision.layers.*.mlp_norm.@"),
    ("vision.blocks.*.mlp.gate_proj.@", "vision.layers.*.mlp.gate.@"),
    ("vision.blocks.*.mlp.up_proj.@", "vision.layers.*.mlp.up.@"),
    ("vision.blocks.*.mlp.down_proj.@", "vision.layers.*.mlp.down.@"),
    ("vision.merger.ln_q.@", "vision.merger.norm.@"),
    ("vision.merger.mlp.*.@", "vision.merger.mlp.*.@"),
    ("linear_proj.*.@", "vision.projector.*.@"),
    ("audio.positional_embedding", "audio.positions"),
    ("audio.conv1.@", "audio.conv1.@"),
    ("audio.conv2.@", "audio.conv2.@"),
    ("audio.blocks.*.attn_ln.@", "audio.layers.*.attention_norm.@"),
    ("audio.blocks.*.attn.query.@", "audio.layers.*.attention.query.@"),
    ("audio.blocks.*.attn.key.@", "audio.layers.*.attention.key.@"),
    ("audio.blocks.*.attn.value.@", "audio.layers.*.attention.value.@"),
    ("audio.blocks.*.attn.out.@", "audio.layers.*.attention.out.@"),
    ("audio.blocks.*.mlp_ln.@", "audio.layers.*.mlp_norm.@"),
    ("audio.blocks.*.mlp.0.@", "audio.layers.*.mlp.up.@"),
    ("audio.blocks.*.mlp.2.@", "audio.layers.*.mlp.down.@"),
    ("audio.ln_post.@", "audio.norm.@"),
    ("linear_proj_audio.*.@", "audio.projector.*.@"),
)


class Place(NamedTuple):
    """Where a published tensor goes: our parameter, and the slot in it when experts are stacked."""

    name: str
    slot: int | None = None


def _pattern(row: str) -> re.Pattern:
    row = re.escape(row).replace(r"\[\*\]", "").replace(r"\*", r"(\d+)").replace("@", "(weight|bias)")
    return re.compile(row)


def _fill(row: str, values: tuple[str, ...]) -> str:
    values = iter(values)
    return re.sub(r"\*|@", lambda _: next(values), row)


_TO_OURS = [(_pattern(published), ours) for published, ours in TABLE]
_TO_PUBLISHED = [(_pattern(ours), published) for published, ours in TABLE]


def to_ours(published: str) -> Place | None:
    """Our place for a published tensor; None for a name that the published layout does not know."""
    for pattern, ours in _TO_OURS:
        if match := pattern.fullmatch(published):
            name, bracket, slot = _fill(ours, match.groups()).partition("[")
            return Place(name, int(slot[:-1]) if bracket else None)
    return None


def to_published(ours: str, slot: int | None = None) -> str | None:
    """The published name of our parameter (of one slot of it); None for a part that was never published."""
    for pattern, published in _TO_PUBLISHED:
        if match := pattern.fullmatch(ours):
            return _fill(published, match.groups() if slot is None else (*match.groups(), str(slot)))
    return None


def is_ignored(published: str) -> bool:
    """TransformerEngine keeps an empty `_extra_state` beside its norms."""
    return published.endswith("_extra_state")


def parameter(ours: str) -> str:
    """The parameter that one of our tensors belongs to: the tensor itself, or what its codes and scales stand for."""
    return re.sub(r"\.(codes|scale|minimum)$", "", ours)


def is_stacked(ours: str) -> bool:
    """Whether our parameter holds one slot per published tensor."""
    return re.fullmatch(r"thinker\.layers\.\d+\.mlp\.experts\.(gate|up|down)", ours) is not None


def is_expert_bias(ours: str) -> bool:
    return re.fullmatch(r"thinker\.layers\.\d+\.mlp\.routers\.\w+\.bias", ours) is not None


def is_optional(ours: str) -> bool:
    """A table that can be computed again."""
    return ours == "audio.positions"


def piece(ours: str) -> str:
    """What a tensor belongs to and a device never shares: the embedding, a layer, the norm, the head, an encoder."""
    return re.match(r"thinker\.layers\.\d+|thinker\.\w+|\w+", ours)[0]
