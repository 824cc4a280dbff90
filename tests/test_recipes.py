"""train/recipe.py, parts.py: files and --set, names answered with the right ones, what learns and what does not."""

import pytest
import torch

from ming_omni.config import tiny
from ming_omni.errors import InputError
from ming_omni.model.omni import MingForConditionalGeneration
from ming_omni.train import parts
from ming_omni.train.optimizer import learning_rate, make_optimizer
from ming_omni.train.recipe import RECIPES, LearnSettings, ModelSettings, OptimizerSettings, Recipe, read
from ming_omni.train.senses.settings import read as read_senses

NAMES = sorted(path.stem for path in RECIPES.glob("*.toml"))


@pytest.fixture(scope="module")
def model() -> MingForConditionalGeneration:
    return parts.load(ModelSettings(painter=True, talker=True))[0]


@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_of_the_package_can_be_read_and_names_parts_of_the_model(name, model):
    recipe = read(name)
    assert recipe.name == name and recipe.about.startswith(name) and recipe.data
    parts.choose(model, recipe.learn)
    frozen = {n for n, p in model.named_parameters() if not p.requires_grad}
    if name in ("align", "painter", "talker", "image_vae", "sound_vae"):
        assert all(n in frozen for n, _ in model.named_parameters() if n.startswith("thinker."))
    if name in ("painter", "talker"):
        assert all(n in frozen for n, _ in model.named_parameters() if ".vae." in n)


def test_set_reaches_every_depth_and_keeps_types():
    recipe = read(
        "instruct",
        [
            "steps=7",
            "optimizer.learning_rate=2",
            "data.extra.folder=some/folder",
            "learn.parts=['vision']",
            "balance.auxiliary.audio=0.5",
            "output.save_model=false",
            "model.config.thinker.moe.num_experts=8",
            "seed=-3",
            "words.keep=0",
        ],
    )
    assert (recipe.steps, recipe.optimizer.learning_rate, recipe.learn.parts) == (7, 2.0, ["vision"])
    assert recipe.data["extra"].folder == "some/folder" and list(recipe.data) == ["answers", "speech", "extra"]
    assert (recipe.balance.auxiliary.audio, recipe.balance.auxiliary.text) == (0.5, 1e-4)
    assert recipe.output.save_model is False and recipe.model.config == {"thinker": {"moe": {"num_experts": 8}}}


WRONG = {
    "optimizer.learning_rat=1": "no setting optimizer.learning_rat; did you mean learning_rate? There are",
    "stepz=1": "no setting stepz; did you mean steps? There are name, about, seed, steps",
    "data.speech.folde=x": "no setting data.speech.folde; did you mean folder?",
    "xyzzy=1": "there is no setting xyzzy. There are name, about,",
    "steps=many": "steps is a whole number, not 'many'",
    "steps=true": "steps is a whole number, not True",
    "optimizer.schedule=wavy": "optimizer.schedule is one of constant, cosine, not 'wavy'",
    "balance.auxiliary=1": "balance.auxiliary is a table of text, image, audio, not 1",
    "model.painter=1": "model.painter is true or false, not 1",
    "steps.more=1": "steps is a single value, not a table",
    "steps": "--set takes name=value, not 'steps'",
    "steps=0": "steps is a number from 1, not 0",
    "data.speech.examples_per_step=-4": "data.speech.examples_per_step is a number from 1, not -4",
    "output.keep=0": "output.keep is a number from 1, not 0",
    "output.log_every=0": "output.log_every is a number from 1, not 0",
    "optimizer.learning_rate=-1": "optimizer.learning_rate is a number from 0, not -1.0",
    "losses.kl=nan": "losses.kl is a number from 0, not nan",
    "optimizer.betas=[0.9, inf]": "optimizer.betas is a number from 0, not inf",
}


@pytest.mark.parametrize("text", WRONG)
def test_a_wrong_setting_is_answered_with_the_right_ones(text):
    with pytest.raises(InputError) as error:
        read("instruct", [text])
    assert WRONG[text] in str(error.value)


