"""Text -> speech with the tiny talker: streams, many at once, seeds, limits, bad input."""

import gc
import itertools
import threading
import time
import warnings

import numpy as np
import pytest
import torch

from ming_omni.config import TalkerConfig
from ming_omni.errors import InputError
from ming_omni.model.talker import Talker
from ming_omni.speak.loop import Loop, Utterance
from ming_omni.speak.speaker import MAX_CHARACTERS, Speaker, generator, tiny_speaker
from ming_omni.speak.steps import PlainSteps
from ming_omni.speech.alphabet import character_tokenizer
from ming_omni.speech.voices import Shelf, Voice
from tests.test_voices import CONSENT, speech

TEXT = "Hello there. How are you today? I am fine."


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    shelf = Shelf(tmp_path_factory.mktemp("voices"))
    shelf.add(Voice.clone("ada", speech(), "Hi.", consent=CONSENT))
    return shelf


@pytest.fixture(scope="module")
def speaker(shelf):
    return tiny_speaker(shelf)


def talker(stop: float, **config) -> Talker:
    """A talker that wants to stop at every patch (stop > 0), or never."""
    torch.manual_seed(0)
    talker = Talker(TalkerConfig(**config)).eval()
    talker.stop_head.weight.data.zero_()
    talker.stop_head.bias.data = torch.tensor([0.0, stop])
    return talker


def utterance(seed=0, length=5, max_patches=20):
    return Utterance(torch.arange(length), None, generator(seed), max_patches)


def joined(chunks) -> np.ndarray:
    return np.concatenate([np.asarray(chunk) for chunk in chunks])


def test_streamed_speech_equals_whole_speech(speaker):
    whole = speaker.speak(TEXT, "ada", seed=1)
    chunks = list(speaker.speak(TEXT, "ada", seed=1, stream=True))
    assert len(chunks) > 5
    assert np.array_equal(joined(chunks), whole.samples)


def test_a_text_that_arrives_in_pieces_sounds_like_the_whole(speaker):
    pieces = (TEXT[i : i + 3] for i in range(0, len(TEXT), 3))
    assert np.array_equal(speaker.speak(pieces, seed=1).samples, speaker.speak(TEXT, seed=1).samples)


def test_speech_starts_before_the_text_is_complete(speaker):
    asked = []

    def write():
        for piece in ("Hello there. ", "How are you", " today?"):
            asked.append(piece)
            yield piece

    chunks = speaker.speak(write(), seed=1, stream=True)
    assert asked == []
    next(chunks)
    assert asked == ["Hello there. ", "How are you"]


def test_the_same_seed_speaks_the_same_and_another_does_not(speaker):
    first, again, other = (speaker.speak("Hello.", seed=seed).samples for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first[:500], other[:500])
    assert not np.array_equal(speaker.speak("Hello.").samples[:500], speaker.speak("Hello.").samples[:500])


def test_without_noise_all_seeds_speak_the_same():
    # It wants to stop, and may from the third patch on.
    spoken = [
        joined(Loop(talker(9.0, noise=noise, steps=2, min_patches=3), 1).speak(utterance(seed)))
        for noise in (0.0, 1.0)
        for seed in (1, 2)
    ]
    assert np.array_equal(spoken[0], spoken[1]) and not np.array_equal(spoken[2], spoken[3])


def test_a_voice_changes_the_speech(speaker):
    assert not np.array_equal(
        speaker.speak("Hello.", seed=1).samples[:500], speaker.speak("Hello.", "ada", seed=1).samples[:500]
    )


def test_a_cloned_voice_is_kept_and_can_be_given_directly(tmp_path):
    speaker = tiny_speaker(Shelf(tmp_path))
    voice = speaker.clone("eve", (speech().numpy(), 16_000), "Hi.", consent=CONSENT)
    assert speaker.voices == ["eve"]
    by_name, by_voice = (
        speaker.speak("Hello.", v, seed=1).samples for v in ("eve", Voice.load(tmp_path / "eve.safetensors"))
    )
    assert np.array_equal(by_name, by_voice)
    assert voice.transcript == "Hi."


