"""The official client against a real server: transcriptions in every form, streamed, refused and abandoned."""

import json

import httpx
import openai
import pytest

from ming_omni.config import tiny
from ming_omni.inputs.processor import MingProcessor
from ming_omni.inputs.tiny import tiny_tokenizer
from ming_omni.ming import Ming
from ming_omni.model.omni import MingForConditionalGeneration
from ming_omni.serve import transcriptions
from ming_omni.transcribe import transcribe
from tests.media import wav
from tests.serving import openai_client, serving, tiny_ming, until
from tests.talks import RATE_HZ, WORDS, music, silence, talk
from tests.taught import Lesson, taught
from tests.test_transcribe import TALK, stretches

SOUND = wav(TALK, RATE_HZ, subtype="FLOAT")
LONG = wav(talk(list(WORDS) * 4, 1.0)[0], RATE_HZ)


@pytest.fixture(scope="module")
def served():
    thanks, three = stretches(TALK)
    ming = taught(
        Lesson(thanks, "上海\t谢谢"),
        Lesson(three, "English\tthree"),
        Lesson(thanks, "歇歇", words=("歇歇",), forced="上海\t"),
        Lesson(three, "歇歇", words=("歇歇",), forced="English\t"),
    )
    with serving(ming) as served:
        yield served


@pytest.fixture(scope="module")
def client(served):
    with openai_client(served) as client:
        yield client


def ask(client, sound: bytes = SOUND, **options):
    return client.audio.transcriptions.create(**{"model": "taught", "file": ("talk.wav", sound)} | options)


def test_json_is_the_text_and_the_length(client):
    answer = ask(client)
    assert answer.text == "谢谢three"
    assert (answer.usage.type, answer.usage.seconds) == ("duration", pytest.approx(len(TALK) / RATE_HZ, abs=1e-3))


def test_text_is_the_text(client):
    assert ask(client, response_format="text") == "谢谢three\n"


@pytest.mark.parametrize(("form", "header", "point"), [("srt", "1\n", ","), ("vtt", "WEBVTT\n\n", ".")])
def test_subtitles_have_the_times_of_the_words(client, form, header, point):
    answer = ask(client, response_format=form)
    assert answer.startswith(header) and f"00:00:03{point}264 --> 00:00:03{point}968\n" in answer


def test_verbose_json_has_languages_times_and_certainty(client, served):
    answer = ask(client, response_format="verbose_json", timestamp_granularities=["segment"])
    assert (answer.language, answer.dialect, answer.text) == ("chinese", "Shanghai", "谢谢three")
    assert answer.confidence > 0.9 and answer.leaks == []
    first, second = answer.segments
    assert (first.id, second.id) == (
        0,
        1,
    ) and 3.0 < first.start < first.end < second.start < second.end < answer.duration
    assert served.ming.processor.tokenizer.decode(second.tokens) == second.text == "three"
    assert first.seek == round(100 * first.start) and 0 <= first.no_speech_prob < 0.3 and first.avg_logprob > -0.1


def test_a_stream_is_the_text_in_pieces_and_then_whole(client):
    events = list(ask(client, stream=True))
    deltas = [event.delta for event in events if event.type == "transcript.text.delta"]
    assert len(deltas) > 2 and "".join(deltas) == "谢谢three"
    assert [(event.type, event.text) for event in events[-1:]] == [("transcript.text.done", "谢谢three")]


@pytest.mark.parametrize(
    "options",
    [
        {"extra_body": {"context": json.dumps({"words": ["歇歇"]})}},
        {"keywords": ["歇歇"]},
    ],
    ids=["context", "keywords"],
)
def test_context_helps_and_its_leaks_are_named(client, options):
    answer = ask(client, response_format="verbose_json", **options)
    assert answer.text == "歇歇three"
    assert answer.leaks == [{"word": "歇歇", "verdict": "removed", "instead": "three"}]
    assert "".join(e.delta for e in ask(client, stream=True, **options) if "delta" in e.type) == "歇歇three"


