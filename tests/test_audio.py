"""Sound of every kind -> samples at 16 kHz -> mel frames."""

import contextlib
import io

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ming_omni.errors import InputError
from ming_omni.inputs import audio
from ming_omni.inputs.audio import clips, load_audio
from ming_omni.inputs.behaviour import PUBLISHED
from ming_omni.inputs.frames import AudioProcessor
from ming_omni.inputs.mel import log_mel, mel_filters
from ming_omni.inputs.resample import resample
from ming_omni.inputs.sanm import sanm_features
from tests.media import data_url, movie, tone, track, wav


def similarity(heard: torch.Tensor, played: np.ndarray) -> float:
    """Cosine of the loudest shared spectrum: 1 for the same tone, whatever the delay of a codec."""
    spectra = [np.abs(np.fft.rfft(np.asarray(x, dtype=np.float64), 1 << 16)) for x in (heard, played)]
    return float(spectra[0] @ spectra[1] / np.linalg.norm(spectra[0]) / np.linalg.norm(spectra[1]))


def test_a_sound_is_the_same_from_wherever_it_comes(tmp_path):
    played = tone()
    data = wav(played, subtype="FLOAT")
    path = tmp_path / "a tone.wav"
    path.write_bytes(data)
    sources = [path, str(path), path.as_uri(), data, io.BytesIO(data), data_url(data, "audio/wav")]
    sources += [(played, 16_000), (torch.from_numpy(played), 16_000), (played[None], 16_000), (played[:, None], 16_000)]
    for source in sources:
        heard = load_audio(source)
        assert heard.dtype == torch.float32 and torch.equal(heard, torch.from_numpy(played)), type(source)


@pytest.mark.parametrize("file_format", ["WAV", "FLAC", "OGG", "MP3", "AIFF", "W64"])
def test_formats_of_soundfile_are_read(file_format):
    assert similarity(load_audio(wav(tone(), file_format=file_format)), tone()) > 0.99


@pytest.mark.parametrize(
    ("container", "codec", "rate_hz"),
    [("ipod", "aac", 44_100), ("webm", "libopus", 48_000), ("matroska", "aac", 16_000), ("mpegts", "aac", 48_000)],
)
def test_compressed_tracks_are_read(container, codec, rate_hz):
    heard = load_audio(track(tone(1.0, rate_hz), rate_hz, container, codec))
    assert abs(len(heard) / 16_000 - 1.0) < 0.1
    assert similarity(heard, tone(1.0)) > 0.97


def test_the_sound_of_a_video_is_read():
    assert similarity(load_audio(movie(8, fps=4, sound=True)), tone(2.0)) > 0.97


@pytest.mark.parametrize("file_format", ["WAV", "FLAC"])
def test_channels_are_mixed_unless_published_behaviour_takes_the_first(file_format):
    left, right = tone(frequency_hz=300), tone(frequency_hz=900)
    data = wav(np.stack([left, right], 1), file_format=file_format, subtype="PCM_16")
    assert np.allclose(load_audio(data), (left + right) / 2, atol=1e-4)
    assert np.allclose(load_audio(data, PUBLISHED), left, atol=1e-4)


@pytest.mark.parametrize(
    ("dtype", "zero", "half"),
    [("int16", 0, 16_384), ("int32", 0, 1 << 30), ("int8", 0, 64), ("uint8", 128, 192), ("float64", 0, 0.5)],
)
def test_integers_are_scaled_by_their_width(dtype, zero, half):
    samples = np.array([zero, half] * 400, dtype=dtype)
    assert load_audio((samples, 16_000))[:2].tolist() == [0.0, 0.5]


@pytest.mark.parametrize("resampler", ["soxr", "sinc"])
@pytest.mark.parametrize("rate_hz", [8_000, 11_025, 22_050, 44_100, 48_000])
def test_a_tone_stays_the_same_tone_at_another_rate(resampler, rate_hz):
    heard = resample(torch.from_numpy(tone(0.5, rate_hz)), rate_hz, 16_000, resampler)
    assert abs(len(heard) - 8_000) <= 2
    inside = slice(500, 7500)
    assert np.abs(heard.numpy()[inside] - tone(0.5)[inside]).max() < 0.01


def test_rates_without_a_common_divisor_are_left_to_the_default_resampler():
    rate_hz = 15_991  # prime
    samples = torch.from_numpy(tone(0.5, rate_hz))
    inside = slice(500, 7500)
    assert np.abs(resample(samples, rate_hz, 16_000).numpy()[inside] - tone(0.5)[inside]).max() < 0.01
    with pytest.raises(InputError, match="the default one can"):
        resample(samples, rate_hz, 16_000, "sinc")


def test_nothing_above_half_the_new_rate_survives_resampling():
    for resampler, limit in (("soxr", 1e-3), ("sinc", 0.02)):
        heard = resample(torch.from_numpy(tone(0.5, 48_000, 12_000)), 48_000, 16_000, resampler)
        assert heard[500:7500].abs().max() < limit


def test_a_tone_fills_the_mel_bin_of_its_frequency():
    frames = log_mel(torch.from_numpy(tone(1.0, frequency_hz=1000)), 80)
    assert frames.shape == (100, 80)
    centre_hz = (mel_filters(80) * torch.linspace(0, 8000, 201)).sum(1) / mel_filters(80).sum(1)
    assert abs(centre_hz[frames[50].argmax()] - 1000) < 40


