"""The run that teaches nano's talker, at tiny on the CPU: script, store, rows, losses, the command itself."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from ming_omni.config import TalkerConfig
from ming_omni.data.speech import Clip, voice_split
from ming_omni.data.splits import generator
from ming_omni.errors import InputError
from ming_omni.model.talker import Talker
from ming_omni.speech.reading import Reader
from ming_omni.train import timed
from ming_omni.train.talker import pieces, run, speak, store
from ming_omni.train.talker.learner import Learner, on_device
from ming_omni.train.talker.rows import END, Rows
from ming_omni.train.talker.script import cast, read_script, script, write_script
from ming_omni.train.talker.settings import RowSettings, read

VOICES = ("af_heart", "af_bella", "am_adam", "am_puck", "bf_emma", "bf_isabella", "zf_xiaobei", "zm_yunxi", "af_sky")
READER = Reader({"one": "wˈʌn", "two": "tˈu", "red": "ɹˈɛd", "boat": "bˈOt"})
SHAPES = [[40, 32], [80, 64]]
SMALL = [
    "model=tiny", "device=cpu", "workers=0", "seconds=1.2", "vae=", "log_every=1", "rows.patches=128",
    f"rows.shapes={SHAPES}", "learn.warmup_steps=2", "distill.patches=16", "look_rows=2", "heard_rows=1",
]  # fmt: skip
HERE = Path(__file__).parent.parent


def sentence(i: int, voice: str, split: str = "train", accent: str = "") -> Clip:
    is_chinese = voice[0] == "z"
    text = f"{'一二三四五六'[i % 6]}条船。" if is_chinese else f"{('one', 'two')[i % 2]} red boat zorb"
    phonemes = "ab"[i % 2] * (3 + i % 5)
    return Clip(text, text, phonemes, {voice: 1.0}, 1.0, "zh" if is_chinese else "en", "x", [], "", accent, split)


@pytest.fixture(scope="module")
def lines() -> list:
    names = [name for name in VOICES if voice_split(name) == "train"]
    clips = [sentence(i, names[i % len(names)]) for i in range(48)]
    clips += [sentence(i, "af_sky", "dev") for i in range(6)] + [sentence(0, "zf_xiaobei", accent="sichuan")]
    return list(script(clips, READER, VOICES, 4, seed=0))


class Whistler:
    """A teacher without a network: a tone for each symbol, lower for a than for b, a tenth of a second long."""

    device = torch.device("cpu")
    voices = {name: torch.full((3, store.VOICE_SIZE), float(i)) for i, name in enumerate(VOICES)}

    def speak_aligned(self, phonemes, mixtures, speeds):
        found = []
        for row in phonemes:
            symbols = torch.tensor([0, 0, *(1 if letter == "a" else 2 for letter in row), 0, 0, 0])
            symbols = symbols.repeat_interleave(4)
            hz = torch.where(symbols == 1, 200.0, 1000.0).repeat_interleave(600)
            is_heard = (symbols > 0).repeat_interleave(600)
            found.append((0.3 * (2 * torch.pi * hz / 24_000).cumsum(0).sin() * is_heard, symbols))
        return found


@pytest.fixture(scope="module")
def folder(lines, tmp_path_factory) -> Path:
    """A store in four parts."""
    folder = tmp_path_factory.mktemp("store")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(speak, "LINES_PER_PART", 14)
        speak.speak_script(lines, Whistler(), folder, 0, 1)
    return folder


@pytest.fixture(scope="module")
def talker() -> Talker:
    torch.manual_seed(0)
    config = TalkerConfig(steps=4, guidance=0.0, patch_frames=2)
    config.backbone.vocab_size = 320
    return Talker(config).eval()


@pytest.fixture(scope="module")
def table(folder, talker) -> list:
    return [clip for _, _, clip in store.clips(store.parts(folder), "train", patch_samples(talker))]


@pytest.fixture(scope="module")
def kept(folder, talker) -> store.Store:
    return store.build(store.parts(folder), "train", talker.vae, talker.config)


def patch_samples(talker: Talker) -> int:
    return talker.config.patch_frames * talker.config.vae.hop_samples


def settings(*sets: str):
    return read("nano_talker", [*SMALL, *sets])


# Script.


def test_a_speaker_says_several_sentences_in_one_voice_at_one_pace(lines):
    speakers = {}
    for line in lines:
        speakers.setdefault(line.speaker, []).append(line)
    assert all(len({(str(line.voices), line.speed, line.split) for line in own}) == 1 for own in
               speakers.values())  # fmt: skip
    sizes = [len(own) for own in speakers.values()]
    assert max(sizes) == 4 and sum(size == 4 for size in sizes) >= 10
    assert len(lines) == 54  # the accented one is left out


def test_voices_stay_in_their_split_and_a_few_speakers_say_both_languages(lines):
    for line in lines:
        assert {voice_split(name) for name in line.voices} == {line.split}
    crossed = [line for line in lines if (max(line.voices, key=line.voices.get)[0] == "z") != (line.language == "zh")]
    assert {line.language for line in crossed} == {"en", "zh"}
    for line in crossed:  # who speaks another language also speaks their own
        assert {other.language for other in lines if other.speaker == line.speaker} == {"en", "zh"}
    assert len(crossed) < len(lines) / 3
    assert [line.split for line in lines[:6]] == ["dev"] * 6  # what is only looked at is spoken first


def test_a_cast_person_is_whole_and_mostly_the_first_voice_or_near_it():
    found = [cast(generator(0, "test", i), VOICES[:4], VOICES[4:6]) for i in range(300)]
    assert all(sum(shares.values()) == pytest.approx(1, abs=0.03) for shares in found)
    assert all(sum(s for n, s in shares.items() if n in VOICES[:4]) >= 0.6 for shares in found)
    assert {len(shares) for shares in found} == {1, 2, 3, 4}
    assert any(min(shares.values()) < 0 for shares in found)
    assert len({str(shares) for shares in found}) > 200


def test_a_line_is_ready_to_be_read_and_ends_with_a_mark(lines):
    line = next(line for line in lines if line.text.startswith("one"))
    assert [i for unit in line.sounds for i in unit] == READER(line.text + ".")["input_ids"]
    assert line.letters[0] == READER.ids(["<o>", "<n>", "<e>"]) and line.letters[1] is None


def test_a_script_reads_back_as_written(lines, tmp_path):
    write_script(tmp_path / "script.xz", lines[:3])
    assert read_script(tmp_path / "script.xz") == lines[:3]


# Store.


@pytest.mark.parametrize(("hz", "level"), [(300, 1.0), (3000, 1.0), (7000, 1.0), (9500, 0.0)])
def test_resampling_keeps_what_fits_and_drops_what_does_not(hz, level):
    tone = torch.sin(2 * torch.pi * hz * torch.arange(24_000) / 24_000)
    found = speak.to_16_khz(tone)[500:-500]
    assert len(found) == 15_000
    assert_close(found.square().mean().sqrt() * 2**0.5, torch.tensor(level), atol=0.02, rtol=0)


def test_a_stored_clip_is_level_and_its_phonemes_lie_where_they_sound(folder):
    about = json.loads((folder / "part-00001.json").read_text())
    samples, phonemes = np.load(folder / "part-00001.npy"), np.load(folder / "part-00001.phonemes.npy")
    assert len(phonemes) * speak.PHONEME_SAMPLES == len(samples) == sum(line["length"] for line in about)
    for line in about:
        own = phonemes[line["start"] // 400 : (line["start"] + line["length"]) // 400]
        number = 1 if line["phonemes"][0] == "a" else 2
        spoken = 4 * len(line["phonemes"])
        # The silence around it is shorter than the teacher's, and as short as that around a prompt.
        assert own.tolist() == [0] * 4 + [number] * spoken + [0] * 4
        sound = samples[line["start"] + 1600 : line["start"] + (4 + spoken) * 400].astype(float) / 32768
        assert np.sqrt((sound**2).mean()) == pytest.approx(0.1, rel=0.05)


def test_speaking_goes_on_where_it_stopped_and_processes_share_the_parts(lines, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(speak, "LINES_PER_PART", 14)
    assert speak.speak_script(lines, Whistler(), tmp_path, 0, 2, seconds=-1)["hours"] == 0
    for rank in (0, 1, 0):
        speak.speak_script(lines, Whistler(), tmp_path, rank, 2)
    names = sorted(path.name for path in folder.iterdir())
    assert names == sorted(path.name for path in tmp_path.iterdir())
    assert all((folder / name).read_bytes() == (tmp_path / name).read_bytes() for name in names)


def test_patches_of_the_store_are_those_of_each_clip_alone(folder, talker, kept, table):
    found = list(store.clips(store.parts(folder), "train", patch_samples(talker)))
    for path, about, clip in found[::9]:
        samples = np.load(path.with_suffix(".npy"))[about["start"] :][: about["length"]]
        samples = np.pad(samples, (0, -len(samples) % patch_samples(talker)))
        latents = talker.vae.encode(torch.from_numpy(samples.astype(np.float32) / 32768)[None]).mean[0]
        own = kept.patches[clip.first : clip.first + clip.num_patches]
        assert_close(own.float(), talker.patches(latents), atol=2e-3, rtol=1e-3)
        spoken = [row[1] for row in kept.phonemes[clip.first : clip.first + clip.num_patches].tolist()]
        assert spoken[len(spoken) // 2] == (1 if about["phonemes"][0] == "a" else 2) and spoken[0] == spoken[-1] == 0
    assert len(kept.patches) == sum(clip.num_patches for clip in table)


def test_a_clip_has_its_speakers_voice_and_mixtures_lie_between(kept, table):
    first, second = (torch.full((5, store.VOICE_SIZE), float(value)) for value in (1, 3))
    found = speak.likenesses([{"a": 1.0}, {"b": 2.0}, {"a": 0.25, "b": 0.75}], {"a": first, "b": second})
    assert_close(found[2], 0.25 * found[0] + 0.75 * found[1])
    assert float(found[0, 0]) == -float(found[1, 0]) < 0
    for clip in table:
        assert {int(kept.clips[clip.first]), int(kept.clips[clip.first + clip.num_patches - 1])} == {table.index(clip)}
    same = [kept.voices[i] for i, clip in enumerate(table) if clip.speaker == table[0].speaker]
    assert len(same) > 1 and all(torch.equal(voice, same[0]) for voice in same)
    assert len(kept.voices.unique(dim=0)) > 3


def test_a_store_too_small_for_its_processes_says_so(folder, tmp_path):
    with pytest.raises(InputError, match="0 parts"):
        store.parts(tmp_path)
    both = [*store.parts(folder, 0, 2), *store.parts(folder, 1, 2)]
    assert sorted(both) == store.parts(folder)


# Rows.


def row_settings(**changes) -> RowSettings:
    return RowSettings(**({"patches": 128, "shapes": SHAPES, "spelled": 0.0} | changes))


def test_a_row_is_a_prompt_of_the_same_speaker_then_the_clip(table):
    batch = Rows(table, row_settings(alone=0.0, silent=0.0), 0).batch(0)
    by_first = {clip.first: clip for clip in table}
    for i in range(len(batch.ids)):
        before, clip = (by_first[int(first)] for first in batch.firsts[i])
        assert before.speaker == clip.speaker and before.first != clip.first
        assert batch.counts[i].tolist() == [before.num_patches, clip.num_patches]
        told = [j for part in (before, clip) for sounds in part.sounds for j in sounds]
        assert batch.ids[i, : batch.text_lengths[i]].tolist() == [*told, END]


def test_a_silent_prompt_is_heard_but_not_told(table):
    batch = Rows(table, row_settings(alone=0.0, silent=1.0), 0).batch(0)
    by_first = {clip.first: clip for clip in table}
    assert batch.silent.all() and (batch.counts[:, 0] > 0).all()
    for i in range(len(batch.ids)):
        told = [j for sounds in by_first[int(batch.firsts[i, 1])].sounds for j in sounds]
        assert batch.ids[i, : batch.text_lengths[i]].tolist() == [*told, END]


def test_batches_have_one_size_and_come_again_by_their_number(table):
    first, again = Rows(table, row_settings(), 0), Rows(table, row_settings(), 0)
    for number in range(4):
        batch = first.batch(number)
        assert batch.num_patches * len(batch.ids) == 128
        assert [batch.ids.shape[1], batch.num_patches] in SHAPES
        same = again.batch(number)
        assert all(np.array_equal(a, b) for a, b in zip(vars(batch).values(), vars(same).values(), strict=True))
    assert not np.array_equal(first.batch(4).firsts, batch.firsts)


def test_words_are_spelled_as_often_as_asked(table):
    rows, numbers = Rows(table, row_settings(spelled=1.0), 0), np.random.default_rng(0)
    clip = next(clip for clip in table if clip.language == "en")
    assert READER.convert_tokens_to_ids("<o>") in rows.read(clip, numbers)
    # What the dictionary does not know is read by its letters in any case.
    unknown = Rows(table, row_settings(), 0).read(clip, numbers)
    assert READER.convert_tokens_to_ids("<z>") in unknown and READER.convert_tokens_to_ids("<o>") in unknown


def test_on_the_device_the_prompts_patches_come_first_and_the_last_one_ends(table, kept):
    batch = Rows(table, row_settings(alone=0.0, silent=0.5), 3).batch(0)
    moved = on_device(batch, kept)
    for i in range(len(batch.ids)):
        (a, b), (m, n) = batch.firsts[i].tolist(), batch.counts[i].tolist()
        wanted = torch.cat([kept.patches[a : a + m], kept.patches[b : b + n]]).float()
        assert torch.equal(moved.patches[i, : m + n], wanted) and not moved.patches[i, m + n :].any()
        assert moved.is_real[i].sum() == m + n and moved.is_last[i].nonzero().tolist() == [[m + n - 1]]
        assert moved.is_learned[i].sum() == (n if batch.silent[i] else m + n)


# Learning.


def learner_of(talker: Talker, *sets: str) -> Learner:
    torch.manual_seed(0)
    twin = Talker(talker.config)
    twin.load_state_dict(talker.state_dict())
    return Learner(twin, settings(*sets))


def test_the_stop_loss_is_that_of_the_model(talker, table, kept):
    learner = learner_of(talker, "learn.input_noise=0.0", "learn.stop=1.0")
    batch = on_device(Rows(table, row_settings(silent=0.0), 0).batch(0), kept)
    ours = learner(batch)["stop"]
    counts = batch.is_real.sum(1)
    theirs = talker(batch.ids, batch.text_lengths, batch.patches, counts, torch.Generator().manual_seed(0))["stop"]
    assert_close(ours, theirs)


def test_filling_teaches_nothing(talker, table, kept):
    learner = learner_of(talker, "learn.input_noise=0.0")
    batch = on_device(Rows(table, row_settings(), 0).batch(0), kept)
    other = batch._replace(
        patches=batch.patches + 100 * ~batch.is_real[..., None, None],
        phonemes=batch.phonemes * batch.is_real[..., None],
    )
    losses = []
    for one in (batch, other):
        torch.manual_seed(1)
        losses.append(learner(one))
    for name in losses[0]:
        assert_close(losses[0][name], losses[1][name])


def test_everything_that_ships_learns_and_the_vae_does_not(talker, table, kept):
    learner = learner_of(talker)
    torch.stack(list(learner(on_device(Rows(table, row_settings(), 0).batch(0), kept)).values())).sum().backward()
    untaught = [name for name, p in learner.learned.items() if p.grad is None or not p.grad.any()]
    # The aggregator's other outputs are not read; everything else is.
    assert untaught == []
    assert all(p.grad is None for p in learner.talker.vae.parameters())


def test_one_long_step_without_guidance_is_the_old_flow_itself(talker, table, kept):
    learner = learner_of(talker, "distill.substeps=1", "distill.guidance=0.0")
    learner.begin_distilling()
    losses = learner(on_device(Rows(table, row_settings(), 0).batch(0), kept))
    assert losses["few_steps"].item() < 1e-9
    assert {id(p) for p in learner.learning} == {id(p) for p in learner.talker.flow.parameters()}


def test_the_mean_lags_behind_and_forgets_the_beginning(talker):
    learner = learner_of(talker)
    name, parameter = next(iter(learner.learned.items()))
    start = parameter.detach().clone()
    with torch.no_grad():
        parameter += 1
    for _ in range(200):
        learner.average()
    with learner.averaged() as averaged:
        mean = averaged.get_parameter(name).clone()
    assert_close(parameter.detach(), start + 1)
    assert ((mean - start) > 0.95).all() and (mean < parameter).all()


def test_a_small_set_is_learned_by_heart(talker, table, kept):
    learner = learner_of(talker, "distill.guidance=8.0")
    optimizer = run.make_optimizer(learner, 3e-3)
    bench = run.Bench(learner.settings, run.World(), learner, kept, kept, [], None)
    rows, history = Rows(table, row_settings(), 0), []
    for number in range(45):
        history.append(
            {k: float(v) for k, v in run.step(bench, optimizer, on_device(rows.batch(number), kept)).items()}
        )
    first, last = ({k: np.mean([row[k] for row in part]) for k in history[0]} for part in (history[:5], history[-5:]))
    assert last["flow"] < 0.8 * first["flow"] and last["phonemes"] < 0.3 * first["phonemes"]
    assert last["stop"] < 0.5 * first["stop"] and last["skipped"] == 0
    # Then the flow alone learns to do the same in four steps.
    kept_backbone = [p.clone() for p in learner.mean]
    learner.begin_distilling()
    optimizer, batch = run.make_optimizer(learner, 5e-4), on_device(rows.batch(45), kept)

    def distance() -> float:
        torch.manual_seed(5)
        with torch.no_grad():
            return float(learner(batch)["few_steps"])

    before = distance()
    for number in range(46, 66):
        run.step(bench, optimizer, on_device(rows.batch(number), kept))
    after = distance()
    assert after < 0.8 * before
    moved = {n.partition(".")[0] for n, p, q in zip(learner.learned, learner.mean, kept_backbone, strict=True)
             if not torch.equal(p, q)}  # fmt: skip
    assert moved == {"flow"}


def test_a_gradient_that_is_not_finite_changes_nothing(talker, table, kept):
    learner = learner_of(talker)
    bench = run.Bench(learner.settings, run.World(), learner, kept, kept, [], None)
    before = [p.detach().clone() for p in learner.learned.values()]
    batch = on_device(Rows(table, row_settings(), 0).batch(0), kept)
    found = run.step(bench, run.make_optimizer(learner, 1.0), batch._replace(patches=batch.patches * float("nan")))
    assert float(found["skipped"]) == 1
    assert all(torch.equal(a, b) for a, b in zip(before, learner.learned.values(), strict=True))


def test_rates_end_at_zero_in_both_halves():
    one = settings("seconds=100", "distill.share=0.25", "learn.warmup_steps=10")
    assert run.rate_of(one, 0, 0) == pytest.approx(one.learn.rate / 10)
    assert run.rate_of(one, 74.99, 500) < 1e-6
    assert run.rate_of(one, 75.1, 100) == pytest.approx(one.distill.rate, rel=0.01)
    assert run.rate_of(one, 100, 500) == 0


def test_a_rehearsal_meets_every_shape_of_a_batch_and_changes_nothing(talker, table, kept, monkeypatch):
    learner = learner_of(talker)
    bench = run.Bench(learner.settings, run.World(), learner, kept, kept, [], None)
    monkeypatch.setattr(run, "compile_blocks", lambda learner: None)  # compiling takes minutes
    met, before = set(), [p.detach().clone() for p in learner.parameters()]
    learner.talker.backbone.register_forward_pre_hook(lambda _, arguments: met.add(tuple(arguments[0].shape[:2])))
    run.rehearse(bench)
    wanted = [on_device(Rows(table, row_settings(shapes=[shape]), 0).batch(0), kept) for shape in SHAPES]
    assert met == {(len(batch.ids), batch.ids.shape[1] + batch.patches.shape[1]) for batch in wanted}
    assert all(torch.equal(a, b) and b.grad is None for a, b in zip(before, learner.parameters(), strict=True))


# The command.


def command(folder: Path, output: Path, *more: str) -> list[str]:
    sets = [word for value in (*SMALL, f"store={folder}") for word in ("--set", value)]
    return ["nano_talker", "--output", str(output / "run"), "--pieces", str(output / "pieces"), *sets, *more]


def test_the_command_learns_goes_on_and_leaves_pieces_that_speak(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(run, "RESERVE_SECONDS", 0.0)
    run.main(command(folder, tmp_path, "--set", "seconds=0.3", "--set", "distill.share=0.0"))
    first = json.loads(capsys.readouterr().out.splitlines()[-1])
    run.main(
        command(folder, tmp_path, "--set", "seconds=1.2", "--set", "distill.share=0.4", "--set", "distill.steps=3")
    )
    second = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert second["calls"] == 2 and second["step"] > first["step"] and second["is_over"]
    rows = [json.loads(row) for row in (tmp_path / "pieces" / "log.jsonl").read_text().splitlines()]
    assert any("few_steps" in row for row in rows) and any("flow" in row for row in rows)
    assert all(row.get("skipped", 0) == 0 for row in rows)
    assert {"look/few_steps", "look/ended", "look/length"} <= rows[-1].keys()
    assert (tmp_path / "pieces" / "heard.flac").stat().st_size > 1000
    config, weights, told = pieces.load(tmp_path / "pieces")
    assert (config.steps, config.guidance) == (3, 0.0) and told["facts"]["is_over"]
    spoken = Talker(config)
    missing, unknown = spoken.load_state_dict(weights, strict=False)
    assert not unknown and all(name.startswith("vae.") for name in missing)


def test_a_call_that_is_the_last_takes_all_it_has_and_ends_annealed_in_few_steps(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(run, "RESERVE_SECONDS", 0.0)
    facts = run.train(settings("seconds=0", f"store={folder}", "log_every=1"), tmp_path, None, 6.0)
    assert facts["is_over"] and 0.5 < facts["seconds"] < 6.0
    rows = [row for row in map(json.loads, (tmp_path / "log.jsonl").read_text().splitlines()) if "rate" in row]
    assert "few_steps" in rows[-1] and rows[-1]["rate"] < 0.2 * max(row["rate"] for row in rows)


def test_pieces_of_an_unfinished_run_go_on_on_another_machine(folder, talker, tmp_path):
    learner = learner_of(talker)
    pieces.export(tmp_path / "early", learner, {"step": 3, "seconds": 0.2})
    assert pieces.load(tmp_path / "early")[0].guidance == 1.5  # not distilled yet
    with torch.no_grad():
        learner.mean[0] += 1
    learner.begin_distilling()
    with torch.no_grad():
        learner.mean[-1] += 0.25
    pieces.export(tmp_path / "late", learner, {"step": 9, "seconds": 0.9})
    other = learner_of(talker)
    assert pieces.start_from(tmp_path / "late", other) == {"step": 9, "seconds": 0.9}
    assert other.is_distilling
    for own, wanted in ((other.mean, learner.mean), (other.old_flow.parameters(), learner.old_flow.parameters())):
        assert all(torch.allclose(a, b, atol=2e-3) for a, b in zip(own, wanted, strict=True))


def test_the_last_pieces_leave_nothing_of_earlier_ones(talker, tmp_path, monkeypatch):
    monkeypatch.setattr(timed, "PIECE_BYTES", 100_000)
    learner = learner_of(talker)
    learner.begin_distilling()
    before = pieces.export(tmp_path, learner, {"step": 1, "seconds": 0.5})
    after = pieces.export(tmp_path, learner, {"step": 2, "seconds": 1.0, "is_over": True})
    assert 1 < len(after) < len(before)
    assert pieces.load(tmp_path)[1].keys() == learner.learned.keys()


def test_speaking_is_checked_against_learning_in_exact_numbers(talker, table, kept):
    learner = learner_of(talker)
    bench = run.Bench(learner.settings, run.World(), learner, kept, kept, [], lambda: Rows(table, row_settings(), 0))
    torch.set_float32_matmul_precision("high")
    try:
        assert run.check(bench)["check/states"] < 1e-5
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision("highest")
    with torch.no_grad():
        learner.talker.backbone.layers[0].attention.qkv.weight[0, 0] = float("nan")
    with pytest.raises(AssertionError, match="differ"):
        run.check(bench)


def test_two_processes_learn_one_talker_from_stores_of_their_own(folder, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = os.environ | {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    shared |= {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    arguments = command(folder, tmp_path, "--set", "seconds=0.6", "--for", "60")
    # What a training machine lacks must not be asked for.
    program = "import sys; sys.modules |= dict.fromkeys(('av', 'diffusers', 'rapidfuzz', 'pypinyin', 'onnxruntime'));"
    program += f"from ming_omni.train.talker.run import main; main({arguments!r})"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program], env=shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)}, cwd=HERE,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    outputs = [process.communicate(timeout=200)[0] for process in processes]
    assert all(process.returncode == 0 for process in processes), "\n".join(outputs)
    rows = [json.loads(row) for row in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert any("few_steps" in row for row in rows)
    assert (tmp_path / "pieces" / "talker.json").exists()
