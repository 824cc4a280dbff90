"""Pieces of text -> sentences, as early as they are certain, the same however the text arrives."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ming_omni.speech.sentences import LIMIT, LIMIT_CHARACTERS, Splitter, length, sentences

TEXTS = [
    ("", []),
    ("   \n\n ", []),
    ("Hi", ["Hi"]),
    ("It is 3.14. Yes!", ["It is 3.14.", "Yes!"]),
    ("Dr. Smith met J. R. Jones at 5 p.m. They left.", ["Dr. Smith met J. R. Jones at 5 p.m.", "They left."]),
    ("The U.S. Army, e.g. this one, came.", ["The U.S. Army, e.g. this one, came."]),
    ("See www.a.com/b.html for more. Ok?", ["See www.a.com/b.html for more.", "Ok?"]),
    ('He said "go." Then he left...', ['He said "go."', "Then he left..."]),
    ("你好！今天天气很好，去公园吧。“好的。”她说。", ["你好！", "今天天气很好，去公园吧。", "“好的。”", "她说。"]),
    ("版本3.5不错。OK！好", ["版本3.5不错。", "OK！", "好"]),
    ("# Title\n\n- one\n- two. Three\n", ["# Title", "- one", "- two.", "Three"]),
    ("1. First\n2. Second\n", ["1. First", "2. Second"]),
    ("Before.\n```python\nx = f(1). Y\n```\nAfter.", ["Before.", "After."]),
    ("~~~\ncode never closed.", []),
    ("a wrapped line\ngoes on here. Next", ["a wrapped line goes on here.", "Next"]),
    ("No full stop\nNew line", ["No full stop", "New line"]),
    ("| a. B | c |\n|---|---|\n", ["| a. B | c |", "|---|---|"]),
    ("*So it is.* Good.", ["*So it is.*", "Good."]),
    ("One.\r\nTwo.\r\n", ["One.", "Two."]),
    ("Do this. ```go``` Then rest.", ["Do this.", "```go``` Then rest."]),
    ("So it is. | a. B |", ["So it is.", "| a.", "B |"]),
    ("# One! two\nthree", ["# One!", "two", "three"]),
    ("Yes. 2) so\nit goes.", ["Yes.", "2) so it goes."]),
]


@pytest.mark.parametrize(("text", "expected"), TEXTS)
def test_sentences_end_where_a_reader_would_end_them(text, expected):
    assert list(sentences(text)) == expected


@pytest.mark.parametrize("text", [text for text, _ in TEXTS])
def test_letter_by_letter_gives_the_same_sentences(text):
    assert list(sentences(iter(text))) == list(sentences(text))


LETTERS = st.text('ab C1.,!?。，\n"*`|#-', max_size=12)
MARKS = st.sampled_from(
    ["```", "~~~", "| a |", "# ", "> ", "- ", "2) ", "\r\n", "\n\n", "Dr. ", "e.g. ", "3.5", "……", "你好。"]
)
PIECES = st.lists(LETTERS | MARKS, max_size=20)


@settings(max_examples=300, deadline=None)
@given(PIECES)
def test_where_the_pieces_break_never_matters(pieces):
    assert list(sentences(pieces)) == list(sentences("".join(pieces)))


@settings(max_examples=100, deadline=None)
@given(st.text("ab C1.,!?。，字\n", max_size=1500))
def test_nothing_is_lost_and_nothing_grows_beyond_the_limit(text):
    found = list(sentences(text))
    assert "".join("".join(found).split()) == "".join(text.split())
    assert all(length(s) <= LIMIT and len(s) <= LIMIT_CHARACTERS + 1 for s in found)


def test_a_sentence_is_out_as_soon_as_the_next_begins():
    splitter = Splitter()
    assert list(splitter.feed("Hello there. ")) == []
    assert list(splitter.feed("H")) == ["Hello there."]


def test_a_chinese_sentence_is_out_with_the_next_character():
    splitter = Splitter()
    assert list(splitter.feed("你好。")) == []
    assert list(splitter.feed("我")) == ["你好。"]


def test_a_long_first_sentence_starts_at_its_first_long_clause():
    text = "When the sun had set behind the hills and all was quiet, they began to sing, and so on."
    assert next(sentences(text)) == "When the sun had set behind the hills and all was quiet,"


@pytest.mark.parametrize("text", ["word " * 200, "字" * 200, "a" * 1000])
def test_text_without_any_mark_is_cut_at_the_limit(text):
    found = list(sentences(text))
    assert len(found) > 1
    assert "".join("".join(found).split()) == "".join(text.split())


def test_a_hundred_thousand_characters_take_a_moment():
    assert len(list(sentences("Hello world, this is fine. " * 4000))) == 4000
