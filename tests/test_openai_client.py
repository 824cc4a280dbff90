"""The official client, sync and async, against a real server: what it gets equals what the model's plain loop says."""

import asyncio
import base64
import io
import wave
from functools import cache

import numpy as np
import openai
import pytest
from PIL import Image

from ming_omni.inputs.messages import from_openai
from ming_omni.model.sampling import Sampling
from tests.recipes import tiny_model
from tests.serving import openai_client, serving, tiny_ming


@pytest.fixture(scope="module")
def served():
    with serving(tiny_ming()) as served:
        yield served


@pytest.fixture(scope="module")
def client(served):
    with openai_client(served) as client:
        yield client


@cache
def checkerboard() -> str:
    pixels = (np.indices((56, 84)).sum(0) // 14 % 2 * 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).convert("RGB").save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


@cache
def tone() -> str:
    samples = (np.sin(np.arange(8000) * 0.2) * 12000).astype(np.int16)
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setparams((1, 2, 16000, 0, "NONE", ""))
        sound.writeframes(samples.tobytes())
    return base64.b64encode(file.getvalue()).decode()


def say(text: str) -> list[dict]:
    return [{"role": "user", "content": text}]


def plain_ids(served, messages: list[dict], max_tokens: int, sampling: Sampling | None = None) -> list[int]:
    inputs = served.ming.processor.prepare(from_openai(messages))
    stops = served.ming.stop_ids
    steps = tiny_model().steps(inputs, sampling or Sampling(), max_new_tokens=max_tokens, eos_token_id=list(stops))
    return [int(step.ids) for step in steps if int(step.ids) not in stops]


def plain(served, messages: list[dict], max_tokens: int, sampling: Sampling | None = None) -> str:
    return served.ming.processor.tokenizer.decode(plain_ids(served, messages, max_tokens, sampling), True)


def joined(chunks) -> str:
    return "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)


def test_models_are_listed_and_found(client):
    assert [model.id for model in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").owned_by == "ming-omni"


def test_an_answer_is_the_plain_loops(client, served):
    answer = client.chat.completions.create(model="tiny", messages=say("hello"), max_tokens=12)
    assert answer.choices[0].message.content == plain(served, say("hello"), 12)
    assert answer.choices[0].finish_reason == "length"
    assert answer.id.startswith("chatcmpl-") and answer.object == "chat.completion"
    usage = answer.usage
    assert usage.completion_tokens == 12 and usage.total_tokens == usage.prompt_tokens + 12


def test_streamed_and_whole_answers_are_equal(client):
    options = {"model": "tiny", "messages": say("stream this"), "max_tokens": 15}
    whole = client.chat.completions.create(**options).choices[0].message.content
    chunks = list(client.chat.completions.create(**options, stream=True))
    assert joined(chunks) == whole
    assert len({chunk.id for chunk in chunks}) == 1
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [c.choices[0].finish_reason for c in chunks][-1] == "length"
    assert all(chunk.usage is None for chunk in chunks)


def test_usage_comes_last_in_a_stream_that_asks_for_it(client):
    chunks = list(
        client.chat.completions.create(
            model="tiny", messages=say("count"), max_tokens=3, stream=True, stream_options={"include_usage": True}
        )
    )
    assert chunks[-1].choices == [] and chunks[-1].usage.completion_tokens == 3


def test_the_async_client_runs_many_at_once(served):
    async def ask_all() -> list[str]:
        async with openai.AsyncOpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0) as client:

            async def one(i: int) -> str:
                options = {"model": "tiny", "messages": say(f"number {i}"), "max_tokens": 8}
                if i % 2:
                    return (await client.chat.completions.create(**options)).choices[0].message.content
                stream = await client.chat.completions.create(**options, stream=True)
                return joined([chunk async for chunk in stream])

            return await asyncio.gather(*(one(i) for i in range(8)))

    assert asyncio.run(ask_all()) == [plain(served, say(f"number {i}"), 8) for i in range(8)]


@pytest.mark.parametrize("stream", [False, True])
def test_pictures_and_sounds_are_read(client, served, stream):
    content = [
        {"type": "text", "text": "what is this?"},
        {"type": "image_url", "image_url": {"url": checkerboard(), "detail": "auto"}},
        {"type": "input_audio", "input_audio": {"data": tone(), "format": "wav"}},
    ]
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": content}]
    answer = client.chat.completions.create(model="tiny", messages=messages, max_tokens=9, stream=stream)
    text = joined(answer) if stream else answer.choices[0].message.content
    assert text == plain(served, messages, 9)


def test_the_next_turn_reports_what_was_cached(client):
    first = client.chat.completions.create(model="tiny", messages=say("a first question, not short"), max_tokens=8)
    messages = [*say("a first question, not short"), first.choices[0].message, *say("and now?")]
    second = client.chat.completions.create(model="tiny", messages=messages, max_tokens=2)
    assert second.usage.prompt_tokens_details.cached_tokens >= first.usage.prompt_tokens // 16 * 16


def test_a_seed_repeats_an_answer_and_choices_differ(client, served):
    options = {"model": "tiny", "messages": say("dice"), "max_tokens": 10, "temperature": 1.0, "top_p": 0.9, "n": 3}
    first, second = (client.chat.completions.create(**options, seed=5) for _ in range(2))
    texts = [choice.message.content for choice in first.choices]
    assert texts == [choice.message.content for choice in second.choices]
    assert texts == [plain(served, say("dice"), 10, Sampling(1.0, top_p=0.9, seed=5 + i)) for i in range(3)]
    assert len(set(texts)) == 3 and [choice.index for choice in first.choices] == [0, 1, 2]
    assert first.usage.completion_tokens == sum(
        len(plain_ids(served, say("dice"), 10, Sampling(1.0, top_p=0.9, seed=5 + i))) for i in range(3)
    )


def test_several_choices_stream_side_by_side(client):
    options = {"model": "tiny", "messages": say("dice"), "max_tokens": 10, "temperature": 1.0, "n": 3, "seed": 1}
    whole = [choice.message.content for choice in client.chat.completions.create(**options).choices]
    texts = ["", "", ""]
    for chunk in client.chat.completions.create(**options, stream=True):
        texts[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert texts == whole


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_ends_before_a_stop_string_across_tokens(client, served, stream):
    text = plain(served, say("stop me"), 40)
    stop = text[10:13]
    answer = client.chat.completions.create(
        model="tiny", messages=say("stop me"), max_tokens=40, stop=[stop, "never said"], stream=stream
    )
    if stream:
        chunks = list(answer)
        content, reason = joined(chunks), chunks[-1].choices[0].finish_reason
    else:
        content, reason = answer.choices[0].message.content, answer.choices[0].finish_reason
    assert content == text[: text.index(stop)] and reason == "stop"


@pytest.mark.parametrize("stream", [False, True])
def test_logprobs_spell_the_answer(client, served, stream):
    answer = client.chat.completions.create(
        model="tiny", messages=say("how sure?"), max_tokens=10, logprobs=True, top_logprobs=2, stream=stream
    )
    entries = [
        entry
        for c in (answer if stream else [answer])
        if c.choices and c.choices[0].logprobs
        for entry in c.choices[0].logprobs.content
    ]
    assert len(entries) == 10
    spelled = b"".join(bytes(entry.bytes) for entry in entries).decode(errors="replace")
    assert served.ming.processor.tokenizer.decode(plain_ids(served, say("how sure?"), 10)) == spelled
    for entry in entries:
        assert entry.top_logprobs[0].logprob == pytest.approx(entry.logprob) and len(entry.top_logprobs) == 2


def test_a_plain_completion_continues_text(client, served):
    answer = client.completions.create(model="tiny", prompt=["one", "two"], max_tokens=6)
    for choice, prompt in zip(answer.choices, ("one", "two"), strict=True):
        ids = served.ming.processor.tokenizer.encode(prompt)
        again = client.completions.create(model="tiny", prompt=ids, max_tokens=6, echo=True)
        assert again.choices[0].text == prompt + choice.text


def test_streamed_and_whole_completions_are_equal(client):
    options = {"model": "tiny", "prompt": "once upon", "max_tokens": 9, "echo": True}
    whole = client.completions.create(**options).choices[0].text
    assert "".join(c.choices[0].text for c in client.completions.create(**options, stream=True)) == whole


def test_echoed_logprobs_score_the_prompt(client, served):
    scored = client.completions.create(model="tiny", prompt="score me", max_tokens=0, echo=True, logprobs=1)
    logprobs = scored.choices[0].logprobs
    ids = served.ming.processor.tokenizer.encode("score me")
    import torch

    with torch.no_grad():
        expected = tiny_model()(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
    assert scored.choices[0].text == "score me" and "".join(logprobs.tokens) == "score me"
    assert logprobs.text_offset == list(range(8)) and logprobs.token_logprobs[0] is None
    assert logprobs.token_logprobs[1:] == pytest.approx(
        [float(expected[i, t]) for i, t in enumerate(ids[1:])], abs=1e-4
    )


def test_offsets_count_characters_though_one_may_take_several_tokens(client):
    scored = client.completions.create(model="tiny", prompt="aéb", max_tokens=0, echo=True, logprobs=0)
    assert scored.choices[0].logprobs.text_offset == [0, 1, 1, 2]


def test_parts_of_characters_are_told_apart_among_the_likeliest(client):
    answer = client.completions.create(model="tiny", prompt="a", max_tokens=8, logprobs=20)
    likeliest = answer.choices[0].logprobs.top_logprobs
    assert any(token.startswith("bytes:\\x") for best in likeliest for token in best)


def test_choices_of_one_request_do_not_count_as_cached_for_each_other(client):
    messages = say("a question that nobody has asked before, long enough for pages of its own")
    messages.insert(0, {"role": "system", "content": "unheard of"})
    answer = client.chat.completions.create(model="tiny", messages=messages, max_tokens=1, n=3, temperature=1)
    again = client.chat.completions.create(model="tiny", messages=messages, max_tokens=1)
    assert again.usage.prompt_tokens_details.cached_tokens > 48
    assert answer.usage.prompt_tokens_details.cached_tokens < 16


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"frequency_penalty": 0.5}, "frequency_penalty is not supported by this server"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools is not supported by this server"),
        ({"response_format": {"type": "json_object"}}, "response_format is not supported by this server"),
        ({"temperature": 3.0}, "temperature: input should be less than or equal to 2"),
        ({"top_logprobs": 2}, "top_logprobs goes with logprobs=true"),
        ({"extra_body": {"temprature": 1}}, "there is no parameter temprature; did you mean temperature?"),
        ({"stop": ["a", ""]}, "stop[1]: string should have at least 1 character"),
        ({"n": 100}, "n: input should be less than or equal to 16"),
        ({"messages": []}, "messages: list should have at least 1 item after validation, not 0"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role is system, user or assistant, not 'tool'"),
        ({"max_tokens": 3, "max_completion_tokens": 3}, "give max_tokens or max_completion_tokens, not both"),
        ({"messages": [{"role": "user", "name": "Ann", "content": "x"}]}, "name is not supported by this server"),
    ],
)
def test_what_is_not_supported_is_named(client, options, message):
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(**{"model": "tiny", "messages": say("x")} | options)
    assert caught.value.body["message"] == message
    assert caught.value.type == "invalid_request_error"


def test_values_that_ask_for_nothing_are_accepted(client):
    answer = client.chat.completions.create(
        model="tiny",
        messages=say("x"),
        max_completion_tokens=1,
        frequency_penalty=0,
        presence_penalty=0,
        response_format={"type": "text"},
        store=False,
        tools=[],
        extra_body={"top_k": 5, "repetition_penalty": 1.1},
    )
    assert answer.usage.completion_tokens == 1


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (
            {"type": "image_url", "image_url": {"url": "http://example.com/a.png"}},
            "fetched from https addresses only",
        ),
        (
            {"type": "image_url", "image_url": {"url": "file:///etc/passwd"}},
            "fetched from https addresses only",
        ),
        ({"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}, "."),
        ({"type": "image_url", "image_url": {"url": checkerboard(), "detail": "low"}}, "detail of a picture is auto"),
        ({"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}, "."),
        ({"type": "image", "image": "/etc/passwd"}, "type is one of"),
    ],
)
def test_media_that_cannot_be_read_are_refused_in_a_sentence(client, part, message):
    with pytest.raises(openai.BadRequestError, match=message):
        client.chat.completions.create(model="tiny", messages=[{"role": "user", "content": [part]}])


def test_an_unknown_model_is_not_found(client):
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="gpt-9", messages=say("x"))
    assert caught.value.code == "model_not_found"


def test_a_prompt_too_long_is_refused_before_the_stream_begins(client):
    with pytest.raises(openai.BadRequestError, match="reads fewer than 8192"):
        client.chat.completions.create(model="tiny", messages=say("x" * 9000), stream=True)
