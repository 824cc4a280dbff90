"""The command line as a user meets it: a subprocess, its output, its exit code."""

import subprocess
import sys

import pytest


def ming(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "ming_omni.cli", *arguments]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=240)


def test_help_lists_every_verb():
    shown = ming("--help").stdout
    verbs = "ask chat paint edit segment speak voices transcribe train data serve info doctor build"
    for verb in verbs.split():
        assert f" {verb} " in shown


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["ask", "hi", "--model", "no-such-model"], "no-such-model"),
        (["ask", "  "], "empty"),
        (["ask", "hi", "--temperature", "-1"], "temperature"),
        (["ask", "hi", "--top-p", "2"], "top_p"),
        (["ask", "hi", "--max-tokens", "0"], "max_tokens"),
        (["ask", "hi", "--image", "missing.png", "--model", "tiny"], "missing.png"),
        (["ask", "hi", "--colour", "red"], "--colour"),
        (["sing"], "sing"),
    ],
)
def test_bad_input_is_one_line_that_names_it_and_exit_code_2(arguments, part):
    done = ming(*arguments)
    assert done.returncode == 2
    assert part in done.stderr
    assert done.stderr.count("\n") == 1 and done.stdout == ""


def test_ask_answers_offline_with_nano():
    done = ming("ask", "What is the capital of France?", "--max-tokens", "24")
    assert done.returncode == 0, done.stderr
    assert "Paris" in done.stdout


def test_ask_reads_the_question_from_standard_input():
    assert "Tokyo" in ming("ask", "-", "--max-tokens", "16", stdin="What is the capital of Japan?").stdout


def test_chat_keeps_the_history_and_leaves_at_the_end_of_input():
    done = ming("chat", "--max-tokens", "24", stdin="My name is Ada.\nWhat is my name?\n/dance\n")
    assert done.returncode == 0, done.stderr
    assert "Ada" in done.stdout
    assert "there is no command /dance" in done.stdout


def test_doctor_finds_this_installation_healthy():
    done = ming("doctor")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "FAILED" not in done.stdout and "Paris" in done.stdout
    assert "able: text, image_in, video_in, audio_in, speech_out\n" in done.stdout


def test_paint_edit_and_segment_write_what_they_were_asked_for(tmp_path):
    from PIL import Image

    painted, edited, mask = tmp_path / "a.png", tmp_path / "b.png", tmp_path / "c.png"
    fast = ("--model", "tiny", "--steps", "2", "--seed", "7")
    assert ming("paint", "a red square", "-o", str(painted), *fast).returncode == 0
    assert ming("edit", "make it blue", "-i", str(painted), "-o", str(edited), *fast).returncode == 0
    assert ming("segment", str(painted), "square", "-o", str(mask), *fast).returncode == 0
    assert Image.open(painted).info["prompt"] == "a red square"
    assert Image.open(edited).size == Image.open(mask).size == Image.open(painted).size


@pytest.mark.parametrize("model", ["tiny", "nano"])
def test_speak_writes_sound_of_the_length_it_says(model, tmp_path):
    import soundfile

    path = tmp_path / "a.wav"
    done = ming("speak", "Hello there.", "--model", model, "--seed", "1", "-o", str(path))
    assert done.returncode == 0, done.stderr
    samples, rate = soundfile.read(path)
    assert f"{len(samples) / rate:.1f} seconds" in done.stdout


def test_nano_says_which_part_it_lacks():
    done = ming("paint", "hello", "-o", "nowhere/x.png")
    assert done.returncode == 2 and "nano has no painter" in done.stderr
