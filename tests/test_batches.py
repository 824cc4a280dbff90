"""train/folder.py, examples.py, words.py, packing.py, batches.py: from a user's folder to what the model reads."""

import json
from collections import Counter
from random import Random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from ming_omni.config import tiny
from ming_omni.errors import InputError
from ming_omni.model.painter import noise
from ming_omni.model.thinker import Thinker
from ming_omni.paint.masks import COLORS as MASK_COLORS_READ
from ming_omni.train import batches, examples, folder, words
from ming_omni.train.batches import collate, order
from ming_omni.train.learner import Totals, isolated_clips, levels
from ming_omni.train.losses import IGNORE
from ming_omni.train.packing import PackedAttention
from ming_omni.train.recipe import RECIPES, GuardSettings, Recipe, WordSettings
from tests import lessons
from tests.lessons import COLORS, lesson, write


@pytest.fixture(scope="module")
def parts():
    return lessons.tiny_model()


# Folders.


def test_every_task_gives_lines_of_its_kind(tmp_path):
    for task, (kind, _, _) in folder.TASKS.items():
        lines, bad = folder.read(lesson(tmp_path / task, task))
        assert [line.kind for line in lines] == [kind] * 4 and not bad


BAD = {
    "no json": ("{", "line 1: not JSON"),
    "no task": ('{"prompt": "a"}', "one of ask, transcribe"),
    "a missing name": ('{"task": "paint", "prompt": "a"}', "paint needs image"),
    "a wrong name": (
        '{"task": "speak", "text": "a", "audio": "a.wav", "speed": 1}',
        "speak has no speed; it has audio",
    ),
    "a missing file": ('{"task": "transcribe", "audio": "gone.wav", "text": "a"}', "gone.wav does not exist"),
    "an empty text": ('{"task": "transcribe", "audio": "a.wav", "text": " "}', "text is empty"),
    "no question": ('{"task": "ask", "answer": "a"}', "either a prompt or messages"),
    "a number for a text": ('{"task": "code_image", "image": "a.png", "label": 3}', "label is a text, not 3"),
    "a list for a file": ('{"task": "code_sound", "audio": ["a.wav"]}', 'audio is a text, not ["a.wav"]'),
    "a number in a list": (
        '{"task": "edit", "images": [1], "instruction": "a", "image": "a.png"}',
        "images is a text or a list of texts, not [1]",
    ),
    "no picture to edit": ('{"task": "edit", "images": [], "instruction": "a", "image": "a"}', "images is empty"),
    "a name too long for a disk": (f'{{"task": "code_sound", "audio": "{300 * "a"}"}}', "does not exist"),
    "a folder for a file": ('{"task": "code_sound", "audio": "."}', "does not exist"),
    "a number too long": ('{"task": "code_sound", "audio": ' + 5000 * "1" + "}", "not JSON"),
    "brackets without end": (100_000 * "[", "not JSON"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_line_is_named_with_its_number_and_reason(what, tmp_path):
    text, reason = BAD[what]
    (tmp_path / "train.jsonl").write_text(text + "\n")
    lines, [error] = folder.read(tmp_path)
    assert not lines and "train.jsonl line 1" in str(error) and reason in str(error)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just("joint.toml"),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(sorted(folder.TASKS)), st.data())
def test_any_line_is_either_usable_or_named_as_bad(task, data):
    _, needed, possible = folder.TASKS[task]
    names = sorted(needed) + data.draw(st.lists(st.sampled_from(sorted(possible or needed)), max_size=2))
    row = {"task": task} | {name: data.draw(VALUES) for name in names}
    try:
        line = folder.check(RECIPES, "line 1", json.dumps(row))
    except folder.BadExample as error:
        assert str(error).startswith("line 1: ")
    else:
        assert all(path.is_file() for name in folder.MEDIA & row.keys() for path in line.paths(name))


def test_a_missing_set_and_a_mixed_one_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"no training set .*train\.jsonl"):
        folder.read(tmp_path)
    one, other = (lesson(tmp_path / task, task) / "train.jsonl" for task in ("ask", "paint"))
    other.write_text(one.read_text().replace('"images": ["', '"images": ["../ask/') + other.read_text())
    with pytest.raises(InputError, match="mixes ask and paint"):
        folder.read(other.parent)


def damaged(tmp_path, task: str, name: str, content: bytes):
    where = lesson(tmp_path / task, task)
    (where / name).write_bytes(content)
    return where


DAMAGED = {"ask": "red.png", "transcribe": "red.wav", "paint": "red.png", "speak": "red.wav", "code_sound": "red.wav"}


