"""The look during training: right answers count as right, wrong ones by their errors, in batches as alone."""

import numpy as np
import pytest
import torch
from PIL import Image as Pillow

from ming_omni.evaluate.quick import Case, answers, num_edits, quick_scores
from ming_omni.inputs.messages import Audio, Image, Message, Text, Video
from ming_omni.transcribe.prompts import question
from tests.lessons import stripes
from tests.media import tone
from tests.taught import Exercise, teach, untaught


@pytest.fixture(scope="module")
def taught():
    """A model, its processor, and (kind, what it is asked, what it says)."""
    model, processor = untaught(width=128)
    frames = [np.array(stripes(color)) for color in ("red", "green", "blue", "yellow")]
    asked = [
        ("colour en", [Image(stripes("red")), Text("Which?")], "Red."),
        ("colour en", [Image(stripes("blue", 84, 56)), Text("Which colour?")], "blue"),
        ("order zh", [Video([Pillow.fromarray(frame) for frame in frames]), Text("?")], "狗"),
        ("english", [Text(question()), Audio((torch.tensor(tone(0.4)), 16_000))], "English\tThe cat sat."),
        ("english", [Text(question()), Audio((torch.tensor(tone(0.7, frequency_hz=660)), 16_000))], "English\ta cat"),
        ("mandarin", [Text(question()), Audio((torch.tensor(tone(0.3, frequency_hz=880)), 16_000))], "Chinese\t你好吗"),
        ("text", [Text("Say yes.")], "yes"),
    ]
    rows = [(kind, processor.prepare(Message("user", content)), said) for kind, content, said in asked]
    return teach(model, processor, [Exercise(inputs, said) for _, inputs, said in rows]), processor, rows


def scores(taught, rights, batch=64):
    model, processor, rows = taught
    cases = [Case(kind, inputs, right) for (kind, inputs, _), right in zip(rows, rights, strict=True)]
    return quick_scores(model, processor, cases, batch)


def test_right_answers_score_full_marks_whatever_their_case_and_marks(taught):
    rights = ["red", "Blue", "狗", "English\tthe cat sat", "English\tA cat.", "Chinese\t你好吗？", "Yes!"]
    assert scores(taught, rights) == {
        "colour en": 1, "order zh": 1, "english/errors": 0, "english/language": 1, "mandarin/errors": 0,
        "mandarin/language": 1, "text": 1,
    }  # fmt: skip


def test_wrong_answers_are_counted_by_hand(taught):
    # One colour of two; sat for ran among 3 + 2 words; one of four characters missing and the language wrong.
    rights = ["red", "green", "猫", "English\tThe cat ran.", "English\ta cat", "东北\t你好吗你", "yes"]
    assert scores(taught, rights) == {
        "colour en": 0.5, "order zh": 0, "english/errors": 0.2, "english/language": 1, "mandarin/errors": 0.25,
        "mandarin/language": 0, "text": 1,
    }  # fmt: skip


@pytest.mark.parametrize("batch", [1, 3, 64])
def test_answers_do_not_depend_on_the_batch(taught, batch):
    model, processor, rows = taught
    cases = [Case(kind, inputs, said) for kind, inputs, said in rows]
    assert answers(model, processor, cases, batch) == [said for _, _, said in rows]


def test_a_model_in_training_goes_on_training(taught):
    model, processor, rows = taught
    model.train()
    answers(model, processor, [Case("text", rows[-1][1], "yes")])
    assert model.training
    model.eval()


@pytest.mark.parametrize(
    ("said", "heard", "edits"), [("abc", "abc", 0), ("abc", "axc", 1), ("abc", "", 3), ("", "ab", 2)]
)
def test_edits_are_the_fewest(said, heard, edits):
    assert num_edits(said, heard) == edits
