"""Experts in fp8 and int4: close to the plain ones, in the memory they promise, through loading, saving and moving."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from ming_omni import checkpoint, kernels
from ming_omni.checkpoint import quantise
from ming_omni.checkpoint.quantise import QuantisedExperts, QuantisedWeight
from ming_omni.errors import InputError
from ming_omni.kernels import reference
from ming_omni.model.moe import Experts
from tests.folders import RECORDED, published

# Largest error of one weight, as a share of the largest weight that has the same scale: e4m3 keeps 4 significant bits
# (half a unit in the last place is 1/16 of a weight at most), int4 has 7 steps from zero to that largest weight.
WEIGHT_TOLERANCE = {"fp8": 1 / 16, "int4": 1 / 14}
# Of a layer's output, relative to its size, for Gaussian weights.
OUTPUT_TOLERANCE = {"fp8": 0.06, "int4": 0.2}
NUM_EXPERTS, WIDTH, INNER = 40, 64, 32


def experts(format: str) -> tuple[Experts, QuantisedExperts]:
    torch.manual_seed(0)
    plain = Experts(NUM_EXPERTS, WIDTH, INNER)
    quantised = QuantisedExperts(NUM_EXPERTS, WIDTH, INNER, format)
    for name, weight in plain.named_parameters():
        for slot in range(NUM_EXPERTS):
            quantised.get_submodule(name).write(slot, weight[slot].detach())
    return plain, quantised


def tokens(count: int = 50) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    x, weights = torch.randn(count, WIDTH), torch.rand(count, 4)
    return x, weights, torch.rand(count, NUM_EXPERTS).topk(4).indices


@pytest.mark.parametrize("format", quantise.FORMATS)
def test_quantised_experts_answer_as_the_plain_ones(format):
    plain, quantised = experts(format)
    inputs = tokens()
    expected = plain(*inputs)
    error = (quantised(*inputs) - expected).norm() / expected.norm()
    assert 0 < error < OUTPUT_TOLERANCE[format]


@pytest.mark.parametrize("format", quantise.FORMATS)
@pytest.mark.parametrize("count", [1, 3, 200])
def test_the_module_computes_exactly_what_its_own_weights_say(format, count):
    _, quantised = experts(format)
    x, weights, chosen = tokens(count)
    unfolded = (part.float() for part in (quantised.gate, quantised.up, quantised.down))
    assert_close(quantised(x, weights, chosen), reference.expert_mlp(x, weights, chosen, *unfolded))


@pytest.mark.parametrize("kernel", [*kernels.available(), reference])
def test_every_kernel_runs_quantised_experts(kernel):
    _, quantised = experts("fp8")
    inputs = tokens()
    expected = quantised(*inputs)
    with kernels.use(kernel):
        assert_close(quantised(*inputs), expected)


@settings(max_examples=50, deadline=None)
@given(
    format=st.sampled_from(quantise.FORMATS),
    rows=st.integers(1, 5),
    width=st.integers(1, 70).map(lambda n: 2 * n),
    scale=st.sampled_from([0.0, 1e-6, 1.0, 1e4]),
    seed=st.integers(0, 1000),
)
def test_no_weight_is_further_off_than_its_format_allows(format, rows, width, scale, seed):
    weight = torch.randn(rows, width, generator=torch.Generator().manual_seed(seed)) * scale
    stored = QuantisedWeight((1, rows, width), format)
    stored.write(0, weight)
    groups = weight.unflatten(-1, (stored.scale.shape[-1], -1))
    allowed = groups.abs().amax(-1, keepdim=True) * WEIGHT_TOLERANCE[format] * 1.02 + 1e-5
    error = (stored.float()[0] - weight).unflatten(-1, (stored.scale.shape[-1], -1)).abs()
    assert (error <= allowed).all()


@pytest.mark.parametrize(("format", "bits"), [("fp8", 8), ("int4", 4)])
def test_memory_is_what_the_format_says(format, bits):
    weight = QuantisedWeight((2, 128, 256), format)
    assert weight.codes.nbytes == 2 * 128 * 256 * bits // 8
    assert weight.scale.nbytes == {"fp8": 2 * 128 * 4, "int4": 2 * 128 * 256 // 64 * 2}[format]


@pytest.mark.parametrize("format", quantise.FORMATS)
def test_changing_the_dtype_of_a_model_leaves_codes_and_scales_alone(format):
    _, quantised = experts(format)
    before = {name: tensor.clone() for name, tensor in quantised.state_dict().items()}
    x, weights, chosen = tokens()
    for changed in (quantised.to(torch.bfloat16), quantised.half(), quantised.to(dtype=torch.float64)):
        for name, tensor in changed.state_dict().items():
            assert tensor.dtype == before[name].dtype
            assert torch.equal(tensor.view(torch.uint8), before[name].view(torch.uint8))
    assert quantised(x.bfloat16(), weights, chosen).dtype == torch.bfloat16


def test_gradients_reach_the_inputs():
    plain, quantised = experts("fp8")
    x, weights, chosen = tokens()
    gradients = []
    for module in (plain, quantised):
        leaf = x.clone().requires_grad_()
        module(leaf, weights, chosen).square().sum().backward()
        gradients.append(leaf.grad)
    assert (gradients[1] - gradients[0]).norm() / gradients[0].norm() < 0.1


@pytest.mark.parametrize("format", quantise.FORMATS)
def test_a_folder_loads_quantised_and_saves_quantised(format, tmp_path):
    model = checkpoint.load(RECORDED / "thinker", experts=format)
    plain = checkpoint.load(RECORDED / "thinker")
    layer, exact = model.thinker.layers[1].mlp.experts, plain.thinker.layers[1].mlp.experts
    assert isinstance(layer, QuantisedExperts)
    largest = exact.up.abs().amax(-1, keepdim=True)
    assert ((layer.up.float() - exact.up).abs() <= largest * WEIGHT_TOLERANCE[format] * 1.02).all()

    model.save_pretrained(tmp_path, max_shard_size="20KB")  # codes and scales part
    again = checkpoint.load(tmp_path)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor.view(torch.uint8), again.state_dict()[name].view(torch.uint8)), name


def test_saved_quantised_experts_unfold_on_request(tmp_path):
    checkpoint.load(RECORDED / "thinker", experts="fp8").save_pretrained(tmp_path)
    stored = checkpoint.load(tmp_path).thinker.layers[1].mlp.experts
    plain = checkpoint.load(tmp_path, experts="bf16").thinker.layers[1].mlp.experts
    assert isinstance(plain, Experts)
    assert torch.equal(plain.down, stored.down.float())


def test_our_own_layout_quantises_as_the_published_one(tmp_path):
    folder = published(tmp_path / "published")
    checkpoint.load(folder).save_pretrained(tmp_path / "own")
    one, other = (checkpoint.load(f, experts="int4").state_dict() for f in (folder, tmp_path / "own"))
    assert all(torch.equal(tensor.view(torch.uint8), other[name].view(torch.uint8)) for name, tensor in one.items())


def test_quantised_experts_are_written_plain_in_the_published_layout(tmp_path):
    model = checkpoint.load(RECORDED / "thinker", experts="fp8")
    model.save_published(tmp_path)
    again = checkpoint.load(tmp_path)
    assert torch.equal(again.thinker.layers[2].mlp.experts.gate, model.thinker.layers[2].mlp.experts.gate.float())


@pytest.mark.parametrize("format", quantise.FORMATS)
def test_a_loaded_model_converts_as_it_would_have_loaded(format, tmp_path):
    converted = checkpoint.load("tiny", experts=format)
    loaded = checkpoint.load(published(tmp_path), experts=format)
    for name, tensor in loaded.state_dict().items():
        assert torch.equal(tensor.view(torch.uint8), converted.state_dict()[name].view(torch.uint8)), name
    ids = torch.arange(6)[None]
    assert torch.equal(loaded.generate(ids, max_new_tokens=3), converted.generate(ids, max_new_tokens=3))


def test_an_unknown_format_is_refused():
    with pytest.raises(InputError, match="bf16, fp8 or int4"):
        checkpoint.load(RECORDED / "thinker", experts="int3")
