"""The eyes and ears that ship with nano: pictures, print, films and speech, from Python, the terminal and over HTTP."""

import asyncio
import base64
import json
from pathlib import Path

import av
import numpy as np
import openai
import pytest
import soxr
from PIL import Image, ImageDraw, ImageFont, ImageOps
from typer.testing import CliRunner

from ming_omni import Ming
from ming_omni.cli import app
from ming_omni.evaluate.metrics import character_errors, word_errors
from ming_omni.inputs.audio import load_audio
from ming_omni.inputs.mel import SAMPLE_RATE_HZ
from ming_omni.inputs.messages import UNHEARD, Audio, Message, Text
from ming_omni.transcribe.prompts import question
from tests.callers import WIRE_HZ, Caller, spoken, written
from tests.media import data_url
from tests.serving import openai_client, serving

EXAMPLES = Path(__file__).parent.parent / "examples" / "understand"
SAILBOAT, ENVELOPE, WORD = (EXAMPLES / name for name in ("sailboat.png", "envelope.png", "word.png"))
WHERE = "Where is the envelope?"
DIRECTION = "In which direction does the monkey move?"


@pytest.fixture(scope="module")
def nano():
    return Ming.load("nano")


@pytest.fixture(scope="module")
def served(nano):
    with serving(nano) as served:
        yield served


@pytest.fixture(scope="module")
def client(served):
    with openai_client(served) as client:
        yield client


# Pictures


@pytest.mark.parametrize(
    ("question", "picture", "answer"),
    [
        ("What is in the picture?", SAILBOAT, "a sailboat"),
        ("图里有什么？", SAILBOAT, "帆船"),
        ("What is in the picture?", WORD, "a saxophone"),
        ("What colour is the sailboat?", SAILBOAT, "purple"),
        ("帆船是什么颜色的？", SAILBOAT, "紫色"),
        ("Where is the sailboat?", SAILBOAT, "at the top left"),
        ("信封在哪里？", ENVELOPE, "左上角"),
    ],
)
def test_nano_names_a_thing_its_colour_and_its_place_in_both_languages(nano, question, picture, answer):
    assert nano.ask(question, images=picture, max_tokens=16) == answer


@pytest.mark.parametrize(("thing", "picture"), [("a sailboat", SAILBOAT), ("a cloud", ENVELOPE), ("a saxophone", WORD)])
def test_nano_finds_what_is_there_and_denies_what_is_not(nano, thing, picture):
    answers = {path: nano.ask(f"Is there {thing}?", images=path, max_tokens=4) for path in (SAILBOAT, ENVELOPE, WORD)}
    assert answers == {path: "yes" if path == picture else "no" for path in answers}


@pytest.mark.parametrize(
    ("turned", "place"),
    [
        (lambda picture: picture, "at the top left"),
        (ImageOps.mirror, "at the top right"),
        (ImageOps.flip, "at the bottom left"),
        (lambda picture: picture.rotate(180), "at the bottom right"),
    ],
)
def test_a_turned_picture_turns_the_answer(nano, turned, place):
    assert nano.ask(WHERE, images=turned(Image.open(ENVELOPE)), max_tokens=16) == place


@pytest.mark.parametrize("word", ["bread", "garden", "market", "open"])
def test_nano_reads_a_printed_word(nano, word):
    """In the type that comes with Pillow."""
    page = Image.new("RGB", (256, 256), "white")
    ImageDraw.Draw(page).text((128, 128), word, fill="black", font=ImageFont.load_default(48), anchor="mm")
    assert nano.ask("What does it say?", images=page, max_tokens=8) == word


# Films


@pytest.mark.parametrize(
    ("shown", "direction"),
    [
        (lambda frames: frames, "down"),
        (lambda frames: frames[::-1], "up"),
        (lambda frames: [frame.transpose(1, 0, 2) for frame in frames], "right"),
        (lambda frames: [frame.transpose(1, 0, 2) for frame in frames[::-1]], "left"),
    ],
    ids=["forwards", "backwards", "lying", "lying and backwards"],
)
def test_nano_tells_in_which_direction_something_moves(nano, shown, direction):
    with av.open(EXAMPLES / "monkey.mp4") as film:
        frames = [frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)]
    assert nano.ask(DIRECTION, video=shown(frames), max_tokens=8) == direction


