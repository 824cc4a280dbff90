"""Ears, wires, memory, and what was heard: a conversation without a server."""

import numpy as np
import pytest
import soxr
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from ming_omni.converse.ears import LONGEST_TURN_SECONDS, PAUSE_SECONDS, Ears, Event, Manners, Paused, Started, Stopped
from ming_omni.converse.memory import (
    FRAMES_PER_TURN,
    Bounds,
    Item,
    Memory,
    Reader,
    picture_content,
    sound_content,
    text_content,
)
from ming_omni.converse.said import Said
from ming_omni.converse.wires import WIRES, Inlet
from ming_omni.engine.engine import Engine
from ming_omni.engine.request import Prompt, Request, read_prompt
from ming_omni.errors import InputError
from ming_omni.inputs.messages import UNHEARD, Audio, Image, Message, Text
from ming_omni.inputs.processor import MingProcessor
from ming_omni.inputs.tiny import tiny_tokenizer
from ming_omni.transcribe.voice import WINDOW_SAMPLES, voice_detector
from tests.media import board, data_url, picture_file, tone
from tests.recipes import tiny_model
from tests.talks import RATE_HZ, silence, talk

PICTURE = data_url(picture_file(board()))


@pytest.fixture(scope="module")
def reader():
    model = tiny_model()
    return Reader(model, MingProcessor.from_config(model.config, tiny_tokenizer()))


# Wires.


@pytest.mark.parametrize("name", WIRES)
def test_what_is_encoded_sounds_the_same_when_it_is_decoded(name):
    wire, samples = WIRES[name], tone(0.2, WIRES[name].rate_hz)
    again = wire.decode(wire.encode(samples))
    # 8-bit laws have 13 or 14 bits near silence and steps of 1/32 where it is loud.
    assert np.abs(again - samples).max() < (1e-4 if name == "audio/pcm" else 1 / 32)


@pytest.mark.parametrize(
    ("name", "code", "level"),
    [
        ("audio/pcmu", 0xFF, 0),
        ("audio/pcmu", 0x80, 32_124),
        ("audio/pcmu", 0x00, -32_124),
        ("audio/pcma", 0xD5, 8),
        ("audio/pcma", 0xAA, 32_256),
        ("audio/pcma", 0x2A, -32_256),
    ],
)
def test_g711_has_the_levels_of_the_standard(name, code, level):
    assert WIRES[name].decode(bytes([code]))[0] * 32_768 == level


@pytest.mark.parametrize("name", ["audio/pcmu", "audio/pcma"])
def test_every_g711_byte_survives_a_round_trip(name):
    wire, every = WIRES[name], bytes(range(256))
    levels = wire.decode(every)
    assert (wire.decode(wire.encode(levels)) == levels).all()


def test_half_a_sample_is_refused():
    with pytest.raises(InputError, match="3 bytes end inside one"):
        WIRES["audio/pcm"].decode(b"abc")


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 3000), max_size=8))
def test_an_inlet_does_not_care_where_pieces_end(cuts):
    sound, inlet = WIRES["audio/pcm"].encode(tone(0.4, 24_000)), Inlet(WIRES["audio/pcm"])
    pieces, start = [], 0
    for cut in [*cuts, len(sound)]:
        pieces.append(inlet.push(sound[start : start + 2 * cut]))
        start += 2 * cut
    whole = np.concatenate([*pieces, inlet.finish()])
    assert_close(whole, soxr.resample(WIRES["audio/pcm"].decode(sound), 24_000, 16_000), atol=1e-3, rtol=0)


def test_after_a_sound_an_inlet_is_new():
    inlet, sound = Inlet(WIRES["audio/pcmu"]), WIRES["audio/pcmu"].encode(tone(0.1, 8_000))
    first = np.concatenate([inlet.push(sound), inlet.finish()])
    assert_close(np.concatenate([inlet.push(sound), inlet.finish()]), first)


# Ears.


def listen(samples: np.ndarray, manners: Manners, piece: int = 800) -> list[Event]:
    with voice_detector() as detect:
        ears = Ears(detect, manners)
        return [event for i in range(0, len(samples), piece) for event in ears.hear(samples[i : i + piece])]


