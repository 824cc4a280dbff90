"""Picture sizes and the painter's buckets, against the published examples and their own promises."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ming_omni.buckets import BUCKETS_512, BUCKETS_672, BUCKETS_1024, bucket
from ming_omni.errors import InputError
from ming_omni.inputs.image import MAX_PIXELS, MIN_PIXELS
from ming_omni.inputs.sizes import centre_crop, cover, smart_resize

LOADER = {"factor": 28, "min_pixels": MIN_PIXELS, "max_pixels": MAX_PIXELS}
SECOND = {"factor": 28, "min_pixels": 78_400, "max_pixels": 2_007_040, "clamp": False}
sides = st.integers(1, 6000)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((20, 20), (56, 56)), ((100, 150), (112, 140)), ((480, 640), (476, 644)), ((1080, 1920), (672, 1176)),
        ((3000, 4000), (756, 1008)), ((28, 2800), (28, 2800)), ((50, 1000), (56, 1008)),
    ],
)  # fmt: skip
def test_the_loader_resizes_as_published(size, expected):
    assert smart_resize(*size, **LOADER) == expected


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((28, 28), (280, 280)), ((112, 140), (252, 336)), ((476, 644), (476, 644)), ((672, 1176), (672, 1176)),
        ((896, 896), (896, 896)),
    ],
)  # fmt: skip
def test_the_image_processor_resizes_as_published(size, expected):
    assert smart_resize(*size, **SECOND) == expected


@pytest.mark.parametrize(
    ("size", "expected"), [((512, 512), (672, 672)), ((476, 644), (588, 784)), ((896, 896), (672, 672))]
)
def test_equal_limits_give_every_picture_about_the_same_tokens(size, expected):
    assert smart_resize(*size, **SECOND | {"min_pixels": 451_584, "max_pixels": 451_584}) == expected


@given(sides, sides)
def test_a_resized_picture_is_made_of_whole_patches_within_the_limits(height, width):
    if max(height, width) / min(height, width) > 200:
        with pytest.raises(InputError):
            smart_resize(height, width, **LOADER)
        return
    new_height, new_width = smart_resize(height, width, **LOADER)
    assert new_height % 28 == new_width % 28 == 0 < min(new_height, new_width)
    # A strip of one patch's height cannot be made smaller without bending its shape.
    assert new_height * new_width <= MAX_PIXELS or min(new_height, new_width) == 28
    assert new_height * new_width >= MIN_PIXELS


@given(st.integers(200, 3000), st.integers(200, 3000))
def test_resizing_an_already_resized_picture_changes_nothing(height, width):
    once = smart_resize(height, width, **LOADER)
    assert smart_resize(*once, **LOADER) == once


@pytest.mark.parametrize(
    ("size", "highres", "expected"),
    [
        ((512, 910), False, (384, 672)), ((512, 384), False, (576, 448)), ((768, 1024), False, (416, 576)),
        ((1176, 672), False, (672, 384)), ((4000, 300), False, (1024, 256)), ((600, 1000), 672, (512, 896)),
        ((1080, 1920), True, (768, 1344)), ((1080, 1920), 1024, (768, 1344)),
    ],
)  # fmt: skip
def test_buckets_are_the_published_ones(size, highres, expected):
    assert bucket(*size, highres) == expected


@pytest.mark.parametrize("nothing", [None, 0, False])
def test_no_highres_means_the_small_table(nothing):
    assert bucket(100, 100, nothing) == (512, 512)


@pytest.mark.parametrize("table", [BUCKETS_512, BUCKETS_672, BUCKETS_1024])
def test_a_bucket_has_nearly_the_shape_its_key_says(table):
    assert all(abs(height / width - key) < 0.015 for key, (height, width) in table.items())
    assert all(height % 16 == width % 16 == 0 for height, width in table.values())


@given(sides, sides, st.sampled_from([False, True, 672]))
def test_a_covering_size_covers_its_bucket_and_touches_one_side(height, width, highres):
    target = bucket(height, width, highres)
    covering = cover(height, width, target)
    assert covering[0] >= target[0] and covering[1] >= target[1]
    assert covering[0] == target[0] or covering[1] == target[1]


@given(sides, sides, st.floats(0.25, 4))
def test_a_centre_crop_lies_inside_and_keeps_one_whole_side(height, width, aspect_ratio):
    left, top, right, bottom = centre_crop(height, width, aspect_ratio)
    assert 0 <= left < right <= width and 0 <= top < bottom <= height
    assert right - left == width or bottom - top == height
    assert abs(left - (width - right)) <= 1 and abs(top - (height - bottom)) <= 1
