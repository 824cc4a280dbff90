"""model/glyphs.py: bytes, padding and the rule that nothing random happens while painting."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close
from transformers import ByT5Tokenizer

from ming_omni.config import GlyphConfig
from ming_omni.model.glyphs import GlyphEncoder, as_prompt, spell


@pytest.fixture(scope="module")
def glyphs():
    torch.manual_seed(0)
    return GlyphEncoder(GlyphConfig())


def test_letters_are_bytes_after_three_special_ids():
    ids, mask = spell(["AB", ""], 4)
    assert ids.tolist() == [[68, 69, 1, 0], [1, 0, 0, 0]]
    assert mask.tolist() == [[1, 1, 1, 0], [1, 0, 0, 0]]


def test_a_long_text_is_cut_and_still_ends():
    ids, mask = spell(["x" * 100], 8)
    assert ids.tolist() == [[123] * 7 + [1]] and mask.all()


@given(st.lists(st.text(), min_size=1, max_size=3))
def test_spelling_agrees_with_the_library_tokenizer(texts):
    ids, mask = spell(texts, 12)
    theirs = ByT5Tokenizer(extra_ids=0)(
        texts, padding="max_length", truncation=True, max_length=12, return_tensors="pt"
    )
    if not any("<" in text for text in texts):  # the library reads </s> inside a text as its end mark
        assert ids.equal(theirs.input_ids) and mask.equal(theirs.attention_mask)


def test_the_published_wording_surrounds_a_text_and_nothing_stays_nothing():
    assert as_prompt("理解") == 'Text "理解". '
    assert as_prompt("") == ""


def test_padding_becomes_zero_and_changes_no_letter(glyphs):
    short, long = (spell(['Text "hi". '], length) for length in (14, 24))
    with torch.no_grad():
        few, many = glyphs(*short), glyphs(*long)
    used = short[1].sum()
    assert_close(few[:, :used], many[:, :used], atol=1e-5, rtol=1e-4)
    assert many[:, used:].abs().max() == 0


def test_nothing_is_random_even_in_training_mode(glyphs):
    ids, mask = spell(["hello"], 24)
    assert glyphs.train()(ids, mask).equal(glyphs(ids, mask))


def test_other_letters_give_other_tokens(glyphs):
    ids, mask = spell(["cat", "car"], 24)
    first, second = glyphs(ids, mask)
    assert (first - second).abs().max() > 1e-3
