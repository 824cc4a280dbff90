"""The recorded talker, replayed: every number within the tolerance its README names."""

from pathlib import Path

import pytest
import torch

from tests.parity import talker

FOLDER = Path(__file__).parent / "fixtures" / "parity" / "talker"


def test_the_folder_is_recognised_by_its_contents():
    assert talker.matches(FOLDER)
    assert not talker.matches(FOLDER / "vae")


@pytest.fixture(scope="module")
def checks():
    with torch.inference_mode():
        return list(talker.compare(FOLDER))


def test_every_recorded_number_is_reproduced(checks):
    assert len(checks) > 60
    assert [check for check in checks if not check.passed] == []