def test_many_speakers_at_once_sound_as_each_alone(speaker):
    jobs = [(f"Speaker number {i} says hello. And goodbye.", "ada" if i % 2 else None, i) for i in range(6)]
    alone = [speaker.speak(text, voice, seed=seed).samples for text, voice, seed in jobs]
    together: list = [None] * len(jobs)

    def run(i):
        text, voice, seed = jobs[i]
        together[i] = speaker.speak(text, voice, seed=seed).samples

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(jobs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for a, b in zip(alone, together, strict=True):
        assert len(a) == len(b)
        assert np.abs(a - b).max() < 1e-4


def test_a_cancelled_sentence_takes_no_further_step():
    loop = Loop(talker(-9.0), 2)
    long, other = loop.speak(utterance(1)), loop.speak(utterance(2))
    next(long), next(other)
    assert len(loop.speaking) == 2
    long.close()
    assert len(loop.speaking) == 1 and len(loop.free) == 1
    with pytest.warns(UserWarning, match="found no end"):
        assert len(list(other)) == 19
    assert loop.speaking == [] and loop.free == [0, 1]


def test_a_dropped_stream_frees_its_place(speaker):
    chunks = speaker.speak(TEXT, seed=1, stream=True)
    next(chunks)
    del chunks
    assert speaker.loop.speaking == []


def test_a_forgotten_stream_that_is_collected_during_a_step_does_no_harm():
    class Collecting(PlainSteps):
        def __call__(self, *args):
            gc.collect()
            return super().__call__(*args)

    model = talker(9.0, min_patches=3)
    loop = Loop(model, 2, Collecting(model, 2))
    forgotten = [loop.speak(utterance(1))]
    next(forgotten[0])
    forgotten.append(forgotten)  # a cycle: only the collector can close it
    del forgotten
    assert len(list(loop.speak(utterance(2)))) == 3
    assert loop.free == [0, 1]


def test_sentences_wait_for_a_free_place_and_all_are_spoken():
    loop = Loop(talker(9.0), 2)
    streams = [loop.speak(utterance(i)) for i in range(5)]
    assert len([next(stream) for stream in streams]) == 5
    assert all(list(stream) == [] for stream in streams)
    assert loop.free == [0, 1] and not loop.waiting


@pytest.mark.parametrize(("min_patches", "expected"), [(1, 1), (3, 3), (12, 12)])
def test_the_stop_head_is_heard_from_the_first_patch_that_may_be_the_last(min_patches, expected):
    model = talker(9.0, min_patches=min_patches)
    chunks = list(Loop(model).speak(utterance()))
    assert len(chunks) == expected
    # The tail of one and a half hops is flushed: n patches give n patches of samples, no fewer.
    assert sum(map(len, chunks)) == expected * 4 * 320


def test_a_runaway_ends_at_its_limit_with_its_tail_and_a_warning():
    with pytest.warns(UserWarning, match=r"found no end and was stopped after 0\.6 seconds"):
        chunks = list(Loop(talker(-9.0)).speak(utterance(max_patches=7)))
    assert sum(map(len, chunks)) == 7 * 4 * 320


def test_a_runaway_sentence_lasts_a_few_times_as_long_as_it_should():
    speaker = Speaker(talker(-9.0), character_tokenizer())
    with pytest.warns(UserWarning, match="found no end"):
        assert 3.0 < speaker.speak("Hi.", seed=1).seconds < 4.5


def held(stop: float, **config) -> Speaker:
    """Of a talker that says how long its sentences were, as nano does."""
    return Speaker(talker(stop, sentence_seconds=2.0, steps=1, **config), character_tokenizer())


def test_a_talker_of_short_sentences_says_a_long_one_in_breaths_each_with_its_end():
    speaker, texts = held(9.0), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(speaker, "_patches", lambda text: (texts.append(text), (1, 1))[1])
        chunks = list(speaker.speak("I came home late and then we all saw it, my friends.", seed=1, stream=True))
    assert texts == ["I came home late.", "and then we all saw it,", "my friends."]
    pause = int(0.15 * 16_000)
    assert sum(map(len, chunks)) == 3 * 4 * 320 + 2 * pause


@pytest.mark.parametrize("is_stream", [False, True])
def test_a_held_sentence_is_neither_cut_off_at_once_nor_runs_far(is_stream):
    def seconds(stop: float) -> float:
        sound = held(stop).speak("Some twenty letters.", seed=1, stream=is_stream)
        return sum(map(len, sound)) / 16_000 if is_stream else sound.seconds

    # Twenty letters take a slow speaker 1.4 s: a third of that, in whole patches of 80 ms, and twice that and one more.
    assert seconds(9.0) == pytest.approx(5 * 0.08)
    with pytest.warns(UserWarning, match="found no end"):
        assert seconds(-9.0) == pytest.approx(47 * 0.08)


@pytest.mark.parametrize(("options", "tries"), [({}, 2), ({"stream": True}, 1)])
def test_a_runaway_is_said_again_where_nobody_hears_it_yet(options, tries):
    speaker, noises = held(-9.0), []
    start = speaker._utterance

    def count(text, voice, noise):
        noises.append(noise.get_state())
        return start(text, voice, noise)

    with pytest.MonkeyPatch.context() as patch, pytest.warns(UserWarning, match="found no end") as told:
        patch.setattr(speaker, "_utterance", count)
        said = speaker.speak("Hi.", seed=1, **options)
        chunks = list(said) if options else [said.samples]
    assert len(told) == 1
    assert len(noises) == tries == len({str(noise.tolist()) for noise in noises})
    assert sum(map(len, chunks)) == 17 * 4 * 320  # one of them only: 2 x 0.21 s + 1 s


def test_any_other_talker_says_a_runaway_once():
    speaker = Speaker(talker(-9.0, steps=1), character_tokenizer())
    with pytest.warns(UserWarning, match="found no end") as told:
        speaker.speak("Hi.", seed=1)
    assert len(told) == 1


def test_a_long_voice_is_cut_for_a_talker_that_has_learned_with_short_ones():
    voice = Voice.clone("eve", speech(6.0), "She says all this.", consent=CONSENT)
    whole, short = (held(9.0, voice_seconds=limit)._utterance("Hi.", voice, generator(1)) for limit in (None, 4.0))
    assert 37 <= len(short.prompt) <= 50 < len(whole.prompt)
    assert len(whole.ids) - len(short.ids) == len("She says all this.")


def test_positions_are_a_limit_too():
    model = talker(-9.0, max_positions=12)
    with pytest.warns(UserWarning, match="found no end"):
        assert len(list(Loop(model).speak(utterance(length=5)))) == 7
    with pytest.raises(InputError, match="12 positions; this talker has 12"):
        next(Loop(model).speak(utterance(length=12)))


def test_a_failing_step_is_told_to_everyone_and_breaks_nothing():
    loop = Loop(talker(9.0, min_patches=3), 2)
    good, bad = loop.speak(utterance(1)), loop.speak(Utterance(torch.tensor([10**6]), None, generator(1), 5))
    with pytest.raises(IndexError):
        next(bad)
    assert len(list(good)) == 3
    assert loop.free == [0, 1]


def test_sentences_do_not_click_where_they_begin_and_end(speaker):
    samples = speaker.speak("One. Two. Three.", seed=3).samples
    assert samples[0] == 0
    silent = np.flatnonzero(np.abs(samples) == 0)
    runs = np.split(silent, np.flatnonzero(np.diff(silent) > 1) + 1)
    pauses = [run for run in runs if len(run) > 2000]
    assert len(pauses) == 2
    edge = max(np.abs(samples[[run[0] - 1, run[-1] + 1]]).max() for run in pauses)
    assert edge < 0.05 * np.abs(samples).max() + 1e-3


@pytest.mark.parametrize("rate", [8_000, 16_000, 24_000, 48_000])
def test_any_rate_keeps_the_duration(speaker, rate):
    plain, other = speaker.speak(TEXT, seed=1), speaker.speak(TEXT, seed=1, sample_rate_hz=rate)
    assert other.sample_rate_hz == rate
    assert abs(other.seconds - plain.seconds) < 0.01
    assert np.array_equal(joined(speaker.speak(TEXT, seed=1, sample_rate_hz=rate, stream=True)), other.samples)


@pytest.mark.parametrize("speed", [0.25, 0.5, 1.5, 4.0])
def test_speed_changes_the_duration(speaker, speed):
    text = "One. Two. " * 4
    plain, other = speaker.speak(text, seed=1), speaker.speak(text, seed=1, speed=speed)
    assert abs(other.seconds * speed / plain.seconds - 1) < 0.1


@pytest.mark.parametrize("text", ["", "   ", "...", "?!。，", "```\ncode\n```", "---"])
def test_a_text_with_nothing_to_say_is_refused_before_the_first_chunk(speaker, text):
    with pytest.raises(InputError, match="nothing that can be said"):
        speaker.speak(text, stream=True)
    with pytest.raises(InputError, match="nothing that can be said"):
        list(speaker.speak(iter([text]), stream=True))


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"voice": "nobody"}, "no voice 'nobody'"),
        ({"speed": 9.0}, "speed of 9.0"),
        ({"speed": float("nan")}, "speed of nan"),
        ({"sample_rate_hz": 10}, "sample rate of 10 Hz"),
        ({"voice": 5}, "a voice is a name or a Voice, not 5"),
        ({"speed": "fast"}, "speed of fast"),
        ({"speed": None}, "speed of None"),
        ({"sample_rate_hz": 0}, "sample rate of 0 Hz"),
        ({"sample_rate_hz": 16_000.5}, r"sample rate of 16000\.5 Hz"),
        ({"sample_rate_hz": "16000"}, "sample rate of 16000 Hz"),
        ({"seed": "x"}, "seed"),
        ({"seed": 2**70}, "seed"),
    ],
)
def test_a_bad_argument_is_named_before_the_first_chunk(speaker, arguments, reason):
    with pytest.raises(InputError, match=reason):
        speaker.speak("Hello.", stream=True, **arguments)


