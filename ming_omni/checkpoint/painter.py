"""The published folders mlp/, connector/, transformer/, vae/, scheduler/ and byt5/ -> a Painter (spec 1.1, 6)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor, nn
from transformers import PreTrainedConfig, Qwen2Config, T5Config
from transformers.initialization import no_init_weights

from ming_omni.checkpoint import fill as fills
from ming_omni.checkpoint import shards
from ming_omni.config import DiTConfig, FlowConfig, GlyphConfig, ImageVAEConfig, PainterConfig
from ming_omni.errors import InputError
from ming_omni.model.dit import position_table
from ming_omni.model.glyphs import GlyphEncoder
from ming_omni.model.painter import Painter

# Published names on the left, ours on the right. `*` is a number, carried over in order; `.@` stands for `.weight` and
# `.bias`; `[n]` says that the tensor is part n of a larger one, joined along the first axis.
MLP = (
    ("query_tokens_dict.*x*", "queries.*x*"),
    ("proj_in.@", "proj_in.@"),
    ("proj_out.@", "proj_out.@"),
    ("mlp.fc1.@", "condition_mlp.0.@"),
    ("mlp.layer_norm1.@", "condition_mlp.1.@"),
    ("mlp.fc2.@", "condition_mlp.3.@"),
    ("mlp.layer_norm2.@", "condition_mlp.4.@"),
)


def _frame(published: str, ours: str) -> tuple[tuple[str, str], ...]:
    """A stream of patches: its convolution and refiners."""
    embed, refiner = published
    return (
        (f"{embed}.proj.@", f"dit.{ours}.patch.@"),
        (f"{refiner}.*.norm1.linear.@", f"dit.{ours}.refiners.*.modulation.@"),
        *_attention(f"{refiner}.*.attn", f"dit.{ours}.refiners.*.attention"),
        (f"{refiner}.*.ff.net.0.proj.@", f"dit.{ours}.refiners.*.mlp.0.@"),
        (f"{refiner}.*.ff.net.2.@", f"dit.{ours}.refiners.*.mlp.2.@"),
    )


def _attention(published: str, ours: str) -> tuple[tuple[str, str], ...]:
    return (
        (f"{published}.to_q.@", f"{ours}.qkv.@[0]"),
        (f"{published}.to_k.@", f"{ours}.qkv.@[1]"),
        (f"{published}.to_v.@", f"{ours}.qkv.@[2]"),
        (f"{published}.norm_q.@", f"{ours}.q_norm.@"),
        (f"{published}.norm_k.@", f"{ours}.k_norm.@"),
        (f"{published}.to_out.0.@", f"{ours}.out.@"),
    )


_JOINT, _OURS = "transformer_blocks.*", "dit.layers.*"
TRANSFORMER = (
    *_frame(("pos_embed", "noise_refiner"), "noise"),
    *_frame(("ref_pos_embed", "ref_image_refiner"), "reference"),
    ("time_text_embed.timestep_embedder.linear_1.@", "dit.time.0.@"),
    ("time_text_embed.timestep_embedder.linear_2.@", "dit.time.2.@"),
    ("time_text_embed.text_embedder.linear_1.@", "dit.pooled.0.@"),
    ("time_text_embed.text_embedder.linear_2.@", "dit.pooled.2.@"),
    ("context_embedder.@", "dit.context.@"),
    (f"{_JOINT}.norm1.linear.@", f"{_OURS}.picture.modulation.@"),
    (f"{_JOINT}.norm1_context.linear.@", f"{_OURS}.condition.modulation.@"),
    *_attention(f"{_JOINT}.attn", f"{_OURS}.picture.attention"),
    *_attention(f"{_JOINT}.attn2", f"{_OURS}.dual"),
    (f"{_JOINT}.attn.add_q_proj.@", f"{_OURS}.condition.attention.qkv.@[0]"),
    (f"{_JOINT}.attn.add_k_proj.@", f"{_OURS}.condition.attention.qkv.@[1]"),
    (f"{_JOINT}.attn.add_v_proj.@", f"{_OURS}.condition.attention.qkv.@[2]"),
    (f"{_JOINT}.attn.norm_added_q.@", f"{_OURS}.condition.attention.q_norm.@"),
    (f"{_JOINT}.attn.norm_added_k.@", f"{_OURS}.condition.attention.k_norm.@"),
    (f"{_JOINT}.attn.to_add_out.@", f"{_OURS}.condition.attention.out.@"),
    (f"{_JOINT}.ff.net.0.proj.@", f"{_OURS}.picture.mlp.0.@"),
    (f"{_JOINT}.ff.net.2.@", f"{_OURS}.picture.mlp.2.@"),
    (f"{_JOINT}.ff_context.net.0.proj.@", f"{_OURS}.condition.mlp.0.@"),
    (f"{_JOINT}.ff_context.net.2.@", f"{_OURS}.condition.mlp.2.@"),
    ("norm_out.linear.@", "dit.modulation.@"),
    ("proj_out.@", "dit.out.@"),
)
POSITION_TABLES = ("pos_embed.pos_embed", "ref_pos_embed.pos_embed")


def _residual(published: str, ours: str) -> tuple[tuple[str, str], ...]:
    same = tuple((f"{published}.{part}.@", f"{ours}.{part}.@") for part in ("norm1", "conv1", "norm2", "conv2"))
    return (*same, (f"{published}.conv_shortcut.@", f"{ours}.shortcut.@"))


def _half(half: str, stage: str, resize: str, conv: int) -> tuple[tuple[str, str], ...]:
    """Encoder or decoder of the autoencoder."""
    old_names = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}  # of older diffusers
    middle = _attention(f"{half}.mid_block.attentions.0", f"vae.{half}.middle.1")
    older = tuple(
        (published.replace(f".{new}.", f".{old}."), ours)
        for old, new in old_names.items()
        for published, ours in middle
        if f".{new}." in published
    )
    return (
        (f"{half}.conv_in.@", f"vae.{half}.conv_in.@"),
        *_residual(f"{half}.{stage}.*.resnets.*", f"vae.{half}.stages.*.blocks.*"),
        (f"{half}.{stage}.*.{resize}.0.conv.@", f"vae.{half}.stages.*.resize.{conv}.@"),
        *_residual(f"{half}.mid_block.resnets.0", f"vae.{half}.middle.0"),
        *_residual(f"{half}.mid_block.resnets.1", f"vae.{half}.middle.2"),
        (f"{half}.mid_block.attentions.0.group_norm.@", f"vae.{half}.middle.1.norm.@"),
        *middle,
        *older,
        (f"{half}.conv_norm_out.@", f"vae.{half}.norm.@"),
        (f"{half}.conv_out.@", f"vae.{half}.conv_out.@"),
    )


VAE = (
    *_half("encoder", "down_blocks", "downsamplers", 1),
    *_half("decoder", "up_blocks", "upsamplers", 1),
    ("quant_conv.@", "vae.quant.@"),
    ("post_quant_conv.@", "vae.post_quant.@"),
)


def _t5_layer(published: str, ours: str) -> tuple[tuple[str, str], ...]:
    parts = [f"layer.0.SelfAttention.{part}" for part in ("q", "k", "v", "o", "relative_attention_bias")]
    parts += [f"layer.1.DenseReluDense.{part}" for part in ("wi_0", "wi_1", "wo")]
    return tuple((f"{published}.{p}.@", f"{ours}.{p}.@") for p in (*parts, "layer.0.layer_norm", "layer.1.layer_norm"))


BYT5_MODEL = (
    ("embed_tokens.@", "glyphs.encoder.embed_tokens.@"),
    *_t5_layer("block.*", "glyphs.encoder.block.*"),
    ("final_layer_norm.@", "glyphs.encoder.final_layer_norm.@"),
)
BYT5_MAPPER = (
    *_t5_layer("blocks.*", "glyphs.mapper.block.*"),
    ("layer_norm.@", "glyphs.mapper.final_layer_norm.@"),
    ("channel_mapper.@", "glyphs.out.@"),
    ("final_layer_norm.@", "glyphs.norm.@"),
)


PARTS = ("mlp", "connector", "transformer", "vae")
"""Folders that make a painter; scheduler/ and byt5/ may be absent."""


def has_painter(folder: Path) -> bool:
    return all((folder / part).is_dir() for part in PARTS)


def load_painter(folder: Path, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> Painter:
    """The painter of a published folder; nothing of it is read before this is called."""
    config = read_config(folder)
    painter = empty(Painter, config, device, dtype)
    fill(painter, published_tensors(folder, config))
    return painter.eval()


def load_ours(folder: Path, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> Painter:
    """The painter of a folder that `save_pretrained` or `ming build nano-painter` wrote; packed rows are unfolded."""
    if not fills.is_packed(shards.tensors(folder)):
        return Painter.from_pretrained(folder, dtype=dtype).to(device).eval()
    painter = empty(Painter, PainterConfig.from_pretrained(folder), device, dtype)
    fills.unfold(painter, folder, dtype, assign=False)
    return painter.eval()


def load_glyphs(folder: Path, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> GlyphEncoder:
    """The glyph branch alone, from a byt5/ folder."""
    config = _read_glyphs(folder)
    glyphs = empty(GlyphEncoder, config, device, dtype)
    fill(glyphs, ((name.removeprefix("glyphs."), *rest) for name, *rest in glyph_tensors(folder)))
    return glyphs.eval()


def empty(kind: type[nn.Module], config: PreTrainedConfig, device: torch.device | str, dtype: torch.dtype) -> nn.Module:
    """A module whose parameters are still to be filled; buffers, such as rotary frequencies, stay fp32 (spec N1)."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with no_init_weights(), torch.device(device):
            return kind(config)
    finally:
        torch.set_default_dtype(before)


