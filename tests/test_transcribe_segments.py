"""Where speech begins and ends: rules by hand, real voices, and sounds in which nobody speaks."""

import io
import itertools
import time
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import transcribe as benchmark
from ming_omni.errors import InputError
from ming_omni.inputs.audio import load_audio
from ming_omni.transcribe import voice
from ming_omni.transcribe.segments import SUBTITLES, WHOLE_SENTENCES, Cuts, Cutter, Track, speech
from tests.media import movie, tone, track, wav
from tests.talks import RATE_HZ, SPEECH, WORDS, music, noise, silence, talk

# A window is 32 ms. Ten of them of speech, twenty of silence, ...
SAID, QUIET, UNSURE = 0.9, 0.05, 0.4


def cut(probabilities: list[float], pause_windows: int = 10, longest_windows: int = 1000) -> list[tuple[int, int]]:
    cutter = Cutter(Cuts(pause_windows * 0.032, longest_windows * 0.032))
    found = [stretch for p in probabilities for stretch in cutter.push(p)] + cutter.finish()
    return [(stretch.start, stretch.stop) for stretch in found]


@pytest.mark.parametrize(
    ("probabilities", "stretches"),
    [
        ([QUIET] * 50, []),
        ([QUIET] * 5 + [SAID] * 10 + [QUIET] * 20, [(5, 15)]),
        ([SAID] * 10, [(0, 10)]),  # to the end of the sound
        ([SAID] * 10 + [QUIET] * 9 + [SAID] * 10, [(0, 29)]),  # a pause shorter than ten windows stays inside
        ([SAID] * 10 + [QUIET] * 10 + [SAID] * 10, [(0, 10), (20, 30)]),
        ([SAID] * 4 + [QUIET] * 20, []),  # a click
        ([SAID] * 5 + [QUIET] * 20, [(0, 5)]),
        ([SAID] * 10 + [UNSURE] * 5 + [QUIET] * 20, [(0, 15)]),  # speech ends when it is surely quiet
        ([QUIET] * 5 + [UNSURE] * 20, []),  # and begins when it is surely speech
        ([SAID] * 10 + [QUIET] * 3 + [UNSURE] * 12 + [SAID] * 10, [(0, 10), (25, 35)]),
    ],
)
def test_stretches_of_speech_are_cut_at_pauses(probabilities, stretches):
    assert cut(probabilities) == stretches


def test_a_long_stretch_is_cut_where_it_is_quietest_in_its_second_half():
    spoken = [SAID] * 20 + [QUIET] * 4 + [SAID] * 40 + [QUIET] * 6 + [SAID] * 60
    assert cut(spoken, longest_windows=80) == [(0, 64), (70, 130)]


def test_a_short_dip_is_quieter_than_the_newest_window_of_a_word():
    assert cut([SAID] * 60 + [QUIET] * 2 + [SAID] * 60, longest_windows=80) == [(0, 60), (62, 122)]


def test_speech_without_any_pause_is_cut_too():
    stretches = cut([SAID] * 500, longest_windows=100)
    assert stretches[0][0] == 0 and stretches[-1][1] == 500
    assert all(a[1] == b[0] for a, b in itertools.pairwise(stretches))
    assert all(50 <= stop - start <= 100 for start, stop in stretches[:-1])


@given(st.lists(st.tuples(st.sampled_from([SAID, QUIET, UNSURE, 0.6]), st.integers(1, 30)), max_size=20))
def test_stretches_are_in_order_short_enough_and_full_of_speech(runs):
    probabilities = [p for p, count in runs for _ in range(count)]
    last = 0
    for start, stop in cut(probabilities, longest_windows=60):
        assert last <= start < stop <= len(probabilities) and stop - start <= 60
        assert probabilities[start] >= 0.35 and sum(p >= 0.5 for p in probabilities[start:stop]) >= 5
        last = stop


# Real voices


def heard(samples: np.ndarray, cuts: Cuts = SUBTITLES, rate_hz: int = RATE_HZ) -> list:
    return list(speech(Track((samples, rate_hz)), cuts))


def test_each_word_of_a_real_voice_is_found_where_it_is():
    samples, places = talk(list(WORDS), 1.0)
    found = heard(samples)
    assert len(found) == len(WORDS) == 6
    for stretch, (start, end) in zip(found, places, strict=True):
        # Recordings begin and end with some silence of their own.
        assert start - 0.1 <= stretch.start < stretch.end <= end + 0.1
        assert stretch.end - stretch.start > 0.3 * (end - start) and stretch.probability > 0.7


def test_samples_of_a_stretch_are_those_of_the_sound_with_a_margin():
    samples, _ = talk(list(WORDS[:3]), 1.0)
    for stretch in heard(samples):
        start, end = round((stretch.start - 0.2) * RATE_HZ), round((stretch.end + 0.2) * RATE_HZ)
        assert np.array_equal(stretch.samples, samples[start:end])


def test_words_close_together_are_one_segment_of_a_sentence_and_two_subtitles():
    samples, _ = talk([WORDS[0], WORDS[5]], 0.8)
    assert len(heard(samples, WHOLE_SENTENCES)) == 1 and len(heard(samples, SUBTITLES)) == 2


@pytest.mark.parametrize("block_samples", [100, 4096, 100_000])
def test_blocks_of_any_size_give_the_same_stretches(block_samples):
    samples, _ = talk(list(WORDS[:2]), 1.0)
    expected = heard(samples)
    found = list(speech(torch.from_numpy(samples).split(block_samples), SUBTITLES))
    assert [(s.start, s.end) for s in found] == [(s.start, s.end) for s in expected]
    assert all(torch.equal(a.samples, b.samples) for a, b in zip(found, expected, strict=True))


