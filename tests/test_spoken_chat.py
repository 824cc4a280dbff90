"""Chat with `modalities: ["text", "audio"]`: what is written is also spoken, whole and while it is written."""

import base64
import io
import json

import openai
import pytest
import soundfile

from ming_omni.serve import spoken
from tests.serving import openai_client, serving, until, whole_ming
from tests.test_server import slow_request

ASKED = {"model": "tiny", "messages": [{"role": "user", "content": "tell me more"}], "max_tokens": 48, "seed": 1}
SPOKEN = {"modalities": ["text", "audio"], "audio": {"voice": "default", "format": "pcm16"}}


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    with serving(whole_ming(tmp_path_factory.mktemp("voices"))) as served:
        yield served


@pytest.fixture(scope="module")
def client(served):
    with openai_client(served) as client:
        yield client


@pytest.fixture(scope="module")
def written(client) -> str:
    return client.chat.completions.create(**ASKED).choices[0].message.content


def test_a_spoken_answer_is_the_written_one_with_sound(client, written):
    audio = {"voice": "default", "format": "wav"}
    answer = client.chat.completions.create(**ASKED, modalities=["text", "audio"], audio=audio)
    message = answer.choices[0].message
    assert message.content is None and message.audio.transcript == written
    samples, rate_hz = soundfile.read(io.BytesIO(base64.b64decode(message.audio.data)))
    assert rate_hz == 16_000 and len(samples) > rate_hz / 8
    assert message.audio.expires_at > answer.created and answer.usage.completion_tokens == 48


def streamed(client, **options) -> list:
    return [chunk for chunk in client.chat.completions.create(**ASKED | SPOKEN | options, stream=True) if chunk.choices]


def test_a_streamed_answer_brings_words_and_then_their_sound(client, written):
    chunks = streamed(client)
    pieces = [chunk.choices[0].delta.audio for chunk in chunks]
    assert "".join(piece.transcript or "" for piece in pieces) == written
    sounds = [i for i, piece in enumerate(pieces) if piece.data]
    words = [i for i, piece in enumerate(pieces) if piece.transcript]
    assert len(sounds) > 3 and words[0] < sounds[0]
    assert len({piece.id for piece in pieces}) == 1 and pieces[-1].expires_at > chunks[0].created
    assert [chunk.choices[0].finish_reason for chunk in chunks][-1] == "length"
    assert sum(len(base64.b64decode(pieces[i].data)) for i in sounds) > 8_000


def test_speech_begins_before_the_answer_is_written(client):
    """This answer has a full stop early on: what stands before it is heard while the rest is written."""
    chunks = streamed(client, max_tokens=150, temperature=1.0, seed=16)
    pieces = [chunk.choices[0].delta.audio for chunk in chunks]
    first_sound = next(i for i, piece in enumerate(pieces) if piece.data)
    assert any(piece.transcript for piece in pieces[first_sound:])


def test_an_answer_without_words_is_silent(client):
    answer = client.chat.completions.create(**ASKED | {"max_tokens": 1}, **SPOKEN)
    assert answer.choices[0].message.audio.data == "" or len(answer.choices[0].message.audio.transcript) == 1


def test_the_next_turn_may_name_a_spoken_one_by_its_id(client):
    message = client.chat.completions.create(**ASKED, **SPOKEN).choices[0].message
    more = [{"role": "user", "content": "go on"}]
    by_id = [*ASKED["messages"], {"role": "assistant", "audio": {"id": message.audio.id}}, *more]
    by_text = [*ASKED["messages"], {"role": "assistant", "content": message.audio.transcript}, *more]
    answers = [client.chat.completions.create(**ASKED | {"messages": turns}) for turns in (by_id, by_text)]
    assert answers[0].choices[0].message.content == answers[1].choices[0].message.content


def test_a_spoken_turn_is_forgotten_in_time(client, monkeypatch):
    monkeypatch.setattr(spoken, "KEPT_ANSWERS", 1)
    first = client.chat.completions.create(**ASKED, **SPOKEN).choices[0].message
    client.chat.completions.create(**ASKED, **SPOKEN)
    turns = [*ASKED["messages"], {"role": "assistant", "audio": {"id": first.audio.id}}]
    with pytest.raises(openai.NotFoundError, match="send its transcript as content"):
        client.chat.completions.create(**ASKED | {"messages": turns})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"modalities": ["audio"]}, "what is spoken is also written"),
        ({"modalities": ["text", "video"]}, "modalities[1]: input should be 'text' or 'audio'"),
        ({"audio": None}, "audio (voice and format) goes with modalities"),
        ({"modalities": ["text"]}, "audio (voice and format) goes with modalities"),
        ({"audio": {"voice": "alloy", "format": "wav"}}, "there is no voice 'alloy'"),
        ({"audio": {"voice": "default"}}, "audio.format is missing"),
        ({"audio": {"voice": "default", "format": "mp3"}, "stream": True}, "a stream carries audio as pcm16"),
        ({"n": 2}, "a spoken answer has one choice"),
        ({"logprobs": True}, "a spoken answer has one choice and no logprobs"),
    ],
)
def test_what_cannot_be_spoken_is_refused_in_a_sentence(client, options, message):
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(**ASKED | SPOKEN | options)
    assert message in caught.value.body["message"]


@pytest.mark.parametrize("stream", [False, True])
def test_whoever_leaves_ends_both_writing_and_speaking(served, stream):
    loop = served.ming.speaker.loop
    body = {
        "model": "tiny",
        "messages": ASKED["messages"],
        "max_tokens": 6000,
        "seed": 16,
        "temperature": 1,
        "stream": stream,
    } | SPOKEN
    leaver = slow_request(served.url, body=json.dumps(body).encode())
    until(lambda: loop.speaking)
    leaver.close()
    until(lambda: served.is_idle and not loop.speaking and not loop.waiting and not served.server.inside)