@pytest.mark.parametrize("task", DAMAGED)
def test_a_damaged_file_is_replaced_by_the_next_line_or_stops_by_policy(task, parts, tmp_path):
    where = damaged(tmp_path, task, DAMAGED[task], b"not a medium at all")
    skip, stop = (Recipe(guard=GuardSettings(bad_examples=policy)) for policy in ("skip", "stop"))
    batch, [error] = lessons.data_set(where, *parts, skip).batch(0)
    assert len(batch.where) == 4 and "line 1" in str(error) and not any("line 1" in place for place in batch.where)
    with pytest.raises(folder.BadExample, match=r"train\.jsonl line 1: "):
        lessons.data_set(where, *parts, stop).batch(0)


def test_a_set_without_one_usable_line_is_an_error_even_when_skipping(parts, tmp_path):
    where = lesson(tmp_path / "paint", "paint")
    for color in COLORS:
        (where / f"{color}.png").write_bytes(b"nothing")
    with pytest.raises(InputError, match="not one line could be used"):
        lessons.data_set(where, *parts, Recipe(guard=GuardSettings(bad_examples="skip"))).batch(0)


def test_an_example_longer_than_max_tokens_is_bad(parts, tmp_path):
    where = lesson(tmp_path / "ask", "ask")
    with pytest.raises(folder.BadExample, match="more than max_tokens 50"):
        lessons.data_set(where, *parts, max_tokens=50).batch(0)


# Examples.


def example(parts, tmp_path, row: dict, **settings):
    lesson(tmp_path / row["task"], row["task"])
    return lessons.data_set(write(tmp_path / row["task"], [row]), *parts, **settings).batch(0)[0]


def learned_text(parts, batch) -> str:
    return parts[1].tokenizer.decode(batch.targets[batch.targets != IGNORE].tolist())


def test_only_what_the_assistant_says_is_learned_in_every_turn(parts, tmp_path):
    messages = [
        {"role": "user", "content": "first question"},
        {"role": "assistant", "content": "first answer"},
        {"role": "user", "content": [{"type": "image", "image": "red.png"}, {"type": "text", "text": "second"}]},
    ]
    row = {"task": "ask", "messages": messages, "answer": "second answer"}
    batch = example(parts, tmp_path, row, examples_per_step=1)
    assert learned_text(parts, batch) == "first answer<|role_end|>second answer<|role_end|>"
    assert batch.count == len("first answer") + len("second answer") + 2


def test_an_answer_that_spells_a_special_token_stays_text(parts, tmp_path):
    row = {"task": "ask", "prompt": "x<|role_end|>", "answer": "<|role_end|>y"}
    batch = example(parts, tmp_path, row, examples_per_step=1)
    end = parts[1].gen_terminator[0]
    learned = batch.targets[batch.targets != IGNORE].tolist()
    assert learned[-1] == end and learned.count(end) == 1


def test_a_transcript_begins_with_its_language(parts, tmp_path):
    row = {"task": "transcribe", "audio": "red.wav", "text": "bonjour", "language": "French"}
    assert learned_text(parts, example(parts, tmp_path, row, examples_per_step=1)) == "French\tbonjour<|role_end|>"


def test_a_mask_becomes_an_edit_in_its_color(parts, tmp_path):
    batch = example(parts, tmp_path, {"task": "segment", "image": "red.png", "what": "corner", "mask": "red-mask.png"})
    changed = (batch.pixels - batch.reference).abs().amax(1) > 0.1
    assert changed[:, :32, :40].float().mean() > 0.3 and not changed[:, 40:].any()
    assert all(examples.MASK_COLORS[name] == MASK_COLORS_READ[name] for name in examples.MASK_COLORS)


@pytest.mark.parametrize("task, letters", [("edit", 'Text "NEW". '), ("segment", "")])
def test_an_edit_writes_the_letters_that_it_names_and_a_mask_writes_none(task, letters, parts, tmp_path):
    rows = {
        "edit": {"images": ["red.png"], "instruction": 'write "NEW" on it', "image": "blue.png"},
        "segment": {"image": "red.png", "what": 'sign "OLD"', "mask": "red-mask.png"},
    }
    batch = example(parts, tmp_path, rows[task] | {"task": task}, examples_per_step=1)
    assert (batch.texts or [""]) == [letters]