def test_nano_tells_what_comes_first_in_a_film(nano):
    asked = "Which comes first, the graduation cap or the ant?"
    assert nano.ask(asked, video=EXAMPLES / "ant.mp4", max_tokens=8) == "the ant"


# Speech

SAID = {
    EXAMPLES / "english.flac": ("Do you love your mother?", "English"),
    EXAMPLES / "mandarin.flac": ("他刚好赶上了车。", "Chinese"),
    EXAMPLES / "telephone.wav": ("Nobody is available to take your call at the moment.", "English"),
    EXAMPLES / "word.flac": ("病毒", "Chinese"),
}
"""Two synthetic voices, then two real ones."""
MOST_WRONG = 0.2
"""Share of words, in Mandarin of characters."""


@pytest.mark.parametrize("path", SAID, ids=lambda path: path.stem)
def test_nano_writes_down_four_of_five_words_that_it_hears_and_names_the_language(nano, path):
    said, language = SAID[path]
    heard = nano.transcribe(path)
    assert heard.language == language
    errors = word_errors if language == "English" else character_errors
    assert errors(said, heard.text).rate <= MOST_WRONG


def test_nano_tells_a_dialect_from_plain_mandarin(nano):
    assert [nano.transcribe(EXAMPLES / f"{name}.flac").dialect for name in ("sichuan", "mandarin")] == ["Chuanyu", None]


# The terminal


def test_the_terminal_answers_about_a_picture():
    asked = CliRunner().invoke(app, ["ask", WHERE, "--image", str(ENVELOPE), "--max-tokens", "16"])
    assert asked.exit_code == 0, asked.output
    assert asked.stdout.strip() == "at the top left"


def test_the_terminal_writes_speech_down():
    heard = CliRunner().invoke(app, ["transcribe", str(EXAMPLES / "mandarin.flac"), "--format", "json"])
    assert heard.exit_code == 0, heard.output
    assert character_errors("他刚好赶上了车。", json.loads(heard.stdout)["text"]).rate <= MOST_WRONG


# A server


def test_a_client_learns_that_nano_sees_hears_and_speaks_but_does_not_paint(client):
    (card,) = client.models.list().data
    assert set(card.capabilities) == {"text", "image_in", "video_in", "audio_in", "speech_out"}
    with pytest.raises(openai.BadRequestError, match="nano cannot paint: this model has no painter"):
        client.images.generate(model="nano", prompt="a red square")


@pytest.mark.parametrize(
    ("kind", "path", "question", "answer"),
    [
        ("image", ENVELOPE, WHERE, "at the top left"),
        ("video", EXAMPLES / "monkey.mp4", DIRECTION, "down"),
    ],
)
def test_a_client_is_answered_about_what_it_sends(client, kind, path, question, answer):
    data = data_url(path.read_bytes(), f"{kind}/{path.suffix[1:]}")
    content = [{"type": f"{kind}_url", f"{kind}_url": {"url": data}}, {"type": "text", "text": question}]
    messages = [{"role": "user", "content": content}]
    replied = client.chat.completions.create(model="nano", messages=messages, max_tokens=16)
    assert replied.choices[0].message.content == answer


def test_a_client_has_speech_written_down(client):
    with (EXAMPLES / "english.flac").open("rb") as sound:
        written = client.audio.transcriptions.create(model="nano", file=sound)
    assert word_errors("Do you love your mother?", written.text).rate <= MOST_WRONG


# Spoken turns: nano only writes down what it hears, so it does that first, and answers the words

QUESTION = EXAMPLES / "english.flac"
ANSWERED = 12
"""Tokens of an answer that are compared."""


def sound_part(data: bytes) -> dict:
    return {"type": "input_audio", "input_audio": {"data": base64.b64encode(data).decode(), "format": "wav"}}


