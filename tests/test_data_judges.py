"""The judge learns its artists, and says no to pictures that show something else than was asked."""

import json

import pytest
import torch

from ming_omni.data.judges import Found, Judge, agrees, train_judge, wrong
from tests.data_bank import THINGS, write_tiny_bank


def found(*things: tuple[str, str | None]) -> list[Found]:
    return [Found(name, colour, 0.5, 0.5, 1.0) for name, colour in things]


def test_a_picture_agrees_when_exactly_the_asked_things_are_seen():
    facts = {"things": [["dog", None], ["car", "red"]]}
    assert agrees(facts, found(("dog", None), ("car", "red")))
    assert agrees(facts, found(("dog", "blue"), ("car", "red")))  # nobody asked for the dog's colour
    assert not agrees(facts, found(("dog", None), ("car", "blue")))
    assert not agrees(facts, found(("dog", None)))
    assert not agrees(facts, found(("dog", None), ("dog", None), ("car", "red")))


@pytest.mark.parametrize("seed", range(20))
def test_wrong_facts_never_describe_the_picture(seed):
    facts = {"things": [["dog", None], ["car", "red"]]}
    seen = found(("dog", None), ("car", "red"))
    assert agrees(facts, seen)
    assert not agrees(wrong(facts, list(THINGS), seed), seen)


def test_a_saved_judge_sees_the_same(tmp_path):
    torch.manual_seed(0)
    judge = Judge(["dog", "cat"], width=8).eval()
    judge.save(tmp_path / "judge.safetensors")
    pictures = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    assert Judge.load(tmp_path / "judge.safetensors").look(pictures, 0.1) == judge.look(pictures, 0.1)


def test_a_few_steps_of_training_lower_the_loss_and_leave_a_report(tmp_path):
    bank = write_tiny_bank(tmp_path / "sprites.safetensors")
    figures = train_judge(bank, tmp_path / "judge", steps=3, batch=4, size=64, width=8, exam=32)
    report = json.loads((tmp_path / "judge" / "report.json").read_text())
    assert set(figures) == {"judge's artists, drawings unseen", "painter's artists, all unseen"}
    assert all(0 <= part["wrong_rejected"] <= 1 for part in figures.values())
    assert "confusions" in report["painter's artists, all unseen"]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_judge_learns_to_name_things_and_to_reject_wrong_pictures(tmp_path):
    """A minute of one core: far from the judge that scores nano, and far above chance (one thing in nineteen)."""
    bank = write_tiny_bank(tmp_path / "sprites.safetensors")
    figures = train_judge(bank, tmp_path / "judge", steps=500, batch=16, size=96, width=16)
    known = figures["judge's artists, drawings unseen"]
    assert known["wrong_rejected"] >= 0.95
    assert known["things_named"] >= 0.35
    assert known["right_accepted"] >= 0.1
    assert known["colours_named"] >= 0.8
