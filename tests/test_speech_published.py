"""Text -> fragments exactly as the published speech front end makes them (spec A.5, Appendix C)."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ming_omni.speech.published import cut, expand_english_numbers, groups, is_chinese, semantic_length, tokenize


def test_one_chunk_becomes_words_numbers_and_single_characters():
    expected = ["你", "好", "，", "world", " ", "3.14", " ", "it's", " ", "U.S.A.", " ", "gap-year", "！"]
    assert list(tokenize(["你好，world 3.14 it's U.S.A. gap-year！"])) == expected


def test_a_plain_string_is_read_character_by_character():
    assert list(tokenize("ab 12")) == list("ab 12")


def test_sentences_are_cut_apart_only_when_the_limit_demands_it():
    text = "这是一条测试语句。欢迎使用百灵。你可以问我一些问题。"
    assert [(f.start, f.end) for f in cut(text, 10)] == [(0, 9), (9, 16), (16, 26)]
    assert [tuple(f) for f in cut(text, 50)] == [(text, 0, 26)]


def test_a_long_english_text_is_cut_at_its_sentences_with_their_places():
    text = "One two three four five six. Seven eight nine ten eleven, twelve."
    fragments = cut(text, 8)
    assert [f.text for f in fragments] == ["One two three four five six。", "Seven eight nine ten eleven， twelve。"]
    assert [text[f.start : f.end] for f in fragments] == [text[:28], text[29:]]


@pytest.mark.parametrize("text", ["", "  \n", "?!...", ".,;:"])
def test_punctuation_alone_gives_no_fragment(text):
    assert cut(text, 10) == []


@given(st.text("你好世界ab cd,.，。！？；3", max_size=80), st.integers(6, 20))
def test_no_fragment_exceeds_the_limit_and_no_letter_is_lost(text, limit):
    fragments = cut(text, limit)
    assert all(semantic_length(f.text) <= limit for f in fragments)
    if fragments:
        assert _letters("".join(f.text for f in fragments)) == _letters(text)


def _letters(text):
    return re.findall(r"[a-z0-9\u4e00-\u9fa5]", text)


@pytest.mark.parametrize(
    ("written", "spoken"),
    [
        (
            "I paid $12.50 for 3/4 of 1,000 items, 25% off, GPT-4 v2.1, 5 kg, -3 items, 21st.",
            "I paid twelve point five zero dollars for three quarters of one thousand items, twenty-five percent off, "
            "GPT four v two point one, five kilograms , - three items, twenty-one .",
        ),
        ("1/2 and 1/4 and 3/2", "one half and one quarter and three halves"),
        ("2400 MHz", "two thousand, four hundred megahertz"),
        ("It is -5 °C", "It is minus five degrees celsius"),
        ("£1 and £20", "one pound and twenty pounds"),
        ("我喜欢Python 3.11和AI。", "我喜欢Python three .11和AI。"),
    ],
)
def test_english_numbers_are_spelled_in_the_published_order(written, spoken):
    assert expand_english_numbers(written) == spoken


def test_a_group_ends_at_a_sentence_end_once_a_dozen_tokens_are_buffered():
    assert list(groups("Hi. Good morning! Bye now.")) == ["Hi. Good morning!", " Bye now."]


def test_a_dot_after_a_digit_does_not_end_a_group():
    assert list(groups(["a b c d e f g 3", ".", "5 h."])) == ["a b c d e f g 3.5 h."]


def test_a_line_break_ends_a_chinese_group_with_a_comma():
    assert list(groups("一二三四五六七八九十甲乙\n丙丁")) == ["一二三四五六七八九十甲乙，", "丙丁"]


def test_a_lone_zero_at_the_end_is_kept():
    assert list(groups("0")) == ["0"]


def test_chinese_is_recognised_among_latin():
    assert is_chinese("ok 好") and not is_chinese("ok!")
