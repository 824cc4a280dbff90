"""paint/: pictures from words and edits, what they report, and every kind of bad input."""

import io
import math
import random

import numpy as np
import pytest
import torch
from PIL import Image

from ming_omni import checkpoint
from ming_omni.buckets import BUCKETS_512, BUCKETS_672, BUCKETS_1024
from ming_omni.errors import InputError
from ming_omni.inputs.messages import conversation
from ming_omni.inputs.processor import MingProcessor
from ming_omni.inputs.tiny import tiny_tokenizer
from ming_omni.ming import Ming
from ming_omni.model.painting import picture_size
from ming_omni.paint import Cancelled, edit, paint
from ming_omni.paint.commands import edit_command, paint_command
from ming_omni.paint.verbs import MAX_BATCH
from tests.painters import tiny_model


@pytest.fixture(scope="module")
def ming():
    model = tiny_model()
    return Ming(model, MingProcessor.from_config(model.config, tiny_tokenizer()), name="tiny")


def pixels(picture) -> np.ndarray:
    return np.asarray(picture.image).astype(int)


def draw(ming, prompt="a cat", **options):
    return paint(ming.model, ming.processor, prompt, **{"steps": 2, "seed": 1, **options})


def photo(size=(84, 84), mode="RGB") -> Image.Image:
    rng = np.random.default_rng(0)
    return Image.fromarray(rng.integers(0, 255, (size[1], size[0], 3), np.uint8)).convert(mode)


def change(ming, image=None, instruction="make it blue", **options):
    options = {"steps": 2, "seed": 1, **options}
    return edit(ming.model, ming.processor, photo() if image is None else image, instruction, **options)


# Painting.


def test_pictures_of_several_prompts_come_in_order_and_equal_those_painted_alone(ming):
    prompts = ["a cat", "a much longer prompt about a dog", 'a sign "OPEN"']
    together = draw(ming, prompts, n=2, seed=10)
    assert [(p.prompt, p.seed) for p in together] == [
        (q, 10 + k) for k, q in enumerate(x for x in prompts for _ in "ab")
    ]
    for picture in together:
        [alone] = draw(ming, picture.prompt, seed=picture.seed)
        assert abs(pixels(alone) - pixels(picture)).max() <= 1


def test_more_pictures_than_a_batch_are_painted_batch_after_batch(ming):
    first = []
    draw(ming, n=MAX_BATCH + 2, steps=1, on_step=lambda progress: first.append(progress.first))
    assert first == [0, MAX_BATCH]


def test_unseeded_calls_report_a_seed_that_paints_the_same_again(ming):
    [one], [other] = draw(ming, seed=None), draw(ming, seed=None)
    assert one.seed != other.seed and (pixels(one) != pixels(other)).any()
    assert (pixels(draw(ming, seed=one.seed)[0]) == pixels(one)).all()


def test_letters_come_from_quotes_or_from_the_caller_or_not_at_all(ming):
    guessed, told, bare = (pixels(draw(ming, 'a sign "OPEN"', text=text)[0]) for text in (None, "OPEN", ""))
    assert (guessed == told).all() and (guessed != bare).any()
    other = pixels(draw(ming, 'a sign "OPEN"', text="SHUT")[0])
    assert (other != told).any()


@pytest.mark.parametrize("option", [{"guidance": 1.0}, {"negative": "rain"}, {"steps": 3}, {"seed": 2}])
def test_each_option_changes_the_picture_and_is_remembered(ming, option):
    [plain], [other] = draw(ming), draw(ming, **option)
    assert (pixels(plain) != pixels(other)).any()
    [(key, value)] = option.items()
    assert other.metadata()[key] == str(value)


def test_png_carries_prompt_seed_model_and_settings(ming, tmp_path):
    [picture] = draw(ming, "eine Katze, 猫", seed=2**63)
    stored = Image.open(picture.save(tmp_path / "cat.png"))
    assert stored.text["prompt"] == "eine Katze, 猫"
    assert stored.text["seed"] == str(2**63) and stored.text["model"] == "ming" and stored.text["steps"] == "2"
    assert (np.asarray(stored) == np.asarray(picture.image)).all()
    assert Image.open(picture.save(tmp_path / "cat.jpg")).format == "JPEG"


