"""Recordings -> voices -> files -> a shelf: what is refused, what is kept, what comes back."""

import math

import pytest
import torch

from ming_omni.errors import InputError
from ming_omni.speech.voices import LOUDNESS, PEAK, SAMPLE_RATE_HZ, Shelf, Voice

CONSENT = "I am the speaker and agree."


def speech(seconds: float = 4.0, loudness: float = 0.3) -> torch.Tensor:
    """A buzz that swells and fades four times a second, as syllables do."""
    time = torch.arange(int(seconds * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    tone = sum(torch.sin(2 * math.pi * 150 * n * time) / n for n in range(1, 6))
    return loudness * tone / tone.abs().max() * (0.55 + 0.45 * torch.sin(2 * math.pi * 4 * time))


def clone(samples, name="ada", transcript=None):
    return Voice.clone(name, samples, transcript, consent=CONSENT)


@pytest.mark.parametrize(
    ("samples", "reason"),
    [
        (speech(1.0), "not 1.0"),
        (speech(31.0), "not 31.0"),
        (torch.zeros(5 * SAMPLE_RATE_HZ), "silent"),
        ((speech() * 20).clamp(-1, 1), "clipped"),
        (torch.cat([speech(1.0), torch.zeros(4 * SAMPLE_RATE_HZ)]), "less than 2 seconds of speech"),
    ],
)
def test_a_recording_that_will_not_do_is_refused_with_its_reason(samples, reason):
    with pytest.raises(InputError, match=reason):
        clone(samples)


def test_a_slightly_clipped_recording_is_kept_with_a_warning():
    samples = speech(loudness=0.5)
    samples[1000:1200] = 1.0
    with pytest.warns(UserWarning, match="clipped"):
        clone(samples)


def test_cloning_needs_a_consent_note():
    with pytest.raises(InputError, match="consent"):
        Voice.clone("ada", speech(), consent="  ")


def test_silence_around_the_speech_is_cut():
    silence = torch.zeros(2 * SAMPLE_RATE_HZ)
    voice = clone(torch.cat([silence, speech(4.0), silence]))
    assert 3.9 < voice.seconds < 4.4


@pytest.mark.parametrize("loudness", [0.02, 0.3, 0.9])
def test_every_voice_is_about_equally_loud_and_never_clips(loudness):
    samples = clone(speech(loudness=loudness)).samples
    assert abs(samples.square().mean().sqrt() - LOUDNESS) < 0.02
    assert samples.abs().max() <= PEAK + 1e-6


def test_a_file_gives_the_voice_back(tmp_path):
    voice = clone(speech(), "Ada Lovelace", "  Hello, 你好.  ")
    voice.save(tmp_path / "a.safetensors")
    again = Voice.load(tmp_path / "a.safetensors")
    assert (again.name, again.transcript, again.consent) == ("Ada Lovelace", "Hello, 你好.", CONSENT)
    assert again.created == voice.created != ""
    assert (again.samples - voice.samples).abs().max() < 1e-4
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]


def test_the_digest_tells_voices_apart_by_sound_and_transcript_not_by_name():
    ada, bob, other = clone(speech()), clone(speech(), "bob"), clone(speech(), transcript="Hello.")
    assert ada.digest == bob.digest != other.digest
    assert clone(speech(5.0)).digest != ada.digest


@pytest.mark.parametrize("content", [b"", b"RIFF....WAVE", b"\x08\0\0\0\0\0\0\0{}      "])
def test_a_file_that_is_no_voice_is_named(tmp_path, content):
    (tmp_path / "x.safetensors").write_bytes(content)
    with pytest.raises(InputError, match=r"x\.safetensors is no voice file"):
        Voice.load(tmp_path / "x.safetensors")


@pytest.mark.parametrize("samples", [torch.zeros(0), torch.zeros(5), torch.zeros(2, 9000)])
def test_a_file_without_a_sound_is_named(tmp_path, samples):
    voice = clone(speech())
    Voice("ada", samples, None, CONSENT, voice.created).save(tmp_path / "x.safetensors")
    with pytest.raises(InputError, match="no sound"):
        Voice.load(tmp_path / "x.safetensors")


@pytest.mark.parametrize(
    ("options", "reason"),
    [({"consent": None}, "consent"), ({"transcript": 5}, "transcript is a text"), ({"name": None}, "cannot name")],
)
def test_a_note_that_is_no_text_is_named(options, reason):
    arguments = {"name": "ada", "consent": CONSENT} | options
    with pytest.raises(InputError, match=reason):
        Voice.clone(arguments.pop("name"), speech(), **arguments)


def test_a_damaged_voice_can_be_deleted(tmp_path):
    (tmp_path / "ada.safetensors").write_bytes(b"no voice")
    Shelf(tmp_path).delete("ada")
    assert Shelf(tmp_path).names() == []


def test_a_shelf_adds_lists_gets_and_deletes(tmp_path):
    shelf = Shelf(tmp_path / "new")
    assert shelf.names() == []
    shelf.add(clone(speech(), "bob"))
    shelf.add(clone(speech(), "ada"))
    assert shelf.names() == ["ada", "bob"]
    assert shelf.get("bob").name == "bob"
    shelf.delete("bob")
    assert shelf.names() == ["ada"]
    with pytest.raises(InputError, match=r"no voice 'bob'; known are: ada"):
        shelf.get("bob")
    with pytest.raises(InputError, match="no voice 'bob'"):
        shelf.delete("bob")


def test_a_voice_is_replaced_only_on_demand(tmp_path):
    shelf = Shelf(tmp_path)
    shelf.add(clone(speech()))
    with pytest.raises(InputError, match="already"):
        shelf.add(clone(speech(5.0)))
    shelf.add(clone(speech(5.0)), replace=True)
    assert shelf.get("ada").seconds > 4.5


def test_built_in_voices_can_be_neither_replaced_nor_deleted(tmp_path):
    built_in = Shelf(tmp_path / "model")
    built_in.add(clone(speech(), "nova"))
    shelf = Shelf(tmp_path / "mine", built_in=tmp_path / "model")
    assert shelf.names() == ["nova"]
    with pytest.raises(InputError, match="built-in"):
        shelf.add(clone(speech(), "nova"), replace=True)
    with pytest.raises(InputError, match="built-in"):
        shelf.delete("nova")


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "x" * 65, "a\n", "dot."])
def test_a_name_cannot_leave_the_shelf(tmp_path, name):
    with pytest.raises(InputError, match="cannot name a voice"):
        clone(speech(), name)
    with pytest.raises(InputError, match="there is no voice"):
        Shelf(tmp_path).get(name)


def test_a_voice_within_a_limit_ends_at_its_softest_moment_and_has_no_transcript():
    samples = speech(8.0)
    samples[80_000:80_640] = 0  # from 5.00 s to 5.04 s nobody speaks
    voice = Voice("ada", samples, "Much is said.", "she agreed")
    short = voice.within(6.0)
    assert short.seconds == pytest.approx(5.02) and short.transcript is None and short.digest != voice.digest
    assert torch.equal(short.samples, samples[: len(short.samples)])
    assert voice.within(None) is voice.within(8.0) is voice
