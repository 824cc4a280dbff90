"""model/flow.py: the line, its loss, the solver and the noise levels, on numbers a person can check."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from ming_omni.model.flow import euler, flow_loss, logit_normal, on_line, shift


def test_a_point_a_quarter_of_the_way_is_three_parts_start():
    point, velocity = on_line(torch.tensor([[0.0], [8.0]]), torch.tensor([[4.0], [0.0]]), torch.tensor([0.25, 0.5]))
    assert point.tolist() == [[1.0], [4.0]]
    assert velocity.tolist() == [[4.0], [-8.0]]


def test_loss_is_zero_for_the_true_velocity_and_one_when_off_by_one():
    start, end, place = torch.randn(3, 4, 2), torch.randn(3, 4, 2), torch.rand(3)
    assert flow_loss(lambda x, t: end - start, start, end, place) == 0
    assert_close(flow_loss(lambda x, t: end - start + 1, start, end, place), torch.tensor(1.0))


def test_weight_leaves_padding_out_of_the_loss():
    start, end = torch.zeros(1, 4), torch.zeros(1, 4)
    wrong_at_the_end = torch.tensor([[1.0, 1.0, 5.0, 5.0]])
    weight = torch.tensor([[1.0, 1.0, 0.0, 0.0]])
    assert flow_loss(lambda x, t: wrong_at_the_end, start, end, torch.rand(1), weight) == 1


@given(st.lists(st.floats(0.01, 0.99), max_size=5, unique=True), st.booleans())
def test_euler_reaches_the_data_on_any_grid_when_the_velocity_is_constant(inner, downwards):
    noise, data = torch.tensor([3.0, -1.0]), torch.tensor([0.5, 2.0])
    grid = torch.tensor([0.0, *sorted(inner), 1.0])
    if downwards:  # pictures: sigma falls from 1, and the velocity points from data to noise
        *_, x = euler(lambda x, sigma: noise - data, noise, grid.flip(0))
    else:  # speech: time rises from 0
        *_, x = euler(lambda x, time: data - noise, noise, grid)
    assert_close(x, data, atol=1e-5, rtol=0)


def test_euler_stops_between_steps_when_the_caller_does():
    seen = []
    for x in euler(lambda x, t: seen.append(float(t)) or x, torch.ones(1), torch.linspace(0, 1, 11)):
        if x > 1.15:
            break
    assert seen == pytest.approx([0.0, 0.1])


def test_every_step_is_rounded_to_the_precision_of_the_velocity():
    *_, x = euler(
        lambda x, t: torch.full((1,), 0.1, dtype=torch.bfloat16), torch.ones(1), torch.tensor([0.0, 0.5, 1.0])
    )
    assert x.dtype == torch.bfloat16


def test_shift_three_takes_half_to_three_quarters_and_keeps_the_ends():
    assert shift(torch.tensor([0.0, 0.5, 1.0]), 3.0).tolist() == [0.0, 0.75, 1.0]


def test_training_levels_stay_inside_the_line_and_follow_the_generator():
    first, again = (logit_normal(1000, torch.Generator().manual_seed(3)) for _ in range(2))
    assert first.equal(again)
    assert first.min() > 0 and first.max() < 1 and abs(first.mean() - 0.5) < 0.05