def test_a_turn_starts_before_its_word_and_ends_a_silence_after_it():
    samples, [(start, end)] = talk(["english-seven.wav"], 1.0)
    started, paused, stopped = listen(samples, Manners())
    assert (type(started), type(paused), type(stopped)) == (Started, Paused, Stopped)
    assert start - 0.5 < started.at < start
    assert end + 0.3 < stopped.at < end + 0.7
    assert stopped.samples is paused.samples
    assert end < started.at + len(stopped.samples) / RATE_HZ < stopped.at - 0.25
    first = round(started.at * RATE_HZ)
    assert_close(stopped.samples, samples[first : first + len(stopped.samples)])


def test_where_the_pieces_break_does_not_matter():
    samples, _ = talk(["english-three.wav", "english-nine.wav"], 1.0)
    expected = listen(samples, Manners(), 1600)
    assert [type(event) for event in expected] == 2 * [Started, Paused, Stopped]
    for piece in (37, 512, len(samples)):
        for event, other in zip(expected, listen(samples, Manners(), piece), strict=True):
            assert type(event) is type(other)
            assert vars(event).get("at") == vars(other).get("at")
            assert np.array_equal(vars(event).get("samples", ()), vars(other).get("samples", ()))


def test_a_longer_silence_joins_two_words_into_one_turn():
    samples, _ = talk(["english-three.wav", "english-nine.wav"], 0.7)
    assert [type(event) for event in listen(samples, Manners(silence_seconds=0.5))].count(Stopped) == 2
    samples = np.concatenate([samples, silence(1.0)])
    _, paused, again, stopped = listen(samples, Manners(silence_seconds=1.3))
    assert type(paused) is type(again) is Paused and stopped.samples is again.samples
    assert len(again.samples) - len(paused.samples) > 0.7 * RATE_HZ


def test_a_silence_shorter_than_a_pause_can_end_a_turn():
    samples, _ = talk(["english-seven.wav"], 0.7)
    started, paused, stopped = listen(samples, Manners(silence_seconds=PAUSE_SECONDS / 2))
    assert started.at + len(stopped.samples) / RATE_HZ == pytest.approx(stopped.at)
    assert stopped.samples is paused.samples


def test_a_click_starts_no_turn():
    samples = silence(1.0)
    samples[8000:8200] = 0.9
    assert listen(samples, Manners()) == []


def ears_that_hear(probability: float, manners: Manners | None) -> Ears:
    return Ears(lambda window: probability, manners)


def test_in_a_silence_nothing_is_kept_but_what_a_turn_would_take_along():
    ears = ears_that_hear(0.0, Manners(prefix_seconds=0.2))
    for _ in range(100):
        assert list(ears.hear(silence(0.1))) == []
    assert ears.seconds == pytest.approx(10.0)
    assert ears.kept_seconds < 0.2 + 0.15


def test_a_turn_without_end_is_ended():
    ears = ears_that_hear(1.0, Manners())
    events = [event for _ in range(LONGEST_TURN_SECONDS + 1) for event in ears.hear(silence(1.0))]
    assert [type(event) for event in events[:2]] == [Started, Stopped]
    assert len(events[1].samples) / RATE_HZ == pytest.approx(LONGEST_TURN_SECONDS, abs=0.1)


def test_without_manners_everything_is_kept_up_to_a_limit():
    ears = ears_that_hear(1.0, None)
    assert list(ears.hear(silence(LONGEST_TURN_SECONDS))) == []
    with pytest.raises(InputError, match=f"at most {LONGEST_TURN_SECONDS} seconds"):
        list(ears.hear(silence(1.0)))
    assert len(ears.take()) == LONGEST_TURN_SECONDS * RATE_HZ
    assert ears.kept_seconds == 0 and ears.seconds == LONGEST_TURN_SECONDS


def test_what_was_cleared_is_not_part_of_a_turn():
    ears = ears_that_hear(1.0, Manners())
    assert [type(e) for e in ears.hear(silence(0.5))] == [Started]
    ears.clear()
    assert not ears.is_hearing
    [started] = ears.hear(silence(0.5))
    assert started.at == pytest.approx(0.5)


