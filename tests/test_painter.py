"""model/painter.py: seeds, levels, guidance, steps and the condition."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from ming_omni.config import FlowConfig, flash_painter, nano_painter
from ming_omni.errors import InputError
from ming_omni.model.painter import Guidance, Painter, draw_seed, noise, sigmas
from tests.painters import tiny_painter

SEEDS = st.integers(0, 2**64 - 1)
U, P, T, F = (torch.tensor(x) for x in (1.0, 10.0, 100.0, 1000.0))
"""Stand-ins for the four velocities: neither, picture, text, full."""


@pytest.fixture(scope="module")
def painter():
    return tiny_painter()


@pytest.fixture(scope="module")
def condition(painter):
    torch.manual_seed(1)
    with torch.no_grad():
        return painter.condition(torch.randn(3, 16, 64))


@torch.no_grad()
def paint(painter, condition, seeds, **options):
    options = {"size": (32, 48), "num_steps": 3, **options}
    *_, last = painter.sample(condition, seeds=seeds, **options)
    return last.latents


# Noise.


@given(st.lists(SEEDS, min_size=1, max_size=4))
def test_a_picture_gets_the_same_noise_in_any_batch(seeds):
    together = noise(seeds, (2, 3, 3), torch.float32)
    assert all(noise([seed], (2, 3, 3), torch.float32)[0].equal(row) for seed, row in zip(seeds, together, strict=True))


@given(SEEDS, SEEDS)
def test_every_bit_of_a_seed_counts(one, other):
    a, b = noise([one, other], (4, 4, 4), torch.float32)
    assert a.equal(b) == (one == other)


def test_small_seeds_draw_the_published_noise_and_large_ones_stay_unit():
    torch.manual_seed(42)
    published = torch.randn(1, 16, 8, 8)
    assert noise([42], (16, 8, 8), torch.float32).equal(published)
    assert abs(noise([2**63 + 5], (16, 64, 64), torch.float32).std() - 1) < 0.01


def test_drawing_noise_or_a_seed_leaves_the_global_generator_alone():
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    noise([draw_seed()], (4, 4), torch.float32)
    assert torch.rand(1) == expected


def test_unasked_seeds_use_the_whole_range():
    assert max(draw_seed() for _ in range(200)).bit_length() > 56


# Levels.


def test_thirty_levels_are_those_of_the_specification():
    levels = sigmas(FlowConfig(), 30, 1024)
    expected = [1, 0.988271, 0.975979, 0.963082]
    assert levels[:4].tolist() == pytest.approx(expected, abs=1e-6)
    assert levels[-4:].tolist() == pytest.approx([0.188245, 0.104323, 0.008929, 0], abs=1e-6)


@pytest.mark.parametrize("config", [FlowConfig(), FlowConfig(shift=1.0), FlowConfig(use_dynamic_shifting=True)])
@pytest.mark.parametrize("num_steps", [1, 2, 4, 30])
def test_levels_fall_from_one_to_zero(config, num_steps):
    levels = sigmas(config, num_steps, 300)
    assert len(levels) == num_steps + 1 and levels[0] == 1 and levels[-1] == 0
    assert all(a > b for a, b in itertools.pairwise(levels.tolist()))


def test_dynamic_shifting_moves_larger_pictures_towards_noise():
    config = FlowConfig(use_dynamic_shifting=True)
    small, large = (sigmas(config, 8, tokens) for tokens in (256, 4096))
    assert (large[1:-1] > small[1:-1]).all()
    level = 1 + (0.001 - 1) * 4 / 7  # the fifth of eight, before shifting
    assert float(small[4]) == pytest.approx(math.exp(0.5) / (math.exp(0.5) + 1 / level - 1), abs=1e-5)


# Guidance.


@pytest.mark.parametrize(
    "mode, formula",
    [
        (1, U + 2 * (P - U) + 5 * (F - P)),
        (2, U + 2 * (P - U)),
        (3, T + 2 * (F - T)),
        (4, U + 5 * (T - U) + 2 * (F - T)),
        (5, P + 5 * (F - P)),
        (6, U + 5 * (T - U) + 2 * (P - U)),
    ],
)
def test_modes_are_the_published_formulas(mode, formula):
    weights = Guidance(5.0, 2.0, mode).weights(has_reference=True)
    values = {"U": U, "I": P, "T": T, "F": F}
    assert_close(sum(weight * values[branch] for branch, weight in weights.items()), formula)


def test_velocities_of_weight_zero_are_not_computed():
    assert Guidance(1.0).weights(has_reference=False) == {"T": 1.0}
    assert Guidance(5.0, 1.0).weights(has_reference=True).keys() == {"I", "F"}
    assert Guidance(5.0, 2.0, mode=1).weights(has_reference=True).keys() == {"U", "I", "F"}


@given(st.floats(0, 10), st.floats(0, 10), st.integers(1, 6), st.booleans())
def test_weights_always_sum_to_one(text, image, mode, has_reference):
    assert sum(Guidance(text, image, mode).weights(has_reference).values()) == pytest.approx(1)


def test_an_unknown_mode_is_refused():
    with pytest.raises(InputError, match="modes are 1 to 6"):
        Guidance(5.0, 2.0, 7).weights(True)


# Condition.


def test_condition_tokens_are_unit_vectors_that_all_see_each_other(painter):
    states = torch.randn(1, 16, 64)
    last = states.clone()
    last[:, -1] += 1
    with torch.no_grad():
        one, other = painter.condition(states), painter.condition(last)
    assert_close(one.norm(dim=-1), torch.ones(1, 16))
    assert ((one - other).abs().amax(-1) > 1e-7).all()  # the first token saw the last


def test_pooled_context_is_the_mean_token_with_neighbours_averaged(painter, condition):
    with torch.no_grad():
        context, pooled = painter.context(condition)
    mean = context.mean(1)
    assert_close(pooled, (mean[:, 0::2] + mean[:, 1::2]) / 2)


def test_a_painter_without_letters_says_so():
    with pytest.raises(InputError, match="no glyph branch"):
        tiny_painter(glyphs=None).spell(['Text "A". '])


# Sampling.


@pytest.mark.parametrize("with_reference", [False, True])
def test_a_seed_paints_the_same_picture_in_any_batch(painter, condition, with_reference):
    reference = torch.randn(3, 16, 4, 6) if with_reference else None
    together = paint(painter, condition, [1, 2**40, 3], reference=reference)
    for i, seed in enumerate((1, 2**40, 3)):
        one = None if reference is None else reference[i : i + 1]
        assert_close(
            paint(painter, condition[i : i + 1], [seed], reference=one), together[i : i + 1], atol=1e-4, rtol=0
        )


def test_seed_prompt_guidance_negative_and_reference_each_change_the_picture(painter, condition):
    base = paint(painter, condition[:1], [1])
    assert paint(painter, condition[:1], [1]).equal(base)
    for other in (
        paint(painter, condition[:1], [2]),
        paint(painter, condition[1:2], [1]),
        paint(painter, condition[:1], [1], guidance=Guidance(2.0)),
        paint(painter, condition[:1], [1], negative=condition[2:]),
        paint(painter, condition[:1], [1], reference=torch.randn(1, 16, 4, 6)),
    ):
        assert (other - base).abs().max() > 1e-4


@pytest.mark.parametrize("text", [0.0, 0.5, 1.0])
def test_weak_guidance_works_where_the_release_fails(painter, condition, text):
    reference = torch.randn(1, 16, 4, 6)
    assert paint(painter, condition[:1], [1], guidance=Guidance(text)).isfinite().all()
    assert paint(painter, condition[:1], [1], guidance=Guidance(text, 2.0), reference=reference).isfinite().all()


def test_steps_are_reported_in_order_and_can_be_abandoned(painter, condition):
    with torch.no_grad():
        steps = painter.sample(condition[:1], size=(32, 32), seeds=[0], num_steps=5)
        first, second = next(steps), next(steps)
        steps.close()
    assert (first.index, second.index, first.num_steps) == (0, 1, 5)
    assert first.sigma == second.sigma_before > second.sigma
    assert first.latents.equal(second.latents_before)


def test_the_last_step_sees_the_finished_picture_and_a_preview_is_small(painter, condition):
    with torch.no_grad():
        steps = list(painter.sample(condition[:1], size=(64, 32), seeds=[0], num_steps=3))
        assert_close(steps[-1].clean(), steps[-1].latents)
        preview = painter.preview(steps[0], max_cells=4)
    assert preview.shape == (1, 3, 32, 16) and preview.min() >= 0 and preview.max() <= 1


@pytest.mark.parametrize("size", [(20, 32), (0, 16), (32, 8)])
def test_sizes_that_are_no_multiple_of_a_patch_are_refused(painter, condition, size):
    with pytest.raises(InputError, match="multiples of 16"):
        paint(painter, condition[:1], [0], size=size)


def test_no_steps_are_refused(painter, condition):
    with pytest.raises(InputError, match="at least one step"):
        paint(painter, condition[:1], [0], num_steps=0)


# The whole.


def test_saving_and_loading_keeps_every_weight(painter, tmp_path):
    painter.save_pretrained(tmp_path)
    loaded = Painter.from_pretrained(tmp_path)
    assert loaded.config.dit.to_dict() | {"dtype": None} == painter.config.dit.to_dict()
    before, after = painter.state_dict(), loaded.state_dict()
    assert before.keys() == after.keys() and all(before[key].equal(after[key]) for key in before)
    assert loaded.connector.rotary_emb.inv_freq.equal(painter.connector.rotary_emb.inv_freq)


def test_nanos_painter_stays_within_its_budget():
    with torch.device("meta"):
        painter = Painter(nano_painter())
    vae = sum(p.numel() for p in painter.vae.parameters())
    assert vae < 4e6
    assert sum(p.numel() for p in painter.parameters()) - vae < 20e6


def test_the_published_painter_has_as_many_parameters_as_the_release():
    with torch.device("meta"):
        painter = Painter(flash_painter())
    counts = {name: sum(p.numel() for p in part.parameters()) for name, part in painter.named_children()}
    assert counts["dit"] == 2_413_232_832 and counts["condition_mlp"] == 12_601_344
    glyphs = painter.glyphs
    assert sum(p.numel() for part in (glyphs.mapper, glyphs.out, glyphs.norm) for p in part.parameters()) == 75_383_936


def test_dropping_the_condition_trains_the_unconditional_branch(painter):
    torch.manual_seed(0)
    states, latents, grain = torch.randn(2, 16, 64), torch.randn(2, 16, 4, 4), torch.randn(2, 16, 4, 4)
    sigma = torch.tensor([0.3, 0.7])
    with torch.no_grad():
        dropped = painter(states, latents, sigma, grain, keep=torch.zeros(2, dtype=torch.bool))
        other = painter(2 * states + 1, latents, sigma, grain, keep=torch.zeros(2, dtype=torch.bool))
        kept = painter(states, latents, sigma, grain)
    assert dropped.equal(other) and not dropped.equal(kept)
