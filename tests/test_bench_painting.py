"""benchmarks/painting: scores are near 1 for the scenes themselves and near 0 for wrong ones; a model is scored."""

import json

import pytest
import torch

from benchmarks import painting
from ming_omni.data.judges import Judge
from ming_omni.nano.painter import ship_painter
from tests.data_bank import tiny_bank, write_tiny_bank
from tests.painters import tiny_painter
from tests.small_nano import small_folder


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    for part in ("bank", "judge"):
        (folder / part).mkdir()
    write_tiny_bank(folder / "bank" / "sprites.safetensors")
    torch.manual_seed(0)
    Judge(sorted(tiny_bank().concepts), width=0.1).save(folder / "judge" / "judge.safetensors")
    return folder


@pytest.fixture(scope="module")
def report(data, tmp_path_factory):
    def run(model: str, *more: str) -> dict:
        output = tmp_path_factory.mktemp(model)
        painting.main([model, "--data", str(data), "--output", str(output), "--workers", "1", *more])
        return json.loads((output / "painting.json").read_text()) | {"output": output}

    return run


def test_masks_that_are_right_score_one_and_masks_elsewhere_nothing(report):
    values = {}
    for model in ("truth", "wrong"):
        found = report(model, "--limit", "2", "--only", "segment")
        assert set(found["swept_on_dev"]) == {str(t) for t in painting.THRESHOLDS}
        values[model] = {score["ability"]: score["value"] for score in found["scores"]}
        assert (found["output"] / "segment-referring-test.png").is_file()
    for ability in ("referring segmentation, mIoU", "semantic segmentation, mIoU"):
        assert values["truth"][ability] > 0.75 and values["wrong"][ability] < 0.2


def test_edits_that_were_not_done_are_kept_but_not_seen(report):
    found = report("wrong", "--limit", "2", "--only", "edit")
    pooled = next(score for score in found["scores"] if score["ability"] == "edits, each item")
    assert pooled["value"] == 0.0 and pooled["beside"]["kept"] == 1.0


def test_a_model_is_scored_the_products_own_way_and_pictures_are_kept(report, data, tmp_path):
    painter = tiny_painter(thinker_width=128, steps=2, guidance=1.0, image_guidance=1.0)
    small_folder(tmp_path)
    ship_painter(painter.config, {name: p.data for name, p in painter.named_parameters()}, tmp_path)
    arguments = [str(tmp_path), "--data", str(data), "--workers", "1", "--limit", "1"]
    painting.main([*arguments, "--output", str(tmp_path / "scores")])  # all kinds
    found = json.loads((tmp_path / "scores" / "painting.json").read_text())
    abilities = {score["ability"] for score in found["scores"]}
    assert {"GenEval-style, mean of six", "edits, each item", "semantic segmentation, mIoU"} <= abilities
    pictures = sorted((tmp_path / "scores" / "pictures").glob("*.png"))
    assert len([p for p in pictures if p.name.startswith("paint-")]) == 8
    before = {p: p.stat().st_mtime_ns for p in pictures}
    painting.main([*arguments, "--output", str(tmp_path / "scores"), "--only", "edit"])
    assert before == {p: p.stat().st_mtime_ns for p in pictures}, "what is painted is not painted again"
