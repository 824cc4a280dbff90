"""Every size and switch: one config per part, nested like the modules they describe."""

from __future__ import annotations

from dataclasses import fields
from typing import Literal

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig, Qwen2Config, T5Config

MODALITIES = ("text", "image", "audio")
"""Router order: text also covers markers and generated tokens, image covers pictures, video and query tokens."""


@strict
class MoEConfig(PreTrainedConfig):
    """Shared and routed experts of one layer, and the router that chooses among them."""

    model_type = "ming_moe"

    num_experts: int = 8
    experts_per_token: int = 2
    expert_width: int = 64
    num_shared_experts: int = 1
    num_groups: int = 1
    groups_kept: int = 1
    routed_scale: float = 2.5


@strict
class ThinkerConfig(PreTrainedConfig):
    """The language model: token stream -> hidden states -> next-token logits."""

    model_type = "ming_thinker"
    sub_configs = {"moe": MoEConfig}

    vocab_size: int = 320
    hidden_size: int = 64
    intermediate_size: int = 96
    num_hidden_layers: int = 4
    num_attention_heads: int = 4
    num_key_value_heads: int = 2
    head_dim: int | None = None
    num_dense_layers: int = 1
    rms_norm_eps: float = 1e-6
    use_qk_norm: bool = True
    rope_theta: float = 600_000.0
    partial_rotary_factor: float = 0.5
    rope_variant: Literal["vanilla", "3d", "video"] = "video"
    tie_word_embeddings: bool = False
    max_position_embeddings: int = 32_768
    initializer_range: float = 0.006
    numerics: Literal["native", "reference"] = "native"
    """native: fp32 router and rotary tables; reference: the roundings of the published scripts (spec 0.3)."""
    video_positions: Literal["published", "3d"] = "published"
    """published: videos start at `video_start_token`, set to `</image>` by the release (spec Q1); 3d: at `<video>`."""
    image_patch_token: int = 293
    image_start_token: int = 294
    video_patch_token: int = 311
    video_start_token: int = 295
    video_marker_token: int | None = None
    """The real `<video>` id; unless given, two after `image_start_token` as in the published vocabulary."""
    audio_patch_token: int = 304
    audio_start_token: int = 305
    eos_token_id: int | list[int] | None = 31
    pad_token_id: int | None = 28
    moe: MoEConfig | dict | None = None

    def __post_init__(self, **kwargs):
        if self.moe is None:
            self.moe = MoEConfig()
        elif isinstance(self.moe, dict):
            self.moe = MoEConfig(**self.moe)
        if self.head_dim is None:
            self.head_dim = self.hidden_size // self.num_attention_heads
        if self.video_marker_token is None:
            self.video_marker_token = self.image_start_token + 2
        super().__post_init__(**kwargs)

    @property
    def rotary_dim(self) -> int:
        return int(self.head_dim * self.partial_rotary_factor)


@strict
class VisionConfig(PreTrainedConfig):
    """Patches -> tokens: a windowed vision transformer and its projector."""

    model_type = "ming_vision"

    hidden_size: int = 32
    intermediate_size: int = 56
    num_hidden_layers: int = 4
    num_attention_heads: int = 2
    in_channels: int = 3
    patch_size: int = 14
    temporal_patch_size: int = 2
    spatial_merge_size: int = 2
    window_size: int = 112
    full_attention_layers: list[int] | tuple[int, ...] = (1, 3)
    out_hidden_size: int = 64
    projector_depth: int = 2
    token_width: int = 64
    """Width of the thinker that reads the tokens; the whole model sets it."""
    token_norm: float = 1.0
    """Length of every token."""
    rms_norm_eps: float = 1e-6
    numerics: Literal["native", "reference"] = "native"
    """As the thinker's; the whole model sets it."""


@strict
class AudioConfig(PreTrainedConfig):
    """Mel frames -> tokens: a Whisper-style encoder and its projector."""

    model_type = "ming_audio"

    hidden_size: int = 32
    num_hidden_layers: int = 2
    num_attention_heads: int = 2
    num_mel_bins: int = 128
    max_positions: int = 600
    projector_kernel: int = 3
    projector_stride: int = 2
    projector_depth: int = 2
    token_width: int = 64
    """Width of the thinker that reads the tokens; the whole model sets it."""
    normalize: bool = True
    """Give each token the length `token_norm` (published: `norm_query_embeds`)."""
    token_norm: float = 1.0
    clip_isolation: bool = False
    """False: clips of one request share padding as published (spec Q25); True: a clip never sees its neighbours."""


