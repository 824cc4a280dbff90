"""Further artists teach the senses only, stay away from the test, and never lie about a colour."""

import json
import tempfile
from collections import Counter
from functools import cache
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from ming_omni.data import artists, unnamed
from ming_omni.data.artists import DYED_SHARE, DYED_STYLES, MORE_STYLES, unit
from ming_omni.data.bank import JUDGE_STYLES, PAINTER_STYLES, Bank, sprite_split, stock, unpacked
from ming_omni.data.edits import restyle
from ming_omni.data.lettering import CHINESE_CHARACTERS
from ming_omni.data.names import STYLE_NAMES
from ming_omni.data.pictures import KINDS, example
from ming_omni.data.render import render
from ming_omni.data.scenes import Background, Scene, thing
from ming_omni.data.splits import SPLITS, generator
from ming_omni.data.sprites import LATIN, SHAPES, files, silhouettes, symbols, write_bank
from tests.data_bank import THINGS, drawing, font, shape


def write(path):
    """Twelve things by the known artists, by an icon set and by two hands of clip art."""
    styles = (*PAINTER_STYLES, *JUDGE_STYLES, "mdi", "clipart-2", "clipart-3")
    drawings = {
        (name, style): drawing(number, artist % 6)
        for number, name in enumerate(THINGS, 1)
        for artist, style in enumerate(styles)
    }
    drawings |= {(name, "shape"): shape(corners) for corners, name in enumerate(SHAPES, 3)}
    concepts = {name: {"chinese": chinese, "group": "object"} for name, chinese in THINGS.items()}
    concepts |= {name: {"chinese": chinese, "group": "shape"} for name, (chinese, _) in SHAPES.items()}
    names = {"Cabin-SemiBold": LATIN, "DejaVuSans": LATIN}
    names |= dict.fromkeys(("wqy-microhei", "NotoSerifCJK-Bold"), CHINESE_CHARACTERS)
    write_bank(path, drawings, concepts, {name: font(letters, 16) for name, letters in names.items()}, {})
    return path


@cache
def bank() -> Bank:
    with tempfile.TemporaryDirectory() as folder:
        return Bank(write(Path(folder) / "sprites.safetensors"))


def test_further_artists_are_for_training_alone():
    found = {
        split: {bank().keys[i] for part in stock(bank(), split).sprites.values() for i in part} for split in SPLITS
    }
    assert {style for _, style in found["train"]} > {"mdi", "clipart-2", "clipart-3"}
    for split in ("dev", "test"):
        assert not {style for _, style in found[split]} & set(MORE_STYLES)
    for concept, style in found["train"]:
        assert style == "shape" or sprite_split(concept, style) == "train"


@pytest.mark.parametrize(
    ("style", "older"),
    [("noto-v1", "noto"), ("fluent-lines", "fluent"), ("clipart-4", "clipart"), ("scratch-2", "scratch-1")],
)
def test_what_was_redrawn_is_on_the_side_of_its_model(style, older):
    sides = [(sprite_split(f"thing {i}", style), sprite_split(f"thing {i}", older)) for i in range(300)]
    assert all(a == b for a, b in sides)
    assert len(set(sides)) == 3


def test_an_artist_whose_name_ends_in_a_number_is_not_taken_for_another():
    assert unit("dog", "fluent-3d") == "dog/fluent-3d" != unit("dog", "fluent")


def test_judges_and_painter_learn_from_no_further_artist():
    assert not set(MORE_STYLES) & {*PAINTER_STYLES, *JUDGE_STYLES}


@pytest.mark.parametrize("kind", KINDS)
def test_a_drawing_without_colours_is_always_dyed_and_named_so(kind):
    chosen, seen = stock(bank(), "train"), Counter()
    for i in range(40):
        for scene in example(chosen, kind, 3, i).scenes:
            for item in scene.things:
                if item.style in DYED_STYLES:
                    seen[item.colour] += 1
                    assert item.name == f"{item.colour} {item.concept}"
    assert None not in seen
    assert kind in ("words", "what_says") or seen


def test_a_dyed_drawing_has_the_colour_that_is_said():
    chosen, numbers = stock(bank(), "train"), generator(1, "dyed")
    (place,) = (i for i in chosen.sprites["dog"] if bank().keys[i][1] == "mdi")
    item = thing(numbers, chosen, "dog", 0.5, 0.5, 0.8, style="mdi", colour="blue")
    assert item.sprite == place
    grey = ((128,) * 3,) * 2
    (picture,) = render(bank(), [Scene(Background("plain", grey, grey, noise=0.0), (item,))], 64).pictures
    red, _, blue = picture[:, 22:42, 22:42].float().mean((1, 2))
    assert blue > red + 40


def test_colour_prevails_where_a_thing_has_both_kinds():
    chosen = stock(bank(), "train")
    drawn = [thing(generator(2, "both", i), chosen, "cat", 0.5, 0.5, 0.3).style for i in range(600)]
    assert abs(sum(style in DYED_STYLES for style in drawn) / 600 - DYED_SHARE) < 0.06


