"""The glyph branch against the recorded runs of the published encoder and mapper."""

from pathlib import Path

import torch
from safetensors import safe_open

from tests.parity import glyph

FOLDER = Path(__file__).parent / "fixtures/parity/glyph"


def test_every_recorded_quantity_is_reproduced():
    assert glyph.matches(FOLDER)
    with torch.inference_mode():
        checks = list(glyph.compare(FOLDER))
    assert not [check for check in checks if not check.passed]
    with safe_open(FOLDER / "outputs.safetensors", "pt") as stored:
        assert set(stored.keys()) <= {check.key for check in checks}