@given(st.integers(1, 4000), st.sampled_from([80, 128]))
def test_there_is_a_frame_for_every_ten_milliseconds(num_samples, num_mel_bins):
    frames = log_mel(torch.randn(num_samples), num_mel_bins)
    assert frames.shape == (max(201, num_samples) // 160, num_mel_bins)
    assert torch.isfinite(frames).all()
    assert frames.max() - frames.min() <= 2.0 + 1e-5  # eight decades of power, divided by four


@pytest.mark.parametrize("num_mel_bins", [80, 128])
def test_mel_filters_have_unit_area_and_rise_in_frequency(num_mel_bins):
    filters = mel_filters(num_mel_bins).double()
    assert filters.shape == (num_mel_bins, 201) and (filters >= 0).all()
    assert (filters.argmax(1).diff() >= 0).all()
    wide = filters[-20:].sum(1) * 40  # bins are 40 Hz apart; narrow triangles are sampled too coarsely to add up
    assert wide == pytest.approx(torch.ones(20).numpy(), rel=0.02)


def test_the_legacy_front_end_gives_a_row_of_seven_frames_every_60_ms():
    features = sanm_features(torch.from_numpy(tone(0.9)))
    assert features.shape == (15, 560)
    # The first row begins with the first frame three times over: its left context repeats it.
    assert torch.equal(features[0, :80], features[0, 80:160]) and torch.equal(features[0, :80], features[0, 240:320])
    with pytest.raises(InputError, match="too short"):
        sanm_features(torch.zeros(399))


def test_clips_are_packed_one_after_another_and_counted_in_tokens():
    processor = AudioProcessor(num_mel_bins=80)
    features, lengths = processor([torch.zeros(14_400), torch.zeros(9_000)])
    assert features.shape == (1, 146, 80) and lengths.tolist() == [[90, 56]]
    assert [processor.num_tokens(n) for n in (90, 56, 1, 2, 3, 4, 5)] == [23, 14, 1, 1, 1, 1, 2]


def test_long_sound_is_split_into_equal_clips_unless_published():
    samples = torch.arange(70 * 16_000.0)
    parts = clips(samples, 30.0)
    assert [len(part) / 16_000 for part in parts] == pytest.approx([70 / 3] * 3, abs=1e-4)
    assert torch.equal(torch.cat(parts), samples)
    assert len(clips(samples, 30.0, PUBLISHED)) == len(clips(samples, 70.0)) == 1


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("nowhere.wav", "there is no sound file"),
        ("http://example.com/a.wav", "not fetched"),
        (b"", "cannot be read"),
        (b"#EXTM3U\n#EXTINF:10,\nfile:///etc/hostname\n", "cannot be read"),
        (wav(tone())[:30], "cannot be read|is empty|holds no"),
        (wav(np.zeros(0, np.float32)), "is empty"),
        (movie(4), "holds no sound"),
        (tone(), "need their rate"),
        ((np.zeros((2, 3, 4)), 16_000), "is not a sound"),
        ((np.zeros(0), 16_000), "is not a sound"),
        ((tone(), 0), "sample rate"),
        ((tone(), "16k"), "sample rate"),
        ((tone(), None), "sample rate"),
        ((np.full(800, np.inf), 16_000), "not finite"),
        ((np.array(["a"] * 800), 16_000), "cannot be made of"),
        (7, "cannot be read from int"),
    ],
)
def test_what_is_not_a_sound_is_told_in_one_sentence(source, reason):
    with pytest.raises(InputError, match=reason) as error:
        load_audio(source)
    assert "\n" not in str(error.value)


def test_a_sound_that_would_fill_the_memory_is_refused():
    for data in (wav(tone(1.0)), track(tone(1.0), 16_000, "mp4", "aac"), wav(np.stack([tone(0.5)] * 2, 1))):
        with pytest.raises(InputError, match="too long"):
            audio.read_audio(data, max_samples=10_000)


def test_a_header_that_promises_days_of_sound_is_refused_or_cut_to_what_is_there():
    data = bytearray(wav(tone()))
    at = data.index(b"data") + 4
    data[at : at + 4] = (0xFFFFFF00).to_bytes(4, "little")
    assert len(load_audio(bytes(data))) == 8_000


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=400))
def test_random_bytes_are_a_sound_or_an_input_error(data):
    for head in (b"", b"RIFF\0\0\0\0WAVEfmt ", b"fLaC", b"OggS", b"ID3", b"\xff\xfb\x90", b"\0\0\0\x18ftypM4A "):
        with contextlib.suppress(InputError):
            assert load_audio(head + data).ndim == 1


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([wav(tone(0.05)), wav(tone(0.05), file_format="FLAC"), track(tone(0.1), 16_000, "mp4", "aac")]),
    st.data(),
)
def test_a_sound_with_damaged_bytes_is_a_sound_or_an_input_error(file, data):
    file = bytearray(file)
    for _ in range(data.draw(st.integers(1, 12))):
        file[data.draw(st.integers(0, len(file) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(InputError):
        assert load_audio(bytes(file)).ndim == 1


def test_a_file_that_turns_from_one_channel_to_two_is_one_sound():
    """Songs that were glued together do this, and so do damaged ones."""
    one = track(tone(1.0), 16_000, "adts", "aac")
    two = track(np.stack([tone(1.0), tone(1.0)]), 16_000, "adts", "aac")
    heard = load_audio(one + two)
    assert len(heard) == pytest.approx(32_000, rel=0.1)
    assert similarity(heard[20_000:28_000], tone(0.5)) > 0.9
