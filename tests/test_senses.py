"""train/senses: the feed writes what the processor writes; a run checks, stops, goes on, travels, and is one in two."""

import copy
import json
import os
import socket
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from ming_omni.config import tiny
from ming_omni.data.eyes import Eyes
from ming_omni.data.sprites import write_bank
from ming_omni.data.turns import turns
from ming_omni.model.moe import MoE
from ming_omni.model.positions import positions
from ming_omni.model.thinker import Thinker
from ming_omni.packed import pack
from ming_omni.train import balance
from ming_omni.train.parallel import World
from ming_omni.train.senses import balancing, bench, checks, join, plots, run, sights, sounds
from ming_omni.train.senses.cells import NOTHING, Words
from ming_omni.train.senses.learner import on_device
from ming_omni.train.senses.network import Network, Rows, one_hot, shipped
from ming_omni.train.senses.rows import IGNORE, collate
from tests.data_bank import drawing
from tests.senses import make_sets, settings


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    return make_sets(tmp_path_factory.mktemp("sets"))


@pytest.fixture(scope="module")
def pictures(sets):
    return bench.make_pictures(settings(sets), "pictures")


def rows_of(batch) -> Rows:
    return on_device(batch, torch.device("cpu"), None, 0).rows


def test_every_turn_stands_where_it_would_stand_alone(pictures):
    writer = pictures.writer
    asked = [("What is it?", "a dog"), ("图里有什么？", "狗"), ("How many?", "two")]
    row = writer.with_turns(pictures.beginning, [writer.turn(*turn) for turn in asked], 10_000)
    for number, turn in enumerate(asked, 1):
        alone = writer.with_turns(pictures.beginning, [writer.turn(*turn)], 10_000)
        kept = [i for i, segment in enumerate(row.segment) if segment in (0, number)]
        assert [row.ids[i] for i in kept] == alone.ids
        assert (row.places[:, kept] == alone.places).all()
        grid = torch.tensor([pictures.grid])
        placed, _ = positions(writer.config, torch.tensor([alone.ids]), None, grid)
        assert (placed[:, 0].numpy() == alone.places).all()


def test_a_turn_is_answered_as_if_it_had_been_asked_alone(pictures):
    torch.manual_seed(0)
    writer, network = pictures.writer, Network(Thinker(pictures.writer.config), 4)
    said = [writer.turn("What is it?", "a dog"), writer.turn("How many are there?", "two")]
    together_row = writer.with_turns(pictures.beginning, said, 10_000)
    media = torch.randn(1, max(together_row.source) + 1, writer.config.hidden_size)
    both = network((rows_of(collate("pictures", [together_row], len(together_row) + 5, 0, 1)), media)).hidden
    for number, turn in enumerate(said, 1):
        alone_row = writer.with_turns(pictures.beginning, [turn], 10_000)
        alone = network((rows_of(collate("pictures", [alone_row], len(alone_row), 0, 1)), media)).hidden
        kept = [i for i, segment in enumerate(together_row.segment) if segment in (0, number)]
        assert_close(both[kept], alone, atol=1e-5, rtol=1e-4)


def test_kinds_read_together_are_read_as_if_alone(pictures):
    torch.manual_seed(0)
    writer, network = pictures.writer, Network(Thinker(pictures.writer.config), 4)
    row = writer.with_turns(pictures.beginning, [writer.turn("What is it?", "a dog")], 10_000)
    seen = rows_of(collate("pictures", [row], len(row) + 3, 0, 1)), torch.randn(1, 200, writer.config.hidden_size)
    chats = [writer.chat("Hello?", "Yes."), writer.chat("And?", "No, thank you.")]
    said = rows_of(collate("texts", chats, 400, 0, 2)), None
    both = network(seen, said)
    assert_close(both.hidden[: len(row) + 3], network(seen).hidden, atol=1e-5, rtol=1e-4)
    assert_close(both.hidden[len(row) + 3 :], network(said).hidden, atol=1e-5, rtol=1e-4)


def test_targets_are_the_answers_and_the_mark_that_ends_them(pictures):
    writer = pictures.writer
    ids, targets = writer.turn("What?", "a dog")
    learned = [target for target in targets if target != IGNORE]
    assert writer.tokenizer.decode(learned[:-1]) == "a dog" and learned[-1] == writer.end_id
    assert targets[len(ids) - len(learned)] == learned[0], "the first is asked of the last token of the question"


