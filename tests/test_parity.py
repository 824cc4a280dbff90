"""The runner of the recorded sets: what passes, what fails, and that nothing is passed over in silence."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.parity.__main__ import main

RECORDED = Path(__file__).parent / "fixtures" / "parity"


@pytest.fixture
def sets(tmp_path) -> Path:
    """Two sets under names that say nothing."""
    shutil.copytree(RECORDED / "audio", tmp_path / "a")
    shutil.copytree(RECORDED / "vision", tmp_path / "b")
    return tmp_path


def outcome(root: Path, capsys) -> tuple[int, dict[str, list[dict]]]:
    """Exit code, and the printed checks of each folder."""
    code = main([str(root)])
    return code, {Path(folder).name: checks for folder, checks in json.loads(capsys.readouterr().out).items()}


def test_sets_pass_whatever_their_folders_are_called(sets, capsys):
    code, report = outcome(sets, capsys)
    assert code == 0 and {name: checks[0]["set"] for name, checks in report.items()} == {"a": "audio", "b": "vision"}


def test_one_wrong_number_fails(sets, capsys):
    outputs = load_file(sets / "a" / "outputs.safetensors")
    outputs["packed_embeds"][0, -1, -1] += 0.001
    save_file(outputs, sets / "a" / "outputs.safetensors")
    code, report = outcome(sets, capsys)
    assert code == 1
    assert [check["key"] for check in report["a"] if not check["passed"]] == ["packed_embeds"]


@pytest.mark.parametrize("lost", ["inputs.safetensors", "outputs.safetensors", "model.safetensors", "config.json"])
def test_a_set_that_lost_a_file_fails_and_the_other_is_still_reported(sets, capsys, lost):
    (sets / "a" / lost).unlink()
    code, report = outcome(sets, capsys)
    assert code == 1
    assert not report["a"][-1]["passed"]
    assert all(check["passed"] for check in report["b"])


def test_a_number_that_is_none_fails(sets, capsys):
    outputs = load_file(sets / "a" / "outputs.safetensors")
    outputs["packed_embeds"][0, 0, 0] = torch.nan
    save_file(outputs, sets / "a" / "outputs.safetensors")
    assert outcome(sets, capsys)[0] == 1


@pytest.mark.parametrize("name", ["missing", "empty"])
def test_a_folder_without_sets_fails_in_one_line(tmp_path, capsys, name):
    (tmp_path / "empty").mkdir()
    assert main([str(tmp_path / name)]) == 1
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.count("\n") == 1
