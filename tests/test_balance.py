"""train/balance.py: the auxiliary gradient by hand, what each mechanism does alone, and whom it touches."""

import itertools
import math

import pytest
import torch
from torch.testing import assert_close

from ming_omni.config import MoEConfig, tiny
from ming_omni.model.moe import MoE, Routing
from ming_omni.model.thinker import Thinker
from ming_omni.train import heatmap
from ming_omni.train.balance import (
    BalanceSettings,
    Loads,
    Strengths,
    auxiliary_loss,
    dead_share,
    entropy,
    figures,
    max_violation,
    move_bias,
    z_loss,
)

EVEN = Strengths(1.0, 1.0, 1.0)


def routing(logits: list[list[float]], chosen: list[list[int]], modality=None, mask=None) -> Routing:
    as_tensor = lambda value: None if value is None else torch.tensor(value)  # noqa: E731
    logits = torch.tensor(logits, requires_grad=True)
    return Routing(logits, torch.tensor(chosen), torch.ones(len(chosen), 1), as_tensor(modality), as_tensor(mask))


def test_auxiliary_loss_and_its_gradient_equal_a_hand_computation():
    """Two tokens, two experts, both take expert 0, with equal scores: f = (2, 0), P = (1/2, 1/2).

    The share s0 / (s0 + s1) has, at logits 0, the derivative s0' s1 / (s0 + s1)^2 = (1/4 * 1/2) / 1 = 1/8.
    """
    layer = routing([[0.0, 0.0], [0.0, 0.0]], [[0], [0]])
    loss = auxiliary_loss([layer], Strengths(text=3.0))
    loss.backward()
    assert_close(loss.detach(), torch.tensor(3.0 * (2 * 0.5)))
    each = 3.0 * 2 * (1 / 2) * (1 / 8)  # strength * f_0 * 1/T * ds0
    assert_close(layer.logits.grad, torch.tensor([[each, -each], [each, -each]]))


def by_definition(logits, chosen, modality, lengths, strengths) -> float:
    """The auxiliary loss of one layer, spelled out in Python floats: a mean over the sequences with the modality."""
    num_experts, cost, start = len(logits[0]), [[], [], []], 0
    for length in lengths:
        for m in range(3):
            tokens = [t for t in range(start, start + length) if modality[t] == m]
            terms = []
            for i in range(num_experts):
                f = num_experts / (len(chosen[0]) * max(1, len(tokens))) * sum(i in chosen[t] for t in tokens)
                score = [[1 / (1 + math.exp(-z)) for z in logits[t]] for t in tokens]
                terms.append(f * sum(s[i] / sum(s) for s in score) / max(1, len(tokens)))
            cost[m] += [sum(terms)] if tokens else []
        start += length
    return sum(strengths[m] * sum(cost[m]) / len(cost[m]) for m in range(3) if cost[m])


@pytest.mark.parametrize("lengths", [None, [5, 1, 8], [14]])
def test_auxiliary_loss_and_gradient_of_two_layers_equal_the_definition(lengths):
    torch.manual_seed(0)
    modality, strengths = torch.randint(3, (14,)), (0.5, 2.0, 1.0)
    logits = torch.randn(2, 14, 6, requires_grad=True)
    chosen = torch.rand(2, 14, 6).topk(2).indices
    layers = [Routing(logits[i], chosen[i], torch.ones(14, 2), modality, None) for i in range(2)]
    starts = [0, 5, 6, 14] if lengths and len(lengths) == 3 else [0, 14]
    present = torch.tensor([sum(m in modality[a:b] for a, b in itertools.pairwise(starts)) for m in range(3)])
    loss = auxiliary_loss(layers, Strengths(*strengths), lengths, present if lengths else None)
    loss.backward()

    spelled = logits.detach().double()
    total = lambda: sum(  # noqa: E731
        by_definition(spelled[i].tolist(), chosen[i].tolist(), modality.tolist(), lengths or [14], strengths)
        for i in range(2)
    )
    assert loss.item() == pytest.approx(total(), rel=1e-5)
    for place in [(0, 0, 0), (0, 4, 3), (1, 5, 2), (1, 13, 5)]:
        differences = []
        for sign in (1, -1):
            spelled[place] += sign * 1e-5
            differences.append(sign * total())
            spelled[place] -= sign * 1e-5
        assert logits.grad[place].item() == pytest.approx(sum(differences) / 2e-5, rel=1e-3, abs=1e-6)


