"""Samples -> files: formats, tags, rates, speed; a stream gives what the whole gives."""

import io

import av
import numpy as np
import pytest
import soundfile

from ming_omni.errors import InputError
from ming_omni.speak import output
from ming_omni.speak.output import KINDS, SYNTHETIC, Sound

RATE = 16_000
TIME = np.arange(2 * RATE) / RATE
TONE = (0.4 * np.sin(2 * np.pi * 440 * TIME)).astype(np.float32)
FILES = sorted(KINDS.keys() - {"pcm"})


def pieces(samples: np.ndarray, sizes=(1, 700, 3, 5000)) -> list[np.ndarray]:
    """Chunks of uneven sizes, some of them empty."""
    marks = np.cumsum([*sizes] * (len(samples) // sum(sizes)))
    return [np.zeros(0, np.float32), *np.split(samples, marks)]


def decode(data: bytes) -> tuple[np.ndarray, int, dict]:
    with av.open(io.BytesIO(data)) as container:
        stream = container.streams.audio[0]
        tags = {**container.metadata, **stream.metadata}
        mono = av.AudioResampler("flt", "mono", stream.rate)
        frames = [f.to_ndarray()[0] for frame in container.decode(stream) for f in mono.resample(frame)]
        return np.concatenate(frames), stream.rate, tags


@pytest.mark.parametrize("format", FILES)
@pytest.mark.parametrize("is_stream", [False, True])
def test_a_file_holds_the_sound_and_says_that_it_is_synthetic(format, is_stream):
    data = b"".join(output.encode(pieces(TONE), format, RATE)) if is_stream else Sound(TONE, RATE).encode(format)
    samples, rate, tags = decode(data)
    assert tags["comment"] == SYNTHETIC
    assert abs(len(samples) / rate - 2) < 0.15
    spectrum = np.abs(np.fft.rfft(samples[rate // 2 : rate // 2 + rate]))
    assert spectrum.argmax() == 440  # one second: bins are hertz
    assert 0.25 < np.abs(samples[rate // 2 : rate]).max() < 0.5


@pytest.mark.parametrize("format", ["wav", "flac"])
def test_lossless_formats_lose_nothing_but_the_sixteenth_bit(format):
    samples, _ = soundfile.read(io.BytesIO(Sound(TONE, RATE).encode(format)), dtype="float32")
    assert np.abs(samples - TONE).max() < 1 / 32_000


def test_pcm_is_sixteen_bit_little_endian_without_a_header():
    data = Sound(np.array([0, 1, -1, 2, 0.5], np.float32), RATE).encode("pcm")
    assert np.frombuffer(data, "<i2").tolist() == [0, 32767, -32767, 32767, 16384]
    assert b"".join(output.encode(pieces(TONE), "pcm", RATE)) == Sound(TONE, RATE).encode("pcm")


def test_the_first_bytes_of_a_stream_come_with_the_first_chunks():
    taken = []

    def chunks():
        for i in range(20):
            taken.append(i)
            yield TONE[:1600]

    next(output.encode(chunks(), "wav", RATE))
    assert len(taken) == 1


def test_a_file_ending_says_the_format(tmp_path):
    for name, magic in (
        ("a.wav", b"RIFF"),
        ("a.flac", b"fLaC"),
        ("a.mp3", b"ID3"),
        ("a.opus", b"OggS"),
        ("a.aac", b"ID3"),
        ("a.ogg", b"OggS"),
    ):
        Sound(TONE, RATE).save(tmp_path / name)
        assert (tmp_path / name).read_bytes().startswith(magic)
    with pytest.raises(InputError, match=r"a\.txt does not end in a format"):
        Sound(TONE, RATE).save(tmp_path / "a.txt")
    with pytest.raises(InputError, match="cannot be written"):
        Sound(TONE, RATE).save(tmp_path / "missing" / "a.wav")


@pytest.mark.parametrize(("format", "rate"), [("opus", 44_100), ("mp3", 96_000), ("wma", RATE), ("wav", 1)])
def test_what_a_format_cannot_have_is_said_before_the_first_byte(format, rate):
    with pytest.raises(InputError):
        output.encode([TONE], format, rate)


@pytest.mark.parametrize("rate", [8_000, 22_050, 24_000, 48_000])
def test_resampling_in_pieces_equals_resampling_at_once(rate):
    whole = np.concatenate(list(output.resample([TONE], RATE, rate)))
    streamed = np.concatenate(list(output.resample(pieces(TONE), RATE, rate)))
    assert abs(len(whole) - 2 * rate) <= 1
    assert np.array_equal(whole, streamed)


@pytest.mark.parametrize("speed", [0.3, 0.8, 1.7, 3.5])
def test_speed_keeps_the_pitch_and_does_not_depend_on_the_pieces(speed):
    whole = np.concatenate(list(output.change_speed([TONE], speed, RATE)))
    streamed = np.concatenate(list(output.change_speed(pieces(TONE), speed, RATE)))
    assert abs(len(whole) / RATE * speed / 2 - 1) < 0.06
    middle = whole[len(whole) // 2 - 3000 :][:4000]
    peak = np.abs(np.fft.rfft(middle * np.hanning(4000), 16_000)).argmax()
    assert abs(peak - 440) < 12
    assert np.array_equal(whole, streamed)


def test_soft_edges_start_and_end_in_silence_and_leave_the_middle_alone():
    whole = np.concatenate(list(output.fade_edges([TONE + 0.5], 80)))
    streamed = np.concatenate(list(output.fade_edges(pieces(TONE + 0.5), 80)))
    assert np.array_equal(whole, streamed)
    assert whole[0] == whole[-1] == 0
    assert np.abs(np.diff(whole[:80])).max() < 0.1
    assert np.array_equal(whole[80:-80], (TONE + 0.5)[80:-80])


@pytest.mark.parametrize("length", [0, 1, 50, 81, 159, 161])
def test_soft_edges_keep_the_length_of_any_sound(length):
    ones = np.ones(length, np.float32)
    faded = np.concatenate(list(output.fade_edges(pieces(ones, (7, 1)), 80)))
    assert len(faded) == length
    assert length == 0 or (faded[0] == faded[-1] == 0)


def test_loud_peaks_bend_and_soft_sound_passes_untouched():
    samples = np.array([0.1, -0.9, 0.95, 5, -5], np.float32)
    soft = output.soften(samples)
    assert np.array_equal(soft[:2], samples[:2])
    assert 0.9 < soft[2] < 0.95 < soft[3] <= 1 and soft[4] == -soft[3]


def test_playing_without_a_loudspeaker_says_so():
    with pytest.raises(InputError, match=r"sounddevice|loudspeaker"):
        Sound(TONE[:10], RATE).play()