@strict
class DiTConfig(PreTrainedConfig):
    """The painter's diffusion transformer: noisy latents and a condition -> velocity (spec 6.7)."""

    model_type = "ming_dit"

    latent_channels: int = 16
    patch_size: int = 2
    head_dim: int = 64
    num_attention_heads: int = 2
    num_hidden_layers: int = 3
    dual_attention_layers: list[int] | tuple[int, ...] = (0, 1)
    """Joint layers with a second attention that sees the picture only."""
    num_refiner_layers: int = 2
    context_width: int = 128
    """Width of a condition token after the condition MLP."""
    pooled_width: int = 64
    base_grid: int = 16
    """Side, in patches, of the training picture that spans one unit of the absolute position table."""
    max_grid: int = 32
    """Side, in patches, of the largest picture the absolute position table covers."""
    use_qk_norm: bool = True
    use_rotary: bool = True
    rotary_axes: list[int] | tuple[int, ...] = (20, 22, 22)
    """Channels of a head that turn with frame, row and column."""

    @property
    def hidden_size(self) -> int:
        return self.num_attention_heads * self.head_dim


@strict
class ImageVAEConfig(PreTrainedConfig):
    """Pixels <-> latents, `2 ** (stages - 1)` times smaller per side (spec 6.9)."""

    model_type = "ming_image_vae"

    in_channels: int = 3
    latent_channels: int = 16
    block_channels: list[int] | tuple[int, ...] = (8, 8, 16, 16)
    blocks_per_stage: int = 1
    num_norm_groups: int = 4
    scaling_factor: float = 1.5305
    shift_factor: float = 0.0609
    use_quant_conv: bool = False
    use_post_quant_conv: bool = False
    max_cells: int = 16_384
    """Latent cells coded in one piece (128 x 128 = a picture of 1024 x 1024); more are coded in tiles."""

    @property
    def downscale(self) -> int:
        """Pixels per latent cell, each way."""
        return 2 ** (len(self.block_channels) - 1)


@strict
class GlyphConfig(PreTrainedConfig):
    """Bytes of a text that should appear in the picture -> condition tokens (spec 6.6)."""

    model_type = "ming_glyph"
    sub_configs = {"encoder": T5Config}

    encoder: T5Config | dict | None = None
    num_mapper_layers: int = 2
    out_width: int = 64
    max_length: int = 24
    """Bytes read, end mark included; the published model pads every text to this length."""

    def __post_init__(self, **kwargs):
        tiny = {"d_model": 32, "d_kv": 16, "d_ff": 48, "num_layers": 2, "num_heads": 2, "vocab_size": 384}
        self.encoder = _part(T5Config, self.encoder) or T5Config(**tiny, feed_forward_proj="gated-gelu")
        super().__post_init__(**kwargs)


@strict
class FlowConfig(PreTrainedConfig):
    """The sampler's noise levels (spec 6.9, step 4)."""

    model_type = "ming_flow"

    num_train_steps: int = 1000
    shift: float = 3.0
    use_dynamic_shifting: bool = False
    base_tokens: int = 256
    base_shift: float = 0.5
    max_tokens: int = 4096
    max_shift: float = 1.15


