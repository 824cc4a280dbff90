"""The official client against a real server: texts spoken in every format, streamed, and in cloned voices."""

import base64
import json

import httpx
import numpy as np
import openai
import pytest

from ming_omni.inputs.audio import read_audio
from tests.media import tone, wav
from tests.serving import openai_client, serving, tiny_ming, until, whole_ming
from tests.test_server import slow_request
from tests.test_voices import speech

TEXT = "Hello there. How are you?"
SAMPLE = ("ada.wav", wav(speech(4.0).numpy()), "audio/wav")
CONSENT = "I am Ada and agree."


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    with serving(whole_ming(tmp_path_factory.mktemp("voices"))) as served:
        yield served


@pytest.fixture(scope="module")
def client(served):
    with openai_client(served) as client:
        yield client


def speak(client, **options):
    options = {"model": "tiny", "input": TEXT, "voice": "default", "extra_body": {"seed": 1}} | options
    return client.audio.speech.create(**options)


@pytest.mark.parametrize(
    ("form", "kind"),
    [
        ("mp3", "audio/mpeg"),
        ("opus", "audio/ogg"),
        ("aac", "audio/aac"),
        ("flac", "audio/flac"),
        ("wav", "audio/wav"),
    ],
)
def test_every_format_holds_what_python_says(client, served, form, kind):
    answer = speak(client, response_format=form)
    samples, rate_hz = read_audio(answer.content)
    expected = served.ming.speak(TEXT, seed=1)
    assert answer.response.headers["content-type"] == kind
    assert samples.shape[1] / rate_hz == pytest.approx(expected.seconds, abs=0.15)


def test_bare_samples_come_at_24_khz(client, served):
    samples = np.frombuffer(speak(client, response_format="pcm").content, "<i2")
    assert len(samples) / 24_000 == pytest.approx(served.ming.speak(TEXT, seed=1).seconds, abs=0.01)


def test_lossless_speech_is_pythons_to_a_step_of_16_bits(client, served):
    samples, _ = read_audio(speak(client, response_format="flac").content)
    expected = np.rint(np.clip(served.ming.speak(TEXT, seed=1).samples, -1, 1) * 32_767)
    # Beside other speakers of the server, sums are rounded in another order.
    assert np.abs(samples[0].numpy() * 32_768 - expected).max() <= 1


def test_a_sound_is_sent_while_it_is_spoken(client):
    with client.audio.speech.with_streaming_response.create(
        model="tiny", input=TEXT * 4, voice="default", response_format="pcm"
    ) as answer:
        assert len(list(answer.iter_bytes())) > 4


def test_events_carry_the_same_bytes(served, client):
    body = {"model": "tiny", "input": TEXT, "response_format": "pcm", "stream_format": "sse", "seed": 1}
    answer = httpx.post(f"{served.url}/v1/audio/speech", json=body, timeout=60)
    lines = [line.removeprefix("data: ") for line in answer.text.split("\n\n") if line]
    events = [json.loads(line) for line in lines[:-1]]
    assert lines[-1] == "[DONE]" and events[-1]["type"] == "speech.audio.done"
    data = b"".join(base64.b64decode(e["audio"]) for e in events if e["type"] == "speech.audio.delta")
    assert data == speak(client, response_format="pcm").content


def test_twice_the_speed_is_half_the_time(client):
    once, twice = (len(speak(client, response_format="pcm", speed=speed).content) for speed in (1.0, 2.0))
    assert twice == pytest.approx(once / 2, rel=0.15)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"voice": "alloy"}, "there is no voice 'alloy'"),
        ({"voice": {"name": "alloy"}}, "voice: input should be a valid string"),
        ({"instructions": "cheerfully"}, "instructions is not supported by this server"),
        ({"response_format": "ogg"}, "response_format: input should be"),
        ({"speed": 9.0}, "speed: input should be less than or equal to 4"),
        ({"input": ""}, "input: string should have at least 1 character"),
        ({"input": "!?"}, "the text holds nothing that can be said"),
        ({"input": "x" * 20_001}, "input: string should have at most 20000 characters"),
        ({"extra_body": {"pitch": 2}}, "there is no parameter pitch"),
    ],
)
def test_what_cannot_be_said_is_refused_in_a_sentence(client, options, message):
    with pytest.raises(openai.BadRequestError) as caught:
        speak(client, **options)
    assert message in caught.value.body["message"]


def test_a_voice_is_added_used_listed_and_deleted(client, served):
    added = client.audio.voices.create(
        name="Ada", consent=CONSENT, audio_sample=SAMPLE, extra_body={"text": "What Ada says."}
    )
    assert (added.id, added.object, added.type) == ("Ada", "audio.voice", "audio_sample") and added.created_at > 0
    listed = httpx.get(f"{served.url}/v1/audio/voices").json()["data"]
    assert [voice["id"] for voice in listed] == ["default", "Ada"]
    assert (listed[1]["consent"], listed[1]["text"]) == (CONSENT, "What Ada says.")
    named = speak(client, voice="Ada", response_format="flac").content
    assert named == speak(client, voice={"id": "Ada"}, response_format="flac").content
    assert named != speak(client, response_format="flac").content
    with pytest.raises(openai.BadRequestError, match="there is a voice 'Ada' already"):
        client.audio.voices.create(name="Ada", consent=CONSENT, audio_sample=SAMPLE)
    gone = client.audio.voices.delete("Ada")
    assert (gone.id, gone.deleted) == ("Ada", True)
    with pytest.raises(openai.NotFoundError, match="there is no voice 'Ada'"):
        client.audio.voices.delete("Ada")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"consent": " "}, "a cloned voice needs a consent note"),
        ({"name": "../ada"}, "cannot name a voice"),
        ({"name": "default"}, "default is the talker's own voice"),
        ({"audio_sample": ("a.wav", wav(tone(1.0)))}, "a voice takes 3 to 30 seconds of speech, not 1.0"),
        ({"audio_sample": ("a.wav", b"no sound")}, "the sound cannot be read"),
        ({"extra_body": {"age": 3}}, "there is no parameter age"),
    ],
)
def test_voices_that_cannot_be_kept_are_refused_in_a_sentence(client, options, message):
    with pytest.raises(openai.BadRequestError) as caught:
        client.audio.voices.create(**{"name": "Bea", "consent": CONSENT, "audio_sample": SAMPLE} | options)
    assert message in caught.value.body["message"]


def test_a_model_without_a_talker_says_so():
    ming = tiny_ming()
    ming.name = "mute"
    with serving(ming) as served, openai.OpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=5) as client:
        with pytest.raises(openai.BadRequestError, match="mute cannot speak: this model has no talker"):
            speak(client, model="mute")
        with pytest.raises(openai.BadRequestError, match="mute cannot speak: this model has no talker"):
            client.chat.completions.create(
                model="mute",
                messages=[{"role": "user", "content": "x"}],
                modalities=["text", "audio"],
                audio={"voice": "default", "format": "wav"},
            )


def test_whoever_leaves_ends_the_speech_after_the_step(served):
    loop = served.ming.speaker.loop
    body = {"model": "tiny", "input": "One more sentence. " * 900, "response_format": "pcm"}
    leaver = slow_request(served.url, path="/v1/audio/speech", body=json.dumps(body).encode())
    until(lambda: loop.speaking)
    leaver.close()
    until(lambda: not loop.speaking and not loop.waiting and not served.server.inside)
