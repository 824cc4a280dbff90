"""The vision encoder: which patches see which, that packing changes nothing, and what it refuses."""

import pytest
import torch
import torch.nn.functional as F
from einops import rearrange
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from ming_omni.checkpoint.names import to_ours
from ming_omni.config import VisionConfig
from ming_omni.errors import InputError
from ming_omni.model.layers import attend_both_ways
from ming_omni.model.vision_encoder import Segments, VisionEncoder

PATCH_VALUES = 3 * 2 * 14 * 14
grids = st.tuples(st.integers(1, 3), st.integers(1, 7).map(lambda n: 2 * n), st.integers(1, 7).map(lambda n: 2 * n))


@pytest.fixture(scope="module")
def encoder() -> VisionEncoder:
    return build()


def build(**options) -> VisionEncoder:
    torch.manual_seed(0)
    encoder = VisionEncoder(VisionConfig(**options)).eval()
    for parameter in encoder.parameters():  # large enough that every path through the tower matters
        torch.nn.init.normal_(parameter, std=0.2)
    return encoder


def patches_of(*sizes: tuple[int, int, int]) -> torch.Tensor:
    return torch.randn(sum(t * h * w for t, h, w in sizes), PATCH_VALUES, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
@pytest.mark.parametrize(
    ("width", "heads", "window", "sizes"),
    [(48, 3, 112, [(1, 10, 14), (2, 4, 6)]), (64, 2, 84, [(1, 2, 2), (3, 6, 18)]), (80, 5, 56, [(1, 14, 8)])],
)
def test_the_tower_is_the_one_of_qwen2_5_vl(width, heads, window, sizes):
    """transformers' own tower, of which the published one is a variant in name only, as an independent witness."""
    from transformers import Qwen2_5_VLConfig
    from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VisionTransformerPretrainedModel

    shape = {"hidden_size": width, "out_hidden_size": 96, "intermediate_size": 40, "window_size": window}
    config = Qwen2_5_VLConfig.sub_configs["vision_config"](
        **shape, depth=4, num_heads=heads, fullatt_block_indexes=[1, 3]
    )
    witness = Qwen2_5_VisionTransformerPretrainedModel(config).eval()
    for parameter in witness.parameters():
        torch.nn.init.normal_(parameter, std=0.15)
    encoder = build(**shape, num_attention_heads=heads, full_attention_layers=[1, 3])
    weights = {to_ours(f"vision.{name}").name.removeprefix("vision."): w for name, w in witness.state_dict().items()}
    absent = encoder.load_state_dict(weights, strict=False).missing_keys
    assert all(name.startswith("projector.") for name in absent)
    patches, grid = patches_of(*sizes), torch.tensor(sizes)
    assert_close(encoder.tower(patches, grid), witness(patches, grid).pooler_output, atol=1e-4, rtol=1e-4)


def test_windows_of_two_grids_match_the_specification(encoder):
    order, sizes = encoder.windows([(1, 6, 10), (2, 4, 4)])  # spec A.3
    assert order.tolist()[:15] == [0, 1, 2, 3, 5, 6, 7, 8, 10, 11, 12, 13, 4, 9, 14]
    assert order.tolist()[15:] == list(range(15, 23))
    assert torch.tensor(sizes).cumsum(0).mul(4).tolist() == [48, 60, 76, 92]


@given(st.lists(grids, min_size=1, max_size=3))
def test_every_patch_is_in_one_window_and_one_frame(encoder, sizes):
    for segments in encoder.segments(sizes, torch.device("cpu")):
        numbers = torch.cat([group.flatten() for group in segments.groups])
        assert torch.equal(numbers.sort().values, torch.arange(len(patches_of(*sizes))))
        assert torch.equal(numbers[segments.back], torch.arange(len(numbers)))


@settings(max_examples=15, deadline=None)
@given(st.lists(grids, min_size=2, max_size=3))
@torch.no_grad()
def test_packed_pictures_equal_each_alone(encoder, sizes):
    patches = patches_of(*sizes)
    packed = encoder(patches, torch.tensor(sizes))
    pieces = patches.split([t * h * w for t, h, w in sizes])
    alone = [encoder(piece, torch.tensor([size])) for piece, size in zip(pieces, sizes, strict=True)]
    assert_close(packed, torch.cat(alone), atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_a_frame_pair_of_a_video_equals_itself_alone(encoder):
    patches = patches_of((3, 6, 10))
    whole = encoder(patches, torch.tensor([[3, 6, 10]])).chunk(3)
    for frame, piece in zip(whole, patches.chunk(3), strict=True):
        assert_close(frame, encoder(piece, torch.tensor([[1, 6, 10]])), atol=1e-5, rtol=1e-4)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6))
