"""train/loop.py and around it: what a run leaves behind, what it refuses, and what must not change its numbers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch.testing import assert_close

from ming_omni import checkpoint
from ming_omni.errors import InputError
from ming_omni.inputs.processor import MingProcessor
from ming_omni.train import log, parts, report
from ming_omni.train.command import train_command
from ming_omni.train.guard import Guard
from ming_omni.train.learner import Totals
from ming_omni.train.loop import train
from ming_omni.train.recipe import GuardSettings, LearnSettings, Recipe, read
from tests import lessons
from tests.lessons import lesson

SETS = {
    "answers": "ask",
    "paint": "paint",
    "edits": "segment",
    "speech": "speak",
    "pictures": "code_image",
    "sounds": "code_sound",
}


def folders(root: Path, *names: str) -> list[str]:
    return [f"data.{name}.folder={lesson(root / name, SETS[name])}" for name in names or SETS]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """Two steps of everything, with every kind of output."""
    root = tmp_path_factory.mktemp("run")
    sets = [*folders(root), "steps=2", "output.sample_every=2", "output.heatmap_every=1", "output.save_every=1"]
    sets += ["output.keep=1", "data.answers.examples_per_step=2", "data.paint.examples_per_step=2"]
    train_command("joint", sets, False, False, root / "out")
    return root / "out"


def test_the_log_has_a_row_for_every_step_with_every_loss_and_expert_figure(run):
    rows = log.read(run)
    assert [row["step"] for row in rows] == [0, 1]
    losses = {"answer", "paint", "edit", "speak", "stop", "picture", "mel", "kl", "critic", "adversarial", "classifier"}
    assert {f"loss/{name}" for name in losses | {"balance/auxiliary", "balance/z"}} <= rows[0].keys()
    for modality in ("text", "image"):
        assert {f"balance/{modality}/layer_02/{name}" for name in ("max_violation", "dead_share", "entropy")} <= rows[
            0
        ].keys()
    assert rows[1]["tokens"] > 500 and rows[1]["tokens_per_second"] > 0
    assert rows[0]["loss"] == pytest.approx(sum(v for k, v in rows[0].items() if k.startswith("loss/")), rel=1e-5)


def test_a_run_leaves_curves_samples_heat_maps_and_a_report_of_one_file(run):
    assert list((run / "tensorboard").glob("events*"))
    samples = {path.suffix for path in (run / "samples" / "step-00000002").iterdir()}
    assert samples == {".txt", ".png", ".wav"}
    assert "wanted: red<|role_end|>" in (run / "samples" / "step-00000002" / "answers-0.txt").read_text()
    assert "<imagePatch> x 100 </image>" in (run / "samples" / "step-00000002" / "answers-0.txt").read_text()
    assert Image.open(run / "samples" / "step-00000002" / "paint-0.png").size == (32, 32)
    assert len(list((run / "heatmaps").glob("*.png"))) == 2
    assert len(list((run / "checkpoints").iterdir())) == 1
    page = (run / "report.html").read_text()
    assert page.count("<svg") > 20 and page.count("data:image/png") >= 4 and "data:audio/wav" in page
    assert "http" not in page and "parameters that learn" in page


def test_the_trained_model_can_be_loaded_with_its_processor_and_parts(run):
    model = checkpoint.load(run / "model", load_image_gen=True, load_talker=True)
    assert model.painter is not None and model.talker is not None
    fresh, _ = parts.load(read("joint").model)
    assert (model.thinker.norm.weight - fresh.thinker.norm.weight).abs().max() > 0
    assert torch.equal(model.painter.vae.encoder.conv_in.weight, fresh.painter.vae.encoder.conv_in.weight)
    processor = MingProcessor.from_pretrained(run / "model")
    assert processor.prepare("hello")["input_ids"].shape[1] > 5


def test_a_curve_with_gaps_and_one_without_a_finite_value_can_be_drawn():
    assert report.plot("loss", [(0, 1.0), (1, float("nan")), (2, 3.0)]).count(",") == 2
    assert "never finite" in report.plot("loss", [(0, float("inf"))])


def test_a_long_curve_stays_short_and_keeps_its_ends():
    drawn = report.plot("loss", [(x, x % 7) for x in range(100_000)])
    assert len(drawn) < 10_000 and ">0</text>" in drawn and ">99999</text>" in drawn and f"loss: {99_999 % 7}<" in drawn


def test_a_dry_run_says_parts_tokens_memory_and_time_and_writes_nothing(tmp_path, capsys):
    train_command("align", folders_of_align(tmp_path), True, False, tmp_path / "out")
    text = capsys.readouterr().out
    table = {line.split()[0]: line.split()[1:] for line in text.splitlines() if line.strip()}
    assert text.startswith("align: encoders")
    assert table["thinker"][1] == "0" and int(table["audio"][1].replace(",", "")) > 1000
    assert table["pictures"] == ["4", "4", "answer"] and table["steps"][0] == "2,000"
    assert "about" in table["tokens"] and "MB:" in table["memory"] and "activations" in table["memory"]
    assert not (tmp_path / "out").exists()


def folders_of_align(root: Path) -> list[str]:
    pictures, sounds = lesson(root / "ask", "ask"), lesson(root / "transcribe", "transcribe")
    sets = [f"data.pictures.folder={pictures}", f"data.sounds.folder={sounds}"]
    return [*sets, "data.pictures.examples_per_step=4", "data.sounds.examples_per_step=4"]


def test_a_recipe_without_a_folder_asks_for_one():
    with pytest.raises(InputError, match=r"say where the training set is: --set data\.speech\.folder=PATH"):
        train(read("talker"), Path("nowhere"))


QUIET = ["output.save_model=false", "output.tensorboard=false", "steps=3"]


def test_what_is_frozen_stays_bit_for_bit_and_unbalanced(tmp_path):
    sets = [*folders(tmp_path, "paint", "edits"), "data.edit.folder=" + str(tmp_path / "edits")]
    sets = [text for text in sets if not text.startswith("data.edits")]
    sizes = [f"data.{name}.{size}" for name in ("paint", "edit") for size in ("image_size=32", "examples_per_step=2")]
    train_command("painter", [*sets, *sizes, *QUIET, "output.save_model=true", "steps=1"], False, False, tmp_path / "o")
    model = checkpoint.load(tmp_path / "o" / "model", load_image_gen=True)
    fresh, _ = parts.load(read("painter").model)
    before, after = fresh.state_dict(), model.state_dict()
    moved = {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}
    assert moved and all(name.startswith("painter.") and ".vae." not in name for name in moved)
    assert not any(name.startswith("balance/") for name in log.read(tmp_path / "o")[0])


def test_a_damaged_file_is_logged_and_left_out_or_stops_the_run(tmp_path):
    sets = [*folders(tmp_path, "speech"), *QUIET, "data.speech.examples_per_step=2"]
    (tmp_path / "speech" / "red.wav").write_bytes(b"no sound")
    with (tmp_path / "speech" / "train.jsonl").open("a") as file:
        file.write("{broken\n")
    with pytest.raises(InputError, match=r"train\.jsonl line 5: not JSON"):
        train_command("talker", sets, False, False, tmp_path / "stopped")
    sets += ["guard.bad_examples=skip", "output.sample_every=3"]  # samples, too, are made without the damaged one
    train_command("talker", sets, False, False, tmp_path / "skipped")
    assert [path.name for path in (tmp_path / "skipped" / "samples").glob("*/*")] == ["speech-1.wav"]
    rows = log.read(tmp_path / "skipped")
    events = [row for row in rows if "event" in row]
    assert events[0]["event"] == "line left out" and "line 5" in events[0]["message"]
    assert events[1]["event"] == "example left out" and "line 1: " in events[1]["message"]
    assert sum("loss" in row for row in rows) == 3
    assert "line 1: " in (tmp_path / "skipped" / "report.html").read_text()


def test_losses_that_are_not_finite_stop_the_run_with_the_batches_saved(tmp_path):
    sets = [*folders(tmp_path, "speech"), *QUIET, "steps=20", "data.speech.examples_per_step=2"]
    sets += ["optimizer.learning_rate=1e30", "optimizer.warmup_steps=1", "guard.max_bad_steps=2", "output.save_every=1"]
    with pytest.raises(InputError, match=r"2 steps in a row were not finite \(.*loss.*\); the batches are in .*bad"):
        train_command("talker", sets, False, False, tmp_path / "out")
    saved = sorted((tmp_path / "out" / "bad").glob("*.json"))
    assert len(saved) == 2 and "train.jsonl line" in saved[0].read_text()
    assert saved[0].with_suffix(".safetensors").stat().st_size > 1000
    [event] = [row for row in log.read(tmp_path / "out") if "event" in row]
    assert event["event"] == "step skipped"


def test_the_guard_counts_steps_in_a_row_and_forgets_them_after_a_good_one(tmp_path):
    guard = Guard(tmp_path, GuardSettings(max_bad_steps=2))
    assert not guard.allows(0, {"loss": float("nan")}, [])
    assert guard.allows(1, {"loss": 1.0}, [])
    assert not guard.allows(2, {"loss": 1.0, "gradient_norm": float("inf")}, [])
    with pytest.raises(InputError):
        guard.allows(3, {"loss": float("nan")}, [])
    assert guard.num_skipped == 3
    assert json.loads((tmp_path / "step-00000002-process-0.json").read_text())["wrong"] == {"gradient_norm": "inf"}


def gradients(
    root: Path, *tasks: str, recomputed: bool = False, bf16: bool = False, count: int = 2
) -> tuple[float, dict]:
    """Loss and gradients of one packed batch of each task, the same batch however it is computed."""
    model, processor = lessons.tiny_model()
    parts.choose(model, LearnSettings(parts=["thinker", "audio", "painter", "!painter.vae"]))
    if recomputed:
        parts.checkpoint_activations(model)
    learner, total = lessons.learner(model, Recipe()).train(), 0.0
    for task in tasks:
        data = lessons.data_set(lesson(root / task, task), model, processor, image_size=32, examples_per_step=count)
        batch, _ = data.batch(0)
        totals = Totals(batch.count, batch.present, batch.num_tokens, 1)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = sum(learner(batch, totals, torch.Generator().manual_seed(0)).values())
        loss.backward()
        total += loss.item()
    return total, {name: p.grad for name, p in learner.named_parameters() if p.grad is not None}


def test_recomputed_activations_give_the_same_gradients_of_packed_rows(tmp_path):
    """transformers' own checkpointing would drop the boundaries without a word; ours must not."""
    loss, plain = gradients(tmp_path, "transcribe", "paint")
    other, recomputed = gradients(tmp_path, "transcribe", "paint", recomputed=True)
    assert other == pytest.approx(loss, rel=1e-6) and plain.keys() == recomputed.keys()
    for name, gradient in plain.items():
        assert_close(recomputed[name], gradient, atol=1e-6, rtol=1e-4, msg=name)


def test_bf16_costs_nearly_what_fp32_costs(tmp_path):
    (loss, plain), (other, low) = (gradients(tmp_path, "transcribe", bf16=bf16, count=1) for bf16 in (False, True))
    assert other == pytest.approx(loss, rel=5e-3)
    name = "model.thinker.layers.1.attention.qkv.weight"
    cosine = torch.nn.functional.cosine_similarity(plain[name].flatten(), low[name].flatten(), dim=0)
    assert cosine > 0.98 and low[name].dtype == torch.float32
