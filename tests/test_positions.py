"""Rotary positions: the published examples, padding, batches, and what follows a prompt."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ming_omni.config import ThinkerConfig
from ming_omni.errors import InputError
from ming_omni.model.positions import next_positions, positions

I, P, E, V, F, W = 157158, 157157, 157159, 157160, 157175, 157161  # noqa: E741 - the letters of spec A.1
IDS = {
    "image_start_token": I,
    "image_patch_token": P,
    "video_start_token": E,  # as released
    "video_patch_token": F,
}


def config(**changes) -> ThinkerConfig:
    return ThinkerConfig(**(IDS | changes))


def row(text: str) -> list[list[int]]:
    return [[int(n) for n in text.split()]]


PUBLISHED = {
    "image": (
        config(),
        [1, 2, I, *[P] * 6, E, 5, 6],
        {"image_grid": [[1, 4, 6]]},
        ("0 1 2 3 3 3 3 3 3 4 5 6", "0 1 2 3 3 3 4 4 4 4 5 6", "0 1 2 2 3 4 2 3 4 4 5 6"),
        -5,
    ),
    "two images": (
        config(),
        [1, I, *[P] * 4, E, 5, I, *[P] * 6, E, 6],
        {"image_grid": [[1, 4, 4], [1, 4, 6]]},
        (
            "0 1 2 2 2 2 3 4 5 6 6 6 6 6 6 7 8",
            "0 1 2 2 3 3 3 4 5 6 6 6 7 7 7 7 8",
            "0 1 2 3 2 3 3 4 5 5 6 7 5 6 7 7 8",
        ),
        -8,
    ),
    "video as released": (
        config(),
        [1, V, *[F] * 8, W, 5],
        {"video_grid": [[2, 4, 4]]},
        ("0 1 2 3 4 5 6 7 8 9 10 11",) * 3,
        0,
    ),
    "video in 3d": (
        config(video_positions="3d"),
        [1, V, *[F] * 8, W, 5],
        {"video_grid": [[2, 4, 4]]},
        ("0 1 2 2 2 2 4 4 4 4 5 6", "0 1 2 2 3 3 4 4 5 5 5 6", "0 1 2 3 2 3 4 5 4 5 5 6"),
        -5,
    ),
    "video with seconds": (
        config(video_start_token=V),
        [1, V, *[F] * 12, W, 5],
        {"video_grid": [[3, 4, 4]], "seconds_per_grid": [0.7]},
        (
            "0 1 2 2 2 2 3 3 3 3 4 4 4 4 5 6",
            "0 1 2 2 3 3 3 3 4 4 4 4 5 5 5 6",
            "0 1 2 3 2 3 3 4 3 4 4 5 4 5 5 6",
        ),
        -9,
    ),
    "image, 3d variant": (
        config(rope_variant="3d"),
        [1, 2, I, *[P] * 6, E, 5, 6],
        {"image_grid": [[1, 4, 6]]},
        ("0 1 2 3 3 3 3 3 3 6 7 8", "0 1 2 3 3 3 4 4 4 6 7 8", "0 1 2 3 4 5 3 4 5 6 7 8"),
        -3,
    ),
}


def place(config, ids, mask=None, image_grid=None, video_grid=None, seconds_per_grid=None):
    ids = torch.tensor(ids if isinstance(ids[0], list) else [ids])
    image_grid, video_grid = (None if g is None else torch.tensor(g) for g in (image_grid, video_grid))
    return positions(config, ids, mask, image_grid, video_grid, seconds_per_grid)


@pytest.mark.parametrize("case", PUBLISHED)
def test_the_published_examples(case):
    """Spec A.1."""
    settings, ids, grids, axes, delta = PUBLISHED[case]
    placed, got = place(settings, ids, **grids)
    assert placed[:, 0].tolist() == [row(axis)[0] for axis in axes]
    assert got.tolist() == [delta]


def test_query_blocks_of_image_generation():
    """Spec A.1: three pictures of one row of cells each, after a 2-token prompt."""
    sides = (4, 8, 16)
    ids = [1, 2] + [token for side in sides for token in (I, *[P] * side**2, E)]
    placed, delta = place(config(), ids, image_grid=[[1, 2, 2 * side**2] for side in sides])
    assert (len(ids), delta.item()) == (344, -333)
    at = dict(enumerate(placed[:, 0].T.tolist()))
    assert (at[2], at[3], at[18], at[19]) == ([2, 2, 2], [3, 3, -4], [3, 3, 11], [4, 4, 4])
    assert (at[20], at[21], at[84], at[85]) == ([5, 5, 5], [6, 6, -25], [6, 6, 38], [7, 7, 7])
    assert (at[86], at[87], at[342], at[343]) == ([8, 8, 8], [9, 9, -118], [9, 9, 137], [10, 10, 10])


def test_video_marker_may_differ_from_the_published_distance():
    ids = [1, 77, *[F] * 4, 5]
    marked = config(video_positions="3d", video_marker_token=77)
    assert place(marked, ids, video_grid=[[1, 4, 4]])[0][2, 0].tolist() == [0, 1, 2, 3, 2, 3, 3]


@pytest.mark.parametrize("seconds, expected", [(None, [2, 3, 4, 5]), (0.7, [2, 3, 4, 6])])
def test_time_in_the_3d_variant_is_floored_seconds(seconds, expected):
    ids = [1, V, *[F] * 4, 5]
    settings = config(rope_variant="3d", video_start_token=V)
    placed, delta = place(settings, ids, video_grid=[[4, 2, 2]], seconds_per_grid=seconds and [seconds])
    assert placed[0, 0, 2:6].tolist() == expected
    assert placed[:, 0, 6].tolist() == [expected[-1] + 1] * 3
    assert delta.item() == expected[-1] + 2 - 7


def test_fractions_of_negative_positions_are_cut_towards_zero():
    """A video of 6 rows starts at 1, its second step is 0.4 later: that step's first row is at 1 + 0.4 - 2."""
    ids = [V, *[F] * 24, 5]
    settings = config(video_start_token=V)
    placed, _ = place(settings, ids, video_grid=[[2, 12, 4]], seconds_per_grid=[0.2])
    assert placed[0, 0, 1:25].tolist() == [1] * 24
    assert placed[1, 0, 1:13:2].tolist() == [-1, 0, 1, 2, 3, 4]
    assert placed[1, 0, 13:25:2].tolist() == [0, 0, 1, 2, 3, 4]  # -0.6 becomes 0


