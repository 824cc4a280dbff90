"""The judge learns its artists, and says no to pictures that show something else than was asked."""

import json
import os
from pathlib import Path

import pytest
import torch

from ming_omni.data import packages
from ming_omni.data.bank import stock
from ming_omni.data.eyes import Eyes
from ming_omni.data.judges import COLOUR_NAMES, FAULTS, Judge, Seen, find_limits, plans, train_judge, varied, wrong
from ming_omni.data.pictures import draw, example
from tests.data_bank import tiny_bank, write_tiny_bank

NAMES = ["car", "cat", "dog"]


def seen(*things: tuple[str, str | None], certainty: float = 0.9) -> list[Seen]:
    """As a judge sees that is nearly sure of everything."""
    found = []
    for name, colour in things:
        concepts, colours = torch.full((len(NAMES),), 0.05), torch.full((len(COLOUR_NAMES),), 0.01)
        concepts[NAMES.index(name)], colours[COLOUR_NAMES.index(colour)] = 0.9, 0.92
        found.append(Seen(0.5, 0.5, certainty, concepts, colours))
    return found


@pytest.fixture
def judge() -> Judge:
    torch.manual_seed(0)
    return Judge(NAMES, width=0.1).eval()


def test_a_picture_agrees_when_exactly_the_asked_things_are_seen(judge):
    facts = {"things": [["dog", None], ["car", "red"]]}
    assert judge.agrees(facts, seen(("dog", None), ("car", "red")))
    assert judge.agrees(facts, seen(("car", "red"), ("dog", "blue")))  # nobody asked for the dog's colour
    assert not judge.agrees(facts, seen(("dog", None), ("car", "blue")))
    assert not judge.agrees(facts, seen(("dog", None), ("cat", "red")))
    assert not judge.agrees(facts, seen(("dog", None)))
    assert not judge.agrees(facts, seen(("dog", None), ("dog", None), ("car", "red")))
    assert judge.agrees(facts, [*seen(("dog", None), ("car", "red")), *seen(("cat", None), certainty=0.2)])


def test_colours_belong_to_their_things(judge):
    facts = {"things": [["dog", "blue"], ["car", "red"]]}
    assert judge.agrees(facts, seen(("car", "red"), ("dog", "blue")))
    assert not judge.agrees(facts, seen(("car", "blue"), ("dog", "red")))


@pytest.mark.parametrize("number", range(20))
def test_wrong_facts_never_describe_the_picture_and_name_their_fault(judge, number):
    facts = {"things": [["dog", None], ["car", "red"]]}
    there = seen(("dog", None), ("car", "red"))
    fault, other = wrong(facts, NAMES, number)
    assert judge.agrees(facts, there)
    assert judge.beliefs(other, there)[fault] < 0.5


def test_every_fault_occurs():
    facts = {"things": [["dog", None], ["car", "red"]]}
    assert {wrong(facts, NAMES, i)[0] for i in range(20)} == set(FAULTS)


def test_a_saved_judge_sees_the_same_and_keeps_its_limits(tmp_path, judge):
    judge.limits = {"concept": 0.1, "count": 0.2, "colour": 0.3}
    judge.half().float().save(tmp_path / "judge.safetensors")
    again, pictures = Judge.load(tmp_path / "judge.safetensors"), torch.randint(0, 256, (2, 3, 64, 64))
    assert again.limits == judge.limits
    for one, other in zip(again(pictures), judge(pictures), strict=True):
        torch.testing.assert_close(one, other)


def test_what_is_seen_comes_surest_first_with_places_and_beliefs(judge):
    found = judge.look(torch.randint(0, 256, (1, 3, 64, 64)), threshold=0.0)[0]
    assert [item.certainty for item in found] == sorted((item.certainty for item in found), reverse=True)
    assert all(0 <= item.x <= 1 and 0 <= item.y <= 1 for item in found)
    assert all(float(item.concepts.sum()) == pytest.approx(1, abs=1e-4) for item in found)


def test_eyes_take_their_weights_from_the_package_in_order(tmp_path):
    one, other = Eyes(0.1).eval(), Eyes(0.1).eval()
    folder = tmp_path / "package" / "models"
    folder.mkdir(parents=True)
    torch.save({f"x{i}": tensor for i, tensor in enumerate(one.state_dict().values())}, folder / "eyes.pth")
    other.start_from(tmp_path)
    pictures = torch.rand(1, 3, 64, 64) * 255
    for a, b in zip(one(pictures), other(pictures), strict=True):
        assert torch.equal(a, b)