def test_turns_about_a_scene_agree_with_it_and_do_not_favour_an_answer(pictures):
    counts = Counter()
    for index in range(300):
        (scene,), _ = pictures.example(index)
        generator = checks.generator(0, "turns", index)
        names = [thing.concept for thing in scene.things]
        for question, answer in turns(generator, pictures.stock, scene, False):
            if question.startswith("Is there"):
                counts[answer] += 1
                assert (answer == "yes") == any(f" {name} in the" in question for name in names)
            if question == "What does it say?":
                assert sorted(answer.split(" ")) == sorted(line.text for line in scene.words)
    assert abs(counts["yes"] - counts["no"]) < 0.2 * counts.total()


def test_lists_thin_their_own_name_and_mislead_where_none_is_said(sets):
    chosen = settings(sets)
    _, clips = sounds.load(chosen_folders(chosen), folder_of(chosen) / "cache", 0, "train")
    maker = bench.make_sounds(chosen, folder_of(chosen) / "cache")
    assert maker.clips == clips
    named = next(clip for clip in clips if clip.name)
    plain = next(clip for clip in clips if not clip.name)
    numbers = checks.generator(0, "lists")
    own = [maker.listed(named, numbers) for _ in range(200)]
    others = [maker.listed(plain, numbers) for _ in range(200)]
    assert any(not row for row in own) and any("Zanvi" in row for row in own)
    assert any(row and "Zanvi" not in row for row in own), "some lists lack what is said"
    assert any(others) and not all(others)
    assert {clip.split for clip in clips if hasattr(clip, "split")} <= {"train"}
    assert [clip.text for clip in clips if clip.group == "real mandarin"] == [f"{i}。" for i in range(6)]


def chosen_folders(chosen):
    from pathlib import Path

    return [Path(folder) for folder in chosen.speech.folders]


def folder_of(chosen):
    return chosen_folders(chosen)[0].parent


def test_balance_from_products_is_balance_from_sums():
    torch.manual_seed(0)
    thinker = Thinker(tiny().thinker)
    mixtures = [layer.mlp for layer in thinker.layers if isinstance(layer.mlp, MoE)]
    modality = torch.tensor([0, 0, 1, 2, 2, 1, 0, -1])
    routings = [
        moe.route(torch.randn(8, 64), modality.clamp(min=0), modality >= 0) for moe in mixtures
    ]  # (layers) over the same tokens
    chosen = [torch.zeros_like(r.logits).scatter(1, r.chosen, 1.0) for r in routings]
    strengths = balance.Strengths(0.3, 0.2, 0.1)
    auxiliary, z, loads = balancing.costs([r.logits for r in routings], chosen, one_hot(modality), strengths)
    assert_close(auxiliary, balance.auxiliary_loss(routings, strengths))
    assert_close(z, balance.z_loss(routings, 7))
    assert_close(loads, torch.stack([routing.load for routing in routings]))
    biases = balancing.Biases(thinker)
    wanted = biases.values.clone()
    biases.move(loads, balance.Strengths(0.1, 0.1, 0.1))
    for layer, of_layer in enumerate(loads):
        for m, load in enumerate(of_layer):
            balance.move_bias(wanted[layer, m], load, 0.1)
    assert_close(biases.values, wanted)
    assert_close(mixtures[1].routers["audio"].bias.data, wanted[1, 2])


@pytest.mark.parametrize("width", [64, 128])
def test_experts_learn_as_they_ship_and_their_gradient_is_their_own(width):
    torch.manual_seed(0)
    weight = torch.randn(3, 5, width, requires_grad=True)
    assert_close(shipped(weight), pack(weight.detach(), 64).float())
    shipped(weight).sum().backward()
    assert (weight.grad == 1).all()


