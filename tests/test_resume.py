"""Stopping and going on: kill -9 at any moment, full disks, damaged checkpoints, moving to another machine."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import nn

from ming_omni.errors import InputError
from ming_omni.train import log
from ming_omni.train.checkpoints import UNFINISHED, Checkpoints
from ming_omni.train.guard import full_disk_named
from ming_omni.train.loop import train
from ming_omni.train.optimizer import make_optimizer
from ming_omni.train.parallel import World
from ming_omni.train.recipe import OptimizerSettings, Recipe, read
from tests.lessons import lesson

RECIPE = """
steps = 8
[model]
talker = true
[model.config]
thinker = {num_hidden_layers = 2}
audio = {num_hidden_layers = 1}
[learn]
parts = ["thinker", "audio.projector", "talker.flow", "talker.stop_head"]
[data.heard]
folder = "HEARD"
examples_per_step = 2
[data.said]
folder = "SAID"
examples_per_step = 2
[output]
save_every = 3
save_model = false
tensorboard = false
"""
RUN = "import sys; from ming_omni.train.loop import train; from ming_omni.train.recipe import read; "
RUN += "from pathlib import Path; train(read(sys.argv[1]), Path(sys.argv[2]))"


@pytest.fixture(scope="module")
def recipe(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("lessons")
    heard, said = lesson(folder / "heard", "transcribe"), lesson(folder / "said", "speak")
    path = folder / "recipe.toml"
    path.write_text(RECIPE.replace("HEARD", str(heard)).replace("SAID", str(said)))
    return path


@pytest.fixture(scope="module")
def whole(recipe, tmp_path_factory) -> Path:
    """A run that nothing interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    train(read(recipe), folder)
    return folder


def figures(folder: Path) -> list[dict]:
    rows = [row for row in log.read(folder) if "loss" in row]
    return [{name: value for name, value in row.items() if name != "tokens_per_second"} for row in rows]


def kill_after(recipe: Path, output: Path, step: int) -> None:
    """Start a run and kill it, without a warning, once it has done a step."""
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    root = Path(__file__).parent.parent
    command = [sys.executable, "-c", RUN, str(recipe), str(output)]
    process = subprocess.Popen(command, cwd=root, env=environment, stdout=subprocess.DEVNULL)
    while not any(row["step"] >= step for row in log.read(output)):
        assert process.poll() is None, "the run ended before it could be killed"
        time.sleep(0.005)
    process.kill()
    process.wait()


def test_a_killed_run_goes_on_bit_for_bit(recipe, whole, tmp_path):
    kill_after(recipe, tmp_path, 4)
    saved = Checkpoints(tmp_path / "checkpoints", 2, World()).steps()
    assert saved[0].name == "step-00000003"
    assert exported_step(tmp_path) in (None, 3, 6)  # ready to travel from any checkpoint, but for the moment in between
    with (tmp_path / log.FILE).open("a") as file:
        file.write('{"step": 5, "lo')  # the line that was being written
    (tmp_path / "checkpoints" / f"step-00000006{UNFINISHED}").mkdir(exist_ok=True)  # and the checkpoint
    train(read(recipe), tmp_path, resume=True)
    assert figures(tmp_path) == figures(whole)
    for ours, theirs in zip(tensors(tmp_path), tensors(whole), strict=True):
        assert ours[0] == theirs[0] and torch.equal(ours[1], theirs[1])


def exported_step(folder: Path) -> int | None:
    path = folder / "trained.safetensors"
    if not path.exists():
        return None
    with safe_open(path, "pt") as file:
        return int(file.metadata()["step"])


def tensors(folder: Path) -> list[tuple[str, torch.Tensor]]:
    with safe_open(folder / "trained.safetensors", "pt") as file:
        return [(name, file.get_tensor(name)) for name in sorted(file.keys())]


def test_a_finished_run_is_not_overwritten_and_resuming_it_changes_nothing(recipe, whole):
    with pytest.raises(InputError, match="holds a run already: --resume goes on with it"):
        train(read(recipe), whole)
    before = figures(whole)
    train(read(recipe), whole, resume=True)
    assert figures(whole) == before and len(before) == 8 and exported_step(whole) == 8
    (whole / "trained.safetensors").unlink()  # as if killed after the last checkpoint
    train(read(recipe), whole, resume=True)
    assert exported_step(whole) == 8


def test_the_report_of_a_resumed_run_counts_what_was_skipped_before(recipe, whole):
    with (whole / log.FILE).open("a") as file:
        file.write('{"step": 7, "event": "step skipped", "message": "not finite"}\n')
    train(read(recipe), whole, resume=True)
    assert "<td>steps skipped</td><td>1</td>" in (whole / "report.html").read_text()


