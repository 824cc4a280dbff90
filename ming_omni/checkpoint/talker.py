"""A folder with a talker -> Talker: the published `talker/`, `talker/llm`, `talker/vae`, or one that we saved.

The folder may be the talker's own or the whole model's. Published names and settings of the talker stand only here.
"""

from __future__ import annotations

import re
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open
from torch import Tensor

from ming_omni.checkpoint import detect, fill, shards
from ming_omni.config import AudioVAEConfig, BackboneConfig, LatentTransformerConfig, TalkerConfig
from ming_omni.errors import InputError
from ming_omni.model.talker import Talker
from ming_omni.speak.compatible import PublishedTalker
from ming_omni.speak.speaker import Speaker, tiny_speaker
from ming_omni.speech import reading

PUBLISHED_MIN_PATCHES = 12  # spec Q69
REPORTED = 3
"""Problems spelled out in one error; the rest are counted."""

# Published on the left, ours on the right. `*` is a layer, `@` is `weight` or `bias`; `[i]` is the i-th of three
# tensors that we keep in one, below each other.
QWEN2 = (
    ("layers.*.input_layernorm.@", "layers.*.attention_norm.@"),
    ("layers.*.self_attn.q_proj.@", "layers.*.attention.qkv.@[0]"),
    ("layers.*.self_attn.k_proj.@", "layers.*.attention.qkv.@[1]"),
    ("layers.*.self_attn.v_proj.@", "layers.*.attention.qkv.@[2]"),
    ("layers.*.self_attn.o_proj.@", "layers.*.attention.out.@"),
    ("layers.*.post_attention_layernorm.@", "layers.*.mlp_norm.@"),
    ("layers.*.mlp.gate_proj.@", "layers.*.mlp.gate.@"),
    ("layers.*.mlp.up_proj.@", "layers.*.mlp.up.@"),
    ("layers.*.mlp.down_proj.@", "layers.*.mlp.down.@"),
    ("norm.@", "norm.@"),
)
LATENT_TRANSFORMER = (
    ("x_embedder.@", "body.embed.@"),
    ("blocks.*.norm1.@", "body.blocks.*.attention_norm.@"),
    ("blocks.*.attn.to_q.@", "body.blocks.*.attention.qkv.@[0]"),
    ("blocks.*.attn.to_k.@", "body.blocks.*.attention.qkv.@[1]"),
    ("blocks.*.attn.to_v.@", "body.blocks.*.attention.qkv.@[2]"),
    ("blocks.*.attn.q_norm.@", "body.blocks.*.attention.q_norm.@"),
    ("blocks.*.attn.k_norm.@", "body.blocks.*.attention.k_norm.@"),
    ("blocks.*.attn.to_out.0.@", "body.blocks.*.attention.out.@"),
    ("blocks.*.norm2.@", "body.blocks.*.mlp_norm.@"),
    ("blocks.*.mlp.ff.0.0.@", "body.blocks.*.up.@"),
    ("blocks.*.mlp.ff.2.@", "body.blocks.*.down.@"),
    ("final_layer.norm_final.@", "body.norm.@"),
    ("final_layer.linear.@", "body.out.@"),
)


def _under(published: str, ours: str, table: tuple) -> tuple:
    return tuple((published + left, ours + right) for left, right in table)


