"""A trained painter in a nano folder: packed, loaded by `Ming`; pictures, edits and masks with its own settings."""

import json

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch.testing import assert_close

from ming_omni import checkpoint
from ming_omni.checkpoint import painter as painters
from ming_omni.config import PainterConfig, all_settings, flash_painter, nano_painter
from ming_omni.errors import InputError
from ming_omni.ming import Ming
from ming_omni.model.image_vae import ImageVAE
from ming_omni.model.painter import Painter
from ming_omni.nano.painter import ship_painter
from ming_omni.train.image_vae import states as image_vae
from ming_omni.train.image_vae.settings import Settings
from ming_omni.train.painter import states
from tests.painters import tiny_painter
from tests.small_nano import small_folder


@pytest.fixture(scope="module")
def painter() -> Painter:
    return tiny_painter(thinker_width=128, steps=2, guidance=1.0, image_guidance=1.0, mask_threshold=0.2)


@pytest.fixture(scope="module")
def folder(painter, tmp_path_factory):
    """A small nano that paints."""
    folder = small_folder(tmp_path_factory.mktemp("nano"))
    ship_painter(painter.config, {name: p.data for name, p in painter.named_parameters()}, folder)
    return folder


def test_the_shipped_painter_is_the_trained_one_but_for_rounding(folder, painter):
    shipped = painters.load_ours(folder / "painter")
    assert json.dumps(all_settings(shipped.config)) == json.dumps(all_settings(painter.config))
    for (name, ours), theirs in zip(painter.named_parameters(), shipped.parameters(), strict=True):
        assert (ours - theirs).norm() <= 0.01 * ours.norm() + 1e-6, name
    states_of_thinker = torch.randn(1, 16, 128)
    assert_close(shipped.condition(states_of_thinker), painter.condition(states_of_thinker), atol=0.02, rtol=0)


def test_ming_paints_edits_and_segments_with_a_shipped_folder(folder):
    ming = Ming.load(folder)
    (picture,) = ming.paint('a dog and the word "GO"', seed=3)
    assert picture.size == (64, 64) and picture.settings == {"steps": 2, "guidance": 1.0}
    assert ming.paint('a dog and the word "GO"', seed=3)[0].png() == picture.png()
    (edited,) = ming.edit(picture.image, "remove the dog", seed=1)
    assert edited.settings["image_guidance"] == 1.0
    found = ming.segment(Image.new("RGB", (80, 60), "green"), "dog", seed=1)
    assert found.masks[0].inside.shape == (60, 80) and found.before.shape == (*found.edited.size[::-1], 3)


def test_a_mask_begins_where_the_model_says(folder):
    ming, picture = Ming.load(folder), Image.new("RGB", (80, 60), "green")
    usual, same, other = (
        ming.segment(picture, "dog", seed=1, **chosen).masks[0].inside
        for chosen in ({}, {"threshold": 0.2}, {"threshold": 0.0})
    )
    assert (usual == same).all() and (usual != other).any()


def test_who_was_not_made_for_few_steps_is_asked_as_published():
    published, nano = flash_painter(), nano_painter()
    assert (published.steps, published.guidance, published.image_guidance) == (30, 5.0, 2.0)
    assert (nano.steps, nano.guidance, nano.image_guidance) == (8, 1.0, 1.0)


def test_a_saved_model_keeps_its_painter(folder, tmp_path):
    model = checkpoint.load(folder, load_image_gen=True)
    model.save_pretrained(tmp_path)
    again = checkpoint.load(tmp_path, load_image_gen=True)
    assert_close(again.painter.state_dict(), model.painter.state_dict(), rtol=0, atol=0)


def test_pieces_of_both_runs_become_one_painter(painter, tmp_path):
    image_vae.export(tmp_path / "vae", painter.vae, Settings(), {})
    own = {f"painter.{n}": p.half() for n, p in painter.named_parameters() if not n.startswith("vae.")}
    about = {"facts": '{"phase": "painting"}', "config": json.dumps(all_settings(painter.config))}
    save_file({name: p.contiguous() for name, p in own.items()}, tmp_path / "trained-0.safetensors", metadata=about)
    config, weights = states.load_whole(tmp_path, tmp_path / "vae")
    ship_painter(config, weights, tmp_path / "nano")
    assert painters.load_ours(tmp_path / "nano" / "painter").config.steps == 2
    other = ImageVAE(nano_painter().vae)
    image_vae.export(tmp_path / "other", other, Settings(), {})
    with pytest.raises(InputError, match="another autoencoder"):
        states.load_whole(tmp_path, tmp_path / "other")


@pytest.mark.parametrize("fault", ["lacks", "has no place for", "is"])
def test_weights_that_do_not_fit_are_refused(fault, painter, tmp_path):
    weights = {name: p.data for name, p in painter.named_parameters()}
    if fault == "lacks":
        del weights["proj_in.weight"]
    elif fault == "is":
        weights["proj_in.bias"] = torch.zeros(1)
    else:
        weights["another"] = torch.zeros(1)
    with pytest.raises(InputError, match=fault):
        ship_painter(painter.config, weights, tmp_path)


def test_nanos_painter_fits_its_share_of_the_package():
    with torch.device("meta"):
        painter = Painter(nano_painter())
    counts = {True: 0, False: 0}
    for name, parameter in painter.named_parameters():
        counts[name.startswith("vae.")] += parameter.numel()
    assert counts[False] <= 20e6 and counts[True] <= 4e6
    assert PainterConfig(**all_settings(painter.config)).dit.num_hidden_layers == painter.config.dit.num_hidden_layers