def test_neighbours_share_no_sample():
    samples, _ = talk(list(WORDS) * 2, 0.1)
    total = sum(len(s.samples) for s in heard(samples, Cuts(pause_seconds=0.3, longest_seconds=1.0)))
    assert 0.5 * len(samples) < total <= len(samples)


@pytest.mark.parametrize(
    "sound",
    [
        silence(6),
        noise(6, 0.002),
        noise(6, 0.3),
        music(8),
        tone(6.0),
        np.sign(tone(6.0, frequency_hz=50.0)) * np.float32(0.2),
    ],
    ids=["silence", "hiss", "loud noise", "music", "a tone", "mains hum"],
)
@pytest.mark.parametrize("cuts", [SUBTITLES, WHOLE_SENTENCES])
def test_where_nobody_speaks_nothing_is_found(sound, cuts):
    assert heard(sound, cuts) == []


def test_speech_is_found_in_noise_and_among_music():
    samples, places = talk([WORDS[0]], 1.0)
    for loud in (samples + noise(len(samples) / RATE_HZ, 0.003), np.concatenate([music(6), samples])):
        (stretch,) = heard(loud.astype(np.float32))
        assert stretch.end - stretch.start < places[0][1] - places[0][0] + 0.2


def test_telephone_sound_is_heard():
    (stretch,) = speech(Track(SPEECH / "english-nine.wav"), SUBTITLES)
    assert 0.2 < stretch.end - stretch.start < 0.6


# The sound itself


@pytest.mark.parametrize("rate_hz", [8_000, 16_000, 44_100])
@pytest.mark.parametrize("channels", [1, 8])
def test_a_track_is_the_whole_sound_block_by_block(rate_hz, channels):
    samples = np.stack([tone(17.5, rate_hz, 200.0 * (i + 1)) for i in range(channels)], 1)
    data = wav(samples, rate_hz, subtype="FLOAT")
    sound = Track(data)
    blocks = list(sound)
    assert len(blocks) > 1
    joined, whole = torch.cat(blocks), load_audio(data)
    assert abs(len(joined) - len(whole)) <= 1 and sound.seconds == pytest.approx(17.5, abs=0.01)
    assert torch.allclose(joined[: len(whole)], whole[: len(joined)], atol=1e-4)


def test_compressed_sound_and_the_sound_of_a_video_are_heard():
    samples, _ = talk([WORDS[0]], 0.5)
    assert len(list(speech(Track(track(samples, RATE_HZ, "ipod", "aac")), SUBTITLES))) == 1
    assert sum(map(len, Track(movie(8, fps=4, sound=True)))) == pytest.approx(2 * RATE_HZ, abs=2000)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (b"", "cannot be read"),
        (b"not a sound at all" * 100, "cannot be read"),
        (wav(np.empty((0,), np.float32)), "the sound is empty"),
        ((np.empty(0, np.float32), 16_000), "not a sound"),
        ((tone(), 3), "a sample rate is"),
        ((np.full(8000, np.nan, np.float32), 16_000), "not finite"),
        (tone(), "samples need their rate"),
        (movie(4), "holds no sound"),
        ("missing.wav", "no sound file missing.wav"),
        ("https://example.com/a.wav", "https addresses are not fetched"),
    ],
    ids=["no bytes", "text", "no samples", "no array", "rate", "nan", "no rate", "silent video", "missing", "address"],
)
def test_what_cannot_be_heard_is_refused_in_a_sentence(source, message):
    with pytest.raises(InputError, match=message):
        list(Track(source))


def test_a_sound_of_more_than_a_day_is_refused():
    hour = torch.zeros(3600 * RATE_HZ)
    sound = Track((np.zeros(16, np.float32), RATE_HZ))
    sound._blocks = (hour for _ in range(30))
    with pytest.raises(InputError, match="longer than 24 hours"):
        for _ in sound:
            pass


def test_blocks_are_let_go_as_the_sound_goes_on():
    samples, _ = talk([WORDS[0]], 1.0)
    alive: list[weakref.ref] = []

    def blocks():
        for _ in range(12):
            assert sum(block() is not None for block in alive) <= 2
            block = torch.from_numpy(samples).clone()
            alive.append(weakref.ref(block))
            yield block

    assert len(list(speech(blocks(), SUBTITLES))) == 12


def test_hearing_leaves_the_threads_of_others_alone():
    before = torch.get_num_threads()
    list(speech(Track(io.BytesIO(wav(silence(1.0)))), SUBTITLES))
    assert torch.get_num_threads() == before


def test_two_sounds_at_once_leave_the_threads_of_others_alone(monkeypatch):
    before = torch.get_num_threads()

    def load():
        torch.set_num_threads(1)  # as the first import of the package does
        time.sleep(0.2)

    monkeypatch.setattr("silero_vad.load_silero_vad", load)
    torch.set_num_threads(3)
    try:
        with ThreadPoolExecutor(2) as pool:
            pool.submit(voice._load)
            time.sleep(0.1)
            pool.submit(voice._load)
        with ThreadPoolExecutor(1) as pool:  # a new thread takes the number of the process
            assert pool.submit(torch.get_num_threads).result() == 3
    finally:
        torch.set_num_threads(before)


@pytest.mark.slow
def test_an_hour_takes_no_more_memory_than_a_minute():
    assert benchmark.hearing(1.0)["peak_memory_grown_mb"] < 64
