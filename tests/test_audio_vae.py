"""Samples <-> latents: whole equals streamed, batched equals alone, and the lengths come out right."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from ming_omni.config import AudioVAEConfig, BackboneConfig
from ming_omni.model.audio_vae import AudioVAE, DecodeStream, EncodeStream

HOP = 8


@pytest.fixture(scope="module")
def vae():
    torch.manual_seed(0)
    backbone = BackboneConfig(hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2)
    config = AudioVAEConfig(hop_samples=HOP, frame_samples=12, latent_dim=6, encoder=backbone, decoder=backbone)
    model = AudioVAE(config).eval()
    for parameter in model.parameters():  # the usual small weights would hide an error of timing
        parameter.data.mul_(4)
    return model


def cut(total: int, marks: list[int]) -> list[int]:
    ends = sorted({mark % total for mark in marks} | {total})
    return [end - start for start, end in zip([0, *ends], ends, strict=False) if end > start]


@torch.inference_mode()
@settings(max_examples=40, deadline=None)
@given(length=st.integers(1, 12), marks=st.lists(st.integers(0, 100), max_size=5))
def test_decoding_in_pieces_gives_the_samples_of_decoding_at_once(vae, length, marks):
    latents = torch.randn(1, length, 6, generator=torch.Generator().manual_seed(length))
    stream, sizes = DecodeStream(vae), cut(length, marks)
    pieces = latents.split(sizes, 1)
    chunks = [stream.feed(piece, is_last=i == len(pieces) - 1) for i, piece in enumerate(pieces)]
    assert_close(torch.cat(chunks, 1), vae.decode(latents), atol=1e-5, rtol=1e-5)


@torch.inference_mode()
@settings(max_examples=40, deadline=None)
@given(length=st.integers(1, 100), marks=st.lists(st.integers(0, 1000), max_size=5))
def test_encoding_in_pieces_gives_the_posterior_of_encoding_at_once(vae, length, marks):
    samples = torch.randn(1, length, generator=torch.Generator().manual_seed(length))
    stream, pieces = EncodeStream(vae), samples.split(cut(length, marks), 1)
    parts = [stream.feed(piece, is_last=i == len(pieces) - 1) for i, piece in enumerate(pieces)]
    whole = vae.encode(samples)
    assert_close(torch.cat([part.mean for part in parts], 1), whole.mean, atol=1e-5, rtol=1e-5)
    assert_close(torch.cat([part.std for part in parts], 1), whole.std, atol=1e-5, rtol=1e-5)


def test_chunks_are_late_by_one_and_a_half_hops_and_the_last_catches_up(vae):
    stream = DecodeStream(vae)
    with torch.inference_mode():
        lengths = [stream.feed(torch.zeros(1, 2, 6), is_last=last).shape[1] for last in (False, False, True)]
    assert lengths == [2 * HOP - 12, 2 * HOP, 2 * HOP + 12]


@pytest.mark.parametrize(("samples", "latents"), [(1, 1), (HOP, 1), (HOP + 1, 2), (10 * HOP, 10)])
def test_every_started_hop_has_a_latent(vae, samples, latents):
    assert vae.encode(torch.zeros(1, samples)).mean.shape == (1, latents, 6)


def test_t_latents_give_t_hops(vae):
    assert vae.decode(torch.zeros(2, 5, 6)).shape == (2, 5 * HOP)


def test_a_batch_is_decoded_as_its_rows_alone(vae):
    latents = torch.randn(3, 5, 6)
    with torch.inference_mode():
        assert_close(vae.decode(latents), torch.cat([vae.decode(row[None]) for row in latents]), atol=1e-5, rtol=1e-5)


def test_later_sound_changes_no_earlier_latent(vae):
    samples = torch.randn(1, 20 * HOP)
    changed = samples.clone()
    changed[:, 10 * HOP :] = 0
    with torch.inference_mode():
        # Frame 9 reaches four samples into hop 10.
        assert_close(vae.encode(samples).mean[:, :9], vae.encode(changed).mean[:, :9])


def test_streamed_lengths_are_those_of_the_specification():
    vae = AudioVAE(AudioVAEConfig()).eval()
    stream, latents = DecodeStream(vae), torch.randn(1, 23, 64)
    with torch.inference_mode():
        pieces = latents.split([5, 1, 9, 8], 1)
        chunks = [stream.feed(piece, is_last=i == 3) for i, piece in enumerate(pieces)]
        assert [chunk.shape[1] for chunk in chunks] == [1120, 320, 2880, 3040]
        assert_close(torch.cat(chunks, 1), vae.decode(latents), atol=1e-6, rtol=1e-4)


def test_sampling_follows_its_generator(vae):
    posterior = vae.encode(torch.randn(1, 80))
    draws = [posterior.sample(torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])
    assert (posterior.std >= 1e-4).all()


def test_reconstruction_trains_every_weight(vae):
    vae.zero_grad()
    sound, posterior = vae(torch.randn(2, 50), torch.Generator().manual_seed(0))
    assert sound.shape == (2, 50)
    (sound.square().mean() + posterior.mean.square().mean()).backward()
    assert [name for name, p in vae.named_parameters() if p.grad is None or not p.grad.any()] == []