def test_even_use_gives_the_least_auxiliary_loss():
    even = auxiliary_loss([routing([[1.0, 0.0], [0.0, 1.0]], [[0], [1]])], EVEN)
    uneven = auxiliary_loss([routing([[1.0, 0.0], [1.0, 0.0]], [[0], [0]])], EVEN)
    assert_close(even, torch.tensor(1.0))
    assert uneven > 1.05


def test_modalities_are_counted_apart():
    logits, chosen = [[1.0, 0.0]] * 2 + [[0.0, 1.0]] * 2, [[0], [0], [1], [1]]
    together = auxiliary_loss([routing(logits, chosen)], EVEN)
    apart = auxiliary_loss([routing(logits, chosen, modality=[0, 0, 2, 2])], EVEN)
    assert_close(together, torch.tensor(1.0))  # even, seen as one
    assert apart > 2.1  # both skewed, seen apart
    assert auxiliary_loss([routing(logits, chosen, modality=[0, 0, 2, 2])], Strengths(image=1.0)) == 0


def test_a_sequence_is_balanced_in_itself_only_when_asked():
    logits, chosen = [[1.0, 0.0]] * 2 + [[0.0, 1.0]] * 2, [[0], [0], [1], [1]]
    layer = routing(logits, chosen)
    batch_wise = auxiliary_loss([layer], EVEN)
    by_sequence = auxiliary_loss([layer], EVEN, [2, 2], torch.tensor([2, 0, 0]))
    assert_close(batch_wise, torch.tensor(1.0))
    share = 1 / (1 + math.exp(-1)) / (1 / (1 + math.exp(-1)) + 0.5)
    assert_close(by_sequence, torch.tensor(2 * share))


def test_padding_counts_nowhere():
    logits, chosen = [[1.0, 0.0], [0.0, 1.0], [5.0, -5.0]], [[0], [1], [0]]
    padded = routing(logits, chosen, mask=[True, True, False])
    plain = routing(logits[:2], chosen[:2])
    assert_close(auxiliary_loss([padded], EVEN), auxiliary_loss([plain], EVEN))
    assert_close(z_loss([padded], 2), z_loss([plain], 2))


def test_z_loss_is_the_mean_square_of_log_sum_exp():
    assert_close(z_loss([routing([[0.0, 0.0]], [[0]])], 1).detach(), torch.tensor(math.log(2) ** 2))


def test_bias_moves_up_for_idle_experts_and_keeps_its_mean():
    bias = torch.zeros(4)
    move_bias(bias, torch.tensor([9.0, 1.0, 1.0, 1.0]), 0.1)
    assert_close(bias, torch.tensor([-0.15, 0.05, 0.05, 0.05]))


def test_bias_of_an_absent_or_frozen_modality_stays():
    bias = torch.ones(4)
    move_bias(bias, torch.zeros(4), 0.1)
    move_bias(bias, torch.tensor([9.0, 1.0, 1.0, 1.0]), 0.0)
    assert torch.equal(bias, torch.ones(4))


def test_bias_moves_the_choice_and_never_the_weight():
    torch.manual_seed(0)
    moe, x = MoE(16, MoEConfig(num_experts=8, expert_width=8)), torch.randn(5, 16)
    before = moe.route(x, None)
    moe.routers["text"].bias[3] = 10.0
    after = moe.route(x, None)
    assert (after.chosen == 3).any(1).all()
    scores = before.logits.sigmoid().gather(1, after.chosen)
    assert_close(after.weights, moe.config.routed_scale * scores / scores.sum(1, keepdim=True))


MECHANISMS = {
    "neither": BalanceSettings(auxiliary=Strengths(), bias_rate=Strengths()),
    "auxiliary": BalanceSettings(auxiliary=Strengths(text=0.3), bias_rate=Strengths()),
    "bias": BalanceSettings(auxiliary=Strengths(), bias_rate=Strengths(text=2e-2)),
}


