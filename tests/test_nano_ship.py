"""From what training exported to the folder that ships, and that folder at work: packed, unfolded, asked over media."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from ming_omni import Ming, checkpoint
from ming_omni.errors import InputError
from ming_omni.inputs.processor import MingProcessor
from ming_omni.inputs.tokenizer import read_json
from ming_omni.nano.cost import cost, unrounded
from ming_omni.nano.files import SHRINKS, file_of, write_index
from ming_omni.nano.ship import build_shipped, read
from ming_omni.packed import adapter, pack
from ming_omni.packed.encoder import PackedEncoder
from ming_omni.packed.matrix import PLAIN, Matrix, Products, fastest
from ming_omni.packed.thinker import PackedThinker
from tests.prompts import prompt
from tests.small_nano import ALPHA, RANK, small_export, small_folder

PIECES = (5, ("image", (1, 4, 6)), 3, ("audio", 37), 4, ("video", (2, 4, 4)), 6)


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    return small_folder(tmp_path_factory.mktemp("start"))


@pytest.fixture(scope="module")
def trained(start, tmp_path_factory):
    return small_export(start, tmp_path_factory.mktemp("run") / "trained.safetensors")


@pytest.fixture(scope="module")
def shipped(start, trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("shipped")
    build_shipped(trained, folder, start)
    return folder


@torch.no_grad()
def logits(model) -> torch.Tensor:
    return model(**prompt(model.config, *PIECES)).logits[0]


def test_what_was_not_trained_is_shipped_bit_for_bit(start, shipped):
    before, after = (
        {name: t for file in folder.glob("*.safetensors") for name, t in load_file(file).items()}
        for folder in (start, shipped)
    )
    kept = [name for name in before if file_of(name) in ("base", "audio")]
    assert len(kept) > 50
    assert all(torch.equal(before[name], after[name]) for name in kept)
    assert {path.name for path in shipped.glob("*.safetensors")} == {
        f"{name}.safetensors" for name in ("base", "experts", "adapter", "vision", "audio", "projectors")
    }


def test_what_ships_only_writes_down_what_it_hears_and_keeps_the_other_settings(start, shipped):
    before, after = (read_json(folder / "generation_config.json") for folder in (start, shipped))
    assert before and after == before | {"ming_answers_sound": False}
    assert [Ming.load(folder).answers_sound for folder in (start, shipped)] == [True, False]


def test_rounding_moves_the_trained_model_only_a_little(start, trained, shipped):
    exact, rounded, untrained = (
        logits(unrounded(trained, start)),
        *(logits(checkpoint.load(f)) for f in (shipped, start)),
    )
    assert (rounded - exact).norm() < 0.2 * (untrained - exact).norm()


def test_the_packed_model_reads_media_as_the_unfolded_one(shipped):
    packed, plain = checkpoint.load(shipped, packed=True), checkpoint.load(shipped)
    inputs = prompt(plain.config, *PIECES)
    with torch.no_grad():
        assert_close(packed.prepare(inputs).embeddings, plain.prepare(inputs).embeddings, rtol=1e-4, atol=1e-5)
    found, expected = logits(packed), logits(plain)
    assert ((found - expected).norm(dim=-1) / expected.norm(dim=-1)).quantile(0.8) < 0.05


def test_in_fp32_the_packed_thinker_applies_its_adapter_exactly(shipped):
    plain = checkpoint.load(shipped).thinker
    stored = {k.removeprefix("thinker."): t for f in shipped.glob("*.safetensors") for k, t in load_file(f).items()}
    packed = PackedThinker(
        plain.config, {k: t for k, t in stored.items() if not k.startswith(("vision", "audio"))}, PLAIN
    )
    ids, positions = torch.arange(40, 60)[None], torch.arange(20).expand(3, 1, -1)
    with torch.no_grad():
        expected = plain(plain.embed(ids), positions).hidden
    assert_close(packed(packed.embed(ids), positions).hidden, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("num_rows", [1, 16, 17])
@pytest.mark.parametrize("products", [PLAIN, Products(16, torch.bfloat16), fastest()])
def test_a_product_with_an_adapter_is_the_sum_of_both(num_rows, products):
    torch.manual_seed(0)
    packed, x = pack(torch.randn(96, 128), 64), torch.randn(num_rows, 128)
    added = adapter.Adapter(torch.randn(128, 8) * 0.1, torch.randn(8, 96))
    expected = x @ (packed.float() + added.weight()).T
    off = (Matrix(lambda: packed, products, added)(x).float() - expected).norm() / expected.norm()
    assert off < (1e-6 if products == PLAIN else 0.01)


def test_encoders_stay_stored_until_the_first_medium_and_save_as_they_were(shipped, tmp_path):
    model = checkpoint.load(shipped, packed=None)
    assert isinstance(model.vision, PackedEncoder) and isinstance(model.audio, PackedEncoder)
    with torch.no_grad():
        model(**prompt(model.config, 7))
    assert not model.vision._unfolded and not model.audio._unfolded
    with torch.no_grad():
        model(**prompt(model.config, 2, ("audio", 37)))
    assert model.audio._unfolded and not model.vision._unfolded
    model.save_pretrained(tmp_path)
    saved, kept = (
        {name: t for file in folder.glob("*.safetensors") for name, t in load_file(file).items()}
        for folder in (tmp_path, shipped)
    )
    assert saved.keys() == kept.keys() and all(torch.equal(saved[name], kept[name]) for name in kept)
    assert_close(logits(checkpoint.load(tmp_path)), logits(checkpoint.load(shipped)), rtol=0, atol=0)


def test_an_unfolded_model_saves_its_adapter_within_the_weights(shipped, tmp_path):
    model = checkpoint.load(shipped)
    model.save_pretrained(tmp_path)
    again = checkpoint.load(tmp_path)
    assert not any(adapter.MARK in name for file in tmp_path.glob("*.safetensors") for name in load_file(file))
    assert_close(logits(again), logits(model), rtol=0, atol=0)


def test_loras_factor_goes_into_the_adapter(trained):
    found = read(trained)
    name = "thinker.layers.0.attention.qkv"
    state = load_file(trained)
    up, down = (state[f"model.{name}.lora_{half}.default.weight"].float() for half in "BA")
    whole = adapter.find(found.__getitem__, name).weight()
    assert_close(whole, ALPHA / RANK * up @ down)


def test_the_trainer_of_the_senses_names_its_low_rank_additions_otherwise(trained, tmp_path):
    state, renamed = load_file(trained), {}
    for name, tensor in state.items():
        short = name.removeprefix("model.").replace(".lora_A.default.weight", ".lora_a")
        short = short.replace(".lora_B.default.weight", ".lora_b")
        renamed[short] = tensor * (ALPHA / RANK) if short.endswith(".lora_b") else tensor
    save_file(renamed, tmp_path / "trained.safetensors")
    found, expected = read(tmp_path / "trained.safetensors"), read(trained)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in found)


def test_training_a_shipped_model_again_adds_to_its_adapter(start, trained, shipped, tmp_path):
    lora = {name: t for name, t in load_file(trained).items() if "lora_" in name}
    save_file(lora, tmp_path / "more.safetensors", metadata={"lora_scale": "1"})
    build_shipped(tmp_path / "more.safetensors", tmp_path / "again", shipped)
    name = "thinker.layers.1.attention.out"
    weights = [
        checkpoint.load(folder).get_parameter(f"{name}.weight") for folder in (start, shipped, tmp_path / "again")
    ]
    first, second = weights[1] - weights[0], weights[2] - weights[1]
    assert (second - first / (ALPHA / RANK)).norm() < 0.02 * first.norm()


@pytest.mark.parametrize("fault", ["name", "shape", "scale", "absent"])
def test_an_export_that_does_not_fit_is_refused(fault, start, trained, tmp_path):
    state = load_file(trained)
    if fault == "name":
        state["model.vision.another"] = torch.zeros(1)
    if fault == "shape":
        state["model.audio.projector.3.bias"] = torch.zeros(1)
    path = tmp_path / "trained.safetensors"
    if fault != "absent":
        save_file(state, path, metadata={} if fault == "scale" else {"lora_scale": "2"})
    wrong = {
        "name": "vision.another",
        "shape": r"audio\.projector\.3\.bias",
        "scale": "alpha / rank",
        "absent": "no file",
    }
    with pytest.raises(InputError, match=wrong[fault]):
        build_shipped(path, tmp_path / "out", start)


def test_a_folder_with_a_spoilt_encoder_is_refused_when_it_is_loaded(shipped, tmp_path):
    for file in shipped.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    state = load_file(tmp_path / "audio.safetensors")
    del state["audio.norm.bias"]
    save_file(state, tmp_path / "audio.safetensors")
    (tmp_path / "model.safetensors.index.json").unlink()
    write_index(tmp_path)
    with pytest.raises(InputError, match=r"lacks tensor audio\.norm\.bias"):
        checkpoint.load(tmp_path, packed=True)


def test_trying_smaller_scales_rounds_more_closely():
    weight = torch.randn(64, 128, generator=torch.Generator().manual_seed(0))
    plain, close = pack(weight, 64), pack(weight, 64, shrinks=SHRINKS)
    assert close.shape == plain.shape
    assert (close.float() - weight).norm() < 0.97 * (plain.float() - weight).norm()


def test_the_cost_of_rounding_is_told(start, trained, shipped):
    text = cost(shipped, trained, start)
    assert text.count("tokens agree") == 2 and "unfolded" in text


def test_the_processor_of_a_shipped_folder_is_that_of_its_start(start, shipped):
    before, after = (MingProcessor.from_pretrained(folder) for folder in (start, shipped))
    assert vars(before.image_processor) == vars(after.image_processor)
    assert vars(before.audio_processor) == vars(after.audio_processor)
