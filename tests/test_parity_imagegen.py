"""The painter against the recorded runs of the published model, from the weights' recipe to the finished picture."""

from pathlib import Path

import pytest
import torch
from safetensors import safe_open

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