def test_attention_by_segment_equals_attention_under_a_block_diagonal_mask(lengths):
    size = sum(lengths)
    q, k, v = torch.randn(3, 2, size, 4, generator=torch.Generator().manual_seed(size))
    owner = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    masked = F.scaled_dot_product_attention(q, k, v, owner[:, None] == owner)
    segments = Segments.cut(torch.arange(size), lengths, torch.device("cpu"))
    pieces = [
        attend_both_ways(*(rearrange(t[:, group], "h n s c -> n h s c") for t in (q, k, v)))
        for group in segments.groups
    ]
    rows = torch.cat([rearrange(piece, "n h s c -> h (n s) c") for piece in pieces], 1)
    assert_close(rows[:, segments.back], masked)


@torch.no_grad()
def test_a_window_sees_beyond_itself_only_through_full_layers():
    patches, grid = patches_of((1, 8, 16)), torch.tensor([[1, 8, 16]])
    changed = patches.clone()
    changed[0] += 1  # in the first of two windows
    for full_attention_layers, is_seen in (((), False), ((1,), True)):
        encoder = build(full_attention_layers=full_attention_layers)
        second = encoder.windows([(1, 8, 16)])[0][16:]
        gap = (encoder(patches, grid) - encoder(changed, grid))[second].abs().max()
        assert (gap > 1e-6) == is_seen


@torch.no_grad()
def test_eager_equals_sdpa(encoder):
    patches, grid = patches_of((1, 6, 10), (2, 4, 4)), torch.tensor([(1, 6, 10), (2, 4, 4)])
    eager = build(attn_implementation="eager")
    assert eager.config._attn_implementation == "eager"
    assert_close(eager(patches, grid), encoder(patches, grid), atol=1e-5, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_tokens_are_unit_vectors_whatever_the_projector_depth(depth):
    encoder = build(projector_depth=depth, token_width=48)
    tokens = encoder(patches_of((1, 4, 6)), torch.tensor([[1, 4, 6]]))
    assert tokens.shape == (6, 48)
    assert_close(tokens.norm(dim=-1), torch.ones(6))


@torch.no_grad()
def test_reference_numerics_round_angles_and_unit_vectors_to_the_models_dtype():
    native, reference = build().bfloat16(), build(numerics="reference").bfloat16()
    assert native.angles([(1, 6, 10)]).dtype == torch.float32
    assert reference.angles([(1, 6, 10)]).dtype == torch.bfloat16
    merged = torch.randn(5, 64, dtype=torch.bfloat16, generator=torch.Generator().manual_seed(2)) * 3
    assert torch.equal(reference.normalize(merged), merged / merged.norm(dim=-1, keepdim=True))
    assert torch.equal(native.normalize(merged), F.normalize(merged.float(), dim=-1).bfloat16())
    assert not torch.equal(native.normalize(merged), reference.normalize(merged))


@torch.no_grad()
def test_reference_numerics_change_nothing_in_float32(encoder):
    patches, grid = patches_of((1, 6, 10)), torch.tensor([[1, 6, 10]])
    assert torch.equal(build(numerics="reference")(patches, grid), encoder(patches, grid))


def test_gradients_are_the_same_with_checkpointing():
    patches, grid, gradients = patches_of((1, 6, 10)), torch.tensor([[1, 6, 10]]), []
    for is_checkpointed in (False, True):
        encoder = build().train()
        if is_checkpointed:
            encoder.gradient_checkpointing_enable()
            assert encoder.layers[0].gradient_checkpointing
        encoder(patches, grid)[:, 0].sum().backward()
        gradients.append(encoder.patch_embedding.weight.grad)
    assert gradients[0].abs().max() > 0
    assert_close(*gradients)


@pytest.mark.parametrize(
    ("grid", "patches", "complaint"),
    [
        ((1, 4, 6), (20, PATCH_VALUES), "24"),
        ((1, 4, 6), (24, 588), "588"),
        ((1, 3, 8), (24, PATCH_VALUES), "merged"),
        ((0, 4, 6), (0, PATCH_VALUES), "merged"),
    ],
)
def test_patches_that_do_not_fit_their_grid_are_refused(encoder, grid, patches, complaint):
    with pytest.raises(InputError, match=complaint):
        encoder(torch.zeros(patches), torch.tensor([grid]))


def test_no_picture_at_all_is_refused(encoder):
    with pytest.raises(InputError, match="describe"):
        encoder(torch.zeros(0, PATCH_VALUES), torch.zeros(0, 3, dtype=torch.long))
