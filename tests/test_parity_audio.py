"""The recorded audio set, replayed from the copy beside the tests."""

import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file

from tests import parity
from tests.parity import audio, tensors

FOLDER = Path(__file__).parent / "fixtures/parity/audio"


def test_every_recorded_quantity_is_reproduced():
    (checks,) = parity.run(FOLDER).values()
    assert {check["set"] for check in checks} == {"audio"}
    assert [check for check in checks if not check["passed"]] == []
    outputs = parity.keys(FOLDER / "outputs.safetensors")
    assert outputs <= {check["key"] for check in checks}


@torch.inference_mode()
def test_a_changed_weight_is_noticed(tmp_path):
    folder = shutil.copytree(FOLDER, tmp_path / "renamed")
    weights = tensors(folder / "model.safetensors")
    weights["audio.blocks.1.attn.value.bias"] += 0.1
    save_file(weights, folder / "model.safetensors")
    assert audio.matches(folder)
    assert not all(check.passed for check in audio.compare(folder))
