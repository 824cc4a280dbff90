"""train/losses.py, critics.py: values a person can work out, and where gradients go and do not go."""

import math

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from ming_omni.train import losses
from ming_omni.train.critics import Classifier, PictureCritic, SoundCritic
from tests.media import tone


def test_next_token_asks_only_where_a_target_stands():
    head = nn.Linear(2, 3, bias=False)
    nn.init.zeros_(head.weight)
    hidden = torch.randn(1, 4, 2, requires_grad=True)
    targets = torch.tensor([[losses.IGNORE, 2, losses.IGNORE, 0]])
    loss = losses.next_token(head, hidden, targets)
    assert_close(loss.detach(), torch.tensor(2 * math.log(3)))
    nn.init.ones_(head.weight[:1])
    losses.next_token(head, hidden, targets).backward()
    assert hidden.grad[0, [0, 2]].eq(0).all() and hidden.grad[0, [1, 3]].ne(0).any()


def test_a_batch_that_asks_nothing_costs_nothing_and_has_a_gradient():
    hidden = torch.randn(1, 3, 2, requires_grad=True)
    loss = losses.next_token(nn.Linear(2, 3), hidden, torch.full((1, 3), losses.IGNORE))
    loss.backward()
    assert loss == 0 and hidden.grad.eq(0).all()


def test_the_edited_region_weighs_more_and_the_mean_stays_one():
    before = torch.zeros(2, 3, 16, 16)
    after = before.clone()
    after[0, :, :8, :8] = 1.0  # a quarter of the first picture; the second is left alone
    weight = losses.edit_weight(before, after, 4.0, (4, 4))
    assert_close(weight[0, 0, 0, 0] / weight[0, 0, 3, 3], torch.tensor(4.0))
    assert_close(weight.mean((1, 2, 3)), torch.ones(2))
    assert_close(weight[1], torch.ones(1, 4, 4))


def test_kl_is_zero_for_unit_gaussians_only():
    mean, std = torch.zeros(2, 3), torch.ones(2, 3)
    assert losses.gaussian_kl(mean, std) == 0
    assert_close(losses.gaussian_kl(mean + 2, std), torch.tensor(2.0))
    assert losses.gaussian_kl(mean, 2 * std) > 0.5


def test_mel_distance_hears_pitch_and_not_a_sign():
    low, high = (torch.from_numpy(tone(0.3, frequency_hz=f))[None] for f in (300.0, 900.0))
    assert losses.mel_distance(low, low, 16_000) == 0
    assert_close(losses.mel_distance(-low, low, 16_000), torch.tensor(0.0), atol=1e-4, rtol=0)
    assert losses.mel_distance(high, low, 16_000) > 0.5


@pytest.mark.parametrize("window", losses.SPECTRA)
def test_every_mel_bin_hears_something(window):
    noise = torch.randn(1, 16_000, generator=torch.Generator().manual_seed(0))
    assert losses.log_mel(noise, window, 16_000).exp().mean((0, 2)).min() > 1e-4


def test_critic_loss_is_zero_beyond_the_margin_and_two_for_a_shrug():
    assert losses.critic_loss(torch.tensor([2.0]), torch.tensor([-2.0])) == 0
    assert losses.critic_loss(torch.zeros(1), torch.zeros(1)) == 2
    assert losses.adversarial_loss(torch.tensor([3.0])) == -3


JUDGES = {
    "picture": (PictureCritic, torch.randn(2, 3, 32, 32)),
    "sound": (SoundCritic, torch.randn(2, 4000)),
    "classifier": (lambda: Classifier(3), torch.randn(2, 3, 32, 32)),
}


@pytest.mark.parametrize("name", JUDGES)
def test_a_held_judge_sends_gradients_to_the_work_and_keeps_none(name):
    make, work = JUDGES[name]
    judge, work = make(), work.clone().requires_grad_()
    scores, features = losses.held(judge)(work)
    (losses.adversarial_loss(scores) + losses.feature_distance(features, [f + 1 for f in features])).backward()
    assert work.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in judge.parameters())


@pytest.mark.parametrize("name", ["picture", "sound"])
def test_a_critic_learns_to_tell_two_kinds_apart(name):
    torch.manual_seed(0)
    make, work = JUDGES[name]
    critic, real, made = make(), torch.tanh(work), 0.3 * torch.tanh(work).roll(1, 0)
    optimizer = torch.optim.Adam(critic.parameters(), 3e-3)
    for _ in range(25):
        loss = losses.critic_loss(critic(real)[0], critic(made)[0])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.5


def test_the_classifier_learns_labels_and_its_features_tell_pictures_apart():
    torch.manual_seed(0)
    classifier, labels = Classifier(2), torch.tensor([0, 1] * 4)
    pictures = torch.randn(8, 3, 16, 16) * 0.1 + labels.view(-1, 1, 1, 1).float()
    optimizer = torch.optim.Adam(classifier.parameters(), 3e-3)
    for _ in range(30):
        loss = nn.functional.cross_entropy(classifier(pictures)[0], labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.1
    with torch.no_grad():
        zeros, ones = (classifier(pictures[labels == label])[1] for label in (0, 1))
        assert losses.feature_distance(ones, zeros) > 2 * losses.feature_distance([f.roll(1, 0) for f in zeros], zeros)