def test_progress_rises_to_one_with_previews_and_false_cancels(ming):
    seen = []

    def watch(progress):
        seen.append(progress.fraction)
        [preview] = progress.preview()
        assert preview.size == (64, 64)
        return len(seen) < 3

    with pytest.raises(Cancelled):
        draw(ming, steps=4, on_step=watch)
    assert seen == [0.25, 0.5, 0.75]


def test_progress_counts_all_pictures_so_that_it_never_goes_back(ming):
    seen = []
    draw(ming, n=MAX_BATCH + 1, steps=2, on_step=lambda progress: seen.append(progress.fraction))
    assert seen == [0.4, 0.8, 0.9, 1.0]


# Sizes.


@pytest.mark.parametrize(
    "wish, expected",
    [
        ({}, (64, 64)),
        ({"size": "64x64"}, (64, 64)),
        ({"size": 128}, (128, 128)),
        ({"size": (84, 84)}, (80, 80)),
        ({"aspect": "2:1"}, (96, 48)),
        ({"aspect": 0.5}, (48, 96)),
    ],
)
def test_a_wish_is_painted_at_the_nearest_size_of_the_model(ming, wish, expected):
    assert draw(ming, steps=1, **wish)[0].size == expected


@pytest.mark.parametrize("table, highres", [(BUCKETS_512, False), (BUCKETS_672, 672), (BUCKETS_1024, True)])
def test_a_model_of_the_published_size_paints_exactly_the_published_sizes(ming, table, highres):
    painter = ming.model.painter
    before, painter.config.default_size = painter.config.default_size, 512
    try:
        assert all(picture_size(painter, *size, highres) == size for size in table.values())
    finally:
        painter.config.default_size = before


@pytest.mark.parametrize(
    "options, reason",
    [
        ({"size": "big"}, "width x height"),
        ({"size": "0x64"}, "cannot be painted"),
        ({"size": "99999x99999"}, "too large"),
        ({"size": (64,)}, "cannot be painted"),
        ({"size": (64, 64, 64)}, "cannot be painted"),
        ({"size": 64, "aspect": 1}, "not both"),
        ({"aspect": "100:1"}, "an aspect is"),
        ({"aspect": "wide"}, "an aspect is"),
        ({"aspect": "1:0"}, "an aspect is"),
        ({"steps": 0}, "steps"),
        ({"steps": 1.5}, "steps is a whole number"),
        ({"n": 1.5}, "n is a whole number"),
        ({"n": True}, "n is a whole number"),
        ({"seed": 1.5}, "seed is a whole number"),
        ({"negative": 5}, "a prompt is text"),
        ({"text": 5}, "a prompt is text"),
        ({"steps": 100_000}, "steps"),
        ({"n": 0}, "pictures"),
        ({"n": 1000}, "pictures"),
        ({"seed": -1}, "a seed lies"),
        ({"seed": 2**64}, "a seed lies"),
        ({"prompt": "  "}, "the prompt is empty"),
        ({"prompt": []}, "no prompt"),
        ({"prompt": "a \udcff"}, "not valid Unicode"),
        ({"negative": "a \udcff"}, "not valid Unicode"),
        ({"text": "a \udcff"}, "not valid Unicode"),
        ({"guidance": math.nan}, "finite"),
        ({"guidance": math.inf}, "finite"),
    ],
)
def test_a_wish_that_cannot_be_met_is_one_clear_sentence(ming, options, reason):
    with pytest.raises(InputError, match=reason):
        draw(ming, **options)


def test_a_prompt_longer_than_the_model_reads_is_refused():
    model = tiny_model()
    model.config.thinker.max_position_embeddings = 100
    ming = Ming(model, MingProcessor.from_config(model.config, tiny_tokenizer()))
    with pytest.raises(InputError, match="tokens long; to paint, this model reads 100"):
        draw(ming, "cat " * 100)