def test_only_trained_tensors_travel_in_bf16_and_router_biases_whole(whole):
    found = dict(tensors(whole))
    assert all(name.startswith(("model.thinker.", "model.audio.projector.", "model.talker.")) for name in found)
    assert not any(".vae." in name or ".aggregator." in name for name in found)
    biases = {name for name in found if ".routers." in name and name.endswith(".bias")}
    assert biases and {found[name].dtype for name in biases} == {torch.float32}
    assert {found[name].dtype for name in found.keys() - biases} == {torch.bfloat16}


def test_another_machine_goes_on_from_the_export_with_a_new_warm_up(recipe, whole, tmp_path):
    sets = [f"model.start_from={whole / 'trained.safetensors'}", "steps=10", "optimizer.warmup_steps=4"]
    train(read(recipe, [*sets, "optimizer.schedule=constant"]), tmp_path)
    rows, before = figures(tmp_path), figures(whole)
    assert [row["step"] for row in rows] == [8, 9]
    rate = read(recipe).optimizer.learning_rate
    assert [row["learning_rate"] for row in rows] == [rate / 4, rate / 2]
    assert rows[0]["loss/answer"] < before[0]["loss/answer"]


def test_an_export_that_does_not_fit_is_refused_with_the_reason(recipe, whole):
    start = f"model.start_from={whole / 'trained.safetensors'}"
    with pytest.raises(InputError, match=r"lacks model\.talker\.aggregator\..* and \d+ more tensors that learn here"):
        train(read(recipe, [start, "learn.parts=['thinker', 'audio.projector', 'talker']"]), whole / "x")
    with pytest.raises(InputError, match=r"holds model\..* more tensors that do not learn here"):
        train(read(recipe, [start, "learn.parts=['thinker']"]), whole / "x")
    with pytest.raises(InputError, match="has done 8 steps already; steps, 8, counts them too"):
        train(read(recipe, [start]), whole / "x")
    with pytest.raises(InputError, match="there is no file"):
        train(read(recipe, ["model.start_from=gone.safetensors"]), whole / "x")


def made(folder: Path) -> tuple[Checkpoints, nn.Module, torch.optim.Optimizer]:
    layer = nn.Linear(200, 200)
    return Checkpoints(folder, 2, World()), layer, make_optimizer(list(layer.parameters()), OptimizerSettings())


def test_a_full_disk_is_named_and_leaves_the_last_checkpoint_whole(tmp_path):
    saved, layer, optimizer = made(tmp_path)
    saved.save(1, layer, optimizer, 0)
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(
            InputError, match=r"step 2 could not be saved .* MB free there\); the last whole .*00000001"
        ):
            saved.save(2, layer, optimizer, 0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]
    assert saved.restore(layer, optimizer) == (1, 0)


def test_a_full_disk_is_named_whoever_was_writing_and_other_errors_stay(tmp_path):
    said = r"the disk of .*run is full \(.*No space left.*--resume goes on"
    with pytest.raises(InputError, match=said), full_disk_named(tmp_path / "run"):
        Path("/dev/full").write_text("x")
    with pytest.raises(ZeroDivisionError), full_disk_named(tmp_path / "run"):
        _ = 1 / 0


def test_a_log_that_cannot_be_cut_is_kept(tmp_path):
    """Whether the disk is full at that moment, or the run is killed."""
    text = '{"step": 0, "loss": 1}\n{"step": 1, "loss": 1}\n'
    (tmp_path / log.FILE).write_text(text)
    (tmp_path / log.FILE).with_suffix(UNFINISHED).symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        log.Log(tmp_path, Recipe(), 1)
    assert (tmp_path / log.FILE).read_text() == text


def test_old_checkpoints_go_and_newer_ones_win(tmp_path):
    saved, layer, optimizer = made(tmp_path)
    for step in (1, 2, 3):
        nn.init.constant_(layer.bias, step)
        saved.save(step, layer, optimizer, 0)
    assert [path.name for path in saved.steps()] == ["step-00000002", "step-00000003"]
    nn.init.zeros_(layer.bias)
    assert saved.restore(layer, optimizer) == (3, 0) and layer.bias.eq(3).all()


def test_a_damaged_checkpoint_is_named(tmp_path):
    saved, layer, optimizer = made(tmp_path)
    saved.save(1, layer, optimizer, 0)
    (tmp_path / "step-00000001" / "__0_0.distcp").write_bytes(b"x")
    with pytest.raises(InputError, match=r"step-00000001 cannot be read"):
        saved.restore(layer, optimizer)
