"""train/image_vae: scenes on the device, what is compared, and the very command: runs, stops, goes on, travels."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from ming_omni.config import tiny_painter
from ming_omni.data.bank import stock
from ming_omni.data.eyes import Eyes
from ming_omni.data.render import render
from ming_omni.errors import InputError
from ming_omni.model.image_vae import ImageVAE
from ming_omni.model.painter import Painter
from ming_omni.train.image_vae import run, states
from ming_omni.train.image_vae.learner import Learner, measure, pixels, psnr, rescale, weights
from ming_omni.train.image_vae.scenes import Planner, Pool, draw
from ming_omni.train.image_vae.settings import PictureSettings, Settings, read
from tests.data_bank import tiny_bank, write_tiny_bank


def planner(kind: str, count: int = 8, **settings) -> Planner:
    return Planner(stock(tiny_bank(), "train"), PictureSettings(**settings), 0, count, kind)


def test_masks_are_painted_over_their_things_and_nowhere_else():
    plan = planner("segment").batch(0)
    plan.opacities = [1.0] * len(plan.scenes)
    drawn, plain = draw(tiny_bank(), plan, 64), render(tiny_bank(), plan.scenes, 64)
    for i, (covered, colour) in enumerate(zip(plan.covered, plan.colours, strict=True)):
        inside = plain.mask(i, covered)
        assert inside.any()
        assert (drawn[i, :3, inside] == torch.tensor(colour)[:, None]).all()
        assert (drawn[i, :3, ~inside] == plain.pictures[i][:, ~inside]).all()


def test_letters_are_marked_and_weigh_more():
    drawn = draw(tiny_bank(), planner("words").batch(0), 64)
    assert drawn[:, 3].any() and not draw(tiny_bank(), planner("ground").batch(0), 64)[:, 3].any()
    weight, is_letter = weights(drawn[:, 3:], 4.0), drawn[:, 3:] > 0
    assert weight.mean() == pytest.approx(1, abs=1e-4)
    assert weight[is_letter].min() / weight.min() == pytest.approx(5, rel=1e-4)


def test_a_plan_depends_on_its_number_and_not_on_who_makes_it():
    first, second = planner("").batch(3), planner("").batch(3)
    assert first == second and first != planner("").batch(4)


def test_the_oldest_pictures_make_room_and_three_colours_change_places_together():
    pool = Pool(tiny_bank(), PictureSettings(pool=6, pixels=32, recoloured=1.0))
    plans = [planner("", 4).batch(i) for i in range(2)]
    for plan in plans:
        pool.add(plan)
    assert pool.is_full and pool.oldest == 2
    newest = draw(tiny_bank(), plans[1], 32)
    assert_close(pool.pictures[[4, 5, 0, 1]], newest)
    for picture in pool.batch(8):
        same = [sorted(p.flatten().tolist()) for p in pool.pictures[:, :3].sum(1)]
        assert sorted(picture[:3].sum(0).flatten().tolist()) in same


def test_psnr_of_a_whole_step_of_the_range_is_zero_and_of_a_tenth_is_twenty():
    assert_close(psnr(torch.tensor([4.0, 0.04])), torch.tensor([0.0, 20.0]))


def test_what_is_measured_makes_latents_of_mean_zero_and_variance_one():
    torch.manual_seed(0)
    vae = ImageVAE(tiny_painter().vae).eval()
    drawn = draw(tiny_bank(), planner("").batch(0), 64)
    rescale(vae, measure(vae, [drawn]))
    with torch.no_grad():
        latents = vae.encode(pixels(drawn))
    assert abs(latents.mean()) < 1e-4 and latents.std() == pytest.approx(1, abs=1e-3)


def test_losses_vanish_for_a_perfect_copy_and_features_reach_the_pixels(tmp_path):
    torch.manual_seed(0)
    save_file(Eyes().state_dict(), tmp_path / "eyes.safetensors")
    chosen = Settings()
    chosen.losses.eyes = str(tmp_path / "eyes.safetensors")
    learner = Learner(chosen)
    target = torch.rand(2, 3, 64, 64) * 2 - 1
    weight = torch.ones(2, 1, 64, 64)
    assert all(value == 0 for value in learner.compare(target, target, weight).values())
    made = (target * 0.9).requires_grad_()
    learner.compare(made, target, weight)["features"].backward()
    assert made.grad.abs().sum() > 0 and all(p.grad is None for p in learner.features.parameters())


def test_features_are_those_of_the_eyes(tmp_path):
    torch.manual_seed(0)
    eyes = Eyes().eval()
    save_file(eyes.state_dict(), tmp_path / "eyes.safetensors")
    chosen = Settings()
    chosen.losses.eyes = str(tmp_path / "eyes.safetensors")
    shown = torch.randint(0, 256, (1, 4, 64, 64), dtype=torch.uint8)
    with torch.no_grad():
        found = Learner(chosen).features(pixels(shown))[-1]
        assert_close(found, eyes(shown[:, :3].float())[0], atol=1e-4, rtol=1e-4)


def test_the_command_learns_stops_goes_on_and_travels(tmp_path, capsys):
    write_tiny_bank(tmp_path / "bank.safetensors")
    sets = [
        "model=tiny", "device=cpu", "seconds=0.5", "workers=0", "batch=4", "log_every=1", "look_split=train",
        "look_cases=2", f"pictures.bank={tmp_path}/bank.safetensors", "pictures.pixels=32", "pictures.pool=32",
        "pictures.fresh=16", "losses.eyes=''",
    ]  # fmt: skip
    pieces = tmp_path / "pieces"
    arguments = ["nano_image_vae", "--output", str(tmp_path / "run"), "--pieces", str(pieces)]
    arguments += [word for name in sets for word in ("--set", name)]
    run.main(arguments)
    first = json.loads(capsys.readouterr().out.splitlines()[-1])
    run.main([*arguments, "--set", "seconds=100", "--for", "0"])  # no time: what was saved is there again
    again = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert first["is_over"] and again["step"] == first["step"] and not again["is_over"]
    run.main([*arguments, "--set", f"seconds={first['seconds'] + 0.5}"])
    second = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert second["step"] > first["step"] and second["is_over"]

    rows = [json.loads(line) for line in (pieces / "log.jsonl").read_text().splitlines()]
    taken = [row for row in rows if "pictures_per_second" in row]
    assert len(taken) == second["step"] and not any(row["skipped"] for row in taken)
    assert {"look/words", "look/segment", "look/letters", "look/with noise"} <= rows[-1].keys()
    assert (pieces / run.SHEET).stat().st_size > 1000

    stored, about = load_file(pieces / states.WEIGHTS), json.loads((pieces / states.ABOUT).read_text())
    assert all(name.startswith(states.PREFIX) and value.dtype == torch.float16 for name, value in stored.items())
    vae = states.load(pieces)
    drawn = draw(tiny_bank(), planner("", 16).batch(0), 32)
    with torch.no_grad():
        latents = vae.encode(pixels(drawn))
        error = (vae.decode(latents).clamp(-1, 1) - pixels(drawn)).square().mean((1, 2, 3))
    assert latents.std() == pytest.approx(1, abs=0.3)
    assert psnr(error).mean() == pytest.approx(about["scores"]["look/all"], abs=3)


def test_a_painter_takes_the_pieces_and_keeps_them_with_their_scale(tmp_path):
    torch.manual_seed(0)
    vae = ImageVAE(tiny_painter().vae)
    vae.config.scaling_factor, vae.config.shift_factor = 0.5, 0.25
    states.export(tmp_path / "pieces", vae, Settings(), {})
    painter = Painter(tiny_painter())
    states.place(painter, tmp_path / "pieces")
    painter.save_pretrained(tmp_path / "painter")
    shipped, latents = Painter.from_pretrained(tmp_path / "painter").eval(), torch.randn(1, 16, 4, 4)
    assert shipped.config.vae.scaling_factor == 0.5 and shipped.config.vae.shift_factor == 0.25
    with torch.no_grad():
        assert_close(shipped.vae.decode(latents), vae.decode(latents), atol=1e-2, rtol=1e-2)
    painter.config.vae.latent_channels = 4
    with pytest.raises(InputError, match="latent channels"):
        states.place(painter, tmp_path / "pieces")


@pytest.fixture
def bench(tmp_path):
    write_tiny_bank(tmp_path / "bank.safetensors")
    sets = ["model=tiny", "device=cpu", "workers=0", "look_split=train", "look_cases=1", "losses.eyes=''"]
    sets += [f"pictures.bank={tmp_path}/bank.safetensors", "pictures.pixels=32", "pictures.pool=8", "pictures.fresh=8"]
    bench, _ = run.build(read("nano_image_vae", [*sets, "learn.rate=3e-3", "learn.average=0.9"]), tmp_path)
    bench.refill()
    yield bench
    bench.feed.close()


def test_steps_make_the_averaged_autoencoder_better(bench):
    pictures, before = bench.pool.batch(4), bench.look()
    first, *_, last = [run.step(bench, pictures, number) for number in range(30)]
    assert last["pixels"] < 0.8 * first["pixels"] and last["about/psnr"] > first["about/psnr"]
    assert bench.look()["look/all"] > before["look/all"] + 0.5


def test_a_gradient_that_is_not_finite_changes_nothing(bench):
    before = [p.clone() for p in bench.learner.vae.parameters()]
    bench.learner.vae.decoder.register_forward_hook(lambda module, given, made: made * float("nan"))
    assert run.step(bench, bench.pool.batch(4), 0)["skipped"] == 1
    for old, new in zip(before, bench.learner.vae.parameters(), strict=True):
        assert_close(old, new, rtol=0, atol=0)