@strict
class PainterConfig(PreTrainedConfig):
    """Thinker states at the query tokens -> picture."""

    model_type = "ming_painter"
    sub_configs = {
        "connector": Qwen2Config,
        "dit": DiTConfig,
        "vae": ImageVAEConfig,
        "glyphs": GlyphConfig,
        "flow": FlowConfig,
    }

    query_scales: list[int] | tuple[int, ...] = (2, 4)
    """Sides of the square query grids appended to the prompt; the last one conditions the picture."""
    thinker_width: int = 64
    condition_width: int = 64
    connector: Qwen2Config | dict | None = None
    dit: DiTConfig | dict | None = None
    vae: ImageVAEConfig | dict | None = None
    glyphs: GlyphConfig | dict | None = None
    flow: FlowConfig | dict | None = None
    default_size: int = 64
    """Side of a square picture; the published table of sizes, made for 512, is scaled by it."""
    steps: int = 30
    guidance: float = 5.0
    image_guidance: float = 2.0
    """How it is asked to paint when nobody says otherwise; a distilled painter needs few steps and no guidance."""
    mask_threshold: float = 0.12
    """A pixel that changed by more belongs to a mask, see `paint.masks.changed`."""

    def __post_init__(self, **kwargs):
        tiny = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "vocab_size": 1}
        tiny |= {"num_attention_heads": 4, "num_key_value_heads": 2}
        self.connector = _part(Qwen2Config, self.connector) or Qwen2Config(**tiny)
        self.dit = _part(DiTConfig, self.dit) or DiTConfig()
        self.vae = _part(ImageVAEConfig, self.vae) or ImageVAEConfig()
        self.glyphs = _part(GlyphConfig, self.glyphs)
        self.flow = _part(FlowConfig, self.flow) or FlowConfig()
        super().__post_init__(**kwargs)


@strict
class BackboneConfig(PreTrainedConfig):
    """A causal Qwen2 transformer: the talker's language model, and both halves of its AudioVAE (spec 7.1, 7.5)."""

    model_type = "ming_backbone"

    vocab_size: int = 0
    """0: reads vectors only, and has no embedding."""
    hidden_size: int = 48
    intermediate_size: int = 80
    num_hidden_layers: int = 2
    num_attention_heads: int = 4
    num_key_value_heads: int = 2
    head_dim: int | None = None
    rope_theta: float = 10_000.0
    rms_norm_eps: float = 1e-6
    numerics: Literal["native", "reference"] = "native"
    """As the talker's; it sets it."""

    def __post_init__(self, **kwargs):
        if self.head_dim is None:
            self.head_dim = self.hidden_size // self.num_attention_heads
        super().__post_init__(**kwargs)


@strict
class LatentTransformerConfig(PreTrainedConfig):
    """A bidirectional transformer over speech latents: the talker's flow head and its aggregator (spec 7.1)."""

    model_type = "ming_latent_transformer"

    hidden_size: int = 48
    num_hidden_layers: int = 2
    num_attention_heads: int = 2
    mlp_ratio: float = 2.0
    use_qk_norm: bool = False
    rotary_heads: int | None = None
    """How many heads turn with the position; None: all."""
    dropout: float = 0.0
    numerics: Literal["native", "reference"] = "native"
    """As the talker's; it sets it."""

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_attention_heads


@strict
class AudioVAEConfig(PreTrainedConfig):
    """Samples <-> latents, one latent every `hop_samples`."""

    model_type = "ming_audio_vae"
    sub_configs = {"encoder": BackboneConfig, "decoder": BackboneConfig}

    sample_rate_hz: int = 16_000
    hop_samples: int = 320
    frame_samples: int = 480
    """Samples the encoder reads for one latent; what exceeds the hop lies ahead."""
    latent_dim: int = 64
    encoder: BackboneConfig | dict | None = None
    decoder: BackboneConfig | dict | None = None

    def __post_init__(self, **kwargs):
        self.encoder = _part(BackboneConfig, self.encoder) or BackboneConfig()
        self.decoder = _part(BackboneConfig, self.decoder) or BackboneConfig()
        super().__post_init__(**kwargs)