@pytest.fixture(scope="module")
def answer(nano):
    """What nano says to the question when it is written."""
    return nano.ask(nano.transcribe(QUESTION).text, max_tokens=ANSWERED)


def test_a_question_that_is_only_spoken_is_answered_in_chat_as_the_written_one_is(client, answer):
    messages = [{"role": "user", "content": [sound_part(QUESTION.read_bytes())]}]
    asked = {"model": "nano", "messages": messages, "max_tokens": ANSWERED}
    assert client.chat.completions.create(**asked).choices[0].message.content == answer
    deltas = (chunk.choices[0].delta.content or "" for chunk in client.chat.completions.create(**asked, stream=True))
    assert "".join(deltas) == answer
    voice = {"modalities": ["text", "audio"], "audio": {"voice": "heart", "format": "wav"}}
    said = client.chat.completions.create(**asked | voice | {"max_tokens": 4}).choices[0].message.audio
    assert answer.startswith(said.transcript) and said.transcript


def test_a_spoken_turn_of_an_earlier_time_is_remembered_by_its_words(nano):
    spoken_first, written_first = (
        [Message("user", [first]), Message("assistant", "Yes."), Message("user", "Why?")]
        for first in (Audio(QUESTION), Text(nano.transcribe(QUESTION).text))
    )
    assert nano.heard(spoken_first) == written_first


def test_a_sound_that_something_is_asked_about_is_heard_itself(client, nano):
    content = [{"type": "text", "text": question()}, sound_part(QUESTION.read_bytes())]
    messages = [{"role": "user", "content": content}]
    replied = client.chat.completions.create(model="nano", messages=messages, max_tokens=16)
    assert replied.choices[0].message.content.startswith("English\t")


def test_a_question_that_a_caller_speaks_is_answered_as_the_written_one_is(served, nano, answer):
    samples = soxr.resample(load_audio(QUESTION).numpy(), SAMPLE_RATE_HZ, WIRE_HZ)
    pause = np.zeros(WIRE_HZ, np.float32)
    sound = (np.concatenate([pause, samples, pause]).clip(-1, 1) * 32_767).astype("<i2").tobytes()

    async def conversation():
        async with Caller(served.url, model="nano") as caller:
            await caller.update(output_modalities=["text"], max_output_tokens=ANSWERED)
            await caller.say(sound, pace=2.0)
            response = (await caller.until("response.done")).response
            assert response.output[0].content[0].text == answer
            item = caller.all("conversation.item.added")[0].item
            assert item.content[0].type == "input_audio"
            assert item.content[0].transcript == nano.transcribe(QUESTION).text

    asyncio.run(conversation())


def test_the_words_that_were_answered_are_told_to_a_session_that_asks_for_them(served, nano):
    async def conversation():
        async with Caller(served.url, model="nano") as caller:
            written_down = {"input": {"transcription": {"language": "en"}}}
            await caller.update(output_modalities=["text"], max_output_tokens=4, audio=written_down)
            await caller.say(spoken("english-seven.wav"), pace=4.0)
            heard = await caller.until("conversation.item.input_audio_transcription.completed")
            assert word_errors("seven", heard.transcript).rate == 0
            assert heard.transcript == written(caller.all("conversation.item.input_audio_transcription.delta"))
            response = (await caller.until("response.done")).response
            assert response.output[0].content[0].text == nano.ask(heard.transcript, max_tokens=4)

    asyncio.run(conversation())


def test_a_turn_in_which_nobody_is_heard_is_answered_as_a_silence(served, nano):
    silence = base64.b64encode(bytes(WIRE_HZ)).decode()
    content = [{"type": "input_audio", "audio": silence}]

    async def conversation():
        async with Caller(served.url, model="nano") as caller:
            await caller.update(output_modalities=["text"], max_output_tokens=4)
            item = {"type": "message", "role": "user", "content": content}
            await caller.send("conversation.item.create", item=item)
            await caller.send("response.create")
            response = (await caller.until("response.done")).response
            assert response.output[0].content[0].text == nano.ask(UNHEARD, max_tokens=4)
            assert caller.all("conversation.item.added")[0].item.content[0].transcript == ""

    asyncio.run(conversation())
