"""Sampling: what each setting keeps, and that a row's answer depends on nothing but its own logits and seed."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ming_omni.errors import InputError
from ming_omni.model import sampling as sampling_module
from ming_omni.model.sampling import GREEDY, Sampling, choose, likeliest

VOCABULARY = 23
NO_HISTORY = torch.empty(1, 0, dtype=torch.long)
seeds = st.integers(0, 2**32)


def logits_of(seed: int, rows: int = 1) -> torch.Tensor:
    return torch.randn(rows, VOCABULARY, generator=torch.Generator().manual_seed(seed)) * 3


def draws(logits: torch.Tensor, sampling: Sampling, count: int = 200) -> list[int]:
    """Ids that one generator draws from one row of logits."""
    generator = sampling.generator()
    return [choose(logits, NO_HISTORY, [sampling], [generator])[0].item() for _ in range(count)]


@given(seeds)
def test_greedy_takes_the_likeliest_token(seed):
    logits = logits_of(seed, 3)
    ids, logprobs = choose(logits, NO_HISTORY.expand(3, 0), [GREEDY] * 3, [None] * 3)
    assert torch.equal(ids, logits.argmax(-1))
    assert torch.equal(logprobs, logits.log_softmax(-1).amax(-1))


@given(seeds, st.floats(1e-3, 50), st.sampled_from([{"top_k": 1}, {"top_p": 1e-6}, {"min_p": 1.0}]))
def test_keeping_one_token_is_greedy(seed, temperature, cut):
    logits, sampling = logits_of(seed), Sampling(temperature=temperature, seed=seed, **cut)
    assert draws(logits, sampling, 3) == [logits.argmax().item()] * 3


@given(seeds)
def test_a_tiny_temperature_is_greedy(seed):
    logits = logits_of(seed)
    assert draws(logits, Sampling(temperature=1e-6, seed=1), 3) == [logits.argmax().item()] * 3


@settings(max_examples=20)
@given(seeds, st.integers(1, 5))
def test_top_k_draws_only_the_k_likeliest(seed, k):
    logits = logits_of(seed)
    assert set(draws(logits, Sampling(temperature=5.0, top_k=k, seed=seed))) <= set(logits.topk(k).indices[0].tolist())


@pytest.mark.parametrize("k", [10**4, 10**20])
def test_a_top_k_beyond_the_vocabulary_keeps_all_of_it(k):
    logits = logits_of(0)
    size = logits.shape[-1]
    assert draws(logits, Sampling(1.0, top_k=k, seed=0), 20) == draws(logits, Sampling(1.0, top_k=size, seed=0), 20)


@pytest.mark.parametrize(
    ("top_p", "kept"), [(0.5, {0}), (0.51, {0, 1}), (0.8, {0, 1}), (0.81, {0, 1, 2}), (1.0, {0, 1, 2, 3})]
)
def test_top_p_keeps_the_smallest_set_that_holds_p(top_p, kept):
    logits = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log()
    assert set(draws(logits, Sampling(temperature=1.0, top_p=top_p, seed=0), 300)) == kept


def test_top_p_counts_what_top_k_has_left():
    logits = torch.tensor([[0.4, 0.3, 0.2, 0.1]]).log()  # of the two kept, the first holds 4/7
    assert set(draws(logits, Sampling(temperature=1.0, top_k=2, top_p=0.55, seed=0))) == {0}


def test_min_p_drops_tokens_far_below_the_likeliest():
    logits = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log()
    assert set(draws(logits, Sampling(temperature=1.0, min_p=0.25, seed=0), 300)) == {0, 1, 2}


def test_draws_follow_the_distribution():
    probability = torch.tensor([0.1, 0.2, 0.3, 0.4])
    counts = torch.tensor(draws(probability.log()[None], Sampling(temperature=1.0, seed=3), 4000)).bincount()
    assert (counts / 4000 - probability).abs().max() < 0.03


@settings(max_examples=30)
@given(st.lists(seeds, min_size=2, max_size=5, unique=True), st.floats(0.1, 3), st.floats(0.2, 1), st.integers(0, 8))
def test_a_seed_gives_the_same_tokens_in_any_batch(row_seeds, temperature, top_p, top_k):
    sampling = [Sampling(temperature=temperature, top_p=top_p, top_k=top_k, seed=seed) for seed in row_seeds]
    sampling[0] = GREEDY  # neighbours may be of any kind
    logits = torch.cat([logits_of(seed) for seed in row_seeds])
    together, alone = [s.generator() for s in sampling], [s.generator() for s in sampling]
    for _ in range(4):
        batch, _ = choose(logits, NO_HISTORY.expand(len(sampling), 0), sampling, together)
        single = [
            choose(logits[i : i + 1], NO_HISTORY, [s], [g])[0]
            for i, (s, g) in enumerate(zip(sampling, alone, strict=True))
        ]
        assert torch.equal(batch, torch.cat(single))


@settings(max_examples=50, deadline=None)
@given(seeds, st.floats(0.2, 3), st.sampled_from([0.3, 0.9, 1.0]), st.sampled_from([0, 1, 6, 15]), st.floats(0, 0.5))
def test_looking_at_the_nearest_tokens_first_changes_nothing(seed, temperature, top_p, top_k, min_p):
    logits = (logits_of(seed, 6) / 2).round()  # many ties
    sampling = [Sampling(temperature=temperature, top_p=top_p, top_k=top_k, min_p=min_p, seed=i) for i in range(6)]
    ids = []
    for num_near in (1, 5, VOCABULARY):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sampling_module, "NEAR", num_near)
            ids.append(choose(logits, NO_HISTORY.expand(6, 0), sampling, [s.generator() for s in sampling])[0])
    assert torch.equal(ids[0], ids[2]) and torch.equal(ids[1], ids[2])


@given(seeds, st.sampled_from([{}, {"top_k": 7}, {"top_p": 0.99}]))
def test_tokens_without_probability_are_never_drawn(seed, cut):
    logits = torch.full((1, VOCABULARY), -torch.inf)
    logits[0, [3, 9]] = 0.0
    assert set(draws(logits, Sampling(temperature=1.0, seed=seed, **cut), 5)) <= {3, 9}


def test_without_a_seed_two_requests_differ():
    flat = torch.zeros(1, VOCABULARY)
    assert draws(flat, Sampling(temperature=1.0), 20) != draws(flat, Sampling(temperature=1.0), 20)


def test_repetition_penalty_weakens_only_tokens_in_the_history():
    logits = torch.tensor([[2.0, 1.5, -0.5, -1.0]])
    sampling, history = Sampling(repetition_penalty=2.0), torch.tensor([[0, -1, -1]])
    ids, logprobs = choose(logits, history, [sampling], [None])
    assert ids.item() == 1  # 2.0 / 2 is below 1.5; the fillers touch no token
    assert logprobs.item() == pytest.approx(logits.log_softmax(-1)[0, 1].item())
    negative = torch.tensor([[-1.0, -1.5]])
    assert choose(negative, torch.tensor([[0]]), [sampling], [None])[0].item() == 1  # -1.0 * 2 is below -1.5


@given(seeds, st.sets(st.integers(0, VOCABULARY - 1), min_size=1, max_size=VOCABULARY - 1), st.floats(0, 100))
def test_banned_ids_are_never_chosen(seed, banned, temperature):
    sampling = Sampling(temperature=temperature, banned=tuple(banned), seed=seed)
    assert not set(draws(logits_of(seed), sampling, 5)) & banned


def test_the_likeliest_come_in_order_with_their_probabilities():
    ids, logprobs = likeliest(torch.tensor([[0.1, 0.6, 0.3]]).log(), 2)
    assert ids.tolist() == [[1, 2]]
    torch.testing.assert_close(logprobs.exp(), torch.tensor([[0.6, 0.3]]))


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": -1},
        {"top_p": 0},
        {"top_p": 1.1},
        {"top_k": -1},
        {"min_p": 2},
        {"repetition_penalty": 0},
        {"seed": 2**70},
        {"seed": 1.5},
        {"temperature": "hot"},
        {"temperature": float("nan")},
        {"top_p": True},
        {"top_k": 1.5},
        {"top_k": "3"},
        {"min_p": None},
        {"repetition_penalty": "x"},
        {"banned": 5},
        {"banned": ("x",)},
    ],
)
def test_a_wrong_setting_is_named(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        Sampling(**wrong)


def test_numbers_of_numpy_are_numbers():
    sampling = Sampling(temperature=np.float32(0.5), top_k=np.int64(2), seed=np.int64(3))
    assert torch.equal(
        torch.rand(2, generator=sampling.generator()), torch.rand(2, generator=Sampling(seed=3).generator())
    )


def test_a_banned_id_outside_the_vocabulary_is_no_trouble():
    logits, history = torch.tensor([[1.0, 2.0]]), torch.full((1, 1), -1)
    assert choose(logits, history, [Sampling(banned=(1, 7))], [None])[0].tolist() == [0]
    assert choose(logits, history, [Sampling(banned=(7,))], [None])[0].tolist() == [1]
