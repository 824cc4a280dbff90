"""Every part and task at once, learned by heart. The only long test of training; longer ones are marked slow."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from ming_omni import checkpoint
from ming_omni.inputs.messages import Image, Message, Text
from ming_omni.inputs.processor import MingProcessor
from ming_omni.train import log
from ming_omni.train.command import train_command
from tests.lessons import lesson

TASKS = {
    "answers": {"ask": 2, "transcribe": 2},
    "paint": {"paint": 2},
    "edits": {"edit": 1, "segment": 1},
    "speech": {"speak": 2},
    "pictures": {"code_image": 2},
    "sounds": {"code_sound": 2},
}
"""Data set -> how many examples of which tasks."""
FALLS = {"answer": 0.1, "paint": 0.75, "edit": 0.75, "speak": 0.7, "stop": 0.1, "picture": 0.7, "mel": 0.7}
"""What remains of each loss, at most; `critic` and `adversarial` fight, and settle nowhere."""


def handful(root: Path) -> list[str]:
    sets = []
    for name, tasks in TASKS.items():
        rows = []
        for task, count in tasks.items():
            rows += (lesson(root / name, task) / "train.jsonl").read_text().splitlines()[:count]
        (root / name / "train.jsonl").write_text("\n".join(rows))
        sets.append(f"data.{name}.folder={root / name}")
    return sets


@torch.inference_mode()
def recite(folder: Path, data: Path) -> list[bool]:
    """Whether the trained model answers its training questions word for word."""
    model, processor = checkpoint.load(folder / "model"), MingProcessor.from_pretrained(folder / "model")
    right = []
    for text in (data / "answers" / "train.jsonl").read_text().splitlines()[:2]:
        line = json.loads(text)
        inputs = processor.prepare(
            [Message("user", [Image(data / "answers" / line["images"][0]), Text(line["prompt"])])]
        )
        ids = model.generate(**inputs, max_new_tokens=12, eos_token_id=processor.gen_terminator)
        answer = processor.decode(ids[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        right.append(answer == line["answer"])
    return right


@pytest.mark.timeout(900)  # 45 s on an idle core
def test_tiny_learns_a_handful_of_examples_of_every_task_by_heart(tmp_path):
    sets = [*handful(tmp_path), "output.tensorboard=false", "output.save_every=1000"]
    train_command("joint", sets, False, False, tmp_path / "out")
    rows = [row for row in log.read(tmp_path / "out") if "loss" in row]
    for name, share in FALLS.items():
        first, last = (sum(row[f"loss/{name}"] for row in part) / len(part) for part in (rows[:3], rows[-8:]))
        assert last < share * first, (name, first, last)
    assert all(recite(tmp_path / "out", tmp_path))
