"""What is known beforehand helps and does no harm: contexts as people give them, narrowing, and the leak guard."""

import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import transcribe as benchmark
from ming_omni.errors import InputError
from ming_omni.transcribe.context import MAX_TEXT_CHARACTERS, Context
from ming_omni.transcribe.guard import UNSUPPORTED, guard, occurrences
from ming_omni.transcribe.narrow import MOST_WORDS, Lexicon
from ming_omni.transcribe.sounds import Sound, likeness, units

# Contexts


@pytest.mark.parametrize(
    ("value", "context"),
    [
        (["Kate", " Ghost ", "kate", ""], Context(words=("Kate", "Ghost"))),
        ("ZyntriQix, Digique Plus, B.R.I.C.K.", Context(words=("ZyntriQix", "Digique Plus", "B.R.I.C.K."))),
        ("溥杰、恭亲王、宗人府", Context(words=("溥杰", "恭亲王", "宗人府"))),
        ("They met at noon, in Paris. Then they left.", Context(text="They met at noon, in Paris. Then they left.")),
        ({"topic": " Court  history ", "words": ["溥杰"]}, Context(topic="Court history", words=("溥杰",))),
        (None, Context()),
    ],
)  # fmt: skip
def test_people_give_contexts_in_many_forms(value, context):
    assert Context.of(value) == context
    assert bool(context) == (value is not None)


def test_topic_and_text_share_a_sentence_of_the_prompt():
    assert Context(topic="Banking", text="A call to the bank.").about == "Banking; A call to the bank."


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"topics": "x"}, "no topics"),
        ({"words": "Kate"}, "a list of texts"),
        ({"words": [1]}, "a list of texts"),
        ({"words": None}, "a list of texts"),
        ({"words": 7}, "a list of texts"),
        ({"words": {"Kate": 1}}, "a list of texts"),
        ({"topic": 3}, "topic of a context is text"),
        (7, "a context is text, a list of words"),
        ("x" * (MAX_TEXT_CHARACTERS + 1), "at most 2000 characters, not 2001"),
        (["x" * 101], "a word of a context has at most 100"),
        ([str(i) for i in range(10_001)], "at most 10000 words, not 10001"),
    ],
)
def test_contexts_that_cannot_be_used_are_refused(value, message):
    with pytest.raises(InputError, match=message):
        Context.of(value)


def test_a_context_file_is_json_or_a_word_a_line(tmp_path):
    words, settings, broken = tmp_path / "words.txt", tmp_path / "context.json", tmp_path / "broken.json"
    words.write_text("Kate\n\n溥杰\n", encoding="utf-8")
    settings.write_text(json.dumps({"topic": "Banking", "words": ["Zelle"]}))
    broken.write_text("{")
    assert Context.from_file(words) == Context(words=("Kate", "溥杰"))
    assert Context.from_file(settings) == Context(topic="Banking", words=("Zelle",))
    with pytest.raises(InputError, match="not valid JSON"):
        Context.from_file(broken)
    with pytest.raises(InputError, match="cannot be read"):
        Context.from_file(tmp_path / "none.txt")


def test_json_nested_without_end_is_refused():
    with pytest.raises(InputError, match="not valid JSON"):
        Context.from_json("[" * 100_000)


# Sounds


@pytest.mark.parametrize(
    ("alike", "other", "word"),
    [
        ("普杰", "今天", "溥杰"),
        ("中人府", "民国文", "宗人府"),
        ("justin beaver", "hello world", "Justin Bieber"),
        ("dolby at most", "do be quiet", "Dolby Atmos"),
        ("cooper netties", "weather", "Kubernetes"),
        ("amas", "armies", "A M A's"),
        ("cafe", "coffee", "Café"),
        ("openai", "opening", "OpenAI"),
    ],
)
def test_what_was_misheard_is_closer_than_what_was_not(alike, other, word):
    near, far = (likeness(Sound.of(units(word)), Sound.of(units(text))) for text in (alike, other))
    assert near > 0.65 > far or near > far + 0.15


@given(st.text(max_size=20), st.text(max_size=20))
def test_likeness_is_symmetric_between_nothing_and_the_same(a, b):
    first, second = Sound.of(units(a)), Sound.of(units(b))
    assert 0 <= likeness(first, second) <= 1 and likeness(first, second) == pytest.approx(likeness(second, first))
    assert likeness(first, first) == (0 if first.is_silent else 1)


