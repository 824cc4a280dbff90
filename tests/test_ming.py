"""The object a user holds, with the shipped nano and with tiny."""

import threading

import numpy as np
import pytest

from ming_omni import Ming
from ming_omni.errors import InputError
from ming_omni.inputs.messages import UNHEARD, Audio, Image, Message, Text
from ming_omni.model.omni import AUDIO


@pytest.fixture(scope="module")
def nano():
    return Ming.load("nano")


@pytest.fixture(scope="module")
def tiny():
    return Ming.load("tiny")


def test_nano_knows_the_capital_of_france(nano):
    assert "Paris" in nano.ask("What is the capital of France?", max_tokens=24)


@pytest.mark.parametrize(
    ("question", "fact"),
    [
        ("What is the capital of Germany?", "Berlin"),
        ("What is the capital of Japan?", "Tokyo"),
        ("What is 2 + 3?", "2 + 3 = 5"),
        ("How many days are in a week?", "7 days"),
        ("What is the opposite of hot?", "The opposite of hot is cold"),
    ],
)
def test_nano_keeps_to_facts(nano, question, fact):
    """The capitals and the opposite were taught; the sum was not, and of the week it was taught another sentence."""
    assert fact in nano.ask(question, max_tokens=12)


def test_a_stream_is_the_answer_in_pieces(tiny):
    options = {"max_tokens": 40, "seed": 1, "temperature": 0.8}
    pieces = list(tiny.stream("Name three colours.", **options))
    assert len(pieces) > 3
    assert "".join(pieces) == tiny.ask("Name three colours.", **options)


def test_an_answer_ends_before_a_stop_string(nano):
    whole = nano.ask("What is the capital of France?", max_tokens=24)
    assert nano.ask("What is the capital of France?", max_tokens=24, stop="Paris") == whole[: whole.index("Paris")]


def test_a_prompt_written_by_hand_is_continued_as_the_question_it_spells(tiny):
    asked = tiny.processor.apply_chat_template([Message("user", [Text("Name three colours.")])])
    assert tiny.complete(asked, max_tokens=12) == tiny.ask("Name three colours.", max_tokens=12)


def test_history_is_part_of_the_question(tiny):
    turns = [("user", "My name is Ada."), ("assistant", "Hello Ada!"), ("user", "What is my name?")]
    messages = [{"role": role, "content": text} for role, text in turns]
    steps = tiny.model.steps(tiny.processor.prepare(messages), max_new_tokens=6, eos_token_id=[])
    expected = tiny.processor.tokenizer.decode([int(step.ids) for step in steps], skip_special_tokens=True)
    assert "".join(tiny.reply(messages, max_tokens=6)) == expected


def test_closing_a_stream_ends_its_work(tiny):
    stream = tiny.stream("a", max_tokens=400, temperature=1.0, seed=0)
    next(stream)
    stream.close()
    tiny.ask("b", max_tokens=1)  # one more step of the engine, which drops what was cancelled
    assert not tiny.engine.streams


def test_a_stream_that_nobody_reads_ends_its_work_when_it_is_let_go(tiny):
    stream = tiny.stream("a", max_tokens=4000, temperature=1.0, seed=0)
    (sequence,) = tiny.engine.streams
    del stream
    assert sequence.cancelled


def test_threads_that_ask_first_at_the_same_time_share_one_engine():
    fresh, found = Ming.load("tiny"), set()
    start = type(fresh).engine.func  # what the cached property runs, in several threads at once since Python 3.12
    threads = [threading.Thread(target=lambda: found.add(start(fresh))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {fresh.engine}


@pytest.mark.parametrize("kind", ["image", "audio", "video"])
def test_a_model_says_which_sense_it_lacks(kind):
    numb = Ming.load("tiny")
    numb.model.vision = numb.model.audio = None
    with pytest.raises(InputError, match="audio" if kind == "audio" else "vision"):
        numb.requires(kind)


SOUND = (np.zeros(16_000, np.float32), 16_000)
"""In which nobody says anything."""


@pytest.mark.parametrize(
    ("content", "heard"),
    [
        ([Audio(SOUND)], [Text(UNHEARD)]),
        ([Audio([SOUND, SOUND]), Text(" ")], [Text(UNHEARD)]),
        ([Audio(SOUND), Image("seen.png")], [Image("seen.png"), Text(UNHEARD)]),
        ([Audio(SOUND), Text("What is this?")], None),
        ([Text("...")], None),
        ([Image("seen.png")], None),
    ],
)
def test_a_model_that_only_writes_down_what_it_hears_reads_the_words_of_a_turn_that_is_only_spoken(content, heard):
    writer = Ming.load("tiny")
    writer.answers_sound = False
    told = [Message("assistant", [Audio(SOUND)]), Message("user", content)]
    assert writer.heard(told) == [told[0], told[1] if heard is None else Message("user", heard)]


def test_a_sound_that_is_sent_again_with_a_later_turn_is_not_written_down_again(monkeypatch):
    writer, listened = Ming.load("tiny"), []
    writer.answers_sound = False
    transcribe = writer.transcribe
    monkeypatch.setattr(
        writer, "transcribe", lambda sound, **options: listened.append(1) or transcribe(sound, **options)
    )
    first, louder = Message("user", [Audio(SOUND)]), Message("user", [Audio((SOUND[0] + 0.5, SOUND[1]))])
    slower = Message("user", [Audio((SOUND[0], SOUND[1] // 2))])
    heard = writer.heard([first])
    assert writer.heard([first, louder, first, slower])[:1] == heard and len(listened) == 3
    monkeypatch.setattr("ming_omni.ming.WORDS_KEPT", 1)
    writer.heard([Message("user", [Audio((SOUND[0] + 0.1, SOUND[1]))]), first])
    assert len(listened) == 5, "only the last is kept"


def test_a_model_that_answers_sound_reads_the_sound_itself(tiny):
    spoken = Message("user", [Audio((np.sin(np.arange(16_000) / 20).astype(np.float32), 16_000))])
    assert tiny.heard([spoken]) == [spoken]
    with tiny.submit(spoken, max_tokens=1) as stream:
        list(stream)
    assert (stream.sequence.prompt.modality == AUDIO).sum() > 10


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"max_tokens": "5"}, "max_tokens"),
        ({"system": 5}, "system"),
        ({"stop": 5}, "stop"),
        ({"seed": "x"}, "seed"),
        ({"temperature": -1}, "temperature"),
        ({"top_p": 2.0}, "top_p"),
        ({"colour": "red"}, "colour"),
        ({"images": ["missing.png"]}, "missing.png"),
        ({"images": "missing.png"}, "missing.png"),
        ({"images": [None]}, "picture"),
        ({"audio": "missing.wav"}, "missing.wav"),
    ],
)
def test_bad_options_are_refused_before_anything_runs(tiny, options, part):
    with pytest.raises(InputError, match=part):
        tiny.ask("hi", **options)


def test_none_means_the_default(tiny):
    assert tiny.ask("hi", max_tokens=2, stop=None, images=None, seed=None) == tiny.ask("hi", max_tokens=2)


@pytest.mark.parametrize("prompt", [None, 5, b"hi", []])
def test_a_prompt_that_is_no_text_is_refused(tiny, prompt):
    with pytest.raises(InputError, match="a prompt is text"):
        tiny.ask(prompt)


def test_a_prompt_beyond_the_limit_is_refused_with_both_numbers(tiny):
    limit = tiny.engine.longest
    with pytest.raises(InputError, match=str(limit)):
        tiny.ask("a" * (limit + 1))