def test_a_model_without_a_painter_says_how_to_get_one(ming):
    bare = tiny_model()
    bare.painter = None
    with pytest.raises(InputError, match="load_image_gen=True"):
        paint(bare, ming.processor, "a cat")


def test_letters_without_a_glyph_branch_are_refused_only_when_asked_for():
    model = tiny_model(glyphs=None)
    ming = Ming(model, MingProcessor.from_config(model.config, tiny_tokenizer()))
    assert draw(ming, 'a sign "OPEN"', steps=1)
    with pytest.raises(InputError, match="no glyph branch"):
        draw(ming, text="OPEN")


# Editing.


def test_the_edit_has_the_shape_of_the_first_picture_and_depends_on_it(ming):
    [wide], [tall] = change(ming, photo((112, 56))), change(ming, photo((56, 112)))
    assert wide.size == (96, 48) and tall.size == (48, 96)
    [other] = change(ming, Image.new("RGB", (112, 56), "white"))
    assert (pixels(wide) != pixels(other)).any()


def test_a_second_picture_is_seen_and_the_first_is_the_one_edited(ming):
    one, two = photo((112, 56)), Image.new("RGB", (64, 64), "green")
    [alone], [both] = change(ming, one), change(ming, [one, two])
    assert alone.size == both.size and (pixels(alone) != pixels(both)).any()


@pytest.mark.parametrize("option", [{"image_guidance": 1.0}, {"guidance_mode": 3}, {"negative": "rain"}])
def test_guidance_by_the_picture_changes_the_edit(ming, option):
    assert (pixels(change(ming)[0]) != pixels(change(ming, **option)[0])).any()


def test_aspect_cuts_and_highres_enlarges(ming):
    assert change(ming, photo((112, 56)), aspect=1)[0].size == (64, 64)
    assert change(ming, photo((64, 64)), highres=True, steps=1)[0].size == (128, 128)


def test_several_edits_differ_by_their_seeds(ming):
    one, two = change(ming, n=2)
    assert (one.seed, two.seed) == (1, 2) and (pixels(one) != pixels(two)).any()


def test_an_unknown_guidance_mode_and_no_pictures_are_refused(ming):
    with pytest.raises(InputError, match="modes are 1 to 6"):
        change(ming, guidance_mode=9)
    with pytest.raises(InputError, match="no picture"):
        change(ming, [])