def read_config(folder: Path) -> PainterConfig:
    """The published JSON files -> our settings."""
    if missing := [part for part in PARTS if not (folder / part).is_dir()]:
        raise InputError(f"{folder} holds no painter: {missing[0]}/ is missing")
    queries = shards.header(_only_file(folder / "mlp"))
    if "proj_in.weight" not in queries or "proj_out.weight" not in queries:
        raise InputError(f"{_only_file(folder / 'mlp')} lacks proj_in or proj_out")
    scales = sorted(int(match[1]) for name in queries if (match := re.fullmatch(r"query_tokens_dict\.(\d+)x\1", name)))
    if not scales:
        raise InputError(f"{_only_file(folder / 'mlp')} holds no query tokens")
    connector = shards.read_json(folder / "connector/config.json")
    if connector.get("model_type") != "qwen2":
        raise InputError(f"the connector is a {connector.get('model_type')!r}; this package runs a qwen2")
    scheduler = folder / "scheduler/scheduler_config.json"
    return PainterConfig(
        query_scales=scales,
        thinker_width=queries["proj_in.weight"].shape[1],
        condition_width=queries["proj_out.weight"].shape[0],
        connector=Qwen2Config(**connector),
        dit=_read_dit(shards.read_json(folder / "transformer/config.json"), folder / "transformer"),
        vae=_read_vae(shards.read_json(folder / "vae/config.json")),
        glyphs=_read_glyphs(folder / "byt5") if (folder / "byt5/byt5.json").is_file() else None,
        flow=_read_flow(shards.read_json(scheduler)) if scheduler.is_file() else FlowConfig(),
        default_size=512,
    )


