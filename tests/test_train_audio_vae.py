"""train/audio_vae: the command runs, stops, goes on and travels; its store, measures and pieces say what they claim."""

import io
import json

import numpy as np
import pytest
import soundfile
import torch
from torch.testing import assert_close

from benchmarks.audio_vae import error_rates
from ming_omni.config import AudioVAEConfig
from ming_omni.data.shards import as_json, write_shard
from ming_omni.errors import InputError
from ming_omni.evaluate.clips import Clip
from ming_omni.model.audio_vae import AudioVAE
from ming_omni.train.audio_vae import pieces, run
from ming_omni.train.audio_vae.learner import Learner
from ming_omni.train.audio_vae.looks import latent_statistics
from ming_omni.train.audio_vae.made import made
from ming_omni.train.audio_vae.settings import read
from ming_omni.train.audio_vae.spectra import MelDistance, envelope_likeness, si_snr_db
from ming_omni.train.audio_vae.store import Store

RATE = 16_000
CPU = torch.device("cpu")


def shard(path, level: float, splits=("train", "dev", "train")) -> None:
    """Clips of half a second whose samples all have one level, which tells them apart: level, 2 level, ..."""
    groups = []
    for number, split in enumerate(splits):
        file = io.BytesIO()
        soundfile.write(file, np.full(RATE // 2, level * (number + 1)), RATE, format="FLAC")
        about = {"text": "one", "language": "en", "kind": "everyday", "split": split}
        groups.append((f"{number:06}", {"json": as_json(about), "flac": file.getvalue()}))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_shard(path, groups)


@pytest.fixture
def folder(tmp_path):
    shard(tmp_path / "speech" / "all" / "shard-00000.tar", 0.1)
    return tmp_path


def sets(folder) -> list[str]:
    """What makes the recipe of nano small."""
    return [
        "model=tiny",
        "device=cpu",
        "frames=16",
        "windows=[64, 256]",
        "look_clips=2",
        "log_every=2",
        f'sounds.folders={{speech="{folder / "speech"}"}}',
        "sounds.hours={speech=0.01}",
        "sounds.rows={speech=2, made=1}",
        "sounds.made_seconds=8",
        "sounds.workers=0",
        "critics.width=2",
        "critics.segments=3",
        "critics.samples=2048",
        "critics.periods=[2, 3]",
        "critics.windows=[256]",
    ]


def small(folder, *more: str):
    return read("nano_audio_vae", [*sets(folder), *more])


def test_the_command_runs_stops_goes_on_and_its_pieces_load(folder, monkeypatch):
    monkeypatch.setattr(run, "RESERVE_SECONDS", 0.0)
    output, carried = folder / "run", folder / "pieces"
    command = ["nano_audio_vae", "--output", str(output), "--pieces", str(carried)]
    command += [word for value in sets(folder) for word in ("--set", value)]
    command += ["--set", "seconds=1.5", "--set", "save_seconds=0.2", "--set", "look_seconds=0.5"]
    run.main([*command, "--for", "1.2"])
    first = json.loads((carried / "audio_vae.json").read_text())
    assert not first["facts"]["is_over"] and first["facts"]["step"] > 0
    run.main(command)
    vae, told = pieces.load(carried)
    assert told["facts"]["is_over"] and told["facts"]["calls"] == 2
    assert told["facts"]["step"] > first["facts"]["step"]
    rows = [json.loads(line) for line in (carried / "log.jsonl").read_text().splitlines()]
    assert any("critics" in row and "features" in row for row in rows)
    assert not any(row.get("skipped/vae") for row in rows)
    looks = [row["look/mel"] for row in rows if row.get("event") == "look"]
    assert looks[-1] < looks[0]
    sound, rate = soundfile.read(carried / "dev.flac")
    clip = told["dev_flac"][0]
    before, after = torch.from_numpy(sound[clip["start"] : clip["start"] + clip["length"]]).float().T
    with torch.no_grad():
        again = vae.decode(vae.encode(before[None]).mean)[0, : len(before)]
    assert rate == RATE
    # fp16 weights, 16-bit samples.
    assert_close(again.clamp(-1, 1), after, atol=0.01, rtol=0.05)


def test_another_machine_goes_on_from_the_pieces(folder, monkeypatch):
    monkeypatch.setattr(run, "RESERVE_SECONDS", 0.0)
    settings = small(folder, "seconds=0.6", "learn.critics_from=2.0")
    run.train(settings, folder / "run", folder / "pieces", 100.0)
    learner = Learner(settings, CPU)
    facts = pieces.start_from(folder / "pieces", learner)
    assert facts["seconds"] >= 0.6 and facts["step"] > 0
    vae, _ = pieces.load(folder / "pieces")
    for own in (learner.vae, learner.mean):
        assert all(torch.equal(a, b) for a, b in zip(own.parameters(), vae.parameters(), strict=True))


def test_a_call_that_is_the_last_takes_all_it_has_and_ends_annealed(folder, monkeypatch):
    monkeypatch.setattr(run, "RESERVE_SECONDS", 0.0)
    settings = small(folder, "seconds=0", "learn.critics_from=2.0", "log_every=1")
    facts = run.train(settings, folder / "run", None, 6.0)
    assert facts["is_over"] and 0.5 < facts["seconds"] < 6.0
    rows = [row for row in map(json.loads, (folder / "run" / "log.jsonl").read_text().splitlines()) if "rate" in row]
    assert rows[-1]["rate"] < 0.2 * max(row["rate"] for row in rows)


def test_a_call_that_takes_all_it_has_must_be_told_how_much():
    with pytest.raises(InputError, match="--for"):
        run.main(["nano_audio_vae", "--output", "nowhere", "--set", "seconds=0"])


def test_a_decoder_learns_on_while_the_latents_stay_as_they_are(folder, monkeypatch):
    monkeypatch.setattr(run, "RESERVE_SECONDS", 0.0)
    run.train(small(folder, "seconds=0.6"), folder / "run", folder / "pieces", 100.0)
    on = small(folder, "seconds=1.2", "learn.encoder=false")
    run.train(on, folder / "on", folder / "more", 100.0, folder / "pieces")
    (first, _), (second, _) = pieces.load(folder / "pieces"), pieces.load(folder / "more")
    samples = 0.1 * torch.randn(1, 3200)
    assert torch.equal(first.encode(samples).mean, second.encode(samples).mean)
    assert not torch.equal(first.decoder.spectrum.weight, second.decoder.spectrum.weight)


def test_rows_hold_what_is_for_training_and_never_what_is_looked_at(folder):
    settings = small(folder, "sounds.quietest_db=0.0", "sounds.loudest_db=0.0", "sounds.rows={speech=8}")
    store = Store(settings, folder / "cache", CPU)
    store.wait()
    heard = {round(float(value), 2) for value in store.rows(RATE).unique()}
    assert heard == {0.1, 0.3}
    assert [round(float(clip.samples[0]) / 32767, 2) for clip in store.dev] == [0.2]


def test_shards_that_come_later_are_heard_too_as_far_as_there_is_room(folder):
    settings = small(folder, "sounds.quietest_db=0.0", "sounds.loudest_db=0.0", "sounds.rows={speech=64}")
    store = Store(settings, folder / "cache", CPU)
    store.wait()
    shard(folder / "speech" / "all" / "shard-00001.tar", 0.15, ["train"] * 6)
    shard(folder / "speech" / "all" / "shard-00002.tar", 0.01, ["train"] * 100)
    store.refresh()
    assert any(abs(float(value) - 0.45) < 1e-3 for value in store.rows(4 * RATE).unique())
    assert store.regions["speech"].filled == store.regions["speech"].room == 36 * RATE


def test_parts_that_a_teacher_spoke_are_heard_without_decoding(folder):
    lines = [
        {"split": split, "language": "en", "text": "one", "start": i * RATE, "length": RATE}
        for i, split in enumerate(("train", "dev"))
    ]
    np.save(folder / "part-00000.npy", np.repeat(np.array([16384, 8192], np.int16), RATE))
    (folder / "part-00000.json").write_text(json.dumps(lines))
    where = f'sounds.folders={{speech="{folder}"}}'
    settings = small(folder, where, "sounds.quietest_db=0.0", "sounds.loudest_db=0.0", "sounds.rows={speech=64}")
    store = Store(settings, folder / "cache", CPU)
    store.wait()
    assert {round(float(value), 2) for value in store.rows(2 * RATE).unique()} == {0.1, 0.3, 0.5}
    assert sorted(clip.samples[0] for clip in store.dev)[-1] == 8192


def test_louder_rows_do_not_clip(folder):
    settings = small(folder, "sounds.quietest_db=30.0", "sounds.loudest_db=30.0")
    store = Store(settings, folder / "cache", CPU)
    store.wait()
    assert 0.97 < float(store.rows(RATE).abs().max()) <= 0.981


def test_tunes_and_noises_are_sound_and_the_same_for_a_seed():
    first, second = (made(16, torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(first, second) and len(first) == 16 * RATE
    pieces = first.view(4, -1)
    assert (pieces.abs().amax(1) <= 1).all() and (pieces.square().mean(1).sqrt() > 0.005).all()


def test_scaled_latents_are_standard_and_sound_the_same():
    torch.manual_seed(0)
    vae = AudioVAE(AudioVAEConfig()).eval()
    with torch.no_grad():
        vae.encoder.posterior.weight[:64] *= 20
        vae.encoder.posterior.bias[:64] = torch.randn(64)
        vae.encoder.posterior.bias[64:] -= 5  # a small spread
        samples = 0.1 * torch.randn(4, 320 * 50)
        statistics = latent_statistics(vae, [samples])
        scaled = pieces.scaled(vae, *statistics)
        mean, std = latent_statistics(scaled, [samples])
        assert_close(mean, torch.zeros(64), atol=0.02, rtol=0)
        assert_close(std, torch.ones(64), atol=0.02, rtol=0)
        wanted = vae.decode(vae.encode(samples).mean)
        assert_close(scaled.decode(scaled.encode(samples).mean), wanted, atol=1e-4, rtol=1e-3)


def test_the_critics_leave_the_vae_alone_and_it_leaves_them(folder):
    torch.manual_seed(0)
    learner = Learner(small(folder), CPU)
    samples = 0.1 * torch.randn(2, 320 * 16)
    learner(samples, 1.0)["critics"].backward()
    assert all(p.grad is None for p in learner.vae.parameters())
    assert all(p.grad is not None for p in learner.critics.parameters())
    learner.zero_grad()
    losses = learner(samples, 1.0)
    (losses["adversarial"] + losses["features"]).backward()
    assert all(p.grad is None for p in learner.critics.parameters())
    assert learner.vae.encoder.frame.weight.grad.any()


def test_measures_tell_the_same_from_the_noisier():
    generator = torch.Generator().manual_seed(0)
    wanted = made(8, generator)[:64_000]
    noisy, noisier = (wanted + scale * torch.randn(64_000, generator=generator) for scale in (0.01, 0.1))
    distance = MelDistance([256, 1024], RATE)
    assert float(distance(wanted[None], wanted[None])) == 0
    assert distance(noisy[None], wanted[None]) < distance(noisier[None], wanted[None])
    assert envelope_likeness(wanted, wanted, RATE) > 0.999
    assert envelope_likeness(noisier, wanted, RATE) < envelope_likeness(noisy, wanted, RATE)
    assert si_snr_db(noisy, wanted) - si_snr_db(noisier, wanted) == pytest.approx(20, abs=0.5)


def test_a_round_trips_errors_are_added_up_by_language():
    silence = np.zeros(RATE, np.float32)
    said = ["we saw four birds", "they sang all night", "你好"]
    clips = [Clip(text, "synthetic", "everyday", silence, text) for text in said]
    before, after = [said[0], "they sang all day", said[2]], ["we saw four", "they sang all day", "你号"]
    found = error_rates(clips, before, after)
    assert found["synthetic en"] == {"before": 12.5, "after": 25.0, "added": 12.5}
    assert found["synthetic zh"] == {"before": 0.0, "after": 0.0, "added": 0.0}  # another sign for the same syllable