def encoded(image: Image.Image, kind="PNG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def _rotated() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn a quarter clockwise to view
    return encoded(photo((112, 56)), "JPEG", exif=exif)


@pytest.mark.parametrize(
    "source, size",
    [
        (encoded(photo(mode="L")), (64, 64)),
        (encoded(photo(mode="CMYK"), "JPEG"), (64, 64)),
        (encoded(photo(mode="RGBA")), (64, 64)),
        (encoded(photo(mode="P"), "GIF", save_all=True, append_images=[photo()]), (64, 64)),
        (_rotated(), (48, 96)),
        (encoded(photo((1, 1))), (64, 64)),
    ],
    ids=["grey", "cmyk", "alpha", "animated", "rotated by exif", "one pixel"],
)
def test_any_kind_of_picture_can_be_edited(ming, source, size):
    width, height = change(ming, source, steps=1)[0].size
    assert (width > height, width < height) == (size[0] > size[1], size[0] < size[1])


@pytest.mark.parametrize(
    "source, reason",
    [
        (encoded(photo())[:200], "cannot be read"),
        (b"", "cannot be read"),
        (b"no picture", "cannot be read"),
        (np.zeros((0, 5, 3), np.uint8), "empty"),
        ("/nowhere.png", "no picture file"),
        (Image.new("1", (12_001, 10_001)), "too large"),
        (Image.new("L", (4000, 4)), "too narrow"),
    ],
    ids=["truncated", "no bytes", "other bytes", "no pixels", "no file", "huge", "a line"],
)
def test_what_is_no_picture_gets_one_clear_sentence(ming, source, reason):
    with pytest.raises(InputError, match=reason):
        change(ming, source)


# The published call, and the command line.


def test_the_published_snippet_paints_and_edits(ming):
    model, processor = ming.model, ming.processor
    messages = [{"role": "HUMAN", "content": [{"type": "text", "text": "Draw a girl with short hair."}]}]
    text = processor.apply_chat_template(messages, add_generation_prompt=True)
    image_inputs, video_inputs, audio_inputs = processor.process_vision_info(messages)
    inputs = processor(
        text=[text],
        images=image_inputs,
        videos=video_inputs,
        audios=audio_inputs,
        return_tensors="pt",
        image_gen_aspect_ratio=None,
        image_gen_highres=False,
    ).to(model.device)
    image = model.generate(
        **inputs, image_gen=True, image_gen_cfg=6.0, image_gen_steps=2, image_gen_seed=5, image_gen_image_cfg=1.0
    )
    assert isinstance(image, Image.Image) and image.size == (64, 64) and image.info["seed"] == 5

    messages[0]["content"].insert(0, {"type": "image", "image": photo((112, 56))})
    images, _, _ = processor.process_vision_info(messages)
    inputs = processor(text=[processor.apply_chat_template(messages)], images=images, return_tensors="pt")
    edited = model.generate(**inputs, image_gen=True, image_gen_steps=2, image_gen_seed=5)
    assert edited.size == (96, 48)


def test_generate_draws_a_full_range_seed_without_touching_any_global_generator(ming):
    inputs = ming.processor.prepare("a cat", painting=True)
    torch.manual_seed(0)
    random.seed(0)
    expected = torch.get_rng_state(), random.getstate()
    one, two = (ming.model.generate(**inputs, image_gen=True, image_gen_steps=1, image_gen_seed=s) for s in (None, -1))
    assert torch.get_rng_state().equal(expected[0]) and random.getstate() == expected[1]
    assert one.info["seed"] != two.info["seed"] and max(one.info["seed"], two.info["seed"]) > 1000


def test_generate_paints_from_hidden_states_alone(ming):
    states = torch.randn(1, 16 + 4, 64)  # both query grids; the last one counts
    options = {"image_gen": True, "image_gen_steps": 1, "image_gen_seed": 0}
    whole = ming.model.generate(input_ids=None, image_gen_llm_hidden_states=states, **options)
    last = ming.model.generate(input_ids=None, image_gen_llm_hidden_states=states[:, 4:], **options)
    assert (np.asarray(whole) == np.asarray(last)).all()


def test_generate_refuses_options_it_does_not_know(ming):
    inputs = ming.processor.prepare("a cat", painting=True)
    with pytest.raises(InputError, match="image_gen_stepz"):
        ming.model.generate(**inputs, image_gen=True, image_gen_stepz=3)


@pytest.mark.parametrize("given", [(1,), (2,)])
def test_a_batch_shares_or_splits_what_it_avoids(ming, given):
    """One negative prompt for two prompts is that prompt twice; letters to draw go with their own prompt."""
    states, avoided = torch.randn(2, 16, 64), torch.randn(*given, 16, 64)
    options = {"input_ids": None, "image_gen": True, "image_gen_steps": 1, "image_gen_cfg": 3.0}
    together = ming.model.generate(
        **options,
        image_gen_seed=8,
        image_gen_llm_hidden_states=states,
        image_gen_negative_llm_hidden_states=avoided,
        image_gen_text=['Text "A". ', 'Text "B". '],
    )
    for k, image in enumerate(together):
        alone = ming.model.generate(
            **options,
            image_gen_seed=8 + k,
            image_gen_llm_hidden_states=states[k : k + 1],
            image_gen_negative_llm_hidden_states=avoided[-1:] if given == (1,) else avoided[k : k + 1],
            image_gen_text=['Text "A". ' if k == 0 else 'Text "B". '],
        )
        assert abs(np.asarray(image).astype(int) - np.asarray(alone)).max() <= 1


@pytest.mark.parametrize(
    "options, reason",
    [
        ({"image_gen_llm_hidden_states": None}, "input_ids or"),
        ({"image_gen_llm_hidden_states": torch.zeros(2, 9, 64)}, "hidden states of"),
        ({"image_gen_llm_hidden_states": torch.zeros(2, 16, 65)}, "hidden states of"),
        ({"image_gen_llm_hidden_states": torch.zeros(16, 64)}, "hidden states of"),
        ({"image_gen_negative_llm_hidden_states": torch.zeros(3, 16, 64)}, "3 negative prompts do not fit 2"),
        ({"image_gen_pixel_values_reference": torch.zeros(3, 3, 64, 64)}, "3 pictures to edit do not fit 2"),
        ({"image_gen_text": ["Text"]}, "1 texts to draw do not fit 2"),
        ({"image_gen_seed": 2**64}, "a seed lies below"),
        ({"image_gen_cfg": math.nan}, "finite"),
        ({"image_gen_height": 0}, "cannot be painted"),
        ({"image_gen_steps": 0}, "at least one step"),
    ],
)
def test_published_options_that_cannot_be_met_are_refused(ming, options, reason):
    given = {"image_gen_llm_hidden_states": torch.zeros(2, 16, 64)} | options
    with pytest.raises(InputError, match=reason):
        ming.model.generate(input_ids=None, image_gen=True, **given)


def test_batched_prompts_give_a_list(ming):
    inputs = ming.processor.prepare([conversation("a cat"), conversation("a dog on a hill")])
    images = ming.model.generate(**inputs, image_gen=True, image_gen_steps=2, image_gen_seed=3)
    alone = [
        ming.model.generate(**ming.processor.prepare(prompt), image_gen=True, image_gen_steps=2, image_gen_seed=seed)
        for prompt, seed in (("a cat", 3), ("a dog on a hill", 4))
    ]
    assert [image.info["seed"] for image in images] == [3, 4]
    for image, single in zip(images, alone, strict=True):
        assert abs(np.asarray(image).astype(int) - np.asarray(single)).max() <= 1


def test_the_whole_model_saves_and_loads_with_its_painter(ming, tmp_path):
    model = checkpoint.load("tiny")
    model.painter = ming.model.painter
    model.save_pretrained(tmp_path)
    loaded = checkpoint.load(tmp_path, load_image_gen=True)
    assert checkpoint.load(tmp_path).painter is None
    options = {"image_gen": True, "image_gen_steps": 1, "image_gen_seed": 0}
    inputs = ming.processor.prepare("a cat")
    one, two = (m.generate(**inputs, **options) for m in (model, loaded))
    assert (np.asarray(one) == np.asarray(two)).all()


def test_commands_write_numbered_files_and_say_the_seed(ming, tmp_path, capsys):
    written = paint_command(ming, "a cat", tmp_path / "cat.png", n=2, steps=1, seed=7)
    assert [path.name for path in written] == ["cat-1.png", "cat-2.png"] and all(path.exists() for path in written)
    assert "seed 7" in capsys.readouterr().out
    [path] = edit_command(ming, written[:1], "make it blue", tmp_path / "blue.png", steps=1)
    assert Image.open(path).text["prompt"] == "make it blue"
    with pytest.raises(InputError, match="no folder"):
        paint_command(ming, "a cat", tmp_path / "nowhere/cat.png")


@pytest.mark.parametrize(
    "output, reason", [("a.xyz", "written as .xyz"), ("folder", "is a folder"), ("no/a.png", "no folder")]
)
def test_a_path_that_cannot_be_written_is_refused_before_painting(ming, tmp_path, output, reason):
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match=reason):
        paint_command(ming, "a cat", tmp_path / output, on_step=lambda step: pytest.fail("painted first"))
