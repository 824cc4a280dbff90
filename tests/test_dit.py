"""model/dit.py: positions as specified, and what each input can and cannot change."""

import pytest
import torch
from torch.testing import assert_close

from ming_omni.config import DiTConfig
from ming_omni.model.dit import DiT, position_table, rotary_table, rotate
from tests.painters import open_up


@pytest.fixture(scope="module")
def dit():
    torch.manual_seed(0)
    return open_up(DiT(DiTConfig()))


def arguments(batch=2, rows=6, columns=8, tokens=5, seed=0):
    """latents, time, context, pooled"""
    torch.manual_seed(seed)
    latents, context, pooled = (
        torch.randn(batch, 16, rows, columns),
        torch.randn(batch, tokens, 128),
        torch.randn(batch, 64),
    )
    return latents, torch.full((batch,), 500.0), context, pooled


def test_rotary_angles_are_those_of_the_specification():
    turns = rotary_table(DiTConfig(), 2, 3, 4, 5, torch.device("cpu"))
    assert turns.shape == (29, 32) and turns.dtype == torch.complex64
    first = turns.angle()[:, [0, 10, 21]]  # the fastest component of frame, row, column
    assert_close(first[0], torch.tensor([0.0, -2.0, -2.0]))
    assert_close(first[2 * 4 + 3], torch.tensor([0.0, 0.0, 1.0]))  # row 2, column 3
    assert_close(first[12, 0], torch.tensor(1.0))  # frame 1 starts
    assert_close(first[24], torch.full((3,), 2.0))  # the first condition token


def test_rotation_depends_only_on_the_distance_of_two_cells():
    torch.manual_seed(0)
    q, k = torch.randn(2, 1, 1, 1, 64).unbind()
    turns = rotary_table(DiTConfig(), 1, 4, 4, 0, torch.device("cpu"))

    def score(a, b):
        return (rotate(q, turns[a : a + 1]) * rotate(k, turns[b : b + 1])).sum()

    assert_close(score(0, 5), score(10, 15), atol=1e-5, rtol=0)
    assert abs(score(0, 5) - score(0, 4)) > 1e-4


def test_absolute_positions_are_the_middle_of_the_largest_table():
    config = DiTConfig(max_grid=10)
    whole = position_table(config, 10, 10, torch.device("cpu")).view(10, 10, -1)
    assert position_table(config, 4, 6, torch.device("cpu")).view(4, 6, -1).equal(whole[3:7, 2:8])


def test_a_new_network_predicts_zero():
    assert DiT(DiTConfig())(*arguments()).abs().max() == 0


@pytest.mark.parametrize("size", [(2, 2), (6, 8), (10, 4)])
def test_velocity_has_the_shape_of_the_latents(dit, size):
    inputs = arguments(rows=size[0], columns=size[1])
    assert dit(*inputs).shape == inputs[0].shape
    assert dit(*inputs, torch.randn_like(inputs[0])).shape == inputs[0].shape


@pytest.mark.parametrize("changed", range(4), ids=["latents", "time", "context", "pooled"])
def test_every_input_matters(dit, changed):
    inputs = arguments()
    other = [x * 1.5 if i == changed else x for i, x in enumerate(inputs)]
    assert (dit(*inputs) - dit(*other)).abs().max() > 1e-4


def test_a_reference_of_zeros_is_not_the_same_as_none(dit):
    inputs = arguments()
    assert (dit(*inputs) - dit(*inputs, torch.zeros_like(inputs[0]))).abs().max() > 1e-4


def test_pictures_of_a_batch_do_not_see_each_other(dit):
    inputs = arguments(batch=3)
    alone = torch.cat([dit(*(x[i : i + 1] for x in inputs)) for i in range(3)])
    assert_close(dit(*inputs), alone, atol=1e-5, rtol=1e-4)


def test_every_weight_is_trained_except_the_query_path_the_last_layer_drops(dit):
    dit.zero_grad()
    inputs = arguments()
    dit(*inputs, torch.randn_like(inputs[0])).square().sum().backward()
    idle = {name for name, p in dit.named_parameters() if p.grad is None or p.grad.abs().max() == 0}
    assert idle == {"layers.2.condition.attention.q_norm.weight"}
    dit.zero_grad()


def test_gradient_checkpointing_changes_no_gradient():
    torch.manual_seed(0)
    dit = open_up(DiT(DiTConfig(num_hidden_layers=2))).train()
    inputs = arguments(batch=1)
    dit(*inputs).square().sum().backward()
    plain = dit.layers[0].picture.mlp[0].weight.grad.clone()
    dit.zero_grad()
    dit.gradient_checkpointing_enable()
    dit(*inputs).square().sum().backward()
    assert_close(dit.layers[0].picture.mlp[0].weight.grad, plain)


@pytest.mark.parametrize("settings", [{"use_rotary": False}, {"use_qk_norm": False}, {"num_refiner_layers": 0}])
def test_parts_can_be_left_out(settings):
    inputs = arguments()
    torch.manual_seed(0)
    dit = open_up(DiT(DiTConfig(**settings)))
    assert dit(*inputs).isfinite().all()


def test_it_runs_in_bfloat16_close_to_float32(dit):
    inputs = arguments()
    torch.manual_seed(0)
    half = open_up(DiT(DiTConfig()))
    half.load_state_dict(dit.state_dict())
    half.bfloat16()
    latents, time, context, pooled = inputs
    v = half(latents.bfloat16(), time, context.bfloat16(), pooled.bfloat16())
    assert v.dtype == torch.bfloat16
    assert (v.float() - dit(*inputs)).norm() / dit(*inputs).norm() < 0.05


def test_it_can_be_traced_whole_by_the_compiler():
    torch.manual_seed(0)
    dit, inputs = open_up(DiT(DiTConfig(num_hidden_layers=2, num_refiner_layers=1))), arguments()
    compiled = torch.compile(dit, backend="aot_eager", fullgraph=True)
    with torch.no_grad():
        assert_close(compiled(*inputs), dit(*inputs), atol=1e-5, rtol=1e-4)