def test_windows_follow_one_another_without_a_gap():
    heard = []
    ears = Ears(lambda window: heard.append(window.clone()) or 0.0, Manners())
    samples = tone(0.5)
    for piece in np.array_split(samples, 7):
        list(ears.hear(piece))
    assert_close(torch.cat(heard).numpy(), samples[: len(samples) // WINDOW_SAMPLES * WINDOW_SAMPLES])


# What was heard.


def said(*sentences: tuple[str, float], text: str | None = None, pause: float = 0.0, is_whole: bool = True) -> Said:
    """Sentences and how long each sounds."""
    said = Said()
    said.write(" ".join(sentence for sentence, _ in sentences) if text is None else text)
    for i, (sentence, seconds) in enumerate(sentences):
        if i:
            said.sound(pause)
        said.begin(sentence)
        said.sound(seconds)
        if is_whole or i + 1 < len(sentences):
            said.end()
    return said


@pytest.mark.parametrize(
    ("seconds", "heard"),
    [
        (0.0, ""),
        (0.4, ""),
        (1.0, "One"),
        (1.7, "One"),
        (1.8, "One two"),
        (2.0, "One two."),
        (2.2, "One two."),
        (3.5, "One two. Three"),
        (3.9, "One two. Three four"),
        (4.5, "One two. Three four five."),
        (9.0, "One two. Three four five."),
    ],
)
def test_of_a_sentence_as_much_is_heard_as_of_its_sound(seconds, heard):
    assert said(("One two.", 2.0), ("Three four five.", 2.0), pause=0.5).heard(seconds) == heard


def test_chinese_is_cut_between_characters():
    assert said(("今天天气很好。", 3.5), text="今天天气很好。").heard(2.0) == "今天天气"


def test_what_is_not_read_aloud_is_heard_with_the_sentence_before_it():
    text = "Look.\n```\ncode\n```\nDone."
    spoken = said(("Look.", 1.0), ("Done.", 1.0), text=text)
    assert spoken.heard(1.0) == "Look."
    assert spoken.heard(2.0) == text


def test_a_wrapped_sentence_is_found_in_its_text():
    assert said(("It goes on here.", 2.0), text="It goes\n on here. ").heard(2.0) == "It goes\n on here. "


def test_speech_that_was_broken_off_is_measured_by_the_pace_before_it():
    spoken = said(("One two three four.", 1.9), ("Five six seven eight.", 0.5), is_whole=False)
    assert spoken.heard(2.4) == "One two three four. Five"  # 5 of 21 letters, at 10 a second


def test_the_first_sentence_is_measured_by_usual_speech():
    assert said(("One two three four.", 0.3), is_whole=False).heard(0.3) == "One"


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["So.", "One two!", "你好。", "Why not?"]), st.floats(0.1, 3)), max_size=5))
def test_more_seconds_never_mean_less_text(sentences):
    spoken = said(*sentences, pause=0.2)
    heard = [spoken.heard(t * spoken.seconds / 20) for t in range(21)]
    assert all(spoken.text.startswith(text) for text in heard)
    assert [len(text) for text in heard] == sorted(len(text) for text in heard)
    assert heard[-1] == spoken.text


# Memory.


def say(reader: Reader, memory: Memory, role: str, *contents) -> Item:
    contents = [text_content(reader, c) if isinstance(c, str) else c for c in contents]
    item = Item(f"item_{len(memory.items)}_{role}", role, contents)
    memory.add(item)
    return item


def equal(prompt: Prompt, other: Prompt) -> bool:
    same = all(np.array_equal(getattr(prompt, name), getattr(other, name)) for name in ("positions", "modality"))
    return same and prompt.ids == other.ids and prompt.delta == other.delta