def skewed_violation(settings: BalanceSettings) -> tuple[float, float]:
    """MaxVio before and after training on tokens that all lean one way, on which a few experts always win."""
    torch.manual_seed(0)
    moe = MoE(16, MoEConfig(num_experts=8, experts_per_token=2, expert_width=8, num_shared_experts=0))
    lean = 2 * torch.randn(16)
    optimizer = torch.optim.SGD(moe.parameters(), lr=0.1)
    violations = []
    for _ in range(60):
        x = torch.randn(256, 16) + lean
        y, decided = moe(x)
        loss = (y - x).square().mean() * 1e-3 + auxiliary_loss([decided], settings.auxiliary)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        move_bias(moe.routers["text"].bias, decided.load[0], settings.bias_rate.text)
        violations.append(max_violation(decided.load[0]))
    return violations[0], sum(violations[-5:]) / 5


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_each_mechanism_alone_evens_out_a_skewed_load_and_neither_does_not(mechanism):
    before, after = skewed_violation(MECHANISMS[mechanism])
    assert before > 1.5
    assert after > 0.95 * before if mechanism == "neither" else after < 0.5 * before


def test_skew_in_audio_alone_moves_only_the_audio_bias():
    torch.manual_seed(0)
    thinker = Thinker(tiny().thinker)
    loads = Loads(thinker)
    num_layers, num_experts = len(loads.layers), thinker.config.moe.num_experts
    assert num_layers == 3
    counts = torch.ones(num_layers, 3, num_experts)
    counts[:, 2, 0] = 50
    loads.move(counts, BalanceSettings().bias_rate)
    for layer in loads.layers:
        assert not layer.routers["text"].bias.any() and not layer.routers["image"].bias.any()
        assert layer.routers["audio"].bias[0] < 0 < layer.routers["audio"].bias[1]


def test_routers_that_do_not_learn_are_left_alone_one_by_one():
    thinker = Thinker(tiny().thinker)
    loads = Loads(thinker)
    assert loads.learning() == ["text", "image", "audio"]
    for layer in loads.layers:
        for name in ("text", "image"):
            layer.routers[name].weight.requires_grad_(False)
    assert loads.learning() == ["audio"]
    assert BalanceSettings().auxiliary.only(["audio"]) == Strengths(audio=1e-4)
    counts = torch.ones(len(loads.layers), 3, thinker.config.moe.num_experts)
    counts[:, :, 0] = 50
    loads.move(counts, BalanceSettings().bias_rate)
    assert all(not layer.routers["text"].bias.any() and layer.routers["audio"].bias.any() for layer in loads.layers)


def test_loads_add_up_over_micro_batches():
    thinker = Thinker(tiny().thinker)
    loads = Loads(thinker)
    routings = [Routing(torch.zeros(2, 16), torch.tensor([[0, 1], [2, 3]]), torch.ones(2, 2), None, None)] * 3
    loads.add(routings)
    loads.add(routings)
    counts = loads.take()
    assert counts[0, 0, :5].tolist() == [2, 2, 2, 2, 0] and counts[:, 1:].sum() == 0
    assert loads.take() is None


def test_figures_are_known_for_known_loads():
    even, one = torch.ones(4), torch.tensor([4.0, 0, 0, 0])
    assert (max_violation(even), dead_share(even), round(entropy(even), 6)) == (0, 0, 1)
    assert (max_violation(one), dead_share(one), entropy(one)) == (3, 0.75, 0)
    counts = torch.stack([even, torch.zeros(4), one])[None]
    found = figures(counts)
    assert found["balance/audio/layer_00/max_violation"] == 3
    assert not any("image" in name for name in found)  # absent


def test_heat_map_shows_idle_experts_blue_and_busy_ones_red(tmp_path):
    counts = torch.ones(2, 3, 4)
    counts[1, 0] = torch.tensor([4.0, 0, 0, 0])
    counts[:, 1] = 0
    heatmap.save(counts, tmp_path / "map" / "load.png")
    picture = heatmap.draw(counts)
    row = heatmap.LABEL + heatmap.CELL + 2
    assert picture.getpixel((2, row)) == (255, 0, 0)
    assert picture.getpixel((heatmap.CELL + 2, row)) == (0, 0, 255)
    assert picture.getpixel((2, row - heatmap.CELL)) == (255, 255, 255)
    assert (tmp_path / "map" / "load.png").stat().st_size > 100
