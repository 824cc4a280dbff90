"""Scenes: the same for the same seed in any batch, labels that the pixels bear out, splits that share nothing."""

from collections import Counter
from pathlib import Path

import pytest
import torch

from ming_omni.data.bank import JUDGE_STYLES, PAINTER_STYLES, TEST_STYLES, stock
from ming_omni.data.blind import blind_accuracy, transcript_prior
from ming_omni.data.edits import EDITS
from ming_omni.data.films import FILMS, FRAMES
from ming_omni.data.lettering import MORE_CHINESE_FONTS, MORE_LATIN_FONTS, font_split, pick_word, word_split
from ming_omni.data.names import COLOURS, MOVES, NUMBERS, PLACES, SIDES, article, plural
from ming_omni.data.pictures import KINDS, batches, draw, example
from ming_omni.data.questions import QUESTIONS
from ming_omni.data.render import render
from ming_omni.data.scenes import Background, Scene, Thing, Words, places
from ming_omni.data.segments import MAKERS
from ming_omni.data.sheet import write_sheet
from ming_omni.data.splits import generator, leaks, split_of
from ming_omni.data.sprites import LATIN, draw_fonts
from ming_omni.errors import InputError
from tests.data_bank import tiny_bank

PLAIN = Background("blue", ((0, 0, 200),) * 2, ((0, 0, 200),) * 2, noise=0.0)


def train():
    return stock(tiny_bank(), "train")


@pytest.mark.parametrize("kind", KINDS)
def test_an_example_is_the_same_alone_and_in_any_batch(kind):
    chosen = train()
    together = [
        pair for drawn in batches(chosen, kind, 7, range(5), size=64, batch=5) for pair in zip(*drawn, strict=True)
    ]
    for index, (expected, pictures) in enumerate(together):
        alone = example(chosen, kind, 7, index)
        assert alone == expected
        (drawn,) = draw(chosen, [alone], size=64)
        assert torch.equal(drawn.pictures, pictures.pictures)
        assert torch.equal(drawn.owners, pictures.owners)


def test_another_seed_or_split_or_kind_is_another_scene():
    chosen, test = train(), stock(tiny_bank(), "test")
    first = example(chosen, "paint", 0, 0)
    assert first != example(chosen, "paint", 1, 0)
    assert first != example(chosen, "paint", 0, 1)
    assert first.scenes != example(chosen, "caption", 0, 0).scenes
    assert first.scenes != example(test, "paint", 0, 0).scenes


def test_nothing_held_out_is_in_stock_for_training():
    units = {split: stock(tiny_bank(), split).units() for split in ("train", "test")}
    assert not leaks(units["train"], units["test"])
    assert {name.split("/")[-1] for name in units["test"] if name.startswith("sprite")} >= set(TEST_STYLES)


def test_nothing_held_out_occurs_in_training_scenes():
    """What was really used, not what was meant to be."""
    used = {}
    for split in ("train", "test"):
        chosen, found = stock(tiny_bank(), split), set()
        for kind in KINDS:
            for i in range(60):
                for scene in example(chosen, kind, 0, i).scenes:
                    found |= {f"sprite {chosen.bank.keys[t.sprite]}" for t in scene.things if t.style != "shape"}
                    found |= {f"font {line.font}" for line in scene.words}
                    found |= {f"word {line.text.lower()}" for line in scene.words}
                    found |= {f"photo {scene.background.photo}"} if scene.background.photo >= 0 else set()
        used[split] = found
    assert len(used["test"]) > 10
    assert not leaks(used["train"], used["test"])


def test_judges_see_no_drawing_of_the_painters_artists():
    painter = stock(tiny_bank(), "train", PAINTER_STYLES).units()
    judge = stock(tiny_bank(), "train", JUDGE_STYLES).units()
    drawings = {name for name in painter & judge if name.startswith("sprite")}
    assert not drawings


