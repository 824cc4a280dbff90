"""Transcripts as text, JSON and subtitles, and the command that writes them."""

import json
from pathlib import Path

import pytest

from ming_omni.errors import InputError
from ming_omni.transcribe import Segment, Transcript
from ming_omni.transcribe.commands import transcribe_command
from ming_omni.transcribe.formats import render
from ming_omni.transcribe.result import joined
from tests.serving import tiny_ming
from tests.talks import SPEECH

TALK = Transcript.of(
    [
        Segment(0.5, 2.25, "Hello there.", "English", confidence=0.9),
        Segment(3.0, 3.5, ""),
        Segment(59.9996, 61.0, "a < b --> c\n\n& more", "English", confidence=0.6),
        Segment(36_000.0, 36_004.0, "你好。", "Chinese", "Shanghai", 0.8),
    ],
    40_000.0,
)


def test_srt_numbers_its_lines_and_writes_commas():
    assert render(TALK, "srt") == (
        "1\n00:00:00,500 --> 00:00:02,250\nHello there.\n\n"
        "2\n00:01:00,000 --> 00:01:01,000\na < b --> c & more\n\n"
        "3\n10:00:00,000 --> 10:00:04,000\n你好。\n"
    )


def test_vtt_has_a_header_and_escapes_what_it_would_read_as_markup():
    assert render(TALK, "vtt") == (
        "WEBVTT\n\n00:00:00.500 --> 00:00:02.250\nHello there.\n\n"
        "00:01:00.000 --> 00:01:01.000\na &lt; b --&gt; c &amp; more\n\n"
        "10:00:00.000 --> 10:00:04.000\n你好。\n"
    )


@pytest.mark.parametrize(("form", "empty"), [("txt", ""), ("srt", ""), ("vtt", "WEBVTT\n")])
def test_a_silent_recording_has_an_empty_file(form, empty):
    assert render(Transcript("", (), 3.0), form) == empty


def test_text_is_one_line_and_json_holds_everything():
    assert render(TALK, "txt").startswith("Hello there. a < b")
    assert json.loads(render(TALK, "json"))["segments"][3]["dialect"] == "Shanghai"


def test_the_language_is_that_of_most_of_the_speech():
    assert (TALK.language, TALK.dialect) == ("Chinese", "Shanghai") and TALK.confidence == 0.8
    mixed = Transcript.of([Segment(0, 1, "a", "English", None, 0.5), Segment(1, 4, "b", "English", None, 0.9)], 4.0)
    assert mixed.confidence == pytest.approx((0.5 * 1 + 0.9 * 3) / 4)


@pytest.mark.parametrize(
    ("texts", "whole"),
    [
        (["one", "two"], "one two"),
        (["你好", "世界"], "你好世界"),
        (["你好。", "hello"], "你好。hello"),
        (["one ", "", "two"], "one two"),
        ([], ""),
    ],
)
def test_texts_are_joined_as_their_script_is_written(texts, whole):
    assert joined(texts) == whole


# The command


@pytest.fixture(scope="module")
def ming():
    ming = tiny_ming()
    yield ming
    ming.engine.stop()


FILES = [SPEECH / "english-three.wav", SPEECH / "mandarin-thanks.mp3"]


@pytest.mark.parametrize("form", ["txt", "srt"])
def test_several_files_go_into_a_folder(ming, tmp_path, capsys, form):
    transcribe_command(ming, FILES, format=form, output=tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"english-three.{form}", f"mandarin-thanks.{form}"]
    assert capsys.readouterr().out.count("1 segments") == 2


def test_one_file_is_written_to_standard_output_as_it_comes(ming, tmp_path, capsys):
    transcribe_command(ming, FILES[:1], output=tmp_path / "a.txt")
    capsys.readouterr()
    transcribe_command(ming, FILES[:1])
    assert capsys.readouterr().out == (tmp_path / "a.txt").read_text()
    transcribe_command(ming, FILES[:1], format="srt")
    assert capsys.readouterr().out.startswith("1\n00:00:00,")


def test_a_context_file_reaches_the_model(ming, tmp_path):
    words = tmp_path / "words.txt"
    words.write_text("Kate\nGhost\n")
    transcribe_command(ming, FILES[:1], context=words, dialect="川渝", format="json", output=tmp_path / "a.json")
    assert json.loads((tmp_path / "a.json").read_text())["dialect"] == "Chuanyu"


@pytest.mark.parametrize(
    ("files", "options", "message"),
    [
        ([Path("none.wav")], {}, "there is no file none.wav"),
        (FILES, {"output": Path("all.txt")}, "several files need an existing folder"),
        ([FILES[0], FILES[0]], {"output": Path()}, "two of the files have the same name"),
        (FILES[:1], {"output": Path("nowhere/a.txt")}, "there is no folder nowhere"),
        (FILES[:1], {"format": "doc"}, "one of txt, json, srt, vtt"),
        (FILES[:1], {"context": Path("none.json")}, "context file none.json cannot be read"),
    ],
)
def test_the_command_refuses_what_it_cannot_do(ming, files, options, message):
    with pytest.raises(InputError, match=message):
        transcribe_command(ming, files, **options)