def test_pictures_stand_still_when_videos_have_seconds():
    ids = [1, I, *[P] * 2, E, V, *[F] * 2, W]
    settings = config(video_start_token=V)
    placed, _ = place(settings, ids, image_grid=[[2, 2, 2]], video_grid=[[2, 2, 2]], seconds_per_grid=[1.5])
    assert placed[0, 0].tolist() == [0, 1, 2, 2, 3, 4, 5, 8, 9]


def test_vanilla_positions_count_tokens_whatever_they_are():
    placed, delta = place(config(rope_variant="vanilla"), [1, I, *[P] * 4, E], image_grid=[[1, 4, 4]])
    assert placed.tolist() == [row("0 1 2 3 4 5 6")] * 3
    assert delta.item() == 0


@pytest.mark.parametrize("variant", ["vanilla", "3d", "video"])
def test_rows_of_a_padded_batch_are_placed_as_alone(variant):
    settings = config(rope_variant=variant)
    rows = [
        ([1, I, *[P] * 6, E, 2], [[1, 4, 6]]),
        ([1, 2, 3], []),
        ([I, *[P] * 4, E, I, *[P] * 4, E], [[1, 4, 4], [1, 4, 4]]),
    ]
    length = max(len(ids) for ids, _ in rows) + 1
    for is_left in (True, False):
        ids, mask = torch.zeros(3, length, dtype=torch.long), torch.zeros(3, length, dtype=torch.bool)
        for i, (row_ids, _) in enumerate(rows):
            where = slice(length - len(row_ids), length) if is_left else slice(len(row_ids))
            ids[i, where], mask[i, where] = torch.tensor(row_ids), True
        grids = torch.tensor([grid for _, row_grids in rows for grid in row_grids])
        placed, delta = positions(settings, ids, mask, grids)
        assert (placed[:, ~mask] == 1).all()
        for i, (row_ids, row_grids) in enumerate(rows):
            alone, own = place(settings, row_ids, image_grid=row_grids or None)
            assert torch.equal(placed[:, i, mask[i]], alone[:, 0])
            assert delta[i] == own[0] + len(row_ids) - length


@settings(deadline=None)
@given(st.lists(st.integers(0, 12), min_size=1, max_size=4), st.integers(1, 4))
def test_text_counts_its_real_tokens_and_goes_on_after_them(lengths, num_new):
    size = max(lengths) + 1
    mask = torch.arange(size) >= size - torch.tensor(lengths)[:, None]
    placed, delta = positions(config(), torch.full((len(lengths), size), 7), mask)
    following = next_positions(delta, size, num_new)
    assert following.shape == (3, len(lengths), num_new)
    for i, length in enumerate(lengths):
        assert placed[:, i, mask[i]].tolist() == [list(range(length))] * 3
        assert following[:, i].tolist() == [list(range(length, length + num_new))] * 3


def test_a_one_token_prompt_is_a_prompt():
    """Spec Q9: released code takes it for a later token."""
    placed, delta = place(config(), [5])
    assert (placed.tolist(), delta.tolist()) == ([[[0]]] * 3, [0])


def test_requests_leave_no_state_behind():
    """Spec Q8: released code keeps the last prompt's delta on the module."""
    settings = config()
    before = settings.to_dict()
    place(settings, [1, I, *[P] * 4, E], image_grid=[[1, 4, 4]])
    assert place(settings, [1, 2])[1].item() == 0
    assert settings.to_dict() == before


@pytest.mark.parametrize(
    "ids, grid",
    [([1, I, *[P] * 4, E], None), ([1, I, *[P] * 3, E], [[1, 4, 4]]), ([I, P, E, I, P, E], [[1, 2, 2]])],
)
def test_patch_tokens_without_their_grid_are_refused(ids, grid):
    with pytest.raises(InputError, match="picture"):
        place(config(), ids, image_grid=grid)