# Narrowing


def distractors(count: int) -> list[str]:
    """Names of two syllables made of English-looking parts, and three Chinese characters."""
    draw = random.Random(0)
    parts = ["bar", "chel", "dro", "fenn", "gil", "hart", "jor", "lund", "mox", "pry", "quil", "sten", "tavi", "wick"]
    letters = "阿邦楚德恩甫高郝伊景康兰孟年欧潘邱荣施陶吴夏杨郑"
    latin = ["".join(draw.choices(parts, k=2)).title() for _ in range(count)]
    chinese = ["".join(draw.choices(letters, k=3)) for _ in range(count)]
    return list(dict.fromkeys([word for pair in zip(latin, chinese, strict=True) for word in pair]))[:count]


def test_a_short_list_is_not_narrowed():
    words = distractors(MOST_WORDS)
    assert Lexicon(words).plausible("something else") == tuple(words)


@pytest.mark.parametrize(
    ("answer", "word"),
    [
        ("i love justin beaver songs", "Justin Bieber"),
        ("we deploy on cooper netties now", "Kubernetes"),
        ("今天普杰老先生来了", "溥杰"),
        ("他不停问中人府档案的事", "宗人府档案"),
        ("查 c 反应蛋白", "C 反应蛋白"),
    ],
)
def test_a_thousand_words_are_narrowed_to_those_that_the_answer_resembles(answer, word):
    words = [*distractors(999), word]
    kept = Lexicon(words).plausible(answer)
    assert word in kept and len(kept) <= MOST_WORDS
    assert list(kept) == [w for w in words if w in kept]


def test_nothing_is_plausible_where_nothing_was_heard():
    assert Lexicon(distractors(1000)).plausible("") == ()


def test_misheard_names_are_found_among_a_thousand():
    draw = random.Random(0)
    figures = benchmark.narrowing(draw, benchmark.chinese_names(600, draw))
    assert figures["list_words"] > 950 and figures["recall"] > 0.93 and figures["kept_words_mean"] < 10


# The leak guard


def test_misheard_names_stay_and_names_that_nobody_said_go():
    draw = random.Random(1)
    figures = benchmark.guarding(draw, benchmark.chinese_names(100, draw))
    assert figures["misheard"]["removed"] < 0.04
    assert figures["in_place"]["removed"] > 0.9 and figures["in_place"]["kept"] < 0.02
    assert figures["appended"]["removed"] == 1


@pytest.mark.parametrize(
    ("plain", "heard", "words", "text"),
    [
        # supported by the sound
        ("今天普杰老先生来了。", "今天溥杰老先生来了。", ["溥杰"], "今天溥杰老先生来了。"),
        ("I love justin beaver songs", "I love Justin Bieber songs.", ["Justin Bieber"], "I love Justin Bieber songs."),
        ("open ai is here", "OpenAI is here", ["OpenAI"], "OpenAI is here"),
        ("we met kate", "we met Kate", ["Kate"], "we met Kate"),
        # words from the list that nobody said
        ("we met there at noon", "we met Kubernetes at noon", ["Kubernetes"], "we met there at noon"),
        ("hello world.", "hello world, Ghost.", ["Ghost"], "hello world."),
        ("hello, world", "Ghost, hello, world", ["Ghost"], "hello, world"),
        ("今天天气很好", "今天恭亲王天气很好", ["恭亲王"], "今天天气很好"),
        # one of two
        ("a dolby at most mix", "a Dolby Atmos mix Ghost", ["Ghost", "Dolby Atmos"], "a Dolby Atmos mix"),
        ("in dolby at most", "in Kubernetes Dolby Atmos", ["Kubernetes", "Dolby Atmos"], "in Dolby Atmos"),
        # once, not thrice
        ("普杰", "溥杰溥杰溥杰", ["溥杰"], "溥杰"),
        # the list is the whole answer
        ("hello world", "Ghost, Dolby Atmos, Justin Bieber", ["Ghost", "Dolby Atmos", "Justin Bieber"], "hello world"),
        ("今天天气很好我们去吃饭", "溥杰，恭亲王，宗人府", ["溥杰", "恭亲王", "宗人府"], "今天天气很好我们去吃饭"),
        ("", "溥杰，恭亲王", ["溥杰", "恭亲王"], ""),
        # context must not silence the speaker
        ("one two three four five six", "one", ["Ghost"], "one two three four five six"),
        ("one two three four five six", "", ["Ghost"], "one two three four five six"),
        # what has nothing to do with the list stays as heard with context
        ("the whether is fine", "the weather is fine", ["Ghost"], "the weather is fine"),
    ],
)  # fmt: skip
def test_context_words_stay_exactly_where_the_sound_supports_them(plain, heard, words, text):
    assert guard(plain, heard, words).text == text


