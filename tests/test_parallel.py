"""train/parallel.py: data parallel, FSDP2, spread experts and their mixture give what one process gives."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ming_omni.errors import InputError
from ming_omni.train import parallel
from ming_omni.train.bench import build
from ming_omni.train.checkpoints import Checkpoints
from ming_omni.train.log import read as read_log
from ming_omni.train.loop import train
from ming_omni.train.optimizer import make_optimizer
from ming_omni.train.parallel import World
from ming_omni.train.recipe import ParallelSettings, Recipe, read
from tests.lessons import lesson
from tests.ranks import launch

RECIPE = """
steps = 3
[model]
painter = true
[model.config]
thinker = {num_hidden_layers = 2}
vision = {num_hidden_layers = 2, full_attention_layers = [1]}
audio = {num_hidden_layers = 1}
[learn]
parts = ["thinker", "vision", "audio", "painter.queries", "painter.condition_mlp"]
[data.answers]
folder = "ANSWERS"
[data.paint]
folder = "PAINT"
image_size = 32
examples_per_step = 4
[balance]
mode = "batch"
[optimizer]
learning_rate = 1e-3
warmup_steps = 1
[output]
save_every = 9
save_model = false
tensorboard = false
"""
WAYS = {
    "data": [],
    "data, micro-batches": ["optimizer.micro_batches=2", "balance.mode=sequence"],
    "fsdp": ["parallel.mode=fsdp"],
    "experts": ["parallel.experts=2"],
    "fsdp and experts": ["parallel.mode=fsdp", "parallel.experts=2"],
}


def write_recipe(folder: Path) -> Path:
    answers, paint = lesson(folder / "answers", "transcribe"), lesson(folder / "paint", "paint")
    ask = (lesson(folder / "answers", "ask") / "train.jsonl").read_text().splitlines()
    sounds = (lesson(folder / "answers", "transcribe") / "train.jsonl").read_text().splitlines()
    (answers / "train.jsonl").write_text("\n".join([*ask[:3], *sounds[:3]]))  # some ranks see no picture, some no sound
    path = folder / "recipe.toml"
    path.write_text(RECIPE.replace("ANSWERS", str(answers)).replace("PAINT", str(paint)))
    return path


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """Every way, trained by two processes, and two runs that go on from each other's checkpoints."""
    folder = tmp_path_factory.mktemp("parallel")
    recipe = write_recipe(folder)
    train(read(recipe), folder / "single")
    train(read(recipe, WAYS["data, micro-batches"][1:]), folder / "single, sequence")
    train(read(recipe, ["steps=2"]), folder / "sharded after single")
    jobs = [{"recipe": str(recipe), "sets": sets, "output": str(folder / way)} for way, sets in WAYS.items()]
    sharded = ["parallel.mode=fsdp", "parallel.experts=2"]
    jobs.append({"recipe": str(recipe), "sets": sharded, "output": str(folder / "sharded after single")})
    jobs.append({"recipe": str(recipe), "sets": [*sharded, "steps=2"], "output": str(folder / "single after sharded")})
    launch(jobs, 2)
    train(read(recipe), folder / "single after sharded", resume=True)
    return folder


def figures(folder: Path) -> list[dict[str, float]]:
    left_out = ("tokens_per_second", "loss/unused")
    return [{name: value for name, value in row.items() if name not in left_out} for row in read_log(folder)]


def assert_same(found: list[dict], expected: list[dict], rel: float = 2e-4) -> None:
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.keys() == theirs.keys()
        for name, value in theirs.items():
            assert ours[name] == pytest.approx(value, rel=rel, abs=1e-5), (theirs["step"], name)


@pytest.mark.parametrize("way", WAYS)
def test_two_processes_train_as_one(way, runs):
    """Losses, gradient norms and expert loads of every step, and so the weights after the steps before."""
    single = "single, sequence" if "sequence" in "".join(WAYS[way]) else "single"
    assert_same(figures(runs / way), figures(runs / single))


@pytest.mark.parametrize("way", ["sharded after single", "single after sharded"])
def test_a_checkpoint_goes_on_with_another_number_of_processes(way, runs):
    rows = figures(runs / way)
    # (The first half was told of two steps, so its learning rate fell faster.)
    expected = figures(runs / "single")
    assert [row["step"] for row in rows] == [0, 1, 2]
    assert rows[1]["loss"] == pytest.approx(expected[1]["loss"], rel=1e-4)
    assert rows[2]["loss"] == pytest.approx(expected[2]["loss"], rel=2e-2) and rows[2]["loss"] < rows[0]["loss"]


def test_every_way_saves_the_same_whole_tensors(runs):
    recipe = read(runs / "recipe.toml")
    bench = build(recipe)
    optimizer = make_optimizer([p for p in bench.learner.parameters() if p.requires_grad], recipe.optimizer)
    weights = {}
    for way in ("single", *WAYS):
        saved = Checkpoints(runs / way / "checkpoints", 1, World())
        assert saved.restore(bench.learner, optimizer) == (3, 0)
        weights[way] = {name: p.detach().clone() for name, p in bench.learner.named_parameters()}
    for way in ("data", "fsdp", "experts", "fsdp and experts"):
        moved = {name: (p - weights["single"][name]).abs().mean() for name, p in weights[way].items()}
        # Adam turns gradients near zero, where rounding decides the sign, into whole steps; their share is small.
        assert max(moved.values()) < 0.1 * recipe.optimizer.learning_rate, (way, max(moved, key=moved.get))


@pytest.mark.parametrize("way", [way for way in WAYS if "micro" not in way])
def test_loads_counted_in_shards_are_those_of_one_process(way, runs):
    """To the last token, for every modality, although some processes saw no picture and others no sound."""
    single, sharded = figures(runs / "single")[0], figures(runs / way)[0]
    names = [name for name in single if name.startswith("balance/")]
    assert {name.split("/")[1] for name in names} == {"text", "image", "audio"}
    assert {name: sharded[name] for name in names} == {name: single[name] for name in names}


def test_what_does_not_fit_the_number_of_processes_is_refused(monkeypatch):
    with pytest.raises(InputError, match="there is one process; start it with torchrun"):
        parallel.start(ParallelSettings(experts=2))
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(InputError, match="3 processes cannot share experts in groups of 2"):
        parallel.start(ParallelSettings(experts=2))


def test_clipping_scales_all_gradients_together():
    parameters = [torch.nn.Parameter(torch.zeros(n)) for n in (3, 4)]
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter) * 2
    assert World().clip(parameters, 1.0) == pytest.approx(2 * 7**0.5)
    assert World().clip(parameters, 0.0) == pytest.approx(1.0)
    assert isinstance(Recipe().parallel, ParallelSettings)


@pytest.mark.slow
def test_four_processes_shard_experts_both_ways(runs):
    """Two groups of two: each pair shares the experts, FSDP shards them once more over the pairs."""
    sets = ["parallel.mode=fsdp", "parallel.experts=2"]
    launch([{"recipe": str(runs / "recipe.toml"), "sets": sets, "output": str(runs / "four")}], 4)
    assert_same(figures(runs / "four"), figures(runs / "single"))
