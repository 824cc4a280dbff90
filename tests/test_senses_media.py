"""train/senses: eyes and ears for whole batches see and hear what the model's own encoders and the processor do."""

import math

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from ming_omni.config import AudioConfig, VisionConfig
from ming_omni.data.augment import Treatment, augment
from ming_omni.inputs.mel import log_mel
from ming_omni.model.audio_encoder import AudioEncoder
from ming_omni.model.vision_encoder import VisionEncoder
from ming_omni.train.senses import ears
from ming_omni.train.senses.eyes import Eyes, varied


@pytest.mark.parametrize("grid", [(1, 18, 18), (2, 10, 10), (1, 4, 6)])
def test_patches_laid_out_by_windows_give_the_encoders_tokens(grid):
    torch.manual_seed(0)
    vision = VisionEncoder(VisionConfig(window_size=84)).eval()
    count = 3
    patches = torch.randn(count * math.prod(grid), 1176)
    tokens, merged = Eyes(vision)(patches, count, grid)
    assert_close(tokens.flatten(0, 1), vision(patches, torch.tensor([grid] * count)), atol=1e-5, rtol=1e-4)
    assert merged.shape == (count, math.prod(grid) // 4, vision.config.out_hidden_size)


def test_mel_frames_of_a_batch_are_those_of_each_clip_alone():
    torch.manual_seed(0)
    lengths = torch.tensor([150, 4000, 16_123, 20_000])
    samples = torch.randn(4, 20_000) * ears.inside(20_000, lengths)
    together = ears.log_mels(samples, lengths, 80)
    for row, length, frames, own in zip(samples, lengths, ears.num_frames(lengths), together, strict=True):
        alone = log_mel(row[:length], 80)
        assert len(alone) == frames
        assert_close(own[:frames], alone, atol=2e-4, rtol=0)
        assert not own[frames:].any()


def test_clips_of_a_batch_are_heard_as_if_alone():
    torch.manual_seed(0)
    config = AudioConfig(clip_isolation=True)
    audio = AudioEncoder(config).eval()
    frames = torch.tensor([37, 90, 64])
    features = torch.randn(3, 90, config.num_mel_bins) * ears.inside(90, frames)[..., None]
    own = ears.Ears(audio)
    tokens = own(own.encode(features, frames))
    for row, clip, length in zip(tokens, features, frames, strict=True):
        alone, _ = audio(clip[None, :length], length[None, None])
        assert_close(row[: len(alone)], alone, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    "treatment",
    [
        Treatment(reverberation_seconds=0.4, seed=5),
        Treatment(snr_db=9.0, noise_colour=1.3, seed=6),
        Treatment(is_telephone=True),
        Treatment(level_db=-11.0),
        Treatment(reverberation_seconds=0.7, snr_db=15.0, noise_colour=0.2, is_telephone=True, level_db=-3.0, seed=7),
    ],
)
def test_treatments_are_those_of_the_plain_augmentation(treatment):
    torch.manual_seed(0)
    samples = torch.randn(1, 8000) * 0.1
    wanted, _ = augment(samples, torch.tensor([8000]), [treatment])
    draws = [
        torch.from_numpy(np.random.default_rng(seed).standard_normal(size)).float()[None]
        for seed, size in ((treatment.seed, ears.ROOM_SAMPLES), (treatment.seed + 1, 8000))
    ]
    own = ears.Treatments(
        *(
            torch.tensor([getattr(treatment, name)], dtype=torch.bool if name == "is_telephone" else torch.float32)
            for name in ears.Treatments.__annotations__
        )
    )
    found = ears.treat(samples, torch.tensor([8000]), own, (draws[0], draws[1]))
    # A sample next to a step of the companding may fall on its other side.
    assert (found - wanted).abs().median() < 1e-5
    assert (found - wanted).abs().quantile(0.99) < 2e-3


def test_another_speed_is_that_of_the_plain_augmentation():
    torch.manual_seed(0)
    store = (torch.randn(9000) * 3000).to(torch.int16)
    plain = store[1000:6000].float()[None] / 32768
    wanted, lengths = augment(plain, torch.tensor([5000]), [Treatment(speed=1.1)])
    start, length, speed = torch.tensor([1000]), torch.tensor([5000]), torch.tensor([1.1], dtype=torch.float64)
    found = ears.samples_of(store, start, length, speed, lengths, int(lengths))
    assert_close(found, wanted, atol=1e-5, rtol=0)


def test_varied_pictures_differ_from_each_other_but_frames_of_a_film_only_by_noise():
    torch.manual_seed(0)
    still = torch.full((1, 3, 64, 64), 100, dtype=torch.uint8)
    still[..., 20:40, 20:40] = 200
    apart = varied(still.repeat(64, 1, 1, 1)).float()
    film = varied(still.repeat(256, 1, 1, 1), 8).float().unflatten(0, (32, 8))
    assert (apart[1:] - apart[0]).abs().mean() > 10, "every picture is varied in its own way"
    middle = film.mean(1, keepdim=True)
    assert (middle[:, 0] - still).abs().mean() > 1.5 * (film - middle).abs().mean(), (
        "what a film's frames share is more"
    )
    assert 5 < sum(bool((picture == still[0]).all()) for picture in apart) < 30, "a quarter stays as it is"


def test_half_of_the_rows_lose_stretches_and_none_gains_sound_after_its_end():
    torch.manual_seed(0)
    frames = torch.full((200,), 300)
    frames[:100] = 120
    features = torch.randn(200, 300, 80) * ears.inside(300, frames)[..., None]
    lost = ears.masked(features, frames) != features
    assert 60 < int(lost.any(2).any(1).sum()) < 140
    assert not lost[:100, 120:].any()
    assert 0.02 < float(lost.float().mean()) < 0.3