def test_a_rate_called_experts_may_be_small_while_there_is_one_process_at_least_to_share_them():
    assert read_senses("nano_understanding", ["learn.experts=5e-4"]).learn.experts == 5e-4
    with pytest.raises(InputError, match=r"parallel\.experts is a number from 1"):
        read("joint", ["parallel.experts=0"])


def test_an_unknown_recipe_names_those_that_exist(tmp_path):
    with pytest.raises(InputError, match="neither a file nor a recipe; recipes are align, "):
        read("aline")
    (tmp_path / "broken.toml").write_text("steps = ")
    with pytest.raises(InputError, match="is not TOML"):
        read(tmp_path / "broken.toml")


def test_sizes_of_a_tiny_model_can_be_set_and_wrong_ones_are_named():
    config = parts.configure(tiny(), {"thinker": {"moe": {"num_experts": 32}, "num_hidden_layers": 2}})
    assert (config.thinker.moe.num_experts, config.thinker.num_hidden_layers) == (32, 2)
    assert config.thinker.moe.experts_per_token == tiny().thinker.moe.experts_per_token
    with pytest.raises(InputError, match=r"no setting model\.config\.thinker\.moe\.experts; there are .*num_experts"):
        parts.configure(tiny(), {"thinker": {"moe": {"experts": 2}}})
    with pytest.raises(InputError, match="only a model that is built here"):
        parts.load(ModelSettings(name="nano", config={"thinker": {}}))


def learning(model) -> list[str]:
    return [name for name, parameter in model.named_parameters() if parameter.requires_grad]


def test_names_choose_modules_parameters_and_exceptions(model):
    parts.choose(model, LearnSettings(parts=["thinker.layers.*.attention", "audio.projector", "!*.q_norm"]))
    names = learning(model)
    assert names and all(".attention." in name or name.startswith("audio.projector") for name in names)
    assert not any("q_norm" in name for name in names) and any("k_norm" in name for name in names)


def test_router_biases_never_learn_by_gradient(model):
    parts.choose(model, LearnSettings(parts=["*"]))
    assert not any(".routers." in name and name.endswith(".bias") for name in learning(model))
    assert any(name.endswith("routers.audio.bias") for name in parts.trained(model))


def test_a_part_that_does_not_exist_is_answered_with_near_ones(model):
    with pytest.raises(InputError, match=r"the model has no vision\.projecter; it has vision\.projector"):
        parts.choose(model, LearnSettings(parts=["vision.projecter"]))
    with pytest.raises(InputError, match="nothing learns"):
        parts.choose(model, LearnSettings())


def test_lora_learns_beside_whole_parts_and_leaves_the_layers_under_it():
    model = parts.load(ModelSettings())[0]
    settings = LearnSettings(lora=["thinker.layers.*.attention"], lora_rank=2, parts=["audio.projector"])
    assert parts.choose(model, settings) is not None
    names = learning(model)
    assert {name.split(".")[0] for name in names} == {"thinker", "audio"}
    assert all(".lora_" in name for name in names if name.startswith("thinker"))
    assert sum(p.numel() for n, p in model.named_parameters() if ".lora_" in n and n in names) < 20_000


def test_the_rate_warms_up_from_where_this_optimiser_began_and_follows_the_schedule():
    recipe = Recipe(steps=100, optimizer=OptimizerSettings(learning_rate=1.0, warmup_steps=10))
    assert learning_rate(recipe, 0, 0) == pytest.approx(0.1)
    assert learning_rate(recipe, 50, 0) == pytest.approx(0.5)
    assert learning_rate(recipe, 50, 50) == pytest.approx(0.05)
    assert learning_rate(recipe, 99, 0) < 0.001


def test_vectors_do_not_decay():
    layer = torch.nn.Linear(2, 2)
    optimizer = make_optimizer(list(layer.parameters()), OptimizerSettings(weight_decay=0.5))
    assert {group["params"][0].dim(): group["weight_decay"] for group in optimizer.param_groups} == {2: 0.5, 1: 0.0}