@strict
class TalkerConfig(PreTrainedConfig):
    """Text -> speech latents, `patch_frames` a step, and the AudioVAE that turns them into samples."""

    model_type = "ming_talker"
    sub_configs = {
        "backbone": BackboneConfig,
        "flow": LatentTransformerConfig,
        "aggregator": LatentTransformerConfig,
        "vae": AudioVAEConfig,
    }

    patch_frames: int = 4
    steps: int = 10
    """Flow steps for one patch; 5, 6, 7, 10, 12 and 16 follow the published uneven grid."""
    guidance: float = 2.0
    noise: float = 1.0
    """Spread of what a flow starts from when speaking; less is steadier and duller."""
    condition_dropout: float = 0.1
    """Part of the training patches whose condition is withheld, so that guidance has an unconditional branch."""
    min_patches: int = 1
    """The stop head is heard from this patch on (published: 12, spec Q69)."""
    max_patches: int = 1000
    max_positions: int = 2048
    """Text tokens, prompt vectors and patches of one sentence together stay below this."""
    sentence_seconds: float | None = None
    """Of speech, the longest that was learned from: a longer sentence is said in several breaths, and none may take a
    time that its text does not explain; None: any."""
    voice_seconds: float | None = None
    """Of a voice, the most that was learned with; a longer one is cut; None: any."""
    default_voices: dict[str, str] | None = None
    """Who speaks where no voice is asked for, by the sentence's language: zh or en; None: the talker's own."""
    numerics: Literal["native", "reference"] = "native"
    """native: fp32 rotary tables and time grid; reference: the published roundings (spec Q74, Q75)."""
    backbone: BackboneConfig | dict | None = None
    flow: LatentTransformerConfig | dict | None = None
    aggregator: LatentTransformerConfig | dict | None = None
    vae: AudioVAEConfig | dict | None = None

    def __post_init__(self, **kwargs):
        self.backbone = _part(BackboneConfig, self.backbone) or BackboneConfig(vocab_size=160, hidden_size=64)
        self.flow = _part(LatentTransformerConfig, self.flow) or LatentTransformerConfig(use_qk_norm=True)
        self.aggregator = _part(LatentTransformerConfig, self.aggregator) or LatentTransformerConfig(hidden_size=32)
        self.vae = _part(AudioVAEConfig, self.vae) or AudioVAEConfig()
        for part in (self.backbone, self.flow, self.aggregator, self.vae.encoder, self.vae.decoder):
            part.numerics = self.numerics
        super().__post_init__(**kwargs)

    @property
    def patch_seconds(self) -> float:
        return self.patch_frames * self.vae.hop_samples / self.vae.sample_rate_hz


@strict
class MingConfig(PreTrainedConfig):
    """The whole model; a part that a release does not carry is None."""

    model_type = "ming_omni"
    sub_configs = {"thinker": ThinkerConfig, "vision": VisionConfig, "audio": AudioConfig, "talker": TalkerConfig}

    thinker: ThinkerConfig | dict | None = None
    vision: VisionConfig | dict | None = None
    audio: AudioConfig | dict | None = None
    talker: TalkerConfig | dict | None = None

    def __post_init__(self, **kwargs):
        self.thinker = _part(ThinkerConfig, self.thinker) or ThinkerConfig()
        self.vision = _part(VisionConfig, self.vision)
        self.audio = _part(AudioConfig, self.audio)
        self.talker = _part(TalkerConfig, self.talker)
        if self.vision is not None:
            self.vision.token_width = self.thinker.hidden_size
            self.vision.numerics = self.thinker.numerics
        if self.audio is not None:
            self.audio.token_width = self.thinker.hidden_size
        super().__post_init__(**kwargs)

    def get_text_config(self, *args, **kwargs) -> ThinkerConfig:
        return self.thinker


def _part(kind: type[PreTrainedConfig], value):
    return kind(**{k: v for k, v in value.items() if k != "model_type"}) if isinstance(value, dict) else value


def all_settings(config: PreTrainedConfig) -> dict:
    """Our own fields, defaults included, so that a later change of a default cannot change a shipped model."""
    found = {"model_type": config.model_type}
    for field in fields(config):
        value = getattr(config, field.name)
        if field.name in type(config).__annotations__:
            found[field.name] = all_settings(value) if isinstance(value, PreTrainedConfig) else value
    return found


def tiny() -> MingConfig:
    """Random weights in a second, every mechanism present: for tests."""
    return MingConfig(
        thinker=ThinkerConfig(
            moe=MoEConfig(num_experts=16, experts_per_token=4, expert_width=16, num_groups=4, groups_kept=2)
        ),
        vision=VisionConfig(),
        audio=AudioConfig(),
    )


NANO_TOKEN_NORM = 3.0
"""Rows of SmolLM2's embedding are 3.2 long on average, common ones 2.8; a unit vector would be a whisper among them."""


