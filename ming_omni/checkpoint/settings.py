"""Published config.json <-> MingConfig: every published key is read and renamed here (spec 2.1, 3.1, 4.2)."""

from __future__ import annotations

from typing import Any

from ming_omni.config import AudioConfig, MingConfig, MoEConfig, ThinkerConfig, VisionConfig
from ming_omni.errors import InputError

MODEL_TYPE = "bailingmm_moe_v2_lite"
"""`model_type` of the published whole model."""
LLM_TYPE = "bailing_moe_v2"
"""`model_type` of its language model, which may stand in a folder of its own."""
ROPE_VARIANTS = {None: "vanilla", "3D": "3d", "video_rope": "video"}
# The published config names no audio ids; its vocabulary has them at fixed distances from `<imagePatch>` (spec 5.1).
AUDIO_PATCH_OFFSET, AUDIO_START_OFFSET = 11, 12


def read(published: dict[str, Any]) -> MingConfig:
    """MingConfig of a published config.json: the whole model, some of its parts, or the language model alone."""
    if "llm_config" not in published and published.get("model_type") == LLM_TYPE:
        published = {"llm_config": published}
    depth = published.get("mlp_depth", 2)
    llm, vision, audio = (published.get(f"{part}_config") for part in ("llm", "vision", "audio"))
    try:
        return MingConfig(
            thinker=_read_thinker(llm) if llm else None,
            vision=_read_vision(vision, depth) if vision else None,
            audio=_read_audio(audio, depth) if audio else None,
        )
    except KeyError as error:
        raise InputError(f"config.json lacks the key {error}") from error


def _read_thinker(c: dict[str, Any]) -> ThinkerConfig:
    """Absent keys take the published class's defaults, not ours."""
    heads = c.get("num_attention_heads", 16)
    image_patch = c.get("image_patch_token", 157_157)
    rope = c.get("rope_scaling") or {}
    rope_type = rope.get("type", rope.get("rope_type"))
    if rope_type not in ROPE_VARIANTS:
        raise InputError(f"config.json asks for rope_scaling type {rope_type!r}; known are 3D, video_rope and null")
    return ThinkerConfig(
        vocab_size=c.get("vocab_size", 30_592),
        hidden_size=c.get("hidden_size", 1024),
        intermediate_size=c.get("intermediate_size") or 4 * c.get("hidden_size", 1024),
        num_hidden_layers=c.get("num_hidden_layers", 24),
        num_attention_heads=heads,
        num_key_value_heads=c.get("num_key_value_heads") or heads,
        head_dim=c.get("head_dim"),
        num_dense_layers=c.get("first_k_dense_replace", 0),
        rms_norm_eps=float(c.get("rms_norm_eps", 1e-5)),
        use_qk_norm=c.get("use_qk_norm", True),
        rope_theta=float(c.get("rope_theta", 10_000)),
        partial_rotary_factor=float(c.get("partial_rotary_factor", 0.5)),
        rope_variant=ROPE_VARIANTS[rope_type],
        tie_word_embeddings=c.get("tie_word_embeddings", False),
        max_position_embeddings=c.get("max_position_embeddings", 16_384),
        initializer_range=float(c.get("initializer_range", 0.02)),
        image_patch_token=image_patch,
        image_start_token=c.get("image_start_token", image_patch + 1),
        video_patch_token=c.get("video_patch_token", image_patch + 18),
        video_start_token=c.get("video_start_token", image_patch + 2),
        audio_patch_token=c.get("audio_patch_token", image_patch + AUDIO_PATCH_OFFSET),
        audio_start_token=c.get("audio_start_token", image_patch + AUDIO_START_OFFSET),
        eos_token_id=c.get("eos_token_id"),
        pad_token_id=c.get("pad_token_id"),
        moe=MoEConfig(
            num_experts=c.get("num_experts", 16),
            experts_per_token=c.get("num_experts_per_tok", 2),
            expert_width=c.get("moe_intermediate_size") or c.get("intermediate_size") or 1024,
            num_shared_experts=c.get("num_shared_experts") or 0,
            num_groups=c.get("n_group", 8),
            groups_kept=c.get("topk_group", 4),
            # Two names are in use for one factor (spec Q10).
            routed_scale=float(c.get("routed_scaling_factor", c.get("moe_router_topk_scaling_factor", 2.5))),
        ),
    )


def _read_vision(c: dict[str, Any], depth: int) -> VisionConfig:
    return VisionConfig(
        hidden_size=c["hidden_size"],
        intermediate_size=c["intermediate_size"],
        num_hidden_layers=c["depth"],
        num_attention_heads=c["num_heads"],
        in_channels=c.get("in_channels", c.get("in_chans", 3)),
        patch_size=c.get("patch_size", 14),
        temporal_patch_size=c.get("temporal_patch_size", 2),
        spatial_merge_size=c.get("spatial_merge_size", 2),
        window_size=c.get("window_size", 112),
        full_attention_layers=list(c.get("fullatt_block_indexes", ())),
        out_hidden_size=c.get("out_hidden_size", 8192),
        projector_depth=depth,
        rms_norm_eps=float(c.get("rms_norm_eps", 1e-6)),
    )