def test_pieces_make_the_prompt_that_the_whole_conversation_makes(reader):
    sound = tone(0.6)
    memory = Memory(reader)
    say(reader, memory, "user", "Look: ", picture_content(reader, PICTURE, None), sound_content(reader, sound))
    say(reader, memory, "assistant", "A board. <role>")
    say(reader, memory, "system", "Be brief.")
    say(reader, memory, "user", sound_content(reader, sound))
    messages = [
        Message("system", "Kind.\n\nBe brief."),
        Message("user", [Text("Look: "), Image(PICTURE), Audio((sound, RATE_HZ))]),
        Message("assistant", "A board. <role>"),
        Message("user", [Audio((sound, RATE_HZ))]),
    ]
    whole = read_prompt(reader.model, reader.processor.prepare(messages))
    assert equal(memory.prompt("Kind."), whole)


def test_neighbours_of_one_role_are_one_message(reader):
    memory = Memory(reader)
    say(reader, memory, "user", picture_content(reader, PICTURE, None))
    say(reader, memory, "user", "One.")
    say(reader, memory, "user", "Two.")
    message = Message("user", [Image(PICTURE), Text("One.\nTwo.")])
    assert equal(memory.prompt(None), read_prompt(reader.model, reader.processor.prepare([message])))


def test_a_turn_whose_words_are_written_down_is_read_as_they_are_and_keeps_its_sound(reader):
    heard, sound = [], tone(0.6)

    def words(samples: np.ndarray) -> str:
        heard.append(samples)
        return "Who?" if len(heard) == 1 else ""

    writer = Reader(reader.model, reader.processor, words)
    memory = Memory(writer)
    contents = [sound_content(writer, sound), sound_content(writer, sound), sound_content(writer, sound, "You.")]
    for content in contents:
        say(writer, memory, "user", content)
    assert len(heard) == 2 and all(samples is sound for samples in heard)
    assert [content.text for content in contents] == ["Who?", "", "You."]
    assert all(content.kind == "sound" and len(content.samples) == len(sound) for content in contents)
    message = Message("user", f"Who?\n{UNHEARD}\nYou.")
    assert equal(memory.prompt(None), read_prompt(reader.model, reader.processor.prepare([message])))


def answer(engine: Engine, prompt: Prompt, max_tokens: int = 12) -> tuple[list[int], int]:
    """Ids of a greedy answer, and prompt tokens that were computed for it."""
    stream = engine.submit(Request(prompt, max_tokens=max_tokens))
    while engine.step():
        pass
    return [token.id for token in stream], len(prompt) - stream.sequence.num_reused


def test_each_turn_computes_only_its_own_tokens_and_answers_as_if_it_computed_all(reader):
    engine, memory, num_before = Engine(reader.model), Memory(reader), 0
    for turn in range(6):
        contents = [sound_content(reader, tone(0.5 + 0.2 * turn))]
        if turn % 2:
            contents.append(picture_content(reader, PICTURE, None))
        say(reader, memory, "user", *contents)
        prompt = memory.prompt("Be kind.")
        ids, num_computed = answer(engine, prompt)
        # Shared are whole pages of what was computed, and the last token of an answer never was.
        assert num_computed <= len(prompt) - num_before + engine.options.page_tokens
        alone, _ = answer(Engine(reader.model), memory.prompt("Be kind."))
        assert ids == alone
        num_before = len(prompt) + len(ids)
        memory.add(Item(f"answer_{turn}", "assistant", [text_content(reader, "x")]))
        memory.items[-1].contents[0].piece = Prompt.of_ids(ids)
    assert len(prompt) > 4 * num_computed


def test_media_are_encoded_once_for_all_turns_even_without_a_cache(reader):
    memory = Memory(reader)
    item = say(reader, memory, "user", picture_content(reader, PICTURE, None))
    answer(Engine(reader.model), memory.prompt(None), 1)
    [media] = item.contents[0].piece.media
    kept = media.tokens
    assert kept is not None and media.inputs == ()
    answer(Engine(reader.model), memory.prompt(None), 1)
    assert media.tokens is kept


def full_memory(reader: Reader, num_turns: int = 5) -> Memory:
    """System, and turns of a picture with a question and an answer; the last is not answered."""
    memory = Memory(reader)
    say(reader, memory, "system", "Stay.")
    for turn in range(num_turns):
        say(reader, memory, "user", picture_content(reader, PICTURE, None))
        say(reader, memory, "user", f"Question {turn}, and some more words?")
        if turn + 1 < num_turns:
            say(reader, memory, "assistant", f"Answer {turn}, at some length.")
    return memory


