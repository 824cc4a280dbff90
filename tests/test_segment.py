"""paint/masks.py and paint/segment.py: reading masks, and every form they are given in."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image, ImageDraw
from torch import nn

from ming_omni.errors import InputError
from ming_omni.inputs.processor import MingProcessor
from ming_omni.inputs.tiny import tiny_tokenizer
from ming_omni.ming import Ming
from ming_omni.paint import COLORS, THRESHOLD, segment
from ming_omni.paint.commands import segment_command
from ming_omni.paint.masks import Mask, from_rle, nearest_color, overlay, rings
from ming_omni.paint.segment import read, request
from tests.painters import tiny_model

MASKS = arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9)))


def drawn(*rows: str) -> np.ndarray:
    return np.array([[c == "#" for c in row] for row in rows])


@pytest.fixture(scope="module")
def ming():
    model = tiny_model()
    return Ming(model, MingProcessor.from_config(model.config, tiny_tokenizer()), name="tiny")


# A mask in all its forms.


def test_area_and_box_of_an_l_shape():
    mask = Mask("l", "red", drawn("....", ".#..", ".##."))
    assert mask.area == 3 and mask.box == (1, 1, 3, 3)
    assert mask.polygons() == [[(1, 1), (2, 1), (2, 2), (3, 2), (3, 3), (1, 3)]]
    assert mask.rle() == {"size": [3, 4], "counts": [4, 2, 2, 1, 3]}


def test_an_empty_mask_has_no_box_and_no_polygon():
    mask = Mask("none", "red", np.zeros((2, 3), bool))
    assert (mask.area, mask.box, mask.polygons(), mask.rle()["counts"]) == (0, None, [], [6])


def test_a_hole_is_a_ring_the_other_way_round():
    outline, hole = rings(drawn("###", "#.#", "###"))
    assert outline == [(0, 0), (3, 0), (3, 3), (0, 3)]
    assert _signed_area(outline) == 9 and _signed_area(hole) == -1


def _signed_area(ring):
    return sum(x1 * y2 - x2 * y1 for (x1, y1), (x2, y2) in zip(ring, ring[1:] + ring[:1], strict=True)) / 2


@given(MASKS)
def test_run_lengths_give_the_mask_back(inside):
    assert (from_rle(json.loads(json.dumps(Mask("m", "red", inside).rle()))) == inside).all()


@given(MASKS)
def test_polygons_enclose_exactly_the_pixels_inside(inside):
    found = rings(inside)
    assert sum(map(_signed_area, found)) == inside.sum()
    for row, column in np.ndindex(inside.shape):  # even-odd rule at the middle of each pixel
        x, y = column + 0.5, row + 0.5
        crossings = 0
        for ring in found:
            for (x1, y1), (x2, y2) in zip(ring, ring[1:] + ring[:1], strict=True):
                crossings += x1 == x2 and x1 > x and min(y1, y2) < y < max(y1, y2)
        assert crossings % 2 == inside[row, column]


@given(MASKS)
def test_png_gives_the_mask_back(inside):
    assert (np.asarray(Image.open(io.BytesIO(Mask("m", "red", inside).png()))) == inside).all()


def test_overlay_mixes_the_colour_into_the_inside_only():
    image = Image.new("RGB", (2, 1), (0, 0, 100))
    mixed = overlay(image, [Mask("m", "red", np.array([[True, False]]))], opacity=0.5)
    assert [mixed.getpixel((x, 0)) for x in (0, 1)] == [(128, 0, 50), (0, 0, 100)]


# Reading masks from an edit.


@pytest.mark.parametrize("opacity", [0.4, 0.7, 1.0])
def test_every_colour_of_the_map_is_told_from_the_others(opacity):
    rng = np.random.default_rng(0)
    before = rng.uniform(60, 190, (len(COLORS), 8, 3)).astype(np.float32)
    painted = np.array([*COLORS.values()], np.float32)[:, None]
    after = before + opacity * (painted - before)
    assert (nearest_color(before, after, [*COLORS.values()]) == np.arange(len(COLORS))[:, None]).mean() > 0.97


@pytest.mark.parametrize("opacity", [0.4, 0.7, 1.0])
def test_masks_painted_over_a_noisy_scene_are_read_back(opacity):
    rng = np.random.default_rng(1)
    before = rng.integers(60, 190, (64, 64, 3)).astype(np.float32)
    truth = [np.zeros((64, 64), bool), np.zeros((64, 64), bool)]
    truth[0][8:30, 8:30], truth[1][36:60, 20:50] = True, True
    after = before + rng.normal(0, 0.04 * 255, before.shape)
    for inside, color in zip(truth, ((255, 0, 0), (0, 255, 0)), strict=True):
        after[inside] += opacity * (np.array(color) - after[inside])
    for found, inside in zip(read(before, after, [(255, 0, 0), (0, 255, 0)], THRESHOLD), truth, strict=True):
        assert (found & inside).sum() / (found | inside).sum() > 0.85


def test_an_unchanged_picture_has_no_mask():
    before = np.full((4, 4, 3), 100.0)
    assert not read(before, before, [(255, 0, 0)], 0.0)[0].any()


# Asking for them.


def test_the_first_form_is_the_releases_own():
    assert request("hair", None, False, "red") == ("please segment the hair using red mask", ["hair"], ["red"])


def test_classes_take_the_colours_in_order_and_instances_take_all():
    instruction, names, colors = request(None, ["cat", "dog"], False, "red")
    assert instruction == "please segment the cat using red mask, the dog using green mask"
    assert (names, colors) == (["cat", "dog"], ["red", "green"])
    _, names, colors = request("cat", None, True, "red")
    assert names[:2] == ["cat 1", "cat 2"] and colors == [*COLORS]


@pytest.mark.parametrize(
    "arguments, reason",
    [
        ((None, None, False, "red"), "name what"),
        (("cat", ["dog"], False, "red"), "name what"),
        ((None, "cat", False, "red"), "name what"),
        ((" ", None, False, "red"), "is empty"),
        ((None, ["cat"], True, "red"), "one thing at a time"),
        ((None, ["x"] * 11, False, "red"), "at once, not 11"),
        (("cat", None, False, "pink"), "not 'pink'"),
    ],
)
def test_what_cannot_be_asked_is_refused(arguments, reason):
    with pytest.raises(InputError, match=reason):
        request(*arguments)


@pytest.mark.parametrize("form", [{"what": "cat"}, {"classes": ["cat", "dog"]}, {"what": "cat", "instances": True}])
def test_masks_have_the_size_of_the_picture_and_never_overlap(ming, form):
    image = Image.new("RGB", (90, 60), "gray")
    ImageDraw.Draw(image).rectangle((10, 10, 40, 40), "yellow")
    found = segment(ming.model, ming.processor, image, steps=2, seed=1, **form)
    assert all(mask.inside.shape == (60, 90) for mask in found.masks)
    assert found.overlay().size == (90, 60)
    assert sum(mask.inside.astype(int) for mask in found.masks).max() <= 1


@pytest.mark.parametrize(
    "options, reason",
    [
        ({"n": 2}, "no option n"),
        ({"aspect": "1:4", "text": "A"}, "no option aspect, text"),
        ({"threshold": 1}, "the threshold"),
        ({"threshold": -0.1}, "the threshold"),
        ({"threshold": float("nan")}, "the threshold"),
    ],
)
def test_options_that_cannot_be_met_are_refused_before_painting(ming, options, reason):
    with pytest.raises(InputError, match=reason):
        segment(
            ming.model,
            ming.processor,
            Image.new("RGB", (64, 64)),
            "cat",
            on_step=lambda step: pytest.fail("painted first"),
            **options,
        )


class Unchanging(nn.Module):
    """A network that paints exactly the picture it was given to edit."""

    def forward(self, latents, time, context, pooled, reference):
        return (latents - reference) / (time / 1000).view(-1, 1, 1, 1)


@pytest.mark.parametrize("size", [(1500, 1400), (90, 61), (40, 300)])
def test_an_edit_that_changes_nothing_leaves_no_mask_whatever_the_picture_was_resized_through(size):
    model = tiny_model()
    model.painter.dit = Unchanging()
    processor = MingProcessor.from_config(model.config, tiny_tokenizer())
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), np.uint8))
    # Two levels of rounding, no more.
    found = segment(model, processor, image, "cat", image_guidance=1, steps=3, threshold=2 / 255)
    assert found.masks[0].area == 0


@pytest.mark.parametrize("name", ["mask.jpg", "mask.json"])
def test_masks_are_png_or_refused(ming, tmp_path: Path, name):
    Image.new("RGB", (64, 64), "gray").save(tmp_path / "in.png")
    with pytest.raises(InputError, match="masks are written as PNG"):
        segment_command(ming, tmp_path / "in.png", "cat", tmp_path / name)


def test_the_command_writes_masks_overlay_and_details(ming, tmp_path: Path, capsys):
    Image.new("RGB", (64, 64), "gray").save(tmp_path / "in.png")
    written = segment_command(ming, tmp_path / "in.png", "cat", tmp_path / "mask.png", details=True, steps=1, seed=3)
    assert [path.name for path in written] == ["mask.png", "mask-overlay.png", "mask.json"]
    [facts] = json.loads((tmp_path / "mask.json").read_text())
    inside = np.asarray(Image.open(tmp_path / "mask.png"))
    assert facts["area"] == inside.sum() and (from_rle(facts["rle"]) == inside).all()
    assert "pixels" in capsys.readouterr().out
