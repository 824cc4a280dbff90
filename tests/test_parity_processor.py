"""Our processor against the recorded one, on the recorded pictures, frames and sounds."""

import json
from pathlib import Path

import pytest

from tests.parity import processor

FOLDER = Path(__file__).parent / "fixtures/parity/processor"
PARTS = (
    "images", "smart_resize", "frame_sampling", "decord_path_indices", "video_decord", "video", "video_frame_list",
    "video_frame_list_4", "audio", "audio_whisper", "audio_default_without_use_whisper_encoder", "chat_template",
    "expansion", "image_gen_reference", "image_gen_reference_every8px",
    "process_ratio", "image_gen_text", "system_prompts", "speech_front",
)  # fmt: skip


@pytest.fixture(scope="module")
def checks():
    return list(processor.compare(FOLDER))


def test_the_recorded_set_is_recognised_by_its_contents():
    assert processor.matches(FOLDER)
    assert not processor.matches(FOLDER.parent)


@pytest.mark.parametrize("part", PARTS)
def test_every_recorded_value_is_reproduced(checks, part):
    compared = [check for check in checks if check.key.split(".")[0] == part]
    assert compared
    assert not [check for check in compared if not check.passed]


def test_every_recorded_key_is_compared(checks):
    recorded = json.loads((FOLDER / "expected.json").read_text(encoding="utf-8"))
    assert set(recorded) <= set(PARTS)
    assert {check.key.split(".")[0] for check in checks} == set(PARTS)
