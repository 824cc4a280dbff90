"""Routing: the published example, the bias, groups, modalities, load; and the whole layer on every kernel."""

import pytest
import torch
from torch.testing import assert_close

from ming_omni import kernels
from ming_omni.config import MODALITIES, MoEConfig
from ming_omni.kernels import reference
from ming_omni.model.moe import MoE, choose_experts

TINY = MoEConfig(num_experts=8, experts_per_token=2, expert_width=16, num_groups=4, groups_kept=2)
PUBLISHED_EXAMPLE = MoEConfig(num_experts=16, experts_per_token=4, num_groups=8, groups_kept=4)


def test_the_published_routing_example():
    """Spec A.2."""
    logits = torch.tensor([[2, -1, 0.5, 0.4, 3, -3, 0.1, 0.2, 1, 1, -0.5, 2.5, 0, 0, 0.9, -2]])
    bias = torch.zeros(16)
    bias[5] = 0.6
    weights, chosen = choose_experts(logits, bias, PUBLISHED_EXAMPLE)
    order = chosen[0].argsort()
    assert chosen[0, order].tolist() == [4, 8, 9, 11]
    assert_close(weights[0, order], torch.tensor([0.713254, 0.547391, 0.547391, 0.691965]), atol=1e-6, rtol=0)


def test_bias_moves_the_choice_not_the_weight():
    config = MoEConfig(num_experts=4, experts_per_token=2, routed_scale=1.0)
    logits = torch.tensor([[3.0, 2.0, 1.0, 0.0]])
    _, plain = choose_experts(logits, torch.zeros(4), config)
    weights, moved = choose_experts(logits, torch.tensor([0.0, 0.0, 0.0, 5.0]), config)
    assert sorted(plain[0].tolist()) == [0, 1]
    assert moved[0].tolist() == [3, 0]
    scores = torch.tensor([0.0, 3.0]).sigmoid()
    assert_close(weights[0], scores / scores.sum())


def test_experts_outside_the_best_groups_are_never_chosen():
    """Expert 0 scores highest, but its group's two best are worse than those of the two others."""
    config = MoEConfig(num_experts=6, experts_per_token=2, num_groups=3, groups_kept=2)
    logits = torch.tensor([[4.0, -4.0, 2.0, 2.0, 1.0, 1.5]])
    assert sorted(choose_experts(logits, torch.zeros(6), config)[1][0].tolist()) == [2, 3]
    ungrouped = MoEConfig(num_experts=6, experts_per_token=2)
    assert 0 in choose_experts(logits, torch.zeros(6), ungrouped)[1]


def test_groups_of_one_expert_score_by_that_expert():
    config = MoEConfig(num_experts=4, experts_per_token=2, num_groups=4, groups_kept=3)
    logits = torch.tensor([[0.0, 1.0, 2.0, 3.0]])
    assert choose_experts(logits, torch.zeros(4), config)[1].tolist() == [[3, 2]]


@pytest.mark.parametrize("scale", [1.0, 2.5])
def test_weights_sum_to_the_scale(scale):
    config = MoEConfig(num_experts=16, experts_per_token=4, num_groups=4, groups_kept=2, routed_scale=scale)
    weights, chosen = choose_experts(torch.randn(50, 16), torch.randn(16), config)
    assert_close(weights.sum(-1), torch.full((50,), scale))
    assert all(len(set(row)) == 4 for row in chosen.tolist())


@pytest.mark.parametrize("fast", kernels.available(), ids=lambda kernel: kernel.__name__.rsplit(".")[-1])
@pytest.mark.parametrize("num_tokens", [0, 1, 17])
def test_the_layer_is_the_same_on_every_kernel(fast, num_tokens):
    torch.manual_seed(0)
    moe, x, modality = MoE(32, TINY), torch.randn(num_tokens, 32), torch.randint(3, (num_tokens,))
    with kernels.use(reference):
        expected, _ = moe(x, modality)
    with kernels.use(fast):
        assert_close(moe(x, modality)[0], expected)


def test_each_token_uses_the_router_of_its_modality():
    torch.manual_seed(0)
    moe, x = MoE(32, TINY), torch.randn(9, 32)
    for router in moe.routers.values():
        router.bias.normal_()
    mixed = torch.tensor([0, 1, 2, 2, 1, 0, 0, 2, 1])
    out, routing = moe(x, mixed)
    for modality, name in enumerate(MODALITIES):
        alone = MoE(32, TINY)
        alone.load_state_dict(moe.state_dict())
        alone.routers["text"].load_state_dict(moe.routers[name].state_dict())
        rows = mixed == modality
        expected, expected_routing = alone(x[rows])
        assert_close(out[rows], expected)
        assert_close(routing.logits[rows], expected_routing.logits)
        assert torch.equal(routing.chosen[rows], expected_routing.chosen)


