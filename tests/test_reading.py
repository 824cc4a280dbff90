"""What nano's talker reads: sentences as symbols, through a dictionary of English and pinyin."""

import pytest

from ming_omni.data.lexicon import words_of
from ming_omni.speech.alphabet import END
from ming_omni.speech.reading import FINALS, SYMBOLS, Reader, readings

WORDS = {
    "walk": "wˈɔk", "love": "lˈʌv", "stop": "stˈɑp", "city": "sˈɪɾi", "box": "bˈɑks", "need": "nˈid", "it": "ɪt",
    "coffee": "kˈɔfi", "n": "ˈɛn", "t": "tˈi", "don't": "dˈOnt",
}  # fmt: skip


@pytest.fixture(scope="module")
def reader() -> Reader:
    return Reader(WORDS)


def said(reader: Reader, text: str) -> str:
    return "".join(symbol for unit in reader.units(text) for symbol in unit.symbols)


@pytest.mark.parametrize(
    ("word", "sounds"),
    [
        ("walk", "wˈɔk"), ("walks", "wˈɔks"), ("walked", "wˈɔkt"), ("loves", "lˈʌvz"), ("loved", "lˈʌvd"),
        ("loving", "lˈʌvɪŋ"), ("stopped", "stˈɑpt"), ("stopping", "stˈɑpɪŋ"), ("cities", "sˈɪɾiz"),
        ("boxes", "bˈɑksᵻz"), ("needed", "nˈidᵻd"), ("it's", "ɪts"), ("City's", "sˈɪɾiz"), ("don't", "dˈOnt"),
    ],
)  # fmt: skip
def test_forms_of_a_known_word_sound_as_english_endings_do(reader, word, sounds):
    assert said(reader, word) == sounds


def test_an_unknown_word_is_read_letter_by_letter_and_capitals_by_their_names(reader):
    assert said(reader, "Zorb") == "<z><o><r><b>"
    assert said(reader, "NTT") == "ˈɛn_tˈi_tˈi"
    assert said(reader, "NOX") == "<n><o><x>"  # x has no name here


def test_every_english_word_can_also_be_read_by_its_letters(reader):
    (unit,) = reader.units("coffee")
    assert unit.letters == ["<c>", "<o>", "<f>", "<f>", "<e>", "<e>"]


def test_mandarin_is_initials_and_finals_with_the_tone_as_spoken(reader):
    assert readings("你好")[1] == "hao3"
    assert said(reader, "吃饭了。") == "ch--i1f-an4l-e5."
    assert said(reader, "我要 coffee，") == "uo3iao4_kˈɔfi,"


def test_only_english_words_stand_apart_and_marks_never_come_twice(reader):
    assert said(reader, "walk, (walk) -- walk!") == "wˈɔk,wˈɔk,wˈɔk!"
    assert said(reader, "café") == "<c><a><f><e>"
    assert said(reader, "…walk") == "wˈɔk"


def test_all_syllables_of_the_common_hanzi_have_their_symbols(reader):
    hanzi = [bytes([high, low]).decode("gb2312", "ignore") for high in range(0xB0, 0xD8) for low in range(0xA1, 0xFF)]
    assert len(hanzi) > 3700
    unknown = {c: unit.symbols for c in hanzi if c for unit in reader.units(c) if set(unit.symbols) - set(SYMBOLS)}
    # Interjections such as 嗯 have no vowel.
    assert len(unknown) < 5, unknown


def test_ids_end_as_the_speaker_ends_them_and_no_symbol_stands_twice(reader):
    assert len(set(SYMBOLS)) == len(SYMBOLS) < 320
    assert reader.eos_token_id == reader.convert_tokens_to_ids(END) == 0
    assert reader("walk 吃。", add_special_tokens=False)["input_ids"] == reader.ids([*"wˈɔk", "_", "ch-", "-i1", "."])
    assert all(f"{final}3" in SYMBOLS for final in FINALS)


@pytest.mark.parametrize(
    ("text", "mark"),
    [("walk", "."), ("walk,", "."), ("walk:", "."), ('"walk"', "."), ("(walk)", "."), ("walk!", "!"), ("走？", "?")],
)
def test_whatever_is_read_ends_as_a_sentence_does(reader, text, mark):
    *said, last = reader(text)["input_ids"]
    assert reader.symbols[last] == mark
    assert said == (reader.ids("wˈɔk") if "walk" in text else reader.ids(["z-", "ou3"]))


def test_a_saved_reader_reads_the_same(reader, tmp_path):
    reader.save_pretrained(tmp_path)
    again = Reader.from_pretrained(tmp_path)
    text = "Stopped cities, 我们走吧？ Zorb."
    assert again(text) == reader(text)
    assert {path.name for path in tmp_path.iterdir()} == {"symbols.json", "words.tsv.xz"}


def test_of_two_dictionaries_the_later_wins_and_small_letters_win_over_names():
    found = words_of([{"a": "X", "polish": "Y", "b": "b"}, {"Polish": "Z", "polish": "pˈɑlɪʃ", "b": {"NOUN": "bˈi"}}])
    assert found == {"polish": "pˈɑlɪʃ", "b": "bˈi"}