def nano(encoders: bool = False) -> MingConfig:
    """SmolLM2-135M upcycled, see weights/nano/README.md: its base, or, with encoders, what ships and sees and hears."""
    return MingConfig(
        thinker=ThinkerConfig(
            vocab_size=49_152,
            hidden_size=576,
            intermediate_size=1536,
            num_hidden_layers=30,
            num_attention_heads=9,
            num_key_value_heads=3,
            head_dim=64,
            num_dense_layers=2,
            rms_norm_eps=1e-5,
            use_qk_norm=False,
            rope_theta=100_000.0,
            partial_rotary_factor=1.0,
            tie_word_embeddings=True,
            max_position_embeddings=8192,
            # Media markers take over unused ids of SmolLM2's special tokens, see inputs/tokenizer.py.
            image_patch_token=3,
            image_start_token=4,
            video_patch_token=6,
            video_start_token=7,
            video_marker_token=7,
            audio_patch_token=9,
            audio_start_token=10,
            video_positions="3d",
            eos_token_id=2,
            pad_token_id=2,
            moe=MoEConfig(num_experts=8, experts_per_token=2, expert_width=64, num_shared_experts=24, routed_scale=1.0),
        ),
        vision=nano_vision() if encoders else None,
        audio=nano_audio() if encoders else None,
    )


def nano_vision() -> VisionConfig:
    """5.9M parameters, projector included. A picture of 252 x 252 pixels is 18 x 18 patches and becomes 81 tokens."""
    return VisionConfig(
        hidden_size=224,
        intermediate_size=512,
        num_hidden_layers=7,
        num_attention_heads=7,
        # 3 x 3 tokens, so that nine windows tile the usual picture. Two early layers look at strokes and edges in
        # them; the others see all 324 patches, which costs less than their own matrices.
        window_size=84,
        full_attention_layers=(1, 3, 4, 5, 6),
        out_hidden_size=448,
        token_norm=NANO_TOKEN_NORM,
    )


def nano_audio() -> AudioConfig:
    """Whisper-base's encoder and the published projector: 25 tokens a second, 30 seconds at most."""
    return AudioConfig(
        hidden_size=512,
        num_hidden_layers=6,
        num_attention_heads=8,
        num_mel_bins=80,
        max_positions=1500,
        token_norm=NANO_TOKEN_NORM,
        clip_isolation=True,
    )


def tiny_painter() -> PainterConfig:
    """Random weights, every mechanism present: for tests."""
    return PainterConfig(glyphs=GlyphConfig())


def nano_painter() -> PainterConfig:
    """The shipped painter: 20M beside the autoencoder, 256 x 256 pixels, 16 x 16 patches, 8 steps without guidance."""
    return PainterConfig(
        query_scales=(4, 8),
        thinker_width=576,
        condition_width=256,
        connector={
            "hidden_size": 256,
            "intermediate_size": 768,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "rope_theta": 10_000.0,
        },
        dit=DiTConfig(
            latent_channels=8,
            num_attention_heads=4,
            num_hidden_layers=6,
            dual_attention_layers=(0, 1),
            num_refiner_layers=1,
            context_width=512,
            pooled_width=256,
            base_grid=16,
            max_grid=48,
        ),
        vae=ImageVAEConfig(
            latent_channels=8,
            block_channels=(32, 64, 96, 96),
            num_norm_groups=8,
            scaling_factor=1.0,
            shift_factor=0.0,
        ),
        glyphs=GlyphConfig(
            encoder={"d_model": 128, "d_kv": 32, "d_ff": 256, "num_layers": 3, "num_heads": 4, "vocab_size": 259}
            | {"feed_forward_proj": "gated-gelu"},
            num_mapper_layers=1,
            out_width=256,
            max_length=32,
        ),
        flow=FlowConfig(shift=2.0),
        default_size=256,
        steps=8,
        guidance=1.0,
        image_guidance=1.0,
    )


def flash_painter() -> PainterConfig:
    """The published painter (spec 6.6, 6.7 and appendix B; the connector's sizes are those reported for 2.0)."""
    return PainterConfig(
        query_scales=(4, 8, 16),
        thinker_width=4096,
        condition_width=2048,
        connector={
            "hidden_size": 1536,
            "intermediate_size": 8960,
            "num_hidden_layers": 28,
            "num_attention_heads": 12,
            "num_key_value_heads": 2,
            "rope_theta": 1_000_000.0,
        },
        dit=DiTConfig(
            num_attention_heads=24,
            num_hidden_layers=24,
            dual_attention_layers=tuple(range(13)),
            context_width=4096,
            pooled_width=2048,
            base_grid=64,
            max_grid=384,
        ),
        vae=ImageVAEConfig(block_channels=(128, 256, 512, 512), blocks_per_stage=2, num_norm_groups=32),
        glyphs=GlyphConfig(
            encoder={"d_model": 1472, "d_kv": 64, "d_ff": 3584, "num_layers": 12, "num_heads": 6, "vocab_size": 384}
            | {"feed_forward_proj": "gated-gelu"},
            num_mapper_layers=4,
            out_width=2048,
            max_length=256,
        ),
        default_size=512,
    )


