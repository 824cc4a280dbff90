"""`ming data`: each kind makes its folder, goes on where it stopped, and says what was wrong in one sentence."""

import json
import os
from pathlib import Path

import pytest
import torch

from ming_omni.data.command import KINDS, data_command, read_examples
from ming_omni.data.pictures import draw, example
from ming_omni.errors import InputError
from tests.data_bank import tiny_bank, write_tiny_bank


@pytest.fixture(scope="module")
def bank(tmp_path_factory) -> Path:
    return write_tiny_bank(tmp_path_factory.mktemp("bank") / "sprites.safetensors")


def test_scenes_in_shards_are_the_examples_of_their_indexes(bank, tmp_path):
    from ming_omni.data.bank import stock

    manifest = data_command("scenes", tmp_path, seed=5, count=12, workers=1, bank=bank)
    found = list(read_examples(tmp_path / "shard-00000.tar"))
    chosen = stock(tiny_bank(), "train")
    assert manifest["counts"] == {"examples": 12, "split": "train"}
    assert [label["kind"] for label, _, _ in found] == ["question", "caption", "paint", "edit", "segment", "film"] * 2
    for place in (0, 3, 4):
        label, pictures, owners = found[place]
        item = example(chosen, label["kind"], 5, 0)
        (drawn,) = draw(chosen, [item])
        assert label["prompt"] == item.prompt
        assert torch.equal(torch.stack(pictures), drawn.pictures)
        assert owners is None or torch.equal(owners, drawn.owners[0])


def test_making_scenes_again_changes_nothing(bank, tmp_path):
    first = data_command("scenes", tmp_path, count=6, workers=1, bank=bank)
    assert data_command("scenes", tmp_path, count=6, workers=1, bank=bank) == first
    (tmp_path / "shard-00000.tar").unlink()
    assert data_command("scenes", tmp_path, count=6, workers=1, bank=bank)["files"] == first["files"]


def test_a_folder_is_never_a_mixture_of_two_requests(bank, tmp_path):
    data_command("scenes", tmp_path, seed=1, count=2, workers=1, bank=bank)
    with pytest.raises(InputError, match="was begun with seed 1; take another folder"):
        data_command("scenes", tmp_path, seed=2, count=2, workers=1, bank=bank)


def test_sheets_show_every_kind_even_without_a_chinese_font(bank, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")  # no package client can be found
    data_command("sheet", tmp_path, count=3, bank=bank, packages_folder=tmp_path / "none")
    assert {path.stem for path in tmp_path.glob("*.png")} == {"question", "caption", "paint", "edit", "segment", "film"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "smells"}, "choose sprites, teacher"),
        ({"split": "all"}, "choose train, dev or test"),
        ({"bank": Path("/nowhere/bank")}, "ming data sprites"),
        ({"kind": "speech", "codec": "mp3"}, "choose flac, opus"),
        ({"kind": "engines", "codec": "mp3"}, "choose flac, opus"),
    ],
)
def test_a_wrong_word_is_answered_with_the_right_ones(change, message, tmp_path):
    asked = {"kind": "scenes", "workers": 1, "bank": tmp_path / "none"} | change
    with pytest.raises(InputError, match=message):
        data_command(output=tmp_path / "out", **asked)


@pytest.mark.slow
def test_every_kind_is_made_from_the_real_packages(tmp_path):
    """Downloads about half a gigabyte into the cache on the first run."""
    cache = Path(os.environ["MING_DATA_CACHE"]) if "MING_DATA_CACHE" in os.environ else None
    sprites = data_command("sprites", tmp_path / "sprites", packages_folder=cache)
    bank = tmp_path / "sprites" / "sprites.safetensors"
    assert sprites["counts"]["concepts"] > 300
    assert bank.stat().st_size < 40e6
    data_command("teacher", tmp_path / "teacher", packages_folder=cache)
    assert all(path.stat().st_size < 48e6 for path in (tmp_path / "teacher").iterdir())
    speech = {"count": 4, "workers": 1, "teacher": tmp_path / "teacher", "packages_folder": cache}
    assert data_command("speech", tmp_path / "speech", **speech)["counts"]["hours"] > 0.001
    engines = data_command("engines", tmp_path / "engines", count=8, workers=1, packages_folder=cache)
    assert {source["name"] for source in engines["sources"]} >= {"flite", "hsg"}  # a tool is no source
    assert "espeak-ng" not in {source["name"] for source in engines["sources"]}
    assert data_command("text", tmp_path / "text", packages_folder=cache)["counts"]["packaged"] > 500
    assert set(KINDS) >= {"scenes", "judges"}
    manifest = data_command("scenes", tmp_path / "scenes", count=12, workers=1, bank=bank)
    assert any(source["licence"] == "CC-BY-SA-4.0" for source in manifest["sources"])
    assert json.loads((tmp_path / "scenes" / "manifest.json").read_text()) == manifest