TALKER = (
    ("model.embed_tokens.weight", "backbone.embedding.weight"),
    *_under("model.", "backbone.", QWEN2),
    ("cfm.model.t_embedder.time_mlp.0.@", "flow.time.0.@"),
    ("cfm.model.t_embedder.time_mlp.2.@", "flow.time.2.@"),
    ("cfm.model.c_embedder.cond_embedder.@", "flow.condition.@"),
    *_under("cfm.model.", "flow.", LATENT_TRANSFORMER),
    ("aggregator.word_embedder.weight", "aggregator.start.weight"),
    *_under("aggregator.", "aggregator.", LATENT_TRANSFORMER),
    ("stop_head.@", "stop_head.@"),
)
VAE = (
    ("encoder.fc1.weight", "vae.encoder.frame.weight"),
    ("encoder.fc2.@", "vae.encoder.mix.@"),
    *_under("encoder.encoder.", "vae.encoder.backbone.", QWEN2),
    ("encoder.fc3.@", "vae.encoder.posterior.@"),
    ("decoder.fc1.@", "vae.decoder.latent.@"),
    *_under("decoder.decoder.", "vae.decoder.backbone.", QWEN2),
    ("decoder.head.out.@", "vae.decoder.spectrum.@"),
)
UNUSED = re.compile(
    r".*rotary_emb(ed)?\.inv_freq|decoder\.head\.istft\.window"  # tables that we compute
    r"|(encoder\.encoder|decoder\.decoder)\.embed_tokens\.weight|encoder\.norm\.(weight|bias)"  # never applied
    r"|(model\.)?lm_head\.weight"  # nor that
)


def find(folder: Path) -> Path | None:
    """The talker's own folder: the one given, or `talker` in it; None when neither holds a talker."""
    for candidate in (folder, folder / "talker"):
        if (candidate / "config.json").is_file():
            config = shards.read_json(candidate / "config.json")
            if config.get("model_type") == TalkerConfig.model_type or "flowmodel" in config:
                return candidate
    return None


def load(
    folder: Path, *, device: torch.device | str = "cpu", dtype: torch.dtype | None = None, numerics: str = "native"
) -> PublishedTalker:
    """A talker ready to speak, with its `tokenizer` if the folder has one; dtype None: as stored."""
    found = find(Path(folder))
    if found is None:
        raise InputError(f"{folder} holds no talker: a talker/config.json with `flowmodel` is missing")
    config = shards.read_json(found / "config.json")
    if config.get("model_type") == TalkerConfig.model_type:
        talker = _load_packed(found, dtype) or PublishedTalker.from_pretrained(found, dtype=dtype or "auto")
    else:
        talker = _load_published(found, config, dtype, numerics)
    talker.tokenizer, talker.preset_voices = load_tokenizer(found), load_preset_voices(found)
    return talker.to(device).eval()


def _load_packed(folder: Path, dtype: torch.dtype | None) -> PublishedTalker | None:
    """A talker stored as packed rows, unfolded; None where it is not."""
    if not fill.is_packed(shards.tensors(folder)):
        return None
    talker = fill.empty(PublishedTalker, TalkerConfig.from_pretrained(folder))
    fill.unfold(talker, folder, dtype or torch.float32, assign=True)
    return talker


def load_speaker(name: str | Path = "nano", device: str | None = None, dtype: torch.dtype | None = None) -> Speaker:
    """The talker of "nano", of a folder or of a hub id, with its voices; or the random one of "tiny"."""
    if name == "tiny":
        return tiny_speaker()
    folder = detect.locate(name)
    if find(folder) is None:
        raise InputError(f"{Path(name).name} has no talker")
    return Speaker.of(
        load(folder, device=device or ("cuda" if torch.cuda.is_available() else "cpu"), dtype=dtype), folder
    )


def load_tokenizer(folder: Path):
    """The tokenizer beside the language model, nano's reader, or None."""
    if (folder / reading.SYMBOLS_FILE).is_file():
        return reading.Reader.from_pretrained(folder)
    for candidate in (folder / "llm", folder):
        if (candidate / "tokenizer.json").is_file() or (candidate / "vocab.json").is_file():
            from transformers import AutoTokenizer

            return AutoTokenizer.from_pretrained(candidate)
    return None


def load_preset_voices(folder: Path) -> dict[str, dict[str, str]]:
    """Name -> prompt_text, prompt_wav_path, if the release's data/voice_name.json lies beside the model (spec 1.1)."""
    for root in (folder, folder.parent):
        if (file := root / "data" / "voice_name.json").is_file():
            voices = shards.read_json(file)
            return {k: v | {"prompt_wav_path": str(root / v["prompt_wav_path"])} for k, v in voices.items()}
    return {}


