"""train/painter: requests in the product's words, pictures as it sees them; the very command runs, stops, goes on."""

import json
import math

import pytest
import torch
from PIL import Image as Pillow
from torch.testing import assert_close

from ming_omni.checkpoint.detect import NANO
from ming_omni.config import tiny_painter as tiny_config
from ming_omni.data.bank import stock
from ming_omni.data.judges import Judge
from ming_omni.data.render import render
from ming_omni.data.splits import generator
from ming_omni.inputs.messages import Image, Message, Text
from ming_omni.model.painter import Guidance, Painter
from ming_omni.model.painting import PROMPT_KEYS, read_reference, read_states
from ming_omni.paint.masks import COLORS as MASK_COLORS
from ming_omni.paint.segment import read as read_masks
from ming_omni.paint.segment import request as ask
from ming_omni.train import examples
from ming_omni.train.painter import bench, checks, requests, run, states
from ming_omni.train.painter.learner import DISTILLING, Learner, spread
from ming_omni.train.painter.network import Network
from ming_omni.train.painter.pictures import covered
from ming_omni.train.painter.requests import COLORS, OPACITY, stocks
from ming_omni.train.painter.settings import RequestSettings, read
from ming_omni.train.parallel import World
from ming_omni.train.senses.bench import load_model
from ming_omni.train.senses.pictures import Labels
from tests.data_bank import tiny_bank, write_tiny_bank
from tests.painters import open_up, tiny_painter


