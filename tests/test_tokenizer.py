"""Text <-> ids: nothing is lost, nothing typed becomes a special token, streams never break a character."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ming_omni.errors import InputError
from ming_omni.inputs.tokenizer import GUARD, Tokenizer
from tests import toy

BYTE_LEVEL, BYTE_FALLBACK = toy.byte_level(), toy.byte_fallback()
texts = st.text(st.characters(exclude_categories=("Cs",), exclude_characters=GUARD + "▁"), max_size=60)
special_texts = st.lists(st.sampled_from([*BYTE_LEVEL.added_ids, "<", "<image", "a ", "你", "|>"]), max_size=12).map(
    "".join
)


def streamed(tokenizer: Tokenizer, ids: list[int], skip_special_tokens: bool = True) -> list[str]:
    stream = tokenizer.stream(skip_special_tokens)
    return [*(stream.push(index) for index in ids), stream.finish()]


@given(texts)
def test_any_text_comes_back_from_its_ids(text):
    for tokenizer in (BYTE_LEVEL, BYTE_FALLBACK):
        # The second kind of tokenizer writes a leading space of its own, and takes one away.
        assert tokenizer.decode(tokenizer.encode(tokenizer.escape(text))) == text


@given(special_texts | texts)
def test_typed_tokens_are_spelled_out_when_escaped(text):
    for tokenizer in (BYTE_LEVEL, BYTE_FALLBACK):
        ids = tokenizer.encode(tokenizer.escape(text, "<IMAGE>"))
        assert not set(ids) & tokenizer.special_ids
        assert tokenizer.decode(ids) == text


def test_unescaped_tokens_are_obeyed():
    ids = BYTE_LEVEL.encode("<role>HUMAN</role>hello<|role_end|>")
    assert ids[0] == BYTE_LEVEL.token_id("<role>") and ids[-1] == BYTE_LEVEL.eos_token_id
    assert BYTE_LEVEL.decode(ids) == "<role>HUMAN</role>hello<|role_end|>"
    assert BYTE_LEVEL.decode(ids, skip_special_tokens=True) == "HUMANhello"


def test_a_guard_in_the_text_itself_cannot_undo_the_escape():
    text = f"<{GUARD}image><im{GUARD}age>"
    assert not set(BYTE_LEVEL.encode(BYTE_LEVEL.escape(text))) & BYTE_LEVEL.special_ids


def test_tokens_that_overlap_are_all_broken_up():
    core = toy.byte_level().core
    core.add_special_tokens(["<ab>", "b><c"])
    tokenizer = Tokenizer(core)
    assert not set(tokenizer.encode(tokenizer.escape("<ab><c"))) & tokenizer.special_ids


@given(texts)
def test_a_stream_says_what_the_whole_says(text):
    for tokenizer in (BYTE_LEVEL, BYTE_FALLBACK):
        ids = tokenizer.encode(text)
        assert "".join(streamed(tokenizer, ids)) == tokenizer.decode(ids, skip_special_tokens=True)


@given(st.lists(st.integers(0, len(BYTE_LEVEL) - 1), max_size=40), st.booleans())
def test_a_stream_of_any_ids_says_what_the_whole_says(ids, skip_special_tokens):
    whole = BYTE_LEVEL.decode(ids, skip_special_tokens)
    assert "".join(streamed(BYTE_LEVEL, ids, skip_special_tokens)) == whole


@pytest.mark.parametrize("tokenizer", [BYTE_LEVEL, BYTE_FALLBACK], ids=["byte level", "byte fallback"])
def test_a_stream_never_shows_half_a_character(tokenizer):
    text = "naïve 你好 👍🏽 €5"
    pieces = streamed(tokenizer, tokenizer.encode(text))
    assert "".join(pieces) == text
    assert "\ufffd" not in "".join(pieces)
    assert pieces.count("") > 5  # the bytes in between were held back


def test_what_never_became_a_character_is_shown_at_the_end():
    first_byte = BYTE_LEVEL.encode("好")[0]
    stream = BYTE_LEVEL.stream()
    assert stream.push(first_byte) == ""
    assert stream.finish() == "\ufffd"


def test_special_tokens_pass_a_stream_in_silence_unless_wanted():
    ids = BYTE_LEVEL.encode("hello<|role_end|>")
    assert "".join(streamed(BYTE_LEVEL, ids)) == "hello"
    assert "".join(streamed(BYTE_LEVEL, ids, skip_special_tokens=False)) == "hello<|role_end|>"


@pytest.mark.parametrize("tokenizer", [BYTE_LEVEL, BYTE_FALLBACK], ids=["byte level", "byte fallback"])
def test_a_saved_tokenizer_reads_the_same(tmp_path, tokenizer):
    tokenizer.save_pretrained(tmp_path)
    again = Tokenizer.from_pretrained(tmp_path)
    text = "<role>HUMAN</role>hello the 你好"
    assert again.encode(text) == tokenizer.encode(text)
    assert (again.eos_token_id, again.pad_token_id) == (tokenizer.eos_token_id, tokenizer.pad_token_id)


def test_transformers_reads_a_saved_tokenizer_the_same(tmp_path):
    from transformers import PreTrainedTokenizerFast

    BYTE_LEVEL.save_pretrained(tmp_path)
    theirs = PreTrainedTokenizerFast.from_pretrained(tmp_path)
    text = "<role>HUMAN</role>hello the <image>你好</image><|role_end|>"
    assert theirs(text)["input_ids"] == BYTE_LEVEL(text)["input_ids"] == BYTE_LEVEL.encode(text)
    assert theirs.eos_token_id == BYTE_LEVEL.eos_token_id


def test_calling_it_gives_what_transformers_gives():
    assert set(BYTE_LEVEL("hello")) == {"input_ids", "attention_mask"}
    assert BYTE_LEVEL("hello", return_tensors="pt").input_ids.tolist() == [BYTE_LEVEL.encode("hello")]
    assert BYTE_LEVEL(["hello", "the"])["input_ids"] == [BYTE_LEVEL.encode("hello"), BYTE_LEVEL.encode("the")]
    assert BYTE_LEVEL.batch_decode([BYTE_LEVEL.encode("hello"), []]) == ["hello", ""]


def test_a_missing_token_or_file_is_told_in_one_sentence(tmp_path):
    with pytest.raises(InputError, match="no <movie> token"):
        BYTE_LEVEL.token_id("<movie>")
    with pytest.raises(InputError, match="holds no tokenizer"):
        Tokenizer.from_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(InputError, match="is not a tokenizer"):
        Tokenizer.from_pretrained(tmp_path)
    BYTE_LEVEL.save_pretrained(tmp_path)
    for broken in ("{", "[]"):
        (tmp_path / "tokenizer_config.json").write_text(broken)
        with pytest.raises(InputError, match="JSON"):
            Tokenizer.from_pretrained(tmp_path)


def test_saving_keeps_what_other_libraries_read_but_no_code_to_run(tmp_path):
    BYTE_LEVEL.save_pretrained(tmp_path)
    settings = {"eos_token": "<|role_end|>", "chat_template": "{{ messages }}", "auto_map": {"AutoTokenizer": "x.Y"}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    Tokenizer.from_pretrained(tmp_path).save_pretrained(tmp_path / "again")
    saved = json.loads((tmp_path / "again/tokenizer_config.json").read_text())
    assert saved["chat_template"] == "{{ messages }}" and "auto_map" not in saved


def test_end_tokens_may_be_written_as_objects(tmp_path):
    BYTE_LEVEL.save_pretrained(tmp_path)
    settings = {"eos_token": {"content": "<|role_end|>", "lstrip": False}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    tokenizer = Tokenizer.from_pretrained(tmp_path)
    assert tokenizer.eos_token_id == tokenizer.pad_token_id == BYTE_LEVEL.eos_token_id


@pytest.mark.parametrize("tokenizer", [BYTE_LEVEL, BYTE_FALLBACK])
def test_half_a_character_is_refused_in_a_sentence(tokenizer):
    with pytest.raises(InputError, match=r"half a character: '\\ud83d' stands alone"):
        tokenizer.encode("so \ud83d")