def read_settings(config: dict[str, Any], llm: dict[str, Any], vae: dict[str, Any], numerics: str) -> TalkerConfig:
    """TalkerConfig of the three published config.json files; absent keys take the published defaults."""
    if vae.get("semantic_module_kwargs"):
        raise InputError("the AudioVAE has a semantic module, which the published release cannot load either")
    encoder, decoder = vae["enc_kwargs"], vae["dec_kwargs"]
    hop = encoder.get("hop_size", 320)
    if decoder["output_dim"] != hop or decoder["latent_dim"] != encoder["latent_dim"]:
        raise InputError("the AudioVAE's encoder and decoder disagree about the hop or the latent width")
    return TalkerConfig(
        patch_frames=config.get("patch_size", 4),
        steps=config.get("steps", 10),
        guidance=float(config.get("cfg_strength", 2.0)),
        condition_dropout=float(config["flowmodel"].get("cfg_dropout_prob", 0.1)),
        min_patches=PUBLISHED_MIN_PATCHES,
        numerics=numerics,
        backbone=_read_backbone(llm, has_embedding=True),
        flow=_read_latent_transformer(config["flowmodel"], width=1024),
        aggregator=_read_latent_transformer(config.get("aggregator") or {}, width=1152),
        vae=AudioVAEConfig(
            hop_samples=hop,
            frame_samples=encoder["input_dim"],
            latent_dim=encoder["latent_dim"],
            encoder=_read_backbone(encoder["backbone"]),
            decoder=_read_backbone(decoder["backbone"]),
        ),
    )


def _read_backbone(c: dict[str, Any], has_embedding: bool = False) -> BackboneConfig:
    """Absent keys take the defaults of transformers' Qwen2Config."""
    rope = c.get("rope_parameters") or {}
    scaling = c.get("rope_scaling") or rope
    if scaling.get("rope_type", scaling.get("type", "default")) != "default" or c.get("use_sliding_window"):
        raise InputError("a talker with scaled rotary positions or a sliding window is not supported")
    if c.get("hidden_act", "silu") != "silu":
        raise InputError(f"a talker with the activation {c['hidden_act']!r} is not supported")
    num_heads = c.get("num_attention_heads", 32)
    return BackboneConfig(
        vocab_size=c.get("vocab_size", 151_936) if has_embedding else 0,
        hidden_size=c.get("hidden_size", 4096),
        intermediate_size=c.get("intermediate_size", 22_016),
        num_hidden_layers=c.get("num_hidden_layers", 32),
        num_attention_heads=num_heads,
        num_key_value_heads=c.get("num_key_value_heads", 32) or num_heads,
        head_dim=c.get("head_dim"),
        rope_theta=float(c.get("rope_theta") or rope.get("rope_theta", 10_000)),
        rms_norm_eps=float(c.get("rms_norm_eps", 1e-6)),
    )


def _read_latent_transformer(c: dict[str, Any], width: int) -> LatentTransformerConfig:
    """Which width the condition has is told by the language model, not by `llm_cond_dim` or `llm_input_dim` (Q76)."""
    if c.get("qk_norm") not in (None, "rms_norm"):
        raise InputError(f"the talker asks for qk_norm {c['qk_norm']!r}; known are rms_norm and null")
    if c.get("spk_dim"):
        raise InputError("this talker reads speaker vectors, which the Preview release does not")
    return LatentTransformerConfig(
        hidden_size=c.get("hidden_size", width),
        num_hidden_layers=c.get("depth", 28),
        num_attention_heads=c.get("num_heads", 16),
        mlp_ratio=float(c.get("mlp_ratio", 4.0)),
        use_qk_norm=c.get("qk_norm") == "rms_norm",
        rotary_heads=c.get("pe_attn_head"),
        dropout=float(c.get("dropout", 0.1)),
    )