def test_a_split_without_enough_things_says_so():
    with pytest.raises(InputError, match="only 7 things for test in noto-of-mars"):
        stock(tiny_bank(), "test", ("noto-of-mars",))


def test_a_split_keeps_its_part_of_the_units():
    counts = Counter(split_of("word", f"unit {i}") for i in range(4000))
    assert abs(counts["test"] - 400) < 80
    assert abs(counts["dev"] - 200) < 60


@pytest.mark.parametrize("is_chinese", [False, True])
def test_a_word_belongs_to_its_split_in_any_case(is_chinese):
    numbers = generator(0)
    words = {split: {pick_word(numbers, split, is_chinese).lower() for _ in range(200)} for split in ("train", "test")}
    assert not words["train"] & words["test"]
    assert word_split("HELLO") == word_split("hello")
    assert font_split("ComicNeue-Bold") == font_split("ComicNeue-Regular") == "test"


# Pixels


def thing(concept, x, y, size=0.25, **more) -> Thing:
    bank = tiny_bank()
    sprite = next(i for i, (name, _) in enumerate(bank.keys) if name == concept)
    return Thing(sprite, concept, bank.keys[sprite][1], x, y, size, **more)


def test_further_fonts_are_for_training_alone():
    names = [name for _, files in (MORE_LATIN_FONTS | MORE_CHINESE_FONTS).values() for name in files.split()]
    assert len(set(names)) == len(names) > 50
    assert {font_split(name) for name in names} == {"train"}


def test_a_font_is_drawn_from_the_file_of_its_name(tmp_path):
    known = next(Path("/usr/share/fonts").rglob("DejaVuSans.ttf"), None)
    if known is None:
        pytest.skip("no font at hand")
    (tmp_path / "usr/share/fonts").mkdir(parents=True)
    (tmp_path / "usr/share/fonts/Play-Bold.ttf").write_bytes(known.read_bytes())
    letters, cells, advances = draw_fonts([tmp_path])["Play-Bold"]
    assert letters == LATIN and len(advances) == len(letters)
    assert len({cell.tobytes() for cell in cells}) == len(letters)


@pytest.mark.parametrize("place", PLACES)
def test_a_thing_is_seen_where_it_was_put(place):
    x, y = PLACES[place][1]
    mask = render(tiny_bank(), [Scene(PLAIN, (thing("square", x, y, colour="red"),))], 128).mask(0, [0])
    rows, columns = mask.nonzero().float().mean(0).tolist()
    assert abs(columns / 128 - x) < 0.01
    assert abs(rows / 128 - y) < 0.01
    assert mask.float().mean() == pytest.approx(0.25**2 * (92 / 96) ** 2, rel=0.08)


@pytest.mark.parametrize("colour", COLOURS)
def test_a_tint_gives_a_white_shape_its_colour(colour):
    drawn = render(tiny_bank(), [Scene(PLAIN, (thing("square", 0.5, 0.5, colour=colour),))], 64)
    middle = drawn.pictures[0, :, 32, 32].tolist()
    assert max(abs(a - b) for a, b in zip(middle, COLOURS[colour][1], strict=True)) <= 6


def test_the_later_thing_covers_the_earlier():
    scene = Scene(PLAIN, (thing("square", 0.5, 0.5, colour="red"), thing("square", 0.5, 0.5, colour="green")))
    drawn = render(tiny_bank(), [scene], 64)
    assert not drawn.mask(0, [0])[32, 32]
    assert drawn.mask(0, [1])[32, 32]


def test_a_thing_over_the_edge_is_cut_off_there():
    drawn = render(tiny_bank(), [Scene(PLAIN, (thing("square", 0.0, 0.5, colour="red"),))], 64)
    assert drawn.mask(0, [0])[32, 0]
    assert not drawn.mask(0, [0])[:, 32:].any()