def test_variety_moves_hues_less_where_a_colour_is_asked_for():
    chosen = stock(tiny_bank(), "train")
    examples = [item for i in range(64) if (item := example(chosen, "paint", 0, i)).scenes[0].things]
    drawn = draw(chosen, examples, 64)
    torch.manual_seed(0)
    pictures = varied(drawn, examples)
    assert pictures.shape == (len(examples), 3, 64, 64)
    assert pictures.min() >= 0
    assert pictures.max() <= 255
    moved = (pictures - torch.cat([d.pictures for d in drawn])).mean((2, 3))  # (B, 3)
    hue = (moved - moved.mean(1, keepdim=True)).abs().amax(1)
    is_coloured = torch.tensor([any(t.colour for t in item.scenes[0].things) for item in examples])
    assert hue[is_coloured].mean() < hue[~is_coloured].mean()


def test_scenes_thought_out_by_other_processes_are_the_same_scenes(tmp_path):
    bank = write_tiny_bank(tmp_path / "sprites.safetensors")
    styles = tuple(sorted({style for _, style in tiny_bank().keys}))
    alone = [item.prompt for step in plans(bank, styles, 0, 3, 8, 1) for item in step]
    assert [item.prompt for step in plans(bank, styles, 0, 3, 8, 2) for item in step] == alone


def test_limits_let_few_wrong_pictures_pass():
    chosen = stock(tiny_bank(), "train")
    torch.manual_seed(1)
    judge = Judge(sorted(tiny_bank().concepts), width=0.1).eval()
    judge.limits = find_limits(judge, chosen, 0, 48, 64)
    from ming_omni.data.judges import looks

    passed = [
        judge.agrees(wrong(item.facts, judge.concepts, number)[1], found)
        for number, item, found in looks(judge, chosen, 2, 96, 64)
    ]
    assert sum(passed) <= 0.1 * len(passed)


def test_a_few_steps_of_training_leave_a_judge_and_a_report(tmp_path):
    bank = write_tiny_bank(tmp_path / "sprites.safetensors")
    figures = train_judge(bank, tmp_path / "judge", steps=3, batch=6, size=96, width=0.1, exam=32)
    report = json.loads((tmp_path / "judge" / "report.json").read_text())
    assert "painter's artists, all unseen" in figures
    assert report["steps"] == 3
    assert all(0 <= part["wrong_rejected"] <= 1 for part in figures.values())
    assert all(set(part["rejected_by_fault"]) == set(FAULTS) for part in figures.values())
    assert "confusions" in report["painter's artists, all unseen"]
    weights = Judge.load(tmp_path / "judge" / "judge.safetensors").state_dict()
    again = train_judge(bank, tmp_path / "judge", steps=3, batch=6, size=96, width=0.1, exam=32)  # examined only
    assert json.loads((tmp_path / "judge" / "report.json").read_text())["steps"] == 3
    kept = Judge.load(tmp_path / "judge" / "judge.safetensors").state_dict()
    assert all(torch.equal(weights[name], kept[name]) for name in weights)
    assert set(again) == set(figures)


def test_a_short_time_ends_the_training_early(tmp_path):
    bank = write_tiny_bank(tmp_path / "sprites.safetensors")
    train_judge(bank, tmp_path, steps=1000, batch=6, size=64, width=0.1, exam=32, seconds=0.5)
    assert json.loads((tmp_path / "report.json").read_text())["steps"] < 1000


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_judge_learns_to_name_things_and_to_reject_wrong_pictures(tmp_path):
    """Minutes of one core: far from the judge that scores nano, and far above chance (one thing in nineteen)."""
    cache = Path(os.environ["MING_DATA_CACHE"]) if "MING_DATA_CACHE" in os.environ else None
    start, bank = packages.fetch(packages.EYES, cache), write_tiny_bank(tmp_path / "sprites.safetensors")
    figures = train_judge(bank, tmp_path, steps=150, batch=16, size=128, exam=256, start=start)
    known = figures["judge's artists, known drawings"]
    assert known["wrong_rejected"] >= 0.9
    assert known["things_named"] >= 0.5
    assert known["right_accepted"] >= 0.3
    assert known["colours_named"] >= 0.8