def _read_audio(c: dict[str, Any], depth: int) -> AudioConfig:
    whisper = c["whisper_encoder_config"]
    return AudioConfig(
        hidden_size=whisper["n_state"],
        num_hidden_layers=whisper["n_layer"],
        num_attention_heads=whisper["n_head"],
        num_mel_bins=whisper.get("n_mels", 128),
        max_positions=whisper.get("n_ctx", 15_000),
        projector_kernel=c.get("ds_kernel_size", 3),
        projector_stride=c.get("ds_stride", 2),
        projector_depth=depth,
        normalize=c.get("norm_query_embeds", True),
    )


def write(config: MingConfig, dtype: str = "bfloat16") -> dict[str, Any]:
    """The published config.json that `read` turns back into `config`; options that only we have are left out."""
    published = {
        "architectures": ["BailingMM2NativeForConditionalGeneration"],
        "model_type": MODEL_TYPE,
        "mlp_depth": (config.vision or config.audio or VisionConfig()).projector_depth,
        "torch_dtype": dtype,
        "llm_config": _write_thinker(config.thinker) | {"torch_dtype": dtype},
    }
    if config.vision is not None:
        published["vision_config"] = _write_vision(config.vision) | {"torch_dtype": dtype}
    if config.audio is not None:
        published["audio_config"] = _write_audio(config.audio)
    return published


def _write_thinker(t: ThinkerConfig) -> dict[str, Any]:
    rope_type = {ours: published for published, ours in ROPE_VARIANTS.items()}[t.rope_variant]
    return {
        "architectures": ["BailingMoeV2ForCausalLM"],
        "model_type": LLM_TYPE,
        "vocab_size": t.vocab_size,
        "hidden_size": t.hidden_size,
        "intermediate_size": t.intermediate_size,
        "num_hidden_layers": t.num_hidden_layers,
        "num_attention_heads": t.num_attention_heads,
        "num_key_value_heads": t.num_key_value_heads,
        "head_dim": t.head_dim,
        "first_k_dense_replace": t.num_dense_layers,
        "hidden_act": "silu",
        "rms_norm_eps": t.rms_norm_eps,
        "use_qk_norm": t.use_qk_norm,
        "use_qkv_bias": False,
        "use_bias": False,
        "rope_theta": t.rope_theta,
        "partial_rotary_factor": t.partial_rotary_factor,
        "rope_scaling": {"type": rope_type, "factor": None} if rope_type else None,
        "tie_word_embeddings": t.tie_word_embeddings,
        "max_position_embeddings": t.max_position_embeddings,
        "initializer_range": t.initializer_range,
        "image_patch_token": t.image_patch_token,
        "image_start_token": t.image_start_token,
        "video_patch_token": t.video_patch_token,
        "video_start_token": t.video_start_token,
        "audio_patch_token": t.audio_patch_token,
        "audio_start_token": t.audio_start_token,
        "eos_token_id": t.eos_token_id,
        "pad_token_id": t.pad_token_id,
        "num_experts": t.moe.num_experts,
        "num_experts_per_tok": t.moe.experts_per_token,
        "moe_intermediate_size": t.moe.expert_width,
        "num_shared_experts": t.moe.num_shared_experts,
        "n_group": t.moe.num_groups,
        "topk_group": t.moe.groups_kept,
        "routed_scaling_factor": t.moe.routed_scale,
        "router_type": "MultiRouter",
        "norm_topk_prob": True,
        "use_expert_bias": True,
    }


def _write_vision(v: VisionConfig) -> dict[str, Any]:
    return {
        "architectures": ["Qwen2_5_VisionTransformer"],
        "model_type": "qwen2_5_vit",
        "depth": v.num_hidden_layers,
        "hidden_size": v.hidden_size,
        "intermediate_size": v.intermediate_size,
        "num_heads": v.num_attention_heads,
        "in_channels": v.in_channels,
        "in_chans": v.in_channels,
        "patch_size": v.patch_size,
        "spatial_patch_size": v.patch_size,
        "temporal_patch_size": v.temporal_patch_size,
        "spatial_merge_size": v.spatial_merge_size,
        "window_size": v.window_size,
        "fullatt_block_indexes": list(v.full_attention_layers),
        "out_hidden_size": v.out_hidden_size,
        "hidden_act": "silu",
        "tokens_per_second": 2,
    }


def _write_audio(a: AudioConfig) -> dict[str, Any]:
    return {
        "ds_kernel_size": a.projector_kernel,
        "ds_stride": a.projector_stride,
        "norm_query_embeds": a.normalize,
        "whisper_encoder_config": {
            "n_ctx": a.max_positions,
            "n_head": a.num_attention_heads,
            "n_layer": a.num_hidden_layers,
            "n_mels": a.num_mel_bins,
            "n_state": a.hidden_size,
        },
    }