@pytest.fixture(scope="module")
def sets(tmp_path_factory) -> list[str]:
    file = write_tiny_bank(tmp_path_factory.mktemp("bank") / "sprites.safetensors")
    return [
        "model=tiny", "painter=tiny", "vae=", "device=cpu", "compile=false", f"requests.bank={file}",
        "requests.paint={plain=2, lettered=1}", "requests.edit={plain=2, lettered=1}", "requests.paint_tokens=320",
        "requests.edit_tokens=520", "workers={paint=0, edit=0}", "learn.noises=2", "distil.substeps=2",
        "distil.noises=1", "look_cases=1", "log_every=1", "seconds=6", "requests.edits={recolour=1, referring=1}",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def tiny_bench(sets) -> bench.Bench:
    return bench.build(read("nano_painter", sets), World())


def numbers(index: int):
    return generator(0, "requests", index)


def test_masks_are_asked_for_in_the_products_words_and_colours():
    chosen = stock(tiny_bank(), "train")
    assert COLORS == MASK_COLORS and OPACITY == examples.MASK_OPACITY
    for index in range(12):
        asked = requests.referring(numbers(index), chosen, False)
        what, _, color = asked.prompt.removeprefix("please segment the ").removesuffix(" mask").partition(" using ")
        assert asked.prompt == ask(what, None, False, color)[0]
        assert {c for _, c in asked.covers} == {color}

        asked = requests.classes(numbers(index), chosen, False)
        names = [part.split(" using ")[0] for part in asked.prompt.removeprefix("please segment the ").split(", the ")]
        assert asked.prompt == ask(None, names, False, "red")[0]
        things = asked.scenes[0].things
        assert {(things[i].concept, color) for i, color in asked.covers} == set(zip(names, COLORS, strict=False))

        asked = requests.each(numbers(index), chosen, False)
        what = asked.prompt.removeprefix("please segment each ").partition(" using")[0]
        assert asked.prompt == ask(what, None, True, "red")[0]
        places = [asked.scenes[0].things[i].x for i, _ in asked.covers]
        assert places == sorted(places) and len({color for _, color in asked.covers}) == len(places)


def test_a_mask_that_is_painted_over_is_read_back_where_it_was_painted():
    asked = [requests.classes(numbers(i), stock(tiny_bank(), "train"), False) for i in range(6)]
    drawn = render(tiny_bank(), [request.scenes[0] for request in asked], 64)
    after, overlaps = covered(drawn, [request.covers for request in asked]), []
    for row, request in enumerate(asked):
        before, made = (p[row].permute(1, 2, 0).numpy() for p in (drawn.pictures, after))
        colors = list(dict.fromkeys(color for _, color in request.covers))
        found = read_masks(before, made, [COLORS[color] for color in colors], 0.12)
        for color, inside in zip(colors, found, strict=True):
            truth = drawn.mask(row, [i for i, c in request.covers if c == color]).numpy()
            overlaps.append((inside & truth).sum() / (inside | truth).sum())
    assert sum(overlaps) / len(overlaps) > 0.8


def test_prompts_tell_what_is_in_the_picture_in_their_order():
    own, _ = stocks(tiny_bank(), "train")
    for index in range(40):
        asked = requests.paint(numbers(index), own, RequestSettings(chinese=0.0), False)
        at = [asked.prompt.find(name if count == 1 else name[:3]) for name, _, count in asked.told]
        assert at == sorted(at) and all(place >= 0 for place in at)
        assert sum(count for *_, count in asked.told) == len(asked.scenes[0].things)


def test_looking_takes_words_of_its_split_and_drawings_that_can_be_painted():
    train, dev = stocks(tiny_bank(), "train")[0], stocks(tiny_bank(), "dev")[0]
    assert dev.sprites == train.sprites and dev.split == "dev"
    assert not set(dev.latin_fonts) & set(train.latin_fonts)


def test_batches_depend_on_their_number_alone_and_letters_stand_last(sets):
    planner = bench.make_planner(read("nano_painter", sets), "edit")
    first, second = planner.batch(3), planner.batch(3)
    assert first.scenes == second.scenes and (first.ids == second.ids).all()
    assert planner.batch(4).scenes != first.scenes
    assert [bool(planner.text(request)) for request in first.requests] == [False, False, True]
    assert len(first.letters) == 1 and first.cells.shape == (3, 4, 4, 4)


def test_every_condition_is_the_products_own(tiny_bench):
    found = checks.check(tiny_bench)
    assert {"check/states/paint", "check/states/edit", "check/condition/edit", "check/step/edit"} <= found.keys()


def test_a_prompt_that_is_told_otherwise_is_noticed(tiny_bench, monkeypatch):
    broken = bench.make_planner(tiny_bench.settings, "paint")
    broken.writer.after = broken.writer.after + " "
    monkeypatch.setattr(checks, "make_planner", lambda *_: broken)
    with pytest.raises(AssertionError, match="other ids"):
        checks.check(tiny_bench)


@pytest.mark.parametrize("is_edit", [False, True])
def test_the_network_is_the_models_own_and_teaches_the_same(is_edit):
    painter = tiny_painter()
    latents, reference = torch.randn(2, 3, 16, 8, 8)
    context, pooled = painter.context(torch.randn(3, 5, 64))
    given = latents, torch.tensor([10.0, 400.0, 990.0]), context.detach(), pooled.detach(), reference
    given = given if is_edit else (*given[:4], None)
    found, middle = Network()(painter.dit, *given)
    assert_close(found, painter.dit(*given), rtol=1e-5, atol=1e-5)
    assert middle.shape == (3, 16, painter.config.dit.hidden_size)
    gradients = []
    for made in (found, painter.dit(*given)):
        painter.zero_grad()
        made.square().mean().backward()
        gradients.append(painter.dit.layers[0].picture.attention.qkv.weight.grad.clone())
    assert_close(*gradients, rtol=1e-4, atol=1e-6)


def test_noise_levels_are_spread_as_they_are_drawn():
    torch.manual_seed(0)
    found = spread(1000, torch.device("cpu")).sort().values
    expected = (2**0.5 * torch.erfinv(2 * (torch.arange(1000) + 0.5) / 1000 - 1)).sigmoid()
    assert_close(found, expected, atol=0.02, rtol=0)


def new_learner(sets: list[str], *more: str) -> tuple[bench.Bench, Learner]:
    made = bench.build(read("nano_painter", [*sets, *more]), World())
    made.start_feed(1)
    return made, made.learner


def test_losses_fall_and_the_queries_learn_through_the_thinker(sets):
    made, learner = new_learner(sets, "learn.warmup_steps=1", "learn.painter=4e-3", "learn.average=0.8")
    before = learner.painter.queries["4x4"].detach().clone()
    frozen = learner.model.thinker.layers[0].attention.qkv.weight.clone()
    batches, optimizer = made.read(), run.make_optimizer(learner)
    losses = []
    for number in range(7):
        torch.manual_seed(0)
        found = run.step(made, optimizer, batches, number)
        losses.append(sum(float(v) for name, v in found.items() if name.startswith(("paint", "edit"))))
    assert losses[-1] < 0.8 * losses[0]
    assert not torch.equal(learner.painter.queries["4x4"], before)
    assert torch.equal(learner.model.thinker.layers[0].attention.qkv.weight, frozen)
    with learner.averaged() as painter:
        assert torch.equal(painter.proj_in.weight, learner.average["proj_in.weight"])
    assert not torch.equal(learner.painter.proj_in.weight, learner.average["proj_in.weight"])


def test_a_student_begins_as_its_teacher_and_has_guidance_to_learn(sets):
    losses = {}
    for guidance in (1.0, 3.0):
        made, learner = new_learner(
            sets, "distil.substeps=1", f"distil.guidance={guidance}", f"distil.edit_guidance={guidance}"
        )
        open_up(learner.painter.dit)
        learner.average = {name: p.detach().clone() for name, p in learner.names().items()}
        learner.begin_distilling()
        assert learner.groups.keys() == {"student"}
        torch.manual_seed(0)
        with torch.no_grad():
            losses[guidance] = sum(float(v) for v in learner(made.read()).values())
    assert losses[1.0] < 1e-8 < 1e-5 < losses[3.0]


def test_the_command_runs_both_phases_stops_goes_on_and_travels(sets, tmp_path, capsys):
    output, pieces = tmp_path / "run", tmp_path / "pieces"
    chosen = [part for name in [*sets, "seconds=1.2", "distil.share=0.5"] for part in ("--set", name)]
    Judge(sorted(tiny_bank().concepts), width=0.1).save(tmp_path / "judge.safetensors")
    chosen += ["--set", f"judge={tmp_path}/judge.safetensors"]
    arguments = ["nano_painter", "--output", str(output), "--pieces", str(pieces), *chosen]
    run.main([*arguments, "--for", "21.5"])  # little more than is kept back for the end
    first = json.loads(capsys.readouterr().out.splitlines()[-1])
    run.main(arguments)
    facts = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert facts["is_over"] and facts["calls"] == 2 and facts["step"] > first["step"]
    assert facts["phase"] == DISTILLING
    assert {"sheet.png", "log.jsonl", "trained-0.safetensors"} <= {path.name for path in pieces.iterdir()}
    stored, told = states.read(sorted(pieces.glob("trained-*.safetensors")))
    assert told["step"] == facts["step"]
    painter = Painter(tiny_config())
    own = {name.removeprefix("painter."): t for name, t in stored.items() if name.startswith("painter.")}
    missing, unknown = painter.load_state_dict(own, strict=False)
    assert not unknown and all(name.startswith("vae.") for name in missing)
    rows = [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]
    assert [row for row in rows if row.get("event") == "checked"] and any(
        "look/edit" in row and "look/right" in row for row in rows
    )

    elsewhere = bench.build(read("nano_painter", sets), World()).learner
    assert states.start_from(sorted(pieces.glob("trained-*.safetensors")), elsewhere)["phase"] == DISTILLING
    assert_close(elsewhere.average["proj_in.weight"], stored["painter.proj_in.weight"].float())
    assert elsewhere.phase == DISTILLING and elsewhere.teacher is not None


def test_cells_are_labelled_for_what_is_to_be_painted(sets):
    planner = bench.make_planner(read("nano_painter", sets), "paint")
    batch, labels = planner.batch(0), Labels(tiny_bank())
    for request, cells in zip(batch.requests, batch.cells, strict=True):
        names = {labels.things[thing.concept] for thing in request.scenes[-1].things}
        assert names <= set(cells[..., 0].flatten().tolist()) <= names | {0}


def test_a_model_is_a_folder_or_the_packages_own(sets, tmp_path):
    assert bench.source(read("nano_painter", sets)) == "tiny"
    assert bench.source(read("nano_painter", [*sets, f"model={tmp_path}"])) == str(tmp_path)
    assert bench.source(read("nano_painter", [*sets, "model=nano"])) == str(NANO)


@pytest.mark.slow
def test_what_the_run_teaches_the_product_paints(sets, monkeypatch):
    """A few requests by heart: the product's own prompts, steps and pictures to edit lead to the very latents."""

    def spoken(name: str):
        model, processor = load_model(name)
        torch.manual_seed(1)
        for weight in model.thinker.parameters():  # a thinker that has learned nothing, yet tells prompts apart
            if weight.dim() > 1:
                torch.nn.init.normal_(weight, std=0.3)
        return model, processor

    monkeypatch.setattr(bench, "load_model", spoken)
    made, learner = new_learner(
        sets, "requests.paint={plain=2, lettered=0}", "requests.edit={plain=1, lettered=0}", "learn.noises=8",
        "learn.painter=3e-3", "learn.average=0.97", "requests.chinese=0",
    )  # fmt: skip
    batches, optimizer, painter, num_steps = made.read(), run.make_optimizer(learner), learner.painter, 500
    config = painter.config.vae
    latents = torch.cat([batch.pictures.latents for batch in batches])
    config.shift_factor += float(latents.mean()) / config.scaling_factor
    config.scaling_factor /= float(latents.std())
    made.start_feed(1)
    batches = made.read()
    for number in range(num_steps):
        for group in optimizer.param_groups:
            group["lr"] = group["rate"] * 0.5 * (1 + math.cos(math.pi * number / num_steps))
        run.step(made, optimizer, batches, number)
    for batch in batches:
        planner = bench.make_planner(made.settings, batch.kind)
        for row, asked in enumerate(planner.batch(1_000_000).requests):
            content, reference = [Text(asked.prompt)], None
            if batch.kind == "edit":
                content.insert(0, Image(Pillow.fromarray(batch.pictures.seen[row].permute(1, 2, 0).numpy())))
            inputs = made.processor.prepare([Message("user", content)], painting=True)
            with learner.averaged(), torch.inference_mode():
                if batch.kind == "edit":
                    reference = read_reference(painter, inputs["image_gen_pixel_values_reference"], (64, 64))
                states_read = read_states(made.model, {key: inputs[key] for key in PROMPT_KEYS if key in inputs})
                *_, last = painter.sample(
                    painter.condition(states_read), size=(64, 64), seeds=[5], num_steps=8,
                    guidance=Guidance(1.0, 1.0), reference=reference,
                )  # fmt: skip
            wanted = batch.pictures.latents[row]
            assert (last.latents[0] - wanted).norm() < 0.25 * wanted.norm()
