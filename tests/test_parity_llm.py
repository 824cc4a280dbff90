"""The recorded language model, through the public loader."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.parity import llm, run

FOLDER = Path(__file__).parent / "fixtures" / "parity" / "llm"


def compare(folder: Path):
    with torch.inference_mode():
        return list(llm.compare(folder))


def test_every_recorded_quantity_is_met():
    checks = compare(FOLDER)
    assert [check for check in checks if not check.passed] == []
    recorded = set(load_file(FOLDER / "outputs.safetensors"))
    assert recorded <= {check.key for check in checks}


def test_the_set_is_recognised_by_its_contents(tmp_path):
    shutil.copytree(FOLDER, tmp_path / "any name")
    ((_, checks),) = run(tmp_path).items()
    assert {check["set"] for check in checks} == {"llm"}
    assert all(check["passed"] for check in checks)
    (tmp_path / "any name" / "inputs.safetensors").unlink()
    assert not llm.matches(tmp_path / "any name")


@pytest.mark.parametrize(
    "weight, missed",
    [
        ("model.layers.1.mlp.image_gate.expert_bias", "mm_video_start.layer1.topk_idx_sorted"),
        ("model.layers.2.attention.k_norm.weight", "text.hidden3"),
        ("lm_head.weight", "batch.logits"),
    ],
)
def test_a_changed_weight_is_noticed(tmp_path, weight, missed):
    folder = tmp_path / "llm"
    shutil.copytree(FOLDER, folder)
    weights = load_file(folder / "model.safetensors")
    weights[weight] = weights[weight] + torch.linspace(-1, 1, weights[weight].numel()).view_as(weights[weight])
    save_file(weights, folder / "model.safetensors")
    assert missed in {check.key for check in compare(folder) if not check.passed}
