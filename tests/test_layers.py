"""Norm, rotary tables, attention in all its forms, the plain cache, and the choice of attention implementation."""

import warnings

import pytest
import torch
from torch.testing import assert_close
from transformers.utils import is_flash_attn_2_available

from ming_omni.config import ThinkerConfig, tiny
from ming_omni.model import layers
from ming_omni.model.layers import KVCache, RMSNorm, attend, rotary_axes, rotary_tables, rotate
from ming_omni.model.omni import MingForConditionalGeneration
from ming_omni.model.thinker import Thinker


def test_norm_rounds_before_it_weighs():
    """Spec N7: fp32 normalise, round to bf16, multiply in bf16. One rounding at the end would differ."""
    torch.manual_seed(0)
    norm, x = RMSNorm(64, 1e-6).to(torch.bfloat16), torch.randn(200, 64, dtype=torch.bfloat16)
    norm.weight.data.uniform_(0.5, 2)
    wide = x.float() / (x.float().pow(2).mean(-1, keepdim=True) + 1e-6).sqrt()
    assert_close(norm(x), wide.bfloat16() * norm.weight, atol=0.02, rtol=0)
    assert (norm(x) == wide.bfloat16() * norm.weight).float().mean() > 0.999
    assert (norm(x) == (wide * norm.weight.float()).bfloat16()).float().mean() < 0.9


def test_rotary_axes_are_the_published_ones():
    """Spec 2.4: 0 time, 1 height, 2 width, for the released 32 frequencies."""
    assert rotary_axes("vanilla", 32).tolist() == [0] * 32
    assert rotary_axes("3d", 32).tolist() == [0] * 8 + [1] * 12 + [2] * 12
    assert rotary_axes("video", 32).tolist() == [1, 2] * 12 + [0] * 8


@pytest.mark.parametrize("variant", ["vanilla", "3d", "video"])
@pytest.mark.parametrize("num_frequencies", [1, 2, 4, 5, 24, 64])
def test_rotary_axes_cover_every_frequency(variant, num_frequencies):
    axes = rotary_axes(variant, num_frequencies).tolist()
    assert len(axes) == num_frequencies
    if variant != "vanilla" and num_frequencies > 3:
        assert set(axes) == {0, 1, 2}


def test_each_frequency_turns_with_its_axis():
    config = ThinkerConfig(head_dim=128, rope_theta=600_000.0)
    positions = torch.tensor([3, 50, 700])[:, None, None]  # one token
    cos, sin = rotary_tables(config, positions, torch.float32)
    assert cos.shape == (1, 1, 32)
    for i, axis in enumerate(rotary_axes("video", 32).tolist()):
        angle = torch.tensor(positions[axis].item() * 600_000.0 ** (-2 * i / 64))
        assert_close(cos[0, 0, i], angle.cos(), atol=1e-4, rtol=0)
        assert_close(sin[0, 0, i], angle.sin(), atol=1e-4, rtol=0)


def test_native_tables_stay_fp32_and_reference_tables_are_rounded():
    """Spec N1, N2: frequencies and tables in bf16, the angle between them in fp32."""
    positions = torch.full((3, 1, 1), 1001)
    sizes = {"head_dim": 128, "rope_theta": 600_000.0, "rope_variant": "vanilla"}
    native, _ = rotary_tables(ThinkerConfig(**sizes), positions, torch.bfloat16)
    exact, _ = rotary_tables(ThinkerConfig(**sizes), positions, torch.float32)
    assert native.dtype == torch.float32
    assert torch.equal(native, exact)
    rounded, _ = rotary_tables(ThinkerConfig(**sizes, numerics="reference"), positions, torch.bfloat16)
    frequencies = (1 / 600_000.0 ** (torch.arange(0, 64, 2) / 64)).bfloat16()
    assert frequencies[1].item() == pytest.approx(0.6602, abs=1e-4)  # the example of N1
    assert torch.equal(rounded[0, 0], (1001 * frequencies.float()).cos().bfloat16())
    assert (rounded.float() - exact).abs().max() > 0.2  # 1001 times the rounding of a frequency, in radians


def test_rotation_turns_pairs_half_the_rotary_width_apart():
    x = torch.arange(1.0, 7.0).view(1, 1, 1, 6)  # two frequencies: pairs (0, 2) and (1, 3); 4 and 5 pass
    cos, sin = torch.tensor([[[0.0, 1.0]]]), torch.tensor([[[1.0, 0.0]]])
    assert rotate(x, cos, sin).flatten().tolist() == [-3, 2, 1, 4, 5, 6]