@pytest.mark.parametrize(
    ("plain", "heard", "word"),
    [("call marie now", "call Marcy now", "Marcy"), ("你那里吗", "李娜里吗", "李娜"), ("beaver", "Bieber", "Bieber")],
)
def test_near_homophones_stay_but_are_flagged(plain, heard, word):
    found = guard(plain, heard, [word])
    assert found.text == heard
    assert [(leak.word, leak.verdict) for leak in found.leaks] == [(word, "flagged")]


def test_a_removed_word_is_named_with_what_stands_there_without_context():
    leak = guard("we met there at noon", "we met Kubernetes at noon", ["Kubernetes"]).leaks[0]
    assert (leak.word, leak.verdict, leak.instead) == ("Kubernetes", "removed", "there")


def test_a_word_that_stands_in_both_answers_is_not_called_removed():
    found = guard("one two three four five Ghost", "Ghost Kate", ["Ghost", "Kate"])
    assert found.text.endswith("Ghost") and [leak.word for leak in found.leaks] == ["Kate"]


def test_of_overlapping_context_words_the_longer_is_found():
    found = occurrences(units("the Dolby Atmos mix"), ["Dolby", "Dolby Atmos", "mix"])
    assert [(o.word, o.start, o.stop) for o in found] == [("Dolby Atmos", 1, 3), ("mix", 3, 4)]


LISTED = ["Kubernetes", "Ghost", "Dolby Atmos", "溥杰", "恭亲王"]
SAID = st.lists(st.sampled_from(["we", "met", "at", "noon", "今", "天", "好", "the", "kitchen"]), max_size=8)
HEARD = st.lists(st.sampled_from(["we", "met", "at", "noon", "今", "天", "好", *LISTED]), max_size=10)


@given(SAID, HEARD)
def test_nothing_of_the_list_gets_in_that_the_plain_answer_does_not_resemble(said, heard):
    found = guard(" ".join(said), " ".join(heard), LISTED)
    whole = Sound.of(units(" ".join(said)))
    for o in occurrences(units(found.text), LISTED):
        passages = [Sound.of(units(" ".join(said))[i:j]) for i in range(len(said)) for j in range(i + 1, len(said) + 1)]
        assert not whole.is_silent
        assert max(likeness(Sound.of(units(o.word)), passage) for passage in passages) >= UNSUPPORTED


@given(SAID, HEARD)
def test_guarding_twice_removes_nothing_more(said, heard):
    plain = " ".join(said)
    found = guard(plain, " ".join(heard), LISTED)
    again = guard(plain, found.text, LISTED)
    assert again.text == found.text and not any(leak.verdict == "removed" for leak in again.leaks)


@given(SAID)
def test_an_answer_that_context_did_not_change_stays_as_it_is(said):
    plain = " ".join(said)
    assert guard(plain, plain, ["we", "天", "noon at"]).text == plain
    assert guard(plain, plain, ["we", "天", "noon at"]).leaks == ()


@given(SAID, st.lists(st.sampled_from(LISTED), min_size=1, max_size=6))
def test_a_recited_list_gives_way_to_what_was_heard_without_it(said, recited):
    found = guard(" ".join(said), ", ".join(recited), LISTED)
    kept = [o.word for o in occurrences(units(found.text), LISTED)]
    flagged = {leak.word for leak in found.leaks if leak.verdict == "flagged"}
    assert set(kept) <= flagged
    if not kept:
        assert found.text == " ".join(said)


@given(st.text(max_size=40), st.text(max_size=40), st.lists(st.text(max_size=10), max_size=4))
def test_any_texts_can_be_compared(plain, heard, words):
    guard(plain, heard, words)