# A setting that a file leaves out has the value that diffusers, which wrote and reads these files, gives it.


def _read_dit(c: dict, folder: Path) -> DiTConfig:
    if c.get("vae_ref_channel_cat"):
        raise InputError(
            f"{folder / 'config.json'} joins the picture to edit by channel; that variant is not published"
        )
    refiners = {name for file in _files(folder) for name in shards.header(file) if name.startswith("noise_refiner.")}
    return DiTConfig(
        latent_channels=c.get("in_channels", 16),
        patch_size=c.get("patch_size", 2),
        head_dim=c.get("attention_head_dim", 64),
        num_attention_heads=c.get("num_attention_heads", 18),
        num_hidden_layers=c.get("num_layers", 18),
        dual_attention_layers=c.get("dual_attention_layers") or (),
        num_refiner_layers=len({name.split(".")[1] for name in refiners}),
        context_width=c.get("joint_attention_dim", 4096),
        pooled_width=c.get("pooled_projection_dim", 2048),
        base_grid=c.get("sample_size", 128) // c.get("patch_size", 2),
        max_grid=c.get("pos_embed_max_size", 96),
        use_qk_norm=c.get("qk_norm") is not None,
    )


def _read_vae(c: dict) -> ImageVAEConfig:
    return ImageVAEConfig(
        in_channels=c.get("in_channels", 3),
        latent_channels=c.get("latent_channels", 4),
        block_channels=c.get("block_out_channels", (64,)),
        blocks_per_stage=c.get("layers_per_block", 1),
        num_norm_groups=c.get("norm_num_groups", 32),
        scaling_factor=c.get("scaling_factor", 0.18215),
        shift_factor=c.get("shift_factor") or 0.0,
        use_quant_conv=c.get("use_quant_conv", True),
        use_post_quant_conv=c.get("use_post_quant_conv", True),
    )


