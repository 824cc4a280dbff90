"""A client of another maker, Hugging Face's InferenceClient, which shares no code with OpenAI's."""

import huggingface_hub
import pytest
from huggingface_hub.errors import BadRequestError, HfHubHTTPError

from ming_omni.serve.rules import Rules
from tests.media import board, data_url, picture_file
from tests.serving import serving, tiny_ming
from tests.test_openai_client import plain, say

KEY = "a-key-of-another-kind"


@pytest.fixture(scope="module")
def served():
    with serving(tiny_ming(), rules=Rules(api_keys=(KEY,))) as served:
        yield served


@pytest.fixture(scope="module")
def client(served):
    return huggingface_hub.InferenceClient(base_url=f"{served.url}/v1", api_key=KEY, timeout=60)


def test_an_answer_is_the_plain_loops(client, served):
    answer = client.chat.completions.create(model="tiny", messages=say("hello"), max_tokens=12)
    assert answer.choices[0].message.content == plain(served, say("hello"), 12)
    assert (answer.choices[0].finish_reason, answer.usage.completion_tokens) == ("length", 12)


def test_a_streamed_answer_is_the_same(client, served):
    options = {"model": "tiny", "messages": say("hello"), "max_tokens": 12, "stream_options": {"include_usage": True}}
    chunks = list(client.chat.completions.create(**options, stream=True))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == plain(served, say("hello"), 12) and chunks[-1].usage.completion_tokens == 12


def test_pictures_seeds_stops_and_logprobs_are_understood(client, served):
    content = [
        {"type": "image_url", "image_url": {"url": data_url(picture_file(board()))}},
        {"type": "text", "text": "?"},
    ]
    messages = [{"role": "user", "content": content}]
    options = {"model": "tiny", "messages": messages, "max_tokens": 6, "logprobs": True, "top_logprobs": 2}
    answer = client.chat.completions.create(**options, seed=3, temperature=0.0, stop=["never said"])
    assert answer.choices[0].message.content == plain(served, messages, 6)
    assert len(answer.choices[0].logprobs.content) == 6


def test_a_refusal_arrives_with_its_sentence(client):
    with pytest.raises(BadRequestError, match="frequency_penalty is not supported by this server"):
        client.chat.completions.create(model="tiny", messages=say("x"), frequency_penalty=1.0)


def test_a_wrong_key_is_refused(served):
    stranger = huggingface_hub.InferenceClient(base_url=f"{served.url}/v1", api_key="wrong")
    with pytest.raises(HfHubHTTPError, match="401"):
        stranger.chat.completions.create(model="tiny", messages=say("x"))