@pytest.mark.parametrize("text", [None, 5, b"Hello.", [5], ["Hello. ", None]])
def test_what_is_no_text_is_named(speaker, text):
    with pytest.raises(InputError, match="text is a string"):
        list(speaker.speak(text, stream=True))


def test_a_hundred_thousand_characters_stream_at_once_but_are_not_gathered(speaker):
    text = "Hello world, this is fine. " * 4000
    with pytest.raises(InputError, match=f"at most {MAX_CHARACTERS}"):
        speaker.speak(text)
    started = time.monotonic()
    chunks = list(itertools.islice(speaker.speak(text, seed=1, stream=True), 3))
    assert len(chunks) == 3 and time.monotonic() - started < 10


def test_one_word_of_a_hundred_thousand_letters_streams(speaker):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert len(list(itertools.islice(speaker.speak("a" * 100_000, seed=1, stream=True), 3))) == 3


@pytest.mark.parametrize("text", ["Привет, мир!", "สวัสดี", "👍", "مرحبا", "123", "0"])
def test_other_scripts_emoji_and_bare_numbers_are_spoken_somehow(speaker, text):
    assert speaker.speak(text, seed=1).seconds > 0.1


@pytest.mark.parametrize(
    ("audio", "reason"),
    [
        (b"this is no sound", "sound"),
        ((speech(1.0).numpy(), 16_000), "not 1.0"),
        ((np.zeros(16_000 * 3600, np.float32), 16_000), "not 3600.0"),
        ((np.zeros(64_000, np.float32), 16_000), "silent"),
        ((np.full(64_000, 0.5, np.float32), 16_000), "silent"),
        ("/nowhere/voice.wav", "no sound file"),
    ],
)
def test_a_recording_that_is_no_voice_is_refused(speaker, audio, reason):
    with pytest.raises(InputError, match=reason):
        speaker.clone("bad", audio, consent=CONSENT)
    assert "bad" not in speaker.voices
