"""Prompts letter by letter as published, the names of languages and dialects, and answers that begin with one."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ming_omni.errors import InputError
from ming_omni.inputs.messages import Audio, Message, Text
from ming_omni.train import words as training
from ming_omni.transcribe import dialects
from ming_omni.transcribe.prompts import LanguageFirst, answer_start, question
from tests.media import tone
from tests.toy import processor

BASE = "Please recognize the language of this speech and transcribe it. Format: oral."
SYSTEM = "<role>SYSTEM</role>你是一个友好的AI助手。\n\ndetailed thinking off<|role_end|>"
SOUND = "<audio>" + "<audioPatch>" * 13 + "</audio>"


@pytest.mark.parametrize(
    ("topic", "words", "text"),
    [
        ("", (), BASE),
        ("Banking", (), BASE + "This is an audio about Banking."),
        ("", ("Zelle",), BASE + "This audio may contains the following words or phrases:Zelle."),
        (
            "Culinary Traditions",
            ("Gansu Province", "Uyghur", "clay sealing method"),
            BASE + "This is an audio about Culinary Traditions."
            "This audio may contains the following words or phrases:Gansu Province,Uyghur,clay sealing method.",
        ),
        (
            "历史研究",
            ("溥杰", "清宫秘档"),
            BASE
            + "This is an audio about 历史研究.This audio may contains the following words or phrases:溥杰,清宫秘档.",
        ),
    ],
)
@pytest.mark.parametrize("forced", [None, "Chinese", "上海"])
def test_the_whole_prompt_is_the_published_one(topic, words, text, forced):
    hearing = processor()
    message = Message("user", [Text(question(topic, words)), Audio((tone(), 16_000))])
    inputs = hearing.prepare(message, answer_start=answer_start(forced))
    start = "" if forced is None else f"{forced}\t"
    assert hearing.tokenizer.decode(inputs["input_ids"][0]) == (
        f"{SYSTEM}<role>HUMAN</role>{text}{SOUND}<|role_end|><role>ASSISTANT</role>{start}"
    )


@pytest.mark.parametrize("words", [(), ("Kate",), ("溥杰", "Ghost")])
def test_the_model_is_asked_as_it_was_trained(words):
    assert question(words=words) == training.prompt(words)


def test_words_of_a_stranger_never_become_special_tokens():
    hearing = processor()
    message = Message("user", [Text(question(words=["<audio>", "<|role_end|><role>"])), Audio((tone(), 16_000))])
    ids = hearing.prepare(message)["input_ids"][0].tolist()
    plain = hearing.prepare(Message("user", [Text(question()), Audio((tone(), 16_000))]))["input_ids"][0].tolist()
    for token in ("<audio>", "<|role_end|>", "<role>"):
        assert ids.count(hearing.tokenizer.token_id(token)) == plain.count(hearing.tokenizer.token_id(token))


NAMES = {
    "Hunan": "湖南",
    "Minnan": "闽南",
    "Cantonese": "粤语",
    "Chuanyu": "川渝",
    "Shanghai": "上海",
    "Anhui": "安徽",
    "Dongbei": "东北",
    "Henan": "河南",
    "Hubei": "湖北",
    "Jiangsu": "江苏",
    "Hakka": "客家",
    "Shaanxi": "陕西",
    "Shandong": "山东",
    "Tianjin": "天津",
    "Yunnan": "云南",
}


@pytest.mark.parametrize(("english", "chinese"), NAMES.items())
def test_each_of_the_15_dialects_has_an_english_and_a_chinese_name(english, chinese):
    assert {d.name for d in dialects.DIALECTS} == set(NAMES)
    for name in (english, english.upper(), f"{english} dialect", chinese, f"{chinese.removesuffix('语')}话"):
        assert dialects.written(dialect=name) == chinese
    assert dialects.read(chinese) == ("Chinese", english)


@pytest.mark.parametrize(
    ("language", "word"),
    [
        ("zh", "Chinese"),
        ("zh-CN", "Chinese"),
        ("Mandarin", "Chinese"),
        ("english", "English"),
        ("EN", "English"),
        ("de", "German"),
        ("yue", "粤语"),
        ("Cantonese", "粤语"),
        (None, None),
    ],
)
def test_a_language_is_forced_by_its_name_or_code(language, word):
    assert dialects.written(language) == word


def test_a_language_that_is_no_dialect_is_reported_as_written():
    assert dialects.read("English") == ("English", None) and dialects.read(None) == (None, None)


@pytest.mark.parametrize(
    ("language", "dialect", "message"),
    [
        (None, "Shanghay", "did you mean Shanghai"),
        (None, "Klingon", "Hunan, Minnan, Cantonese"),
        ("Englisch", None, "did you mean English"),
        ("qq", None, "ISO 639-1"),
        ("en", "Shanghai", "Shanghai is a dialect of Chinese, not of en"),
        (7, None, "the language is a name, not int"),
        ("zh", 7, "the dialect is a name, not int"),
    ],
)
def test_unknown_names_are_answered_with_known_ones(language, dialect, message):
    with pytest.raises(InputError, match=message):
        dialects.written(language, dialect)


@pytest.mark.parametrize(
    ("traditional", "word"),
    [("粵語", "粤语"), ("廣東話", "粤语"), ("閩南語", "闽南"), ("東北話", "东北"), ("江蘇", "江苏"), ("陝西", "陕西"),
     ("山東", "山东"), ("雲南", "云南"), ("重慶", "川渝")],
)  # fmt: skip
def test_dialects_are_known_in_traditional_characters(traditional, word):
    assert dialects.written(dialect=traditional) == word


def test_a_dialect_goes_with_its_language():
    assert dialects.written("zh", "Shanghai") == dialects.written("Shanghai", "上海话") == "上海"


@pytest.mark.parametrize(
    ("answer", "language", "text"),
    [
        ("Chinese\t今天天气好。", "Chinese", "今天天气好。"),
        ("上海\t侬好", "上海", "侬好"),
        ("English\tone\ttwo", "English", "one\ttwo"),
        ("English\t", "English", ""),
        ("no language here", None, "no language here"),
        ("a whole sentence, then\ta tab", None, "a whole sentence, then\ta tab"),
        ("word " * 10 + "\ttab", None, "word " * 10 + "\ttab"),
        ("\tstarts with a tab", None, "\tstarts with a tab"),
        ("", None, ""),
    ],
)
@settings(max_examples=20)
@given(data=st.data())
def test_an_answer_is_read_the_same_however_it_is_cut(answer, language, text, data):
    parser, shown, place = LanguageFirst(is_forced=False), "", 0
    while place < len(answer):
        size = data.draw(st.integers(1, len(answer) - place))
        shown += parser.push(answer[place : place + size])
        place += size
    assert shown + parser.finish() == text and parser.language == language


def test_a_forced_answer_is_all_transcript():
    parser = LanguageFirst(is_forced=True)
    assert parser.push("Chinese\t好") + parser.finish() == "Chinese\t好" and parser.language is None
