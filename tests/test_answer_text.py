from hypothesis import given
from hypothesis import strategies as st

from ming_omni.engine.request import Token
from ming_omni.engine.text import Answer
from ming_omni.inputs.tiny import tiny_tokenizer

TOKENIZER = tiny_tokenizer()


def read(text: str, stops: list[str], is_ended: bool = True) -> tuple[list[str], list, Answer]:
    answer, pieces, places = Answer(TOKENIZER.stream(), stops), [], []
    for id_ in TOKENIZER.encode(text):
        piece, shown = answer.push(Token(id_, -1.0))
        pieces.append(piece)
        places += shown
        if answer.is_stopped:
            return pieces, places, answer
    if is_ended:
        piece, shown = answer.finish()
        pieces.append(piece)
        places += shown
    return pieces, places, answer


def test_a_stop_string_is_cut_off_with_all_that_follows():
    pieces, _, answer = read("one two three", ["two"])
    assert "".join(pieces) == "one " and answer.is_stopped


def test_the_beginning_of_a_stop_string_is_held_until_it_is_certain():
    assert read("say th", ["the end"], is_ended=False)[0][-2:] == ["", ""]
    assert "".join(read("say that", ["the end"], is_ended=False)[0]) == "say tha"


def test_what_was_held_is_shown_at_the_end():
    assert "".join(read("to the e", ["the end"])[0]) == "to the e"


def test_no_half_character_is_shown():
    assert [piece for piece in read("a é 你", [])[0] if piece] == ["a", " ", "é", " ", "你"]


def test_tokens_of_a_stop_string_are_not_shown_but_counted():
    _, places, answer = read("ab--cd", ["--"])
    assert [TOKENIZER.decode([token.id]) for _, token in places] == ["a", "b"]
    assert answer.num_tokens == 4


def test_places_point_into_the_text():
    _, places, _ = read("aé", [])
    assert [place for place, _ in places] == [0, 1, 1]


@given(st.text("abé", max_size=30), st.lists(st.text("abé", min_size=1, max_size=3), max_size=3))
def test_the_text_ends_where_the_first_stop_string_is_complete(text, stops):
    ends = [n for n in range(len(text) + 1) if any(text[:n].endswith(stop) for stop in stops)]
    expected = text
    if ends:
        whole = text[: ends[0]]
        expected = whole[: -max(len(stop) for stop in stops if whole.endswith(stop))]
    pieces, places, answer = read(text, stops)
    assert "".join(pieces) == expected
    assert answer.is_stopped == bool(ends)
    assert len(places) == len(expected.encode())