@pytest.mark.parametrize("is_chinese", [False, True])
def test_a_style_to_draw_in_has_a_name(is_chinese):
    chosen = stock(bank(), "train")
    assert {restyle(generator(4, i), chosen, is_chinese).facts["style"] for i in range(60)} <= STYLE_NAMES.keys()


def test_a_bank_that_was_not_packed_is_read_as_well(tmp_path):
    path = write(tmp_path / "sprites.safetensors")
    with safe_open(path, "pt") as file:
        about, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    raw = unpacked(tensors["sprites"], len(json.loads(about["about"])["sprites"]))
    assert raw.shape[1:] == (96, 96)
    assert tensors["sprites"].numel() < raw.numel() / 5
    save_file(tensors | {"sprites": raw}, tmp_path / "old.safetensors", metadata=about)
    assert torch.equal(Bank(tmp_path / "old.safetensors").sprites, bank().sprites)


# Reading the packages


def icon_set(folder, icons):
    (folder / "package").mkdir(parents=True)
    body = '<path fill="currentColor" d="M2 2h20v20H2z"/>'
    known = {"width": 24, "height": 24, "icons": {name: {"body": body} for name in icons}}
    (folder / "package" / "icons.json").write_text(json.dumps(known))
    return folder


def test_an_icon_is_found_by_its_plain_names_and_white(tmp_path):
    pytest.importorskip("resvg_py")
    folder = icon_set(tmp_path, ["plane", "airplane-takeoff", "mouse", "email", "apple", "dog"])
    things = dict.fromkeys(("airplane", "mouse", "computer mouse", "envelope", "apple", "dog", "cat"))
    found = silhouettes(folder, "mdi", things)
    # A bare mouse is a computer's, and this set's apple is a brand.
    assert {name for name, _ in found} == {"airplane", "computer mouse", "envelope", "dog"}
    assert found["dog", "mdi"].getpixel((96, 96)) == (255, 255, 255, 255)
    assert found["dog", "mdi"].getpixel((0, 0))[3] == 0


def test_one_set_gives_its_filled_icons(tmp_path):
    pytest.importorskip("resvg_py")
    found = silhouettes(icon_set(tmp_path, ["dog-line", "dog-fill", "cat-line"]), "mingcute", {"dog": {}, "cat": {}})
    assert set(found) == {("dog", "mingcute")}


def test_unnamed_drawings_show_nothing_that_the_bank_names(tmp_path):
    pytest.importorskip("resvg_py")
    folder = icon_set(tmp_path, ["puffin", "dog-walk", "dogs", "wave", "flag-peru", "wave-bold", "heart", "yo-yos"])
    found = unnamed.others(folder, "game-icons", unnamed.parts("dogs") | unnamed.parts("yo-yo"), 10)
    assert {name for name, _ in found} == {"puffin", "wave", "heart"}
    assert len(unnamed.others(folder, "game-icons", {"dog", "cat"}, 2)) == 2


def test_signs_are_those_that_the_font_has(tmp_path):
    fonts = [*Path("/usr/share/fonts").rglob("DejaVuSans.ttf")]
    if not fonts:
        pytest.skip("no font at hand")
    (tmp_path / "usr/share/fonts").mkdir(parents=True)
    (tmp_path / "usr/share/fonts/Symbola.ttf").write_bytes(fonts[0].read_bytes())
    codes = {"umbrella": {"code": "2602"}, "letter": {"code": "41"}, "llama": {"code": "1f999"}}
    found = symbols(tmp_path, codes)
    assert set(found) == {("umbrella", "symbola"), ("letter", "symbola")}


def test_several_files_of_a_thing_get_numbers(tmp_path):
    for name in ("dog_01.png", "dog_02.png", "cat_01.png"):
        drawing(3, 2).save(tmp_path / name)
    chosen = {"dog": "dog_01 dog_02", "horse": "horse_01"}
    assert set(files(tmp_path, "png", "clipart", 2, chosen, {"dog": {}, "cat": {}})) == {
        ("dog", "clipart-2"), ("dog", "clipart-3"),
    }  # fmt: skip


def test_the_tables_fit_the_styles():
    assert artists.WRONG.keys() == artists.ICONS.keys()
    assert max(len(names.split()) for names in artists.CLIPART.values()) == artists.MOST_CLIPART - 1
    assert max(len(names.split()) for names in artists.SCRATCH.values()) == artists.MOST_SCRATCH
    for table in (artists.CLIPART, artists.SCRATCH):
        chosen = [name for names in table.values() for name in names.split()]
        assert len(chosen) == len(set(chosen))  # no drawing is of two things
    assert all(package.sha256 for package in (*artists.ICONS.values(), *artists.EMOJI.values()))
