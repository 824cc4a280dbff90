"""Packed weights: what is stored, what comes back, and how much rounding a trained tensor suffers."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from ming_omni.packed import Packed, collect, join_nibbles, pack, split_nibbles, unpack


def test_a_byte_holds_the_even_weight_low_and_the_odd_weight_high():
    assert join_nibbles(torch.tensor([[1, 2, 3, 15]], dtype=torch.uint8)).tolist() == [[0x21, 0xF3]]
    assert split_nibbles(torch.tensor([[0x21, 0xF3]], dtype=torch.uint8)).tolist() == [[1, 2, 3, 15]]


def test_float_is_code_times_scale_plus_minimum():
    codes = join_nibbles(torch.tensor([[0, 1, 2, 15]], dtype=torch.uint8))
    scale, minimum = torch.tensor([[0.5, 2.0]]).half(), torch.tensor([[-1.0, 3.0]]).half()
    assert Packed(codes, scale, minimum).float().tolist() == [[-1.0, -0.5, 7.0, 33.0]]


def test_without_a_minimum_code_eight_is_zero():
    codes = join_nibbles(torch.tensor([[8, 9, 0, 15]], dtype=torch.uint8))
    assert Packed(codes, torch.tensor([[0.5]]).half()).float().tolist() == [[0.0, 0.5, -4.0, 3.5]]


def test_eight_bit_codes_are_signed():
    codes = torch.tensor([[-128, 127, 3, 0]], dtype=torch.int8)
    assert Packed(codes, torch.tensor([[0.5, 2.0]]).half()).float().tolist() == [[-64.0, 63.5, 6.0, 0.0]]


@given(st.integers(0, 10_000), st.sampled_from([(3, 64), (2, 5, 32)]), st.sampled_from([8, 32]), st.floats(1e-3, 100))
def test_packing_is_never_off_by_more_than_half_a_scale(seed, shape, group, size):
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * size
    packed = pack(weight, group)
    off = (packed.float() - weight).abs().unflatten(-1, (-1, group)).amax(-1)
    assert packed.shape == shape
    # The scale itself is rounded to fp16, which moves the outermost code by up to 8 / 2048 of a scale.
    assert (off <= packed.scale.float() * 0.51).all()


def test_a_zero_group_packs_to_exact_zeros():
    assert pack(torch.zeros(2, 64), 32).float().abs().max() == 0


def test_what_was_packed_packs_again_without_loss():
    once = pack(torch.randn(8, 64, generator=torch.Generator().manual_seed(0)), 32).float()
    assert_close(pack(once, 32).float(), once)


@pytest.mark.parametrize("minimum", [None, torch.tensor([[1.0]]).half()])
def test_a_folder_mixes_packed_and_plain_parameters(minimum):
    packed = Packed(join_nibbles(torch.tensor([[8, 9]], dtype=torch.uint8)), torch.tensor([[1.0]]).half(), minimum)
    stored = packed.named("a.weight") | {"norm.weight": torch.tensor([3.0])}
    assert list(collect(stored)) == ["a.weight", "norm.weight"]
    found = dict(unpack(stored))
    assert found["norm.weight"].tolist() == [3.0]
    assert found["a.weight"].tolist() == packed.float().tolist()