def _read_flow(c: dict) -> FlowConfig:
    unknown = [
        key for key in ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "invert_sigmas") if c.get(key)
    ]
    if unknown or c.get("shift_terminal") or c.get("time_shift_type", "exponential") != "exponential":
        raise InputError(
            f"the scheduler asks for {(unknown or ['another time shift'])[0]}; the published painter does not"
        )
    return FlowConfig(
        num_train_steps=c.get("num_train_timesteps", 1000),
        shift=float(c.get("shift", 1.0)),
        use_dynamic_shifting=c.get("use_dynamic_shifting", False),
        base_tokens=c.get("base_image_seq_len", 256),
        base_shift=c.get("base_shift", 0.5),
        max_tokens=c.get("max_image_seq_len", 4096),
        max_shift=c.get("max_shift", 1.15),
    )


def _read_glyphs(folder: Path) -> GlyphConfig:
    c = shards.read_json(folder / "byt5.json")
    bases = sorted(folder.glob("*/config.json"))
    if not bases:
        raise InputError(f"{folder} holds no folder with the T5 model's config.json")
    t5 = shards.read_json(bases[0])
    table = _state(folder / "byt5_model/byt5_model.pt").get("embed_tokens.weight")
    mapper = c.get("byt5_mapper_config", {})
    return GlyphConfig(
        # The table is longer than the base model's where colours and fonts have tokens of their own.
        encoder=T5Config(**t5 | ({} if table is None else {"vocab_size": table.shape[0]})),
        num_mapper_layers=mapper.get("num_layers", 4),
        out_width=mapper.get("sdxl_channels", 2048),
        max_length=c.get("byt5_max_length", 256),
    )


def published_tensors(folder: Path, config: PainterConfig) -> Iterator[tuple[str, int | None, Tensor, str]]:
    """(our name, part, tensor, where it was) of everything the painter reads."""
    for part, table in (("mlp", MLP), ("transformer", TRANSFORMER), ("vae", VAE)):
        for file in _files(folder / part):
            yield from translate(_read(file, config), table, file)
    for file in _files(folder / "connector"):
        for name, tensor in _read(file, config):
            if name not in ("model.embed_tokens.weight", "lm_head.weight"):  # it starts and ends with vectors
                yield "connector." + name.removeprefix("model."), None, tensor, f"{file}: {name}"
    if config.glyphs is not None:
        yield from glyph_tensors(folder / "byt5")


