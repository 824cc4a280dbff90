"""`ming speak` and `ming voices`, without the command line around them."""

import io
import warnings

import pytest
import soundfile

from ming_omni.errors import InputError
from ming_omni.speak import commands
from ming_omni.speak.output import Sound
from ming_omni.speak.speaker import tiny_speaker
from ming_omni.speech.voices import Shelf
from tests.test_voices import CONSENT, speech


@pytest.fixture
def speaker(tmp_path):
    return tiny_speaker(Shelf(tmp_path / "voices"))


def test_speech_goes_into_a_file_and_its_length_is_printed(speaker, tmp_path, capsys):
    path = tmp_path / "out.flac"
    commands.speak(speaker, "Hello.", path=path, seed=1, sample_rate_hz=24_000)
    samples, rate = soundfile.read(path)
    assert rate == 24_000
    assert capsys.readouterr().out == f"{path}: {len(samples) / rate:.1f} seconds\n"


def test_standard_input_is_spoken_to_standard_output(speaker, monkeypatch):
    out = io.TextIOWrapper(io.BytesIO())
    monkeypatch.setattr("sys.stdin", io.StringIO("Hello. Good bye."))
    monkeypatch.setattr("sys.stdout", out)
    commands.speak(speaker, "-", path="-", format="pcm", seed=1)
    assert out.buffer.getvalue() == speaker.speak("Hello. Good bye.", seed=1).encode("pcm")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({}, "where the speech should go"),
        ({"path": "x.txt"}, "does not end in"),
        ({"path": "-", "format": "wma"}, "'wma'"),
    ],
)
def test_a_bad_destination_is_named_before_anything_is_spoken(speaker, tmp_path, options, reason):
    if options.get("path", "-") != "-":
        options = {"path": tmp_path / options["path"]}
    with pytest.raises(InputError, match=reason):
        commands.speak(speaker, "Hello.", **options)


def test_a_damaged_voice_hides_no_other_and_every_voice_takes_one_line(speaker, capsys):
    speaker.clone("eve", (speech().numpy(), 16_000), "Hi,\nyou.", consent="Eve\nagreed.")
    (speaker.shelf.folder / "bad.safetensors").write_bytes(b"no voice")
    commands.list_voices(speaker.shelf)
    bad, eve = capsys.readouterr().out.splitlines()
    assert bad.startswith("bad\t") and "no voice file" in bad
    assert eve == "eve\t4.0 s\tEve agreed.\tHi, you."


def test_voices_are_added_listed_used_and_deleted(speaker, tmp_path, capsys):
    Sound(speech().numpy(), 16_000).save(tmp_path / "ada.wav")
    commands.add_voice(speaker.shelf, "ada", tmp_path / "ada.wav", "Hi.", CONSENT, replace=False)
    commands.list_voices(speaker.shelf)
    assert f"ada\t4.0 s\t{CONSENT}\tHi." in capsys.readouterr().out
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        commands.speak(speaker, "Hello.", voice="ada", path=tmp_path / "x.wav", seed=1)
    commands.delete_voice(speaker.shelf, "ada")
    assert speaker.voices == []