def test_the_noise_of_a_picture_tells_neither_its_level_nor_whether_its_words_were_dropped():
    """All three come from the picture's seed; drawn by one generator, they told of each other."""
    picture_seeds = [Random(i).getrandbits(60) for i in range(1000)]
    sigma, kept = levels(picture_seeds, 0.5)
    sizes = noise(picture_seeds, (64,), torch.float32).abs()
    assert 0.45 < kept.float().mean() < 0.55 and 0.45 < sigma.mean() < 0.55
    for told in (sigma, (sigma - 0.5).abs(), kept.float()):
        assert torch.corrcoef(torch.cat([told[None], sizes.T]))[0, 1:].abs().max() < 0.15


def test_a_voice_comes_before_the_speech_that_it_is_given_for(parts, tmp_path):
    talker = parts[0].talker
    plain = example(parts, tmp_path, {"task": "speak", "text": "two", "audio": "red.wav"}, examples_per_step=1)
    row = {"task": "speak", "text": "two", "audio": "red.wav", "voice": "blue.wav", "voice_text": "one"}
    voiced = example(parts, tmp_path, row, examples_per_step=1)
    assert talker.tokenizer.decode(voiced.ids[0]).replace(" ", "").startswith("one.two.")
    longer = voiced.samples.shape[1] - plain.samples.shape[1]
    assert longer > 0 and torch.equal(voiced.samples[:, longer:], plain.samples)
    assert longer % (talker.config.patch_frames * talker.config.vae.hop_samples) == 0


# Word lists.

VOCABULARY = ["Ming", "nano", "talker", "expert", "router"]


def looks(text: str, settings: WordSettings, times: int = 300) -> list[list[str]]:
    return [words.choose(text, VOCABULARY, settings, Random(seed)) for seed in range(times)]


def test_lists_thin_the_words_said_and_add_words_that_are_not():
    lists = looks("the Talker asks Ming", WordSettings(keep=0.7, without_list=0, only_absent=0))
    share = sum("talker" in listed for listed in lists) / len(lists)
    assert 0.6 < share < 0.8
    assert any("router" in listed for listed in lists) and not any(len(listed) != len(set(listed)) for listed in lists)


def test_some_prompts_have_no_list_and_some_only_absent_words():
    lists = looks("the talker", WordSettings(keep=1.0, without_list=0.3, only_absent=0.3))
    none = sum(not listed for listed in lists) / len(lists)
    absent = sum(bool(listed) and "talker" not in listed for listed in lists) / len(lists)
    assert 0.25 < none < 0.4 and 0.25 < absent < 0.4


def test_words_are_found_whole():
    assert words.spoken(["nano", "an", "C++"], "A NANO model in C++.") == ["nano", "C++"]


def test_words_of_a_script_without_spaces_are_found_inside_a_sentence():
    """Else a list for a negative would hold what is said."""
    assert words.spoken(["北京", "上海", "Ming", "in"], "我用Ming去北京大学") == ["北京", "Ming"]
    settings = WordSettings(keep=1.0, without_list=0, only_absent=1.0)
    assert not any("北京" in words.choose("去北京大学", ["北京", "上海"], settings, Random(i)) for i in range(20))


def test_a_negative_list_is_never_empty():
    lists = looks("the talker", WordSettings(keep=1.0, without_list=0, only_absent=1.0))
    assert all(listed and "talker" not in listed for listed in lists)


def test_one_word_may_stand_without_a_list_around_it(parts, tmp_path):
    row = {"task": "transcribe", "audio": "red.wav", "text": "take Zanavir", "words": "Zanavir"}
    lesson(tmp_path, "transcribe")
    assert lessons.data_set(write(tmp_path, [row]), *parts).reader.vocabulary == ["Zanavir"]


def test_the_prompt_for_a_list_is_the_published_one():
    assert words.prompt(["a", "b"]).endswith("Format: oral.This audio may contains the following words or phrases:a,b.")


# Order.


@given(st.integers(1, 7), st.integers(0, 5), st.integers(0, 30), st.integers(1, 20))
def test_the_order_is_the_same_wherever_one_starts(num_lines, seed, start, count):
    whole = order(num_lines, seed, 0, start + count)
    assert order(num_lines, seed, start, count) == whole[start:]
    rounds = [whole[i : i + num_lines] for i in range(0, len(whole), num_lines)]
    assert all(sorted(one) == list(range(num_lines)) for one in rounds if len(one) == num_lines)


def test_pieces_of_a_step_are_the_step(parts, tmp_path):
    data = lessons.data_set(lesson(tmp_path / "ask", "ask"), *parts)
    whole, _ = data.batch(3)
    halves = [data.batch(3, piece, 2)[0] for piece in range(2)]
    assert [place for half in halves for place in half.where] == whole.where
    assert Counter(whole.where).most_common(1)[0][1] == 1


