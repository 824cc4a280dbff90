"""A sentence as it is said -> breaths: none too long, none a mere word, nothing lost, the best places first."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ming_omni.speech.breaths import breaths, seconds_of
from ming_omni.speech.sentences import length

CLAUSES = "The committee, which met on Tuesday, decided that the plan, although costly, would go ahead because it must."


def test_a_short_sentence_is_one_breath_and_without_a_limit_any_is():
    assert list(breaths("Good morning.", 9.0)) == ["Good morning."]
    assert list(breaths("word " * 500, None)) == ["word " * 500]


@pytest.mark.parametrize(
    ("text", "seconds", "expected"),
    [
        ("I was late, so we ate without him at nine.", 2.5, ["I was late,", "so we ate without him at nine."]),
        ("I was too late and we ate without him.", 2.0, ["I was too late", "and we ate without him."]),
        ("我们都去公园散步，你可以在家里看书。", 3.0, ["我们都去公园散步，", "你可以在家里看书。"]),
        ("我们都去公园散步但是你可以在家看书。", 3.0, ["我们都去公园散步", "但是你可以在家看书。"]),
        ("one two three four five six", 1.0, ["one two three", "four five six"]),
    ],
)
def test_a_long_one_is_divided_behind_a_clause_or_before_a_conjunction_or_between_words(text, seconds, expected):
    assert list(breaths(text, seconds)) == expected


def test_the_places_are_those_where_a_reader_would_breathe():
    found = list(breaths(CLAUSES, 6.0))
    assert found == ["The committee, which met on Tuesday, decided that the plan,",
                     "although costly, would go ahead because it must."]  # fmt: skip


def test_a_breath_of_nano_holds_about_twenty_english_words_or_thirty_six_hanzi():
    english = "the people of this old town walk along the river every single morning " * 10
    assert {length(part) for part in list(breaths(english.strip(), 9.0))[:-1]} <= set(range(18, 28))
    assert list(map(len, breaths("我" * 72, 9.0))) == [36, 36]


@given(st.text(st.sampled_from("abc ,;.我你，但而且"), max_size=300), st.floats(1.0, 9.0))
def test_nothing_is_lost_and_no_breath_is_too_long_or_empty(text, seconds):
    found = list(breaths(text, seconds))
    assert "".join("".join(found).split()) == "".join(text.split())
    if len(found) > 1:
        assert all(seconds_of(part) <= seconds for part in found)
        assert all(found)