class _Source(NamedTuple):
    """A stored tensor and the rows of our parameter that it fills."""

    stored: str
    entry: shards.Entry
    target: Tensor


def _load_published(folder: Path, config: dict[str, Any], dtype: torch.dtype | None, numerics: str) -> PublishedTalker:
    llm, vae = (shards.read_json(folder / part / "config.json") for part in ("llm", "vae"))
    try:
        settings = read_settings(config, llm, vae, numerics)
    except KeyError as error:
        raise InputError(f"{folder}: the configuration lacks the key {error}") from error
    entries = shards.tensors(folder)
    vae_entries = shards.tensors(folder / "vae")
    dtype = dtype or _stored_dtype(entries)
    with torch.device("meta"):
        talker = PublishedTalker(settings)
    talker = talker.to(dtype).to_empty(device="cpu")
    sources = _match(talker, folder, entries, TALKER, lambda name: not name.startswith("vae."))
    sources += _match(talker, folder / "vae", vae_entries, VAE, lambda name: name.startswith("vae."))
    with torch.no_grad():
        for path, group in groupby(sources, lambda source: source.entry.file):
            with safe_open(path, "pt") as file:
                for source in group:
                    source.target.copy_(file.get_tensor(source.stored))
    return talker


def _stored_dtype(entries: dict[str, shards.Entry]) -> torch.dtype:
    is_half = any(entry.dtype == "BF16" for entry in entries.values())
    return torch.bfloat16 if is_half else torch.float32


def _match(talker: Talker, folder: Path, entries: dict[str, shards.Entry], table: tuple, is_ours) -> list[_Source]:
    """A source for every parameter of one weight folder, or one error that names what is missing, extra, misshapen."""
    places = [(name, part) for name, _ in talker.named_parameters() if is_ours(name) for part in _parts(name)]
    expected = {_published(name, part, table): _rows(talker, name, part) for name, part in places}
    problems = [f"{folder} lacks tensor {name}" for name in expected if name not in entries]
    sources = []
    for name, entry in entries.items():
        if name in expected and entry.shape == tuple(expected[name].shape):
            sources.append(_Source(name, entry, expected[name]))
        elif name in expected:
            shape = tuple(expected[name].shape)
            problems.append(f"{entry.file}: tensor {name} has shape {entry.shape}, expected {shape}")
        elif not UNUSED.fullmatch(name):
            problems.append(f"{entry.file}: tensor {name} has no place in this talker")
    if problems:
        more = f" (and {len(problems) - REPORTED} more)" if len(problems) > REPORTED else ""
        raise InputError("; ".join(problems[:REPORTED]) + more)
    return sorted(sources, key=lambda source: source.entry.file)


def _parts(ours: str) -> range:
    return range(3) if ".qkv." in ours else range(1)


def _published(ours: str, part: int, table: tuple) -> str:
    """The published name of our parameter, or of a third of it."""
    suffix = f"[{part}]" if ".qkv." in ours else ""
    for published, pattern in table:
        match = re.fullmatch(re.escape(pattern).replace(r"\*", r"(\d+)").replace("@", "(weight|bias)"), ours + suffix)
        if match:
            values = iter(match.groups())
            return re.sub(r"\*|@", lambda _, values=values: next(values), published)
    raise AssertionError(f"no published name for {ours}")


def _rows(talker: Talker, name: str, part: int) -> Tensor:
    """The rows of a fused q, k, v that hold one of them; any other parameter whole."""
    parameter = talker.get_parameter(name)
    if ".qkv." not in name:
        return parameter
    attention = talker.get_submodule(name.rpartition(".qkv.")[0])
    split = getattr(attention, "split", (1, 1, 1))  # heads of q, k and v
    unit = parameter.shape[0] // sum(split)
    return parameter.split([unit * heads for heads in split])[part]
