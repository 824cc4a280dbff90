"""The recorded talker, replayed: every number within the tolerance its README names."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.parity import talker

FOLDER = Path(__file__).parent / "fixtures" / "parity" / "talker"


def test_the_folder_is_recognised_by_its_contents():
    assert talker.matches(FOLDER)
    assert not talker.matches(FOLDER / "vae")


@pytest.mark.parametrize("num_files", [1, 2])
def test_weights_stored_rounded_or_in_several_files_are_compared_in_the_recorded_precision(tmp_path, num_files):
    shutil.copytree(FOLDER, tmp_path / "set", copy_function=shutil.copyfile)
    folder, stored = tmp_path / "set", {}
    for part in (folder, folder / "vae"):
        weights = {name: tensor.bfloat16() for name, tensor in load_file(part / "model.safetensors").items()}
        save_file(weights, part / "model.safetensors")
        stored[part] = weights
    if num_files == 2:
        (folder / "model.safetensors").unlink()
        names = sorted(stored[folder])
        places = {name: f"model-{1 + (i > 50)}.safetensors" for i, name in enumerate(names)}
        for file in set(places.values()):
            save_file({n: stored[folder][n] for n in names if places[n] == file}, folder / file)
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    assert talker.matches(folder)
    with torch.inference_mode():
        checks = list(talker.compare(folder))
    # The recorded weights were not rounded: all is near, and what no weight touches is exact.
    assert all(check.error < 0.5 for check in checks)
    assert all(check.passed for check in checks if check.key.startswith(("timesteps", "every")))


@pytest.fixture(scope="module")
def checks():
    with torch.inference_mode():
        return list(talker.compare(FOLDER))


def test_every_recorded_number_is_reproduced(checks):
    assert len(checks) > 60
    assert [check for check in checks if not check.passed] == []