def test_letters_stand_side_by_side_in_reading_order():
    bank = tiny_bank()
    line = Words("AB", next(i for i, f in enumerate(bank.fonts) if f.letters.startswith("AB")), "white", 0.5, 0.5, 0.25)
    drawn = render(bank, [Scene(PLAIN, (), (line,))], 128)
    is_ink = (drawn.pictures[0] == 250).all(0).any(0)  # columns with pure ink
    runs = (is_ink.int().diff() == 1).sum() + int(is_ink[0])
    assert runs == 2


def test_everything_outside_an_edit_stays_as_it_was():
    chosen = train()
    for index in range(40):
        item = example(chosen, "edit", 3, index)
        if item.facts["edit"] not in ("add", "remove", "replace", "recolour", "restyle"):
            continue
        (drawn,) = draw(chosen, [item], 64)
        before, after = drawn.pictures
        changed = (before != after).any(0)
        (number,) = item.targets
        owned = [drawn.mask(i, [number]) for i, scene in enumerate(item.scenes) if len(scene.things) > number]
        near = torch.nn.functional.max_pool2d(sum(m.float() for m in owned)[None], 5, 1, 2)[0] > 0  # soft edges
        assert changed.any()
        assert not (changed & ~near).any()


# Labels


@pytest.mark.parametrize("kind", QUESTIONS)
@pytest.mark.parametrize("is_chinese", [False, True])
def test_the_scene_bears_out_its_answer(kind, is_chinese):
    chosen = train()
    for index in range(40):
        item = QUESTIONS[kind](generator(1, kind, index), chosen, is_chinese)
        scene = item.scenes[0]
        names = [chosen.bank.chinese(t.concept) if is_chinese else t.concept for t in scene.things]
        assert item.prompt.endswith("？" if is_chinese else "?")
        if kind == "how_many":
            asked = [n for n in names if (n if is_chinese else plural(n)) in item.prompt]
            count = ("零一二三四五六" if is_chinese else NUMBERS).index(item.answer)
            assert max(Counter(asked).values(), default=0) == count
        elif kind == "which_colour":
            colours = {t.colour for t, n in zip(scene.things, names, strict=True) if n in item.prompt}
            assert item.answer in ({COLOURS[c][0] for c in colours} if is_chinese else colours)
        elif kind == "what_says":
            assert item.answer == scene.words[0].text
        elif kind == "is_there" and not is_chinese:
            assert (item.answer == "yes") == any(article(n) in item.prompt for n in names)


def test_a_side_is_the_side_in_the_picture():
    chosen = train()
    for index in range(60):
        item = example(chosen, "paint", 5, index)
        if item.facts["task"] != "position":
            continue
        first, side, second = item.facts["position"]
        one, other = (next(t for t in item.scenes[0].things if t.concept == name) for name in (first, second))
        dx, dy = SIDES[side][1]
        assert (one.x - other.x) * dx + (one.y - other.y) * dy > 0.3


@pytest.mark.parametrize("kind", FILMS)
def test_a_film_shows_what_its_answer_says(kind):
    chosen = train()
    for index in range(20):
        item = FILMS[kind](generator(2, kind, index), chosen, False)
        assert len(item.scenes) == FRAMES
        first, last = item.scenes[0].things, item.scenes[-1].things
        if kind == "direction":
            dx, dy = MOVES[item.answer][1]
            assert (last[-1].x - first[-1].x) * dx + (last[-1].y - first[-1].y) * dy > 0.29
        elif kind == "count":
            assert item.answer == NUMBERS[len(last)]
        elif kind == "order":
            entered = next(scene.things for scene in item.scenes if scene.things)
            assert item.answer == f"the {entered[0].concept}"
        else:
            difference = {t.concept for t in first} ^ {t.concept for t in last}
            assert item.answer in {article(name) for name in difference}


