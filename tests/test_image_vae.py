"""model/image_vae.py: shapes, scales, the posterior, and tiles against the whole."""

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from ming_omni.config import ImageVAEConfig
from ming_omni.model.image_vae import ImageVAE, Posterior, in_tiles


@pytest.fixture(scope="module")
def vae():
    torch.manual_seed(0)
    return ImageVAE(ImageVAEConfig()).eval()


def test_a_latent_cell_is_eight_pixels_wide(vae):
    latents = vae.encode(torch.randn(2, 3, 32, 48))
    assert latents.shape == (2, 16, 4, 6)
    assert vae.decode(latents).shape == (2, 3, 32, 48)


def test_encode_gives_the_scaled_mean(vae):
    pixels = torch.randn(1, 3, 16, 16)
    expected = (vae.posterior(pixels).mean - vae.config.shift_factor) * vae.config.scaling_factor
    assert_close(vae.encode(pixels), expected)
    assert_close(vae.unscale(vae.encode(pixels)), vae.posterior(pixels).mean)


def test_kl_is_zero_for_the_unit_gaussian_and_half_for_a_mean_of_one():
    zeros = torch.zeros(2, 1, 1, 1)
    assert Posterior(zeros, zeros).kl().tolist() == [0, 0]
    assert Posterior(zeros + 1, zeros).kl().tolist() == [0.5, 0.5]


def test_samples_follow_mean_and_variance_and_the_generator():
    posterior = Posterior(torch.full((1, 1, 100, 100), 3.0), torch.full((1, 1, 100, 100), 2 * torch.tensor(0.5).log()))
    first, again = (posterior.sample(torch.Generator().manual_seed(1)) for _ in range(2))
    assert first.equal(again)
    assert abs(first.mean() - 3) < 0.02 and abs(first.std() - 0.5) < 0.02


def test_training_output_reaches_every_weight(vae):
    reconstruction, posterior = vae(torch.randn(1, 3, 16, 16), torch.Generator().manual_seed(0))
    (reconstruction.square().mean() + posterior.kl().mean()).backward()
    assert not [name for name, p in vae.named_parameters() if p.grad is None]
    vae.zero_grad()


def test_the_convolutions_around_the_latents_are_there_only_when_configured():
    config = ImageVAEConfig(use_quant_conv=True, use_post_quant_conv=False)
    names = dict(ImageVAE(config).named_parameters())
    assert "quant.weight" in names and "post_quant.weight" not in names


@pytest.mark.parametrize("size", [(10, 10), (16, 40), (23, 64), (57, 33)])
@pytest.mark.parametrize("factor", [1, 3])
def test_tiles_join_to_the_whole_where_each_pixel_depends_on_its_cell_alone(size, factor):
    x = torch.randn(2, 3, *size)

    def enlarge(part):
        return F.interpolate(part, scale_factor=factor)

    assert_close(in_tiles(enlarge, x, 16, factor), enlarge(x))


def test_tiles_leave_no_seam():
    """Neighbouring tiles that disagree by one fade into each other: no step is larger than a quarter tile's share."""
    calls = []

    def disagreeing(part):
        calls.append(None)
        return torch.full_like(part[:, :1], len(calls) % 2)

    out = in_tiles(disagreeing, torch.zeros(1, 1, 16, 64), 16, 1)
    assert 0 < out.diff(dim=-1).abs().max() < 0.5


@torch.no_grad()
def test_large_pictures_are_coded_in_tiles_close_to_the_whole(vae):
    torch.manual_seed(1)
    pixels, cells = torch.randn(1, 3, 64 * 8, 80 * 8), torch.randn(1, 16, 64, 80)
    latents, picture = vae.encode(pixels), vae.decode(cells)
    limit, vae.config.max_cells = vae.config.max_cells, 64 * 64
    try:
        tiled, tiled_picture = vae.encode(pixels), vae.decode(cells)
    finally:
        vae.config.max_cells = limit
    assert tiled.shape == latents.shape and tiled_picture.shape == picture.shape
    assert not tiled.equal(latents)
    # Group norms see a tile instead of the picture, so the two agree closely but not exactly.
    assert (tiled - latents).norm() / latents.norm() < 0.1
    assert (tiled_picture - picture).norm() / picture.norm() < 0.1