def test_the_command_checks_trains_stops_goes_on_and_travels(sets, tmp_path, capsys):
    pieces, output = tmp_path / "pieces", tmp_path / "run"
    arguments = ["nano_understanding", "--output", str(output), "--pieces", str(pieces)]
    arguments += [word for pair in (("--set", name) for name in sets) for word in pair]
    run.main(arguments)
    first = json.loads(capsys.readouterr().out.splitlines()[-1])
    run.main([*arguments, "--set", "seconds=100", "--for", "0"])  # no time: what was saved is there again
    again = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert first["step"] >= 1 and again["step"] == first["step"]
    assert again["seconds"] == pytest.approx(first["seconds"], abs=0.05)
    run.main([*arguments, "--set", f"seconds={first['seconds'] + 0.2}"])
    second = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert second["step"] > first["step"] and second["is_over"]

    rows = [json.loads(line) for line in (pieces / "log.jsonl").read_text().splitlines()]
    steps = [row for row in rows if "gradient_norm" in row]
    assert len(steps) == second["step"] and not any(row["skipped"] for row in steps)
    assert {"pictures", "speech", "films", "speech/letters", "speech/languages", "pictures/thing"} <= steps[0].keys()
    assert any("texts/likeness" in row for row in steps)
    assert {"look/perplexity", "look/how_many", "look/film order", "look/English/errors"} <= rows[-1].keys()
    plots.main([str(pieces / "log.jsonl"), "--output", str(tmp_path / "curves.png")])
    assert (tmp_path / "curves.png").stat().st_size > 1000

    files = sorted(map(str, pieces.glob("trained-*.safetensors")))
    join.main([*files, "--output", str(tmp_path / "trained.safetensors")])
    trained = load_file(tmp_path / "trained.safetensors")
    assert trained["thinker.layers.1.mlp.experts.down"].dtype == torch.float32
    assert trained["thinker.layers.0.attention.qkv.lora_b"].any(), "attention has learned"
    capsys.readouterr()
    elsewhere = [*arguments, "--output", str(tmp_path / "elsewhere"), "--start-from", *files, "--for", "0"]
    run.main(elsewhere)
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["step"] == second["step"]
    moved = load_file(pieces / "trained-0.safetensors")
    assert_close(moved["thinker.layers.1.mlp.routers.audio.bias"], trained["thinker.layers.1.mlp.routers.audio.bias"])


def test_a_gradient_that_is_not_finite_changes_nothing(sets, tmp_path):
    chosen = settings([*sets, "always=['speech']", "in_turn=[]"])
    table = bench.build(chosen, tmp_path, World())
    optimizer = run.make_optimizer(table)
    table.start_feed(1)
    batch = on_device(table.feed.next("speech"), table.device, table.store, table.num_mel_bins)
    before = {name: value.clone() for name, value in table.learner.named_parameters()}
    batch.media["features"][0, 0, 0] = float("nan")
    losses = run.step(table, optimizer, [batch])
    assert losses["skipped"] == 1
    for name, value in table.learner.named_parameters():
        if not name.endswith(".bias") or ".routers." not in name:
            assert_close(value, before[name], rtol=0, atol=0)