@pytest.mark.parametrize("kind", MAKERS)
def test_a_mask_covers_the_things_that_were_asked_for(kind):
    chosen = train()
    for index in range(20):
        item = MAKERS[kind](generator(3, kind, index), chosen, False)
        (drawn,) = draw(chosen, [item], 64)
        mask = drawn.mask(0, item.targets)
        for number, owner in enumerate(item.scenes[0].things):
            assert mask[int(owner.y * 64), int(owner.x * 64)] == (number in item.targets)
        if kind == "semantic":
            assert len({item.scenes[0].things[n].concept for n in item.targets}) == 1


@pytest.mark.parametrize("kind", EDITS)
def test_an_instruction_names_what_it_changes(kind):
    chosen = train()
    for index in range(10):
        item = EDITS[kind](generator(4, kind, index), chosen, False)
        before, after = item.scenes
        assert before != after
        if kind == "recolour" or kind == "replace":
            assert item.facts["thing"][0] in item.prompt
            assert before.things[item.targets[0]].concept in item.prompt
        if kind == "change words":
            assert before.words[0].text in item.prompt
            assert after.words[0].text in item.prompt
        if kind == "move":
            assert item.facts["place"] in item.prompt


def test_guessing_without_the_picture_is_chance():
    chosen, test = train(), stock(tiny_bank(), "test")
    guessed = blind_accuracy(
        [example(chosen, "question", 0, i) for i in range(1500)], [example(test, "question", 0, i) for i in range(500)]
    )
    chance = {"is there": 0.5, "side": 0.25, "where": 0.2, "colour": 0.125, "how many": 1 / 7}
    for template, part in chance.items():
        assert guessed[f"{template} en"] < part + 0.15
    assert guessed["says en"] < 0.1


def test_a_repeated_transcript_can_be_known_by_heart():
    assert transcript_prior(["good morning", "hello"], ["hello", "goodbye"]) == 0.5


def test_places_never_overlap_or_leave_the_picture():
    for seed in range(30):
        spots = places(generator(seed), 6)
        for i, (x, y, size) in enumerate(spots):
            assert size / 2 <= x <= 1 - size / 2
            assert size / 2 <= y <= 1 - size / 2
            for a, b, other in spots[:i]:
                assert ((x - a) ** 2 + (y - b) ** 2) ** 0.5 > 0.5 * (size + other)


NAMES = {
    "apple": ("an apple", "apples"),
    "socks": ("socks", "socks"),
    "mouse": ("a mouse", "mice"),
    "box": ("a box", "boxes"),
    "fish": ("a fish", "fish"),
    "cherry": ("a cherry", "cherries"),
    "unicorn": ("a unicorn", "unicorns"),
    "hot dog": ("a hot dog", "hot dogs"),
}


@pytest.mark.parametrize("name", NAMES)
def test_names_take_their_article_and_plural(name):
    assert (article(name), plural(name)) == NAMES[name]


def test_a_sheet_is_a_grid_with_a_label_under_each_picture(tmp_path):
    from PIL import Image

    pictures = [torch.full((3, 20, 30), 90, dtype=torch.uint8)] * 5
    write_sheet(
        tmp_path / "sheet.png", pictures, ["a label", "one that is long enough to wrap", "x", "y", "z"], columns=3
    )
    image = Image.open(tmp_path / "sheet.png")
    assert image.width == 3 * 36
    assert image.getpixel((10, 10)) == (90, 90, 90)


@pytest.mark.gpu
def test_a_gpu_draws_what_the_cpu_draws(tmp_path):
    from ming_omni.data.bank import Bank
    from tests.data_bank import write_tiny_bank

    bank = Bank(write_tiny_bank(tmp_path / "bank.safetensors"), "cuda")
    examples = [example(train(), kind, 0, i) for kind in KINDS for i in range(8)]
    scenes = [scene for item in examples for scene in item.scenes]
    there, here = render(bank, scenes, 128), render(tiny_bank(), scenes, 128)
    assert (there.pictures.cpu().int() - here.pictures.int()).abs().float().mean() < 0.05
    assert (there.owners.cpu() != here.owners).float().mean() < 1e-3