def glyph_tensors(folder: Path) -> Iterator[tuple[str, int | None, Tensor, str]]:
    """The tuned encoder and the mapper; the release reads base.pt first and then replaces all of it (spec Q50)."""
    for name, table in (("byt5_model/byt5_model.pt", BYT5_MODEL), ("byt5_mapper/byt5_mapper.pt", BYT5_MAPPER)):
        yield from translate(_state(folder / name).items(), table, folder / name)


def translate(
    tensors: Iterator[tuple[str, Tensor]] | Mapping, table: tuple[tuple[str, str], ...], file: Path
) -> Iterator[tuple[str, int | None, Tensor, str]]:
    """Published tensors -> (our name, part, tensor, where it was); an unknown name is an error."""
    rules = [(re.compile(_pattern(published)), ours) for published, ours in table]
    for name, tensor in tensors:
        for pattern, ours in rules:
            if match := pattern.fullmatch(name):
                values = iter(match.groups())
                target = re.sub(r"\*|@", lambda _, values=values: next(values), ours)
                target, bracket, part = target.partition("[")
                yield target, int(part[:-1]) if bracket else None, tensor, f"{file}: {name}"
                break
        else:
            raise InputError(f"{file} holds tensor {name}, which the published painter does not have")


def fill(painter: nn.Module, tensors: Iterator[tuple[str, int | None, Tensor, str]]) -> None:
    """Copy tensors into the painter's parameters; every one is filled exactly once, and shapes must agree."""
    parameters = dict(painter.named_parameters())
    missing = {name: 3 if ".qkv." in name else 1 for name in parameters}
    for name, part, tensor, source in tensors:
        if name not in parameters:
            raise InputError(f"{source} has no place in a painter of this configuration")
        place = parameters[name].data
        if part is not None:
            rows = place.shape[0] // 3
            place = place[part * rows : (part + 1) * rows]
        if place.shape != tensor.shape:
            raise InputError(f"{source} has shape {tuple(tensor.shape)}; its configuration says {tuple(place.shape)}")
        place.copy_(tensor)
        missing[name] -= 1
    if lacking := [name for name, count in missing.items() if count > 0]:
        raise InputError(f"the painter's files lack {len(lacking)} tensors; the first is {lacking[0]}")


def _read(file: Path, config: PainterConfig) -> Iterator[tuple[str, Tensor]]:
    shards.header(file)  # names what is wrong with a damaged file
    with safe_open(file, "pt") as stored:
        for name in stored.keys():  # noqa: SIM118 - not a dict
            if name in POSITION_TABLES:
                _check_positions(stored.get_slice(name), config.dit, f"{file}: {name}")
            else:
                yield name, stored.get_tensor(name)


def _check_positions(stored: object, config: DiTConfig, source: str) -> None:
    """The stored table of absolute positions is a formula, which we compute; make sure that it is this one."""
    side = config.max_grid
    if stored.get_shape() != [1, side * side, config.hidden_size]:
        raise InputError(f"{source} has shape {tuple(stored.get_shape())}; its configuration says {side}x{side} cells")
    row = side // 3
    actual = stored[:, row * side : (row + 1) * side].float()[0]
    expected = position_table(config, side, side, torch.device("cpu"))[row * side : (row + 1) * side]
    if (actual - expected).abs().max() > 0.01:  # bf16 rounds it by up to 0.004
        raise InputError(f"{source} is not the sine-cosine table that the published painter uses")


def _files(folder: Path) -> list[Path]:
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise InputError(f"{folder} holds no safetensors")
    return files


def _only_file(folder: Path) -> Path:
    return _files(folder)[0]


def _state(file: Path) -> dict[str, Tensor]:
    """A state dict from a .pt file, which may hold nothing but tensors."""
    if not file.is_file():
        raise InputError(f"{file} is missing; byt5/ announces a glyph branch")
    try:
        state = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # a pickle that is refused, truncated or in the old format raises almost anything
        raise InputError(f"{file} cannot be read as a plain table of tensors") from error
    return state.get("state_dict", state)


def _pattern(row: str) -> str:
    return re.escape(row).replace(r"\*", r"(\d+)").replace("@", "(weight|bias)")
