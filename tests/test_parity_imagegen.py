"""The painter against the recorded runs of the published model, from the weights' recipe to the finished picture."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from ming_omni.model.painter import noise
from tests.parity import imagegen

FOLDER = Path(__file__).parent / "fixtures/parity/imagegen"


@pytest.fixture(scope="module")
def checks():
    with torch.inference_mode():
        return list(imagegen.compare(FOLDER))


def test_the_set_is_recognised_by_its_contents():
    assert imagegen.matches(FOLDER)
    assert not imagegen.matches(FOLDER.parent / "glyph")


def test_every_recorded_quantity_is_reproduced(checks):
    assert not [check for check in checks if not check.passed]


def test_no_recorded_key_is_left_out(checks):
    with safe_open(FOLDER / "outputs.safetensors", "pt") as stored:
        recorded = set(stored.keys())
    assert recorded <= {check.key for check in checks}


def test_another_seed_would_be_noticed():
    drawn = imagegen.draw([3, 4], seed=7002, scale=0.5, offset=1.0)
    assert drawn.min() >= 0.5 and drawn.max() < 1.5
    assert (drawn != imagegen.draw([3, 4], seed=7003, scale=0.5, offset=1.0)).all()


def test_seed_steps_and_guidance_are_found_without_a_readme(tmp_path):
    schedules = {"scheduler.sigmas_30": torch.zeros(31), "scheduler.sigmas_6": torch.zeros(7)}
    assert imagegen.told(tmp_path, schedules) == ((6, 5.0), (6, 5.0))
    assert imagegen.find_seed(noise([4321], (16, 2, 3), torch.float32), tmp_path) == 4321
    (tmp_path / "README.md").write_text("3 steps, seed 99000, guidance 4.5; whole: 2 steps, seed 8, guidance 7.")
    assert imagegen.told(tmp_path, schedules) == ((3, 4.5), (2, 7.0))
    assert imagegen.find_seed(noise([99000], (1, 1, 64, 64), torch.float32), tmp_path) == 99000


def test_weights_may_be_stored_instead_of_drawn_and_must_be_the_recorded_ones(tmp_path):
    drawn = imagegen.draw([2, 3], seed=1, scale=1.0, offset=0.0)
    digest = hashlib.sha256(b"w" + drawn.tobytes()).hexdigest()
    save_file({"all": drawn}, tmp_path / "stored_tensors.safetensors")
    files = {"mlp/model.safetensors": {"tensors": {"w": {"stored": "all"}}, "sha256": digest}}
    (tmp_path / "recipe.json").write_text(json.dumps({"files": files, "configs": {"vae/config.json": {"a": 1}}}))
    imagegen.materialise(tmp_path, tmp_path / "release")
    assert (load_file(tmp_path / "release/mlp/model.safetensors")["w"] == drawn).all()
    assert json.loads((tmp_path / "release/vae/config.json").read_text()) == {"a": 1}
    save_file({"all": drawn + 1}, tmp_path / "stored_tensors.safetensors")
    with pytest.raises(AssertionError, match="not the recorded ones"):
        imagegen.materialise(tmp_path, tmp_path / "release")


def test_of_several_thinkers_the_one_as_wide_as_the_painter_is_taken(tmp_path):
    for name, width in (("a", 8), ("b", 4)):
        (tmp_path / name).mkdir()
        keys = "model.model.word_embeddings.weight", "vision.patch_embed.proj.weight", "linear_proj.0.weight"
        save_file({key: np.zeros((3, width)) for key in keys}, tmp_path / name / "model.safetensors")
    (tmp_path / "set/mlp").mkdir(parents=True)
    save_file({"proj_in.weight": np.zeros((5, 4))}, tmp_path / "set/mlp/model.safetensors")
    assert imagegen.find_thinker(tmp_path / "set", tmp_path / "set") == tmp_path / "b"