def test_rotated_products_depend_on_distance_only():
    torch.manual_seed(0)
    config = ThinkerConfig(head_dim=32, partial_rotary_factor=1.0)
    q, k = torch.randn(1, 1, 1, 32), torch.randn(1, 1, 1, 32)

    def product(at_q, at_k):
        turned = [
            rotate(x, *rotary_tables(config, torch.full((3, 1, 1), p), torch.float32))
            for x, p in ((q, at_q), (k, at_k))
        ]
        return (turned[0] * turned[1]).sum()

    assert_close(product(5, 2), product(105, 102), atol=1e-4, rtol=0)
    assert (product(5, 2) - product(5, 4)).abs() > 1e-2


MASKS = {
    "none": None,
    "left": [[0, 0, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1, 1]],
    "ragged": [[0, 0, 0, 0, 0, 1, 1], [1, 1, 1, 1, 0, 0, 0]],
    "empty row": [[0] * 7, [1] * 7],
}


@pytest.mark.parametrize("masked", MASKS)
@pytest.mark.parametrize("num_queries", [7, 3, 1])
@pytest.mark.parametrize("num_kv", [1, 2, 6])
@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_attention_equals_its_definition(masked, num_queries, num_kv, implementation):
    torch.manual_seed(0)
    q, k, v = torch.randn(2, 6, num_queries, 8), torch.randn(2, num_kv, 7, 8), torch.randn(2, num_kv, 7, 8)
    mask = None if MASKS[masked] is None else torch.tensor(MASKS[masked]).bool()
    out = attend(q, k, v, mask, implementation)
    assert out.isfinite().all()
    for row in range(2):
        for head in range(6):
            for query in range(num_queries):
                at = 7 - num_queries + query
                seen = [s for s in range(at + 1) if mask is None or mask[row, s] or s == at]
                own = head // (6 // num_kv)
                weights = (k[row, own, seen] @ q[row, head, query] / 8**0.5).softmax(0)
                assert_close(out[row, head, query], weights @ v[row, own, seen], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_gradients_stay_finite_when_a_row_is_all_padding(implementation):
    q, k, v = (torch.randn(1, 2, 4, 8, requires_grad=True) for _ in range(3))
    attend(q, k, v, torch.zeros(1, 4, dtype=torch.bool), implementation).sum().backward()
    assert all(x.grad.isfinite().all() for x in (q, k, v))


@pytest.mark.parametrize("chunks", [[7], [1] * 7, [3, 4], [4, 1, 2]])
@pytest.mark.parametrize("masked", ["none", "left"])
def test_the_cache_attends_as_if_all_came_at_once(chunks, masked):
    torch.manual_seed(0)
    q, k, v = torch.randn(2, 4, 7, 8), torch.randn(2, 2, 7, 8), torch.randn(2, 2, 7, 8)
    mask = None if MASKS[masked] is None else torch.tensor(MASKS[masked]).bool()
    cache, outs, done = KVCache(), [], 0
    assert cache.length == 0
    for size in chunks:
        part = slice(done, done + size)
        done += size
        seen = None if mask is None else mask[:, :done]
        outs.append(cache.attend(0, q[:, :, part], k[:, :, part], v[:, :, part], seen))
        assert cache.length == done
    assert_close(torch.cat(outs, 2), attend(q, k, v, mask))


@pytest.mark.skipif(is_flash_attn_2_available(), reason="flash-attn is installed here")
@pytest.mark.parametrize("build", [lambda **k: Thinker._from_config(tiny().thinker, **k), None], ids=["thinker", "all"])
def test_flash_that_is_not_installed_becomes_sdpa_with_one_warning(build):
    build = build or (lambda **k: MingForConditionalGeneration._from_config(tiny(), **k))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = build(attn_implementation="flash_attention_2")
    assert [str(w.message) for w in caught] == ["flash-attn is not installed: attention runs as sdpa"]
    configs = {id(part.config): part.config for part in model.modules() if hasattr(part, "config")}
    assert {config._attn_implementation for config in configs.values()} == {"sdpa"}


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_the_asked_for_attention_is_the_one_that_runs(implementation, monkeypatch):
    asked = []
    monkeypatch.setattr(layers, "attend", lambda q, k, v, mask, name: asked.append(name) or attend(q, k, v, mask, name))
    model = Thinker._from_config(tiny().thinker, attn_implementation=implementation)
    embeddings, positions = torch.randn(1, 3, 64), torch.arange(3).expand(3, 1, 3)
    model(embeddings, positions)
    model(embeddings, positions, cache=model.new_cache())
    model.set_attn_implementation("eager")
    model(embeddings, positions)
    num_layers = len(model.layers)
    assert asked == [implementation] * 2 * num_layers + ["eager"] * num_layers


def test_an_unknown_attention_is_refused():
    with pytest.raises(ValueError, match="no_such_attention"):
        Thinker._from_config(tiny().thinker, attn_implementation="no_such_attention")