def test_prompt_is_context(client, served):
    expected = transcribe(served.ming, SOUND, context="A talk with an old friend.").text
    assert ask(client, prompt="A talk with an old friend.").text == expected


@pytest.mark.parametrize(
    ("options", "dialect"), [({"extra_body": {"dialect": "上海话"}}, "Shanghai"), ({"language": "yue"}, "Cantonese")]
)
def test_a_dialect_is_forced(client, options, dialect):
    answer = ask(client, response_format="verbose_json", **options)
    assert answer.dialect == dialect and answer.language == "chinese"


@pytest.mark.parametrize("sound", [silence(3), music(4)], ids=["silence", "music"])
def test_where_nobody_speaks_the_text_is_empty(client, sound):
    assert ask(client, wav(sound, RATE_HZ)).text == ""
    events = list(ask(client, wav(sound, RATE_HZ), stream=True))
    assert [(event.type, event.text) for event in events] == [("transcript.text.done", "")]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sound": b"no sound"}, "the sound cannot be read"),
        ({"sound": wav(silence(0), RATE_HZ)}, "the sound is empty"),
        ({"language": "xx"}, "the language 'xx' is not known"),
        ({"extra_body": {"dialect": "Mars"}}, "the dialect 'Mars' is not known"),
        ({"extra_body": {"context": "{"}}, "the context is not valid JSON"),
        ({"extra_body": {"context": '{"word": []}'}}, "a context has topic, words and text, but no word"),
        ({"extra_body": {"dialekt": "x"}}, "there is no parameter dialekt; did you mean dialect?"),
        ({"response_format": "diarized_json"}, "response_format: input should be"),
        ({"response_format": "verbose_json", "timestamp_granularities": ["word"]}, "no times of single words"),
        ({"timestamp_granularities": ["segment"]}, "goes with response_format=verbose_json"),
        ({"temperature": 3}, "temperature: input should be less than or equal to 1"),
        ({"include": ["logprobs"]}, "include is not supported by this server"),
        ({"response_format": "srt", "stream": True}, "a stream has no srt"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_sentence(client, options, message):
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, **options)
    assert message in caught.value.body["message"]


def test_an_unknown_model_is_not_found(client):
    with pytest.raises(openai.NotFoundError, match="there is no model"):
        ask(client, model="whisper-1")


@pytest.mark.parametrize(
    ("request_", "status", "message"),
    [
        ({"json": {"model": "taught"}}, 415, "a form"),
        ({"files": {"model": (None, "taught")}}, 400, "file is missing"),
    ],
)
def test_a_request_that_is_no_form_with_a_file_is_refused(served, request_, status, message):
    answer = httpx.post(f"{served.url}/v1/audio/transcriptions", **request_)
    assert answer.status_code == status and message in answer.json()["error"]["message"]


def test_a_model_without_ears_says_so_and_is_not_asked_again():
    deaf = tiny()
    deaf.audio = None
    model = MingForConditionalGeneration(deaf).eval()
    ming = Ming(model, MingProcessor.from_config(tiny(), tiny_tokenizer()), name="deaf")
    with serving(ming) as served:
        client = openai.OpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=5, timeout=60)
        with pytest.raises(openai.BadRequestError, match="deaf cannot hear: this model has no audio encoder") as no:
            ask(client, model="deaf")
        assert no.value.code == "unsupported_by_model"


def test_whoever_leaves_frees_the_engine_and_others_wait_their_turn(monkeypatch):
    monkeypatch.setattr(transcriptions, "MOST_AT_ONCE", 1)
    with serving(tiny_ming()) as served:
        client = openai_client(served)
        stream = ask(client, LONG, model="tiny", stream=True)
        next(iter(stream))
        with pytest.raises(openai.RateLimitError, match="1 recordings are being transcribed already"):
            ask(client, model="tiny")
        stream.close()
        until(lambda: served.is_idle)
        assert ask(client, wav(silence(1), RATE_HZ), model="tiny").text == ""
