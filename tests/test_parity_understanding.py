"""The recorded vision, audio and thinker sets, replayed from the copies beside the tests."""

import importlib
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests import parity
from tests.parity import tensors

FOLDER = Path(__file__).parent / "fixtures/parity"
CHANGED = {
    "vision": "vision.blocks.2.attn.qkv.bias",
    "audio": "audio.blocks.1.attn.value.bias",
    "thinker": "model.model.layers.1.mlp.audio_gate.weight",
}


@pytest.mark.parametrize("name", CHANGED)
def test_every_recorded_quantity_is_reproduced(name):
    (checks,) = parity.run(FOLDER / name).values()
    assert {check["set"] for check in checks} == {name}
    assert [check for check in checks if not check["passed"]] == []
    outputs = parity.keys(FOLDER / name / "outputs.safetensors")
    assert outputs <= {check["key"] for check in checks}


@pytest.mark.parametrize("name", CHANGED)
@torch.inference_mode()
def test_a_changed_weight_is_noticed(name, tmp_path):
    recorded = importlib.import_module(f"tests.parity.{name}")
    folder = shutil.copytree(FOLDER / name, tmp_path / "renamed")
    weights = tensors(folder / "model.safetensors")
    weights[CHANGED[name]] += 0.1
    save_file(weights, folder / "model.safetensors")
    assert recorded.matches(folder)
    assert not all(check.passed for check in recorded.compare(folder))