def test_two_processes_learn_as_one(sets, tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", port]
    command += ["-m", "ming_omni.train.senses.run", "nano_understanding", "--output", str(tmp_path / "run")]
    command += ["--pieces", str(tmp_path / "pieces")]
    few = [*sets, "always=['speech']", "in_turn=['texts']"]
    command += [word for pair in (("--set", name) for name in few) for word in pair]
    ended = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert ended.returncode == 0, ended.stderr[-2000:]
    facts = [json.loads(line) for line in ended.stdout.splitlines() if line.startswith("{")]
    assert len(facts) == 2 and facts[0]["step"] == facts[1]["step"] >= 1
    assert list((tmp_path / "pieces").glob("trained-*.safetensors"))


def test_looks_ask_as_the_product_asks(sets):
    chosen = settings(sets)
    cases = bench.Looks(chosen, folder_of(chosen) / "cache").batch(0)
    kinds = Counter(case.kind for case in cases)
    assert kinds["how_many"] == kinds["film order"] == kinds["English"] == kinds["川渝"] == 1
    spoken = next(case for case in cases if case.kind == "川渝")
    assert spoken.answer.startswith("川渝\t") and "audio_feats" in spoken.inputs


def test_unnamed_drawings_are_shown_alone_and_nobody_says_what_they_are(sets, tmp_path):
    drawings = {(f"thing {i}", "noto"): drawing(i, 0) for i in range(9)}
    write_bank(tmp_path / "unnamed.safetensors", drawings, {}, {}, {})
    chosen = settings([*sets, f"sights.unnamed={tmp_path}/unnamed.safetensors", "sights.unnamed_share=0.5"])
    maker = sights.make_sights(chosen, 9)
    bank, first = maker.stock.bank, len(maker.stock.bank.keys) - 9
    assert bank.concepts.keys().isdisjoint(name for name, _ in bank.keys[first:])
    assert max(i for own in maker.stock.sprites.values() for i in own) < first
    maker.count = 32
    scenes, labels = maker.batch(0)
    unnamed = [bool(scene.things) and all(thing.sprite >= first for thing in scene.things) for scene in scenes]
    assert 8 < sum(unnamed) < 24
    assert [(own == NOTHING).all() for own in labels] == unnamed


def test_each_clip_is_labelled_with_what_stands_before_its_transcript(sets, tmp_path):
    maker = bench.make_sounds(settings([*sets, "tokens.speech=4096"]), tmp_path)
    batch = maker.batch(0)
    said = maker.writer.tokenizer.decode(batch.answers.tolist())
    spoken = Counter(sounds.SPOKEN[i] for i in batch.media["spoken"])
    assert set(spoken) == {"English", "Chinese", "川渝"}
    assert {name: said.count(f"{name}\t") for name in spoken} == spoken


def test_the_encoder_learns_to_name_cells_before_the_run_and_the_run_starts_from_it(sets, tmp_path, capsys):
    save_file(Eyes().state_dict(), tmp_path / "eyes.safetensors")
    small = ["sights.batch=2", "sights.fresh=1", "sights.pool=1", "sights.workers=0", "sights.fresh_every=1000"]
    small += ["sights.look_seconds=1", "sights.rate=3e-3", "learn.warmup_steps=1", "pictures.varied=false"]
    small += [f"sights.photographs={tmp_path}/eyes.safetensors", "sights.alike=3"]
    sights.train(settings([*sets, *small]), tmp_path / "first.safetensors", 14)
    first, *_, last = [json.loads(line) for line in capsys.readouterr().out.splitlines()][:-1]
    assert last["thing"] < first["thing"] and last["word/thing"] < first["word/thing"]
    assert 0 < last["photographs"] < 10, "untrained eyes see little that could be learned"
    sights.train(settings([*sets, *small]), tmp_path / "sights.safetensors", 0, [tmp_path / "first.safetensors"])
    first, second = (load_file(tmp_path / f"{name}.safetensors") for name in ("first", "sights"))
    assert all((first[name] == second[name]).all() for name in first)
    facts = run.train(settings(sets), tmp_path / "run", None, 30, [tmp_path / "sights.safetensors"])
    assert facts["step"] >= 1


def test_a_misread_answer_keeps_what_is_to_be_said_and_the_prompt(sets):
    own = settings([*sets, "speech.misread=0.0"])
    maker = bench.make_sounds(own, bench.Path(own.speech.folders[0]).parent / "cache")
    plain = maker.batch(0)
    spoilt = copy.deepcopy(plain)
    sounds.misread(spoilt, 1.0, np.random.default_rng(0))
    changed = np.flatnonzero(spoilt.ids.reshape(-1) != plain.ids.reshape(-1))
    assert len(changed) > 3 and set(changed) <= set(plain.asked + 1), "only what was said is misread, no prompt"
    assert (spoilt.answers == plain.answers).all()


def test_tokens_that_point_the_way_of_their_words_have_no_loss_left():
    torch.manual_seed(0)
    embedding = torch.randn(10, 64)
    names = {"thing": ["a", "b"], "colour": ["c", "d"], "letter": ["e", "f", "g"]}
    helper = Words(embedding, lambda text: [ord(text[-1]) - ord("a")], names)
    labels = torch.tensor([[[1, 0, 0, 0], [2, -1, 0, 0], [0, -1, 3, 3]]])
    right = torch.stack([helper.thing[0], helper.thing[1], helper.letter[2]])[None]
    wrong = torch.stack([helper.thing[1], helper.thing[0], helper.letter[0]])[None]
    low, high = helper.losses(right, labels), helper.losses(wrong, labels)
    assert low["colour"] == high["colour"] == 0, "nothing is dyed"
    assert all(low[name] < 0.05 and high[name] > 5 for name in ("thing", "left", "right"))
