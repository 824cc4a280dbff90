"""Error rates against figures worked out by hand, and the forms that texts are compared in."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ming_omni.evaluate.metrics import (
    Errors,
    Share,
    character_errors,
    entity_errors,
    entity_misses,
    errors,
    false_insertions,
    pinyin_errors,
    word_errors,
)
from ming_omni.evaluate.normalize import chinese, english, syllables, units

WORDS = st.lists(st.sampled_from("abcd"), max_size=8)


@pytest.mark.parametrize(
    ("said", "heard", "counts"),
    [
        ("the cat sat on the mat", "the cat sat on the mat", (0, 0, 0, 6)),
        ("the cat sat on the mat", "the bat sat on mat", (1, 1, 0, 6)),  # bat for cat, the second "the" gone
        ("the cat sat", "the big cat sat down", (0, 0, 2, 3)),
        ("yes", "", (0, 1, 0, 1)),
        ("", "thank you", (0, 0, 2, 0)),
    ],
)
def test_word_errors_are_counted_by_kind(said, heard, counts):
    found = word_errors(said, heard)
    assert (found.substitutions, found.deletions, found.insertions, found.length) == counts


def test_counts_of_recordings_add_up_where_rates_would_not():
    short, long = word_errors("yes", "no"), word_errors("we met her at noon", "we met her at noon")
    assert short.rate == 1 and long.rate == 0
    assert (short + long).rate == pytest.approx(1 / 6)


def test_something_heard_in_silence_is_an_infinite_rate_and_silence_in_silence_none():
    assert word_errors("", "thank you").rate == math.inf and word_errors("", "").rate == 0


def test_characters_are_letters_and_digits_without_spaces():
    found = character_errors("the cat", "the cats", "en")
    assert (found.insertions, found.total, found.length) == (1, 1, 6)
    # 普 for 溥, and one character more
    assert character_errors("溥杰来了。", "普杰来了吗？") == Errors(1, 0, 1, 4)


def test_what_sounds_alike_is_no_pinyin_error():
    assert word_errors("溥杰来了", "普杰来了", "zh").total == 1
    assert pinyin_errors("溥杰来了", "普杰来了").total == 0
    assert pinyin_errors("买东西", "卖东西").total == 0  # mai with another tone
    assert pinyin_errors("支原体", "居原体") == Errors(1, 0, 0, 3)


def test_misses_count_each_time_an_entity_was_said():
    said = "溥杰见恭亲王，溥杰走了"
    heard = "溥杰见公亲王，普杰走了"
    # 溥杰 twice and 恭亲王 once were said; 溥杰 once was heard.
    assert entity_misses(units(said), units(heard), [units("溥杰"), units("恭亲王")]) == Share(2, 3)


def test_an_entity_heard_too_often_does_not_make_up_for_another():
    assert entity_misses(list("abc"), list("aab"), [["a"], ["c"]]) == Share(1, 2)


def test_entity_errors_are_those_of_passages_that_resemble_an_entity():
    said = units("we asked justin bieber about dolby atmos today")
    heard = units("we asked justin beaver about dolby atmos two day")
    entities = [["justin", "bieber"], ["dolby", "atmos"]]
    # An entity of two words allows no difference: of "justin beaver" nothing is found, so both its words are deleted.
    assert entity_errors(said, heard, entities) == Errors(0, 2, 0, 4)
    # One of three may differ: the passage is found, and its one wrong word counts.
    three = [["twin", "arterial", "perfusion"]]
    assert entity_errors(units("a twin arterial perfusion"), units("a twin material perfusion"), three) == Errors(
        1, 0, 0, 3
    )


def test_an_entity_inside_a_longer_passage_counts_without_what_surrounds_it():
    entity = [list("宗人府档案")]
    assert entity_errors(list("查宗人府档案吧"), list("查宗人府档案吧"), entity).total == 0
    assert entity_errors(list("查宗人府档案吧"), list("查中人府档案吧"), entity) == Errors(1, 0, 0, 5)


def test_false_insertions_are_listed_words_that_nobody_said():
    said, heard = units("we met at noon"), units("we met kate at noon ghost kate")
    listed = [["kate"], ["ghost"], ["noon"], ["bieber"]]
    assert false_insertions(said, heard, listed) == Share(2, 3)


@given(WORDS, WORDS)
def test_no_errors_exactly_when_both_are_equal(said, heard):
    found = errors(said, heard)
    assert (found.total == 0) == (said == heard)
    assert abs(len(said) - len(heard)) <= found.total <= max(len(said), len(heard))
    assert len(said) - found.deletions + found.insertions == len(heard)


@given(WORDS, WORDS, WORDS)
def test_going_by_way_of_a_third_text_is_never_shorter(a, b, c):
    assert errors(a, c).total <= errors(a, b).total + errors(b, c).total


@given(WORDS, st.lists(WORDS, max_size=3))
def test_what_was_heard_as_said_has_no_entity_errors(said, entities):
    assert entity_misses(said, said, entities).count == 0
    assert false_insertions(said, said, entities).count == 0


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("Hello, World!", "hello world"),
        ("I won't; you're late.", "i will not you are late"),
        ("twenty-one dollars", "$21"),
        ("the A M A's of 2024", "the ama is of 2024"),
        ("colour", "color"),
    ],
)
def test_english_has_one_form(text, normal):
    assert english(text) == normal


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("臺灣的圖書館。", "台 湾 的 图 书 馆"),
        ("ＡＢＣ公司", "abc 公 司"),
        ("2024年", "二 零 二 四 年"),
        ("他说：“好！”", "他 说 好"),
    ],
)
def test_chinese_has_one_form(text, normal):
    assert chinese(text) == normal


def test_neighbours_decide_how_a_character_is_read():
    assert syllables("银行行长") == ["yin", "hang", "hang", "zhang"]
    assert syllables("很行 OK") == ["hen", "xing", "OK"]
