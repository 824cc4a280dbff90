"""The thinker on packed weights against its plain twin, exact in fp32 and close in 4-bit products."""

import json
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.testing import assert_close

from ming_omni.config import MingConfig, MoEConfig, ThinkerConfig
from ming_omni.model.layers import KVCache
from ming_omni.model.thinker import Thinker
from ming_omni.packed import Packed, pack, unpack
from ming_omni.packed.adapter import MARK
from ming_omni.packed.cache import ROOM
from ming_omni.packed.matrix import PLAIN, Matrix, Products, as_four_bit, fastest, join, stack
from ming_omni.packed.thinker import PackedThinker

ROOT = Path(__file__).parent.parent
NANO = ROOT / "ming_omni" / "weights" / "nano"
FIXTURES = ROOT / "tests" / "fixtures" / "nano"
FAST = Products(few_rows=16, wide=torch.bfloat16)
EXPERTS = {
    "like nano": MoEConfig(num_experts=4, expert_width=32),
    "like the release": MoEConfig(num_experts=8, experts_per_token=3, expert_width=32, num_groups=4, groups_kept=2),
    "no shared expert": MoEConfig(num_shared_experts=0, expert_width=32, routed_scale=1.5),
    "wide": MoEConfig(expert_width=64),
}
OTHERS = {
    "like nano": {"partial_rotary_factor": 1.0, "use_qk_norm": False},
    "like the release": {},
    "no shared expert": {"num_dense_layers": 0},
    "wide": {"hidden_size": 128, "head_dim": 32, "rope_variant": "3d"},
}


def eight_bit(weight: torch.Tensor) -> Packed:
    groups = weight.unflatten(-1, (-1, 32))
    scale = (groups.abs().amax(-1, keepdim=True) / 127).half()
    return Packed((groups / scale.float()).round().flatten(-2).to(torch.int8), scale[..., 0])


@cache
def twins(name: str, products: Products = PLAIN) -> tuple[Thinker, PackedThinker]:
    """A plain thinker and a packed one with the same random weights."""
    torch.manual_seed(0)
    c = ThinkerConfig(tie_word_embeddings=True, num_hidden_layers=3, moe=EXPERTS[name], **OTHERS[name])
    plain = Thinker(c).eval()
    stored = {}
    for key, weight in plain.state_dict().items():
        if key == "head.weight":
            continue
        weight = torch.randn_like(weight) * (weight.shape[-1] ** -0.5 if weight.dim() > 1 else 0.1)
        if key.endswith("norm.weight"):
            stored[key] = weight + 1
        elif ".routers." in key:
            stored[key] = weight
        else:
            packed = eight_bit(weight * 2) if key == "embedding.weight" else pack(weight, 32)
            stored |= packed.named(key)
    weights = dict(unpack(stored))
    plain.load_state_dict(weights | {"head.weight": weights["embedding.weight"]})
    return plain, PackedThinker(c, stored, products).eval()


def prompt(model, num_rows=2, num_tokens=9, seed=0):
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(model.config.vocab_size, (num_rows, num_tokens), generator=generator)
    positions = torch.randint(0, 40, (3, num_rows, num_tokens), generator=generator)
    modality = torch.randint(0, 3, (num_rows, num_tokens), generator=generator)
    return ids, positions, modality


@pytest.mark.parametrize("name", EXPERTS)
def test_in_fp32_the_packed_thinker_equals_the_plain_one(name):
    plain, packed = twins(name)
    ids, positions, modality = prompt(plain)
    mask = torch.ones_like(ids, dtype=torch.bool)
    mask[1, :3] = False
    assert_close(packed.embed(ids), plain.embed(ids), rtol=0, atol=0)
    asked = {"modality": modality, "mask": mask, "collect_hidden_states": True, "collect_routing": True}
    with torch.no_grad():
        found, expected = (m(m.embed(ids), positions, **asked) for m in (packed, plain))
    close = {"rtol": 1e-4, "atol": 1e-4}
    assert_close(found.hidden, expected.hidden, **close)
    assert_close(found.hidden_states, expected.hidden_states, **close)
    assert_close(packed.logits(found.hidden), plain.logits(expected.hidden), **close)
    for mine, theirs in zip(found.routing, expected.routing, strict=True):
        assert torch.equal(mine.chosen, theirs.chosen)
        assert torch.equal(mine.load, theirs.load)
        assert_close(mine.weights, theirs.weights, **close)


@pytest.mark.parametrize("name", EXPERTS)
@pytest.mark.parametrize("num_tokens", [1, 40])
def test_few_and_many_rows_stay_close_to_the_plain_thinker(name, num_tokens):
    plain, packed = twins(name, FAST)
    ids, positions, _ = prompt(plain, 1, num_tokens)
    with torch.no_grad():
        logits = packed.logits(packed(packed.embed(ids), positions).hidden)
        expected = plain.logits(plain(plain.embed(ids), positions).hidden)
    # A router at a tie may choose another expert than its twin: tokens after it may differ by more.
    off = (logits - expected).norm(dim=-1) / expected.norm(dim=-1)
    assert off.quantile(0.8) < 0.05


