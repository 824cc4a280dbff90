"""The commands of examples/understand run, its files exist and are credited, and its answers are those of nano."""

import shlex

import pytest
from typer.testing import CliRunner

from examples.understand import refresh
from ming_omni import cli

TEXT = refresh.README.read_text()
COMMANDS = [match[1] for match in refresh.BLOCK.finditer(TEXT)]
MEDIA = {".png", ".mp4", ".flac", ".wav", ".txt"}
FILES = sorted(path.name for path in refresh.README.parent.iterdir() if path.suffix in MEDIA)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_examples_runs(command, monkeypatch):
    monkeypatch.chdir(refresh.README.parents[2])
    arguments = [*shlex.split(command), "--model", "tiny"]
    if arguments[0] == "ask":
        arguments += ["--max-tokens", "4"]
    result = CliRunner().invoke(cli.app, arguments)
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_used_and_credited(name):
    commands, credits = TEXT.split("## Where the files come from")
    assert f"examples/understand/{name}" in commands
    assert f"`{name}`" in credits


def test_answers_are_written_below_their_commands(monkeypatch):
    monkeypatch.setattr(refresh, "answer", lambda arguments, model: f"{model}: {len(shlex.split(arguments))}")
    before = "a\n```console\n$ ming ask Hi\nold\nlines\n```\nb\n```console\n$ ming transcribe a.wav\n```\n"
    after = "a\n```console\n$ ming ask Hi\nnano: 2\n```\nb\n```console\n$ ming transcribe a.wav\nnano: 2\n```\n"
    assert refresh.refreshed(before, "nano") == after == refresh.refreshed(after, "nano")


@pytest.mark.slow
def test_answers_are_those_of_nano():
    assert refresh.refreshed(TEXT, "nano") == TEXT