def test_unused_routers_get_no_gradient():
    moe = MoE(32, TINY)
    moe(torch.randn(6, 32), torch.tensor([1, 1, 1, 1, 1, 1]))[0].sum().backward()
    assert (moe.routers["image"].weight.grad != 0).any()
    assert (moe.routers["text"].weight.grad == 0).all()
    moe.zero_grad()
    moe(torch.randn(6, 32))[0].sum().backward()
    assert (moe.routers["text"].weight.grad != 0).any()
    assert moe.routers["image"].weight.grad is None
    assert all(router.bias.grad is None for router in moe.routers.values())


def test_load_counts_the_choices_of_each_modality():
    torch.manual_seed(0)
    moe, modality = MoE(32, TINY), torch.randint(3, (40,))
    _, routing = moe(torch.randn(40, 32), modality)
    expected = torch.zeros(3, 8)
    for own, experts in zip(modality.tolist(), routing.chosen.tolist(), strict=True):
        for expert in experts:
            expected[own, expert] += 1
    assert torch.equal(routing.load, expected)
    assert routing.load.sum() == 80


def test_load_leaves_padding_out():
    moe, x = MoE(32, TINY), torch.randn(6, 32)
    real = torch.tensor([0, 0, 1, 1, 1, 1])
    _, padded = moe(x, mask=real.bool())
    _, alone = moe(x[2:])
    assert torch.equal(padded.load, alone.load)
    assert (padded.load[1:] == 0).all()


def test_the_shared_expert_is_as_wide_as_all_its_parts_and_unweighted():
    config = MoEConfig(num_experts=8, experts_per_token=2, expert_width=16, num_shared_experts=3)
    moe, x = MoE(32, config), torch.randn(5, 32)
    assert moe.shared.gate.weight.shape == (48, 32)
    moe.experts.down.data.zero_()
    assert_close(moe(x)[0], moe.shared(x))
    none = MoE(32, MoEConfig(num_experts=8, expert_width=16, num_shared_experts=0))
    assert none.shared is None
    assert none(x)[0].shape == (5, 32)


def test_native_routing_is_fp32_in_a_bf16_model_and_under_autocast():
    torch.manual_seed(0)
    moe, x = MoE(32, TINY), torch.randn(9, 32)
    with torch.autocast("cpu", torch.bfloat16):
        out, routing = moe(x)
    assert routing.logits.dtype == torch.float32
    assert_close(routing.logits, x @ moe.routers["text"].weight.T)
    moe.to(torch.bfloat16)
    out, routing = moe(x.bfloat16())
    assert (out.dtype, routing.logits.dtype, routing.weights.dtype) == (torch.bfloat16, torch.float32, torch.float32)
    assert_close(routing.logits, x.bfloat16().float() @ moe.routers["text"].weight.float().T)


def test_the_bias_keeps_its_precision_when_the_model_is_cast():
    """The published scripts call `.to(dtype=torch.bfloat16)` on the loaded model."""
    router = MoE(32, TINY).routers["image"]
    fine = 1 + torch.arange(8) / 1000  # bf16 has steps of 1/128 here
    router.bias.data.copy_(fine)
    router.to(torch.bfloat16)
    assert router.weight.dtype == torch.bfloat16
    assert torch.equal(router.bias, fine) and not router.bias.requires_grad
    assert router.to("meta").bias.is_meta


def test_reference_routing_repeats_the_published_roundings():
    """Spec N4: logits, scores, bias and their sum in bf16; the normalising sum and the weights in fp32."""
    torch.manual_seed(0)
    moe = MoE(32, TINY, numerics="reference").to(torch.bfloat16)
    x, modality = torch.randn(9, 32, dtype=torch.bfloat16), torch.randint(3, (9,))
    routing = moe.route(x, modality)
    assert (routing.logits.dtype, routing.weights.dtype) == (torch.bfloat16, torch.float32)
    scores = routing.logits.sigmoid().gather(-1, routing.chosen)
    assert scores.dtype == torch.bfloat16
    assert_close(routing.weights, 2.5 * scores.float() / scores.float().sum(-1, keepdim=True), atol=0, rtol=1e-6)


def test_state_names_are_those_of_the_checkpoint_mapping():
    shapes = {name: tuple(p.shape) for name, p in MoE(32, TINY).named_parameters()}
    assert shapes == {
        **{f"routers.{m}.weight": (8, 32) for m in ("text", "image", "audio")},
        **{f"routers.{m}.bias": (8,) for m in ("text", "image", "audio")},
        "experts.gate": (8, 16, 32),
        "experts.up": (8, 16, 32),
        "experts.down": (8, 32, 16),
        "shared.gate.weight": (16, 32),
        "shared.up.weight": (16, 32),
        "shared.down.weight": (32, 16),
    }
    assert not MoE(32, TINY).routers["text"].bias.requires_grad