@pytest.mark.parametrize("cache_kind", [KVCache, None])
def test_cached_steps_equal_one_reading_when_the_cache_grows(cache_kind):
    _, packed = twins("like nano")
    ids, positions, _ = prompt(packed, 2, ROOM + 20)
    kept = packed.new_cache() if cache_kind is None else cache_kind()
    embeddings = packed.embed(ids)
    pieces, cuts = [], [0, 5, 6, 7, ROOM + 6, ROOM + 7, ROOM + 20]
    for start, stop in pairwise(cuts):
        piece = packed(embeddings[:, start:stop], positions[:, :, start:stop], cache=kept)
        pieces.append(piece.hidden)
        assert kept.length == stop
    assert_close(torch.cat(pieces, 1), packed(embeddings, positions).hidden, rtol=1e-4, atol=1e-4)


def test_one_row_gives_the_same_alone_and_among_others():
    _, packed = twins("like nano", FAST)
    ids, positions, _ = prompt(packed, 8, 1)
    whole = packed(packed.embed(ids), positions).hidden
    alone = packed(packed.embed(ids[:1]), positions[:, :1]).hidden
    assert_close(whole[:1], alone, rtol=1e-6, atol=1e-6)


def test_the_state_dict_is_what_was_stored():
    stored = load_file(NANO / "base-1.safetensors") | load_file(NANO / "embedding.safetensors")
    config = MingConfig.from_pretrained(NANO).thinker
    config.num_hidden_layers = config.num_dense_layers
    kept = {
        name.removeprefix("thinker."): tensor
        for name, tensor in stored.items()
        if ".layers." not in name or int(name.split(".")[2]) < config.num_hidden_layers
    }
    found = PackedThinker(config, kept).state_dict()
    assert found.keys() == kept.keys()
    assert all(torch.equal(found[name], kept[name]) and found[name].dtype == kept[name].dtype for name in kept)


@pytest.mark.parametrize("num_rows", [1, 5, 16, 17])
@pytest.mark.parametrize("products", [PLAIN, FAST, fastest()])
def test_every_product_is_the_product_with_the_unpacked_weight(num_rows, products):
    torch.manual_seed(0)
    packed, x = pack(torch.randn(96, 128), 64), torch.randn(num_rows, 128)
    expected = x @ packed.float().T
    off = (Matrix(lambda: packed, products)(x).float() - expected).norm() / expected.norm()
    assert off < (1e-6 if products == PLAIN else 0.01)


def test_a_weight_that_the_four_bit_product_does_not_take_is_unfolded():
    torch.manual_seed(0)
    packed, x = pack(torch.randn(10, 48), 16), torch.randn(1, 48)
    assert_close(Matrix(lambda: packed, FAST)(x).float(), x @ packed.float().T, rtol=0.02, atol=0.1)


def test_stacking_and_joining_round_nothing():
    torch.manual_seed(0)
    plain, wide = pack(torch.randn(32, 64), 32), pack(torch.randn(16, 64), 64)
    shifted = Packed(plain.codes, plain.scale, torch.randn(32, 2).half())
    rows = stack([shifted, wide])
    assert torch.equal(rows.float(), torch.cat((shifted.float(), wide.float())))
    beside = Packed(wide.codes.repeat(2, 1), wide.scale.repeat(2, 1))
    assert torch.equal(join([shifted, beside]).float(), torch.cat((shifted.float(), beside.float()), 1))


def test_eight_bits_are_two_times_four_bits():
    torch.manual_seed(0)
    packed = eight_bit(torch.randn(16, 64))
    high, low = as_four_bit(packed).float().split(64, -1)
    assert_close(high + low, packed.float(), rtol=0, atol=1e-5)


# The base in nano, run packed


@cache
def nanos_base() -> PackedThinker:
    """Nano without what training added beside its base."""
    stored = {name: tensor for file in NANO.glob("*.safetensors") for name, tensor in load_file(file).items()}
    stored = {k.removeprefix("thinker."): t for k, t in stored.items() if k.startswith("thinker.") and MARK not in k}
    stored |= {name: torch.zeros_like(t) for name, t in stored.items() if name.endswith("experts.down.scale")}
    return PackedThinker(MingConfig.from_pretrained(NANO).thinker, stored).eval()


MOST_OFF = 0.8
"""The stated bound on nano's logits, which span about 30. Twice it is the largest margin at which a choice may flip."""
BASE = json.loads((FIXTURES / "base.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("i", [0, 2, 5, 7, 13, 19])
def test_nanos_packed_base_stays_within_the_stated_bound_of_the_recorded_one(i):
    recorded = load_file(FIXTURES / "base.safetensors")
    ids, first = recorded[f"{i}.ids"], BASE["answers"][i]["prompt_tokens"]
    expected, kept = recorded[f"{i}.logits"], nanos_base().new_cache()
    start, off = 0, []
    for stop in range(first, len(ids) + 1):
        positions = torch.arange(start, stop).expand(3, 1, -1)
        hidden = nanos_base()(nanos_base().embed(ids[None, start:stop]), positions, cache=kept).hidden
        logits = nanos_base().logits(hidden[:, -1])[0]
        off.append((logits[::1536] - expected[stop - 1]).abs().max().item())
        if stop < len(ids) and logits.argmax() != ids[stop]:
            assert recorded[f"{i}.margin"][stop - 1] < 2 * MOST_OFF
        start = stop
    assert max(off) < MOST_OFF
    assert sum(off) / len(off) < MOST_OFF / 3