def test_the_same_step_gives_the_same_batch_and_another_step_another(parts, tmp_path):
    data = lessons.data_set(lesson(tmp_path / "transcribe", "transcribe"), *parts, examples_per_step=2)
    first, again, later = data.batch(1)[0], data.batch(1)[0], data.batch(2)[0]
    assert torch.equal(first.packed.inputs["input_ids"], again.packed.inputs["input_ids"])
    assert first.where != later.where


# Packing.


def share(learner, batch, whole) -> float:
    totals = Totals(whole.count, whole.present, whole.num_tokens, 1)
    with torch.no_grad():
        losses = learner(batch, totals, torch.Generator().manual_seed(0))
    return {name: float(value) for name, value in losses.items()}


@pytest.mark.parametrize("task", ["ask", "transcribe", "paint", "edit"])
def test_packed_examples_cost_what_they_cost_one_by_one(task, parts, tmp_path):
    """Every loss, the balance included: boundaries, positions, modalities and clips of different lengths are exact."""
    model, _ = parts
    data = lessons.data_set(lesson(tmp_path / task, task), *parts)
    learner = lessons.learner(model, Recipe(), data.kind)
    lines = [data.reader.read(line, i) for i, line in enumerate(data.lines)]
    if task == "ask":
        lines[1].inputs = {"input_ids": lines[1].inputs["input_ids"][:, -20:]}  # one without a picture
        lines[1].targets = lines[1].targets[-20:]
    if task == "paint":
        lines[1].text = ""  # one without letters, which is painted without the gaps that letters would leave
    together = collate(data.kind, lines, model)
    single = [share(learner, collate(data.kind, [line], model), together) for line in lines]
    packed = share(learner, together, together)
    assert packed["balance/auxiliary"] > 0
    for name, value in packed.items():
        assert value == pytest.approx(sum(one[name] for one in single), rel=2e-4), name


def test_pictures_that_nobody_labelled_cost_the_classifier_nothing(parts, tmp_path):
    """A mean over no picture is not a number, and would skip the step."""
    lesson(tmp_path, "code_image")
    rows = [{"task": "code_image", "image": f"{color}.png"} for color in COLORS]
    batch, _ = lessons.data_set(write(tmp_path, rows), *parts, image_size=32).batch(0)
    costs = share(lessons.learner(parts[0], Recipe(), "code_image"), batch, batch)
    assert costs["classifier"] == 0 and all(abs(cost) < float("inf") for cost in costs.values())


def test_no_token_sees_another_sequence():
    torch.manual_seed(0)
    config = tiny().thinker
    config.initializer_range = 0.2
    thinker = Thinker(config).eval()
    lengths = [3, 5, 2]
    x, places = torch.randn(1, 10, 64), torch.cat([torch.arange(n) for n in lengths]).expand(3, 1, -1)
    x.requires_grad_()
    before = thinker(x, places, cache=PackedAttention(lengths)).hidden
    [gradient] = torch.autograd.grad(before[:, 3:8].square().sum(), x, retain_graph=True)
    assert gradient[:, :3].eq(0).all() and gradient[:, 8:].eq(0).all() and gradient[:, 3:8].ne(0).any(-1).all()
    same = [thinker(x[:, a:b], places[:, :, a:b]).hidden for a, b in ((0, 3), (3, 8), (8, 10))]
    assert_close(before, torch.cat(same, 1), atol=1e-5, rtol=1e-4)


def test_equal_lengths_take_one_call_with_the_same_result():
    q, k, v = torch.randn(1, 4, 6, 8), torch.randn(1, 2, 6, 8), torch.randn(1, 2, 6, 8)
    stacked = PackedAttention([3, 3]).attend(0, q, k, v, None)
    halves = [PackedAttention([3]).attend(0, *(x[:, :, a : a + 3] for x in (q, k, v)), None) for a in (0, 3)]
    assert_close(stacked, torch.cat(halves, 2))


def test_clips_are_isolated_only_while_training_reads_them(parts):
    config = parts[0].config.audio
    assert config.clip_isolation is False
    with pytest.raises(ZeroDivisionError), isolated_clips(parts[0]):
        assert config.clip_isolation is True
        _ = 1 / 0
    assert config.clip_isolation is False


def test_a_saved_batch_names_its_lines(parts, tmp_path):
    batch, _ = lessons.data_set(lesson(tmp_path / "paint", "paint"), *parts).batch(0)
    assert json.dumps(batch.where) and set(batch.tensors()) >= {"input_ids", "pixels"}
    assert isinstance(batch, batches.Batch)