def flash_preview() -> MingConfig:
    """The published Ming-flash-omni Preview, 100B-A6B (spec sections 2.1, 3.1, 4.2)."""
    return MingConfig(
        thinker=ThinkerConfig(
            vocab_size=157_184,
            hidden_size=4096,
            intermediate_size=9216,
            num_hidden_layers=32,
            num_attention_heads=32,
            num_key_value_heads=4,
            head_dim=128,
            image_patch_token=157_157,
            image_start_token=157_158,
            video_patch_token=157_175,
            video_start_token=157_159,
            audio_patch_token=157_168,
            audio_start_token=157_169,
            eos_token_id=156_895,
            pad_token_id=156_892,
            moe=MoEConfig(num_experts=256, experts_per_token=8, expert_width=1024, num_groups=8, groups_kept=4),
        ),
        vision=VisionConfig(
            hidden_size=1280,
            intermediate_size=3456,
            num_hidden_layers=32,
            num_attention_heads=16,
            full_attention_layers=(7, 15, 23, 31),
            out_hidden_size=8192,
        ),
        audio=AudioConfig(hidden_size=1280, num_hidden_layers=32, num_attention_heads=20, max_positions=15_000),
    )


def talker_nano() -> TalkerConfig:
    """The talker of nano: 120 ms a patch, the text as phonemes (see speech/reading.py), a flow of four steps.

    15M parameters: 10M read and remember, 3.4M are the flow, which has learned what guidance would do.
    """
    return TalkerConfig(
        patch_frames=6,
        steps=4,
        guidance=0.0,
        max_patches=250,
        max_positions=1024,
        backbone=BackboneConfig(
            vocab_size=320,
            hidden_size=384,
            intermediate_size=1024,
            num_hidden_layers=6,
            num_attention_heads=6,
            num_key_value_heads=2,
        ),
        flow=LatentTransformerConfig(
            hidden_size=256, num_hidden_layers=4, num_attention_heads=4, mlp_ratio=4.0, use_qk_norm=True
        ),
        aggregator=LatentTransformerConfig(
            hidden_size=256, num_hidden_layers=2, num_attention_heads=4, mlp_ratio=4.0, use_qk_norm=True
        ),
        vae=audio_vae_nano(),
    )


def audio_vae_nano() -> AudioVAEConfig:
    """50 latents of 32 a second. Most of it decodes, which is harder than to encode.

    The encoder reads three hops at once: all that a frame of the decoder must say (its window lies over them and over
    the past).
    """
    return AudioVAEConfig(
        frame_samples=960,
        latent_dim=32,
        encoder=BackboneConfig(hidden_size=256, intermediate_size=768, num_hidden_layers=3),
        decoder=BackboneConfig(hidden_size=256, intermediate_size=768, num_hidden_layers=6),
    )


def talker_preview() -> TalkerConfig:
    """The published talker as far as its sizes are known: class defaults and the width of Qwen2-0.5B (spec 7.1, B).

    The AudioVAE's sizes are not published; these are our guess. A checkpoint folder brings its own.
    """
    qwen = {"hidden_size": 896, "intermediate_size": 4864, "num_attention_heads": 14, "num_key_value_heads": 2}
    return TalkerConfig(
        min_patches=12,
        backbone=BackboneConfig(vocab_size=151_936, num_hidden_layers=24, rope_theta=1_000_000.0, **qwen),
        flow=LatentTransformerConfig(hidden_size=1024, num_hidden_layers=28, num_attention_heads=16, mlp_ratio=4.0),
        aggregator=LatentTransformerConfig(
            hidden_size=1152, num_hidden_layers=28, num_attention_heads=16, mlp_ratio=4.0
        ),
        vae=AudioVAEConfig(
            encoder=BackboneConfig(num_hidden_layers=12, **qwen), decoder=BackboneConfig(num_hidden_layers=12, **qwen)
        ),
    )