def test_system_items_count_even_when_they_say_nothing(reader):
    memory = Memory(reader)
    say(reader, memory, "user", "Hi.")
    before, told = memory.size()[0], len(memory.prompt("Kind."))
    for _ in range(50):
        say(reader, memory, "system", "")
    assert memory.size()[0] - before == len(memory.prompt("Kind.")) - told >= 50
    with pytest.raises(InputError, match="a conversation holds 40"):
        memory.forget(Bounds(40))


def texts(memory: Memory) -> list[str]:
    return [c.text or c.kind for item in memory.items for c in item.contents]


def test_pictures_of_past_turns_are_forgotten_first_and_oldest_first(reader):
    memory = full_memory(reader)
    num_tokens, _ = memory.size()
    gone = memory.forget(Bounds(num_tokens - 1, retention=0.9))
    assert {item.role for item in gone} == {"user"} and 1 <= len(gone) < 4
    kept = [c.kind for item in memory.items for c in item.contents if c.kind == "picture"]
    assert len(kept) == 5 - len(gone)
    assert sum("Question" in text or "Answer" in text for text in texts(memory)) == 9
    assert memory.size()[0] <= 0.9 * (num_tokens - 1)


def test_then_the_oldest_turns_go_question_and_answer_together(reader):
    memory = full_memory(reader)
    last = next(item for item in memory.items if "Question 4" in item.text)
    needed = memory.size([last, memory.items[0], memory.items[-2]])[0]
    memory.forget(Bounds(needed + 100, retention=1.0))
    assert texts(memory) == [
        "Stay.",
        "Question 3, and some more words?",
        "Answer 3, at some length.",
        "picture",
        "Question 4, and some more words?",
    ]


def test_the_turn_at_hand_is_never_forgotten_but_refused_when_it_is_too_long(reader):
    memory = full_memory(reader)
    before = texts(memory)
    with pytest.raises(InputError, match="a conversation holds 40"):
        memory.forget(Bounds(40))
    assert texts(memory) == before


def test_bytes_are_bounded_too(reader):
    memory = Memory(reader)
    for _ in range(4):
        say(reader, memory, "user", sound_content(reader, silence(5.0)))
        say(reader, memory, "assistant", "Yes.")
    _, num_bytes = memory.size()
    assert num_bytes > 4 * 5.0 * RATE_HZ * 2
    memory.items[0].contents[0].text = "x" * 1000  # words that a client says are in a sound
    assert memory.size()[1] >= num_bytes + 1000
    assert memory.forget(Bounds(10_000, num_bytes // 2, retention=1.0))
    assert memory.size()[1] <= num_bytes // 2


def test_what_may_not_be_forgotten_is_refused(reader):
    memory = full_memory(reader)
    with pytest.raises(InputError, match="truncation is disabled"):
        memory.forget(Bounds(50, may_forget=False))


def test_a_turn_keeps_its_newest_pictures(reader):
    memory = full_memory(reader, 2)
    shown = [say(reader, memory, "user", picture_content(reader, PICTURE, None)) for _ in range(FRAMES_PER_TURN + 1)]
    [_, first, *_] = [item for item in memory.items if item.contents[0].kind == "picture"]
    assert memory.thin_frames() == [first, shown[0]]
    assert memory.thin_frames() == []


def test_a_conversation_of_any_length_stays_within_its_bounds(reader):
    memory, bounds, sizes = Memory(reader), Bounds(600), []
    say(reader, memory, "system", "Stay.")
    for turn in range(60):
        memory.add(Item(f"question_{turn}", "user", [sound_content(reader, tone(1.0))]))
        memory.add(Item(f"answer_{turn}", "assistant", [text_content(reader, "Well, perhaps.")]))
        memory.forget(bounds)
        sizes.append(memory.size())
    assert max(tokens for tokens, _ in sizes) <= 600
    assert max(num_bytes for _, num_bytes in sizes) < 1_500_000
    assert memory.items[0].text == "Stay." and memory.items[-1].id == "answer_59"
