"""What is wrong with an event is said and changes nothing; nobody takes more than his share or is overheard."""

import asyncio
import base64
import json
import logging
import socket
from contextlib import suppress

import pytest
import websockets
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ming_omni.serve.realtime.outbox import Outbox
from ming_omni.serve.realtime.schema import EVENTS
from ming_omni.serve.realtime.session import Caps
from ming_omni.serve.rules import Rules
from tests.callers import Caller, spoken, text_item
from tests.media import board, data_url, picture_file
from tests.serving import Served, serving, tiny_ming, until


@pytest.fixture(scope="module")
def served():
    with serving(tiny_ming()) as served:
        yield served


@pytest.fixture
def capped(served):
    """Sessions with other caps, for one test."""

    def cap(**caps):
        served.app.state.realtime.caps = Caps(**caps)

    yield cap
    served.app.state.realtime.caps = Caps()
    until(lambda: served.is_idle and not served.app.state.realtime.sessions)


def call(served: Served, conversation, **options) -> None:
    async def run():
        async with Caller(served.url, **options) as caller:
            await conversation(caller)

    asyncio.run(run())


def address(served: Served, model: str = "tiny") -> str:
    return f"{served.url.replace('http', 'ws')}/v1/realtime?model={model}"


WRONG = [
    ("session.update", {"session": 1}, "session is a JSON object"),
    ("session.update", {}, "session is missing"),
    ("session.update", {"session": {"type": "transcription"}}, "this server has realtime sessions only"),
    ("session.update", {"session": {"voice": "alloy"}}, "there is no parameter voice"),
    ("session.update", {"session": {"model": "gpt-realtime"}}, "there is no model 'gpt-realtime' here"),
    ("session.update", {"session": {"output_modalities": ["text", "audio"]}}, "output_modalities: list should have"),
    ("session.update", {"session": {"max_output_tokens": 0}}, "max_output_tokens: input should be greater than"),
    ("session.update", {"session": {"tools": [{"type": "function"}]}}, "tools is not supported by this server"),
    ("session.update", {"session": {"tool_choice": "required"}}, "tool_choice is not supported by this server"),
    ("session.update", {"session": {"audio": {"input": {"format": {"type": "audio/mp3"}}}}}, "audio.input.format"),
    ("session.update", {"session": {"audio": {"input": {"format": {"rate": 16000}}}}}, "audio/pcm has 24000 Hz here"),
    ("session.update", {"session": {"audio": {"input": {"noise_reduction": {"type": "near_field"}}}}}, "noise_red"),
    ("session.update", {"session": {"audio": {"input": {"turn_detection": {"type": "semantic_vad"}}}}}, "'server_vad'"),
    ("session.update", {"session": {"audio": {"input": {"turn_detection": {"threshold": 2}}}}}, "less than or equal"),
    ("session.update", {"session": {"audio": {"input": {"transcription": {"model": "whisper-1"}}}}}, "no model"),
    ("session.update", {"session": {"audio": {"input": {"transcription": {"language": "xx"}}}}}, "language"),
    ("session.update", {"session": {"audio": {"output": {"voice": "alloy"}}}}, "there is no voice 'alloy' here"),
    ("session.update", {"session": {"audio": {"output": {"speed": 9}}}}, "audio.output.speed: input should be less"),
    (
        "session.update",
        {
            "session": {
                "truncation": {
                    "type": "retention_ratio",
                    "retention_ratio": 0.5,
                    "token_limits": {"post_instructions": 9999},
                }
            }
        },
        "a conversation holds at most 4096 tokens",
    ),
    ("session.update", {"session": {"instructions": "x" * 10_000}}, "the instructions have 10000 tokens"),
    ("session.update", {"session": {"instructions": "x" * 1_000_000}}, "a text of 1,000,000 characters is too long"),
    ("session.update", {"session": {"instructions": "\ud800"}}, "half a character"),
    ("input_audio_buffer.append", {}, "audio is missing"),
    ("input_audio_buffer.append", {"audio": "?"}, "audio is base64"),
    ("input_audio_buffer.append", {"audio": base64.b64encode(b"abc").decode()}, "3 bytes end inside one"),
    ("input_audio_buffer.commit", {}, "a turn has 100 ms or more"),
    ("input_audio_buffer.commit", {"audio": ""}, "there is no parameter audio"),
    ("conversation.item.create", {"item": {"type": "message", "role": "tool", "content": []}}, "item.role: input"),
    ("conversation.item.create", {"item": {"type": "function_call_output"}}, "function tools are not supported"),
    ("conversation.item.create", {"item": text_item("x") | {"content": []}}, "item.content: list should have"),
    ("conversation.item.create", {"item": text_item("x", "assistant") | {"role": "user"}}, "not output_text"),
    ("conversation.item.create", {"item": text_item("\ud800")}, "half a character"),
    ("conversation.item.create", {"item": text_item("x"), "previous_item_id": "nobody"}, "there is no item nobody"),
    (
        "conversation.item.create",
        {"item": {"role": "user", "content": [{"type": "input_image", "image_url": "https://example.com/a.png"}]}},
        "only data: URLs are read",
    ),
    (
        "conversation.item.create",
        {"item": {"role": "user", "content": [{"type": "input_image", "image_url": "data:image/png;base64,AAAA"}]}},
        "the picture cannot be read",
    ),
    ("conversation.item.create", {"item": {"role": "user", "content": [{"type": "input_audio"}]}}, "lacks its audio"),
    (
        "conversation.item.create",
        {"item": {"role": "user", "content": [{"type": "input_image", "image_url": "data:,"}] * 5}},
        "a turn keeps 4 pictures",
    ),
    ("conversation.item.delete", {"item_id": "nobody"}, "there is no item nobody"),
    ("conversation.item.delete", {"item_id": "\ud800"}, "there is no item \\ud800"),
    ("conversation.item.retrieve", {"item_id": ["a"]}, "item_id: input should be a valid string"),
    (
        "conversation.item.truncate",
        {"item_id": "nobody", "content_index": 0, "audio_end_ms": 1},
        "there is no item nobody",
    ),
    ("conversation.item.truncate", {"item_id": "a", "content_index": 1, "audio_end_ms": 1}, "content_index: input"),
    ("response.create", {"response": {"tools": [{"type": "function"}]}}, "tools is not supported"),
    ("response.create", {"response": {"input": [text_item("x")]}}, 'input goes with conversation="none"'),
    (
        "response.create",
        {"response": {"conversation": "none", "input": [{"type": "item_reference", "id": "x"}]}},
        "no item x",
    ),
    ("response.cancel", {"response_id": "resp_x"}, "there is no such response in progress"),
    ("output_audio_buffer.clear", {}, "there is no event 'output_audio_buffer.clear' for clients to send"),
    ("session.created", {}, "there is no event 'session.created' for clients to send"),
]


def test_each_mistake_has_its_sentence_and_the_session_goes_on(served):
    async def conversation(caller):
        for kind, fields, message in WRONG:
            error = await caller.refused(kind, **fields)
            assert error.type == "invalid_request_error" and message in error.message, (kind, fields)
        await caller.update(output_modalities=["text"], max_output_tokens=4)
        assert (await caller.ask("Still here?")).usage.output_tokens == 4
        assert len(caller.all("conversation.item.added")) == 2

    call(served, conversation)


def test_what_is_no_event_at_all_is_answered_too(served):
    async def run():
        async with websockets.connect(address(served)) as raw:
            await raw.recv()
            for sent in ("{", "[]", "null", '{"type": 1}', "{}", b"\xff\x00", "[" * 50_000, '{"event_id": 1}'):
                await raw.send(sent)
                answer = json.loads(await asyncio.wait_for(raw.recv(), 60))
                assert answer["type"] == "error" and answer["error"]["type"] == "invalid_request_error"

    asyncio.run(run())


NAMES = st.sampled_from(
    ["type", "item", "role", "content", "text", "audio", "image_url", "session", "input", "output", "format"]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 10**6) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)
KINDS = st.sampled_from(sorted(set(EVENTS) - {"response.create", "input_audio_buffer.commit"}))


def test_no_event_is_a_server_error(served, caplog):
    """Whatever clients send: an answer, or an error that says it was the client's."""

    @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(st.tuples(KINDS, st.dictionaries(NAMES, JSON, max_size=4)), min_size=1, max_size=5))
    def try_events(events):
        async def run():
            async with websockets.connect(address(served)) as raw:
                for kind, fields in events:
                    await raw.send(json.dumps(fields | {"type": kind}))
                await raw.send(json.dumps({"type": "response.cancel", "event_id": "last"}))
                while True:
                    event = json.loads(await asyncio.wait_for(raw.recv(), 60))
                    if event["type"] == "error":
                        assert event["error"]["type"] == "invalid_request_error", event
                        if event["error"]["event_id"] == "last":
                            return

        asyncio.run(run())

    try_events()
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_a_model_without_senses_says_so_and_answers_what_is_written():
    ming = tiny_ming()
    ming.name = "deaf"
    ming.model = type(ming.model)(ming.model.config).eval()
    ming.model.audio = ming.model.vision = None
    ming.model.load_state_dict(tiny_ming().model.state_dict(), strict=False)
    with serving(ming) as served:

        async def conversation(caller):
            session = (await caller.until("session.created")).session
            assert session.output_modalities == ["text"]
            error = await caller.refused("session.update", session={"output_modalities": ["audio"]})
            assert error.message == "deaf cannot speak: this model has no talker"
            await caller.say(spoken("english-seven.wav"), pace=100)
            error = (await caller.until("error", 2)).error
            assert error.message == "deaf cannot hear: this model has no audio encoder"
            assert not caller.all("response.created") and not caller.all("input_audio_buffer.committed")
            picture = {"type": "input_image", "image_url": data_url(picture_file(board()))}
            error = await caller.refused("conversation.item.create", item={"role": "user", "content": [picture]})
            assert error.message == "deaf cannot see: this model has no vision encoder"
            response = await caller.ask("Hello", max_output_tokens=4)
            assert response.output[0].content[0].type == "output_text" and response.usage.output_tokens == 4

        call(served, conversation, model="deaf")


def refusal(served: Served, **options) -> int:
    """The status that a connection is refused with."""

    async def run():
        with pytest.raises(websockets.InvalidStatus) as caught:
            async with websockets.connect(address(served, options.pop("model", "tiny")), **options):
                pass
        return caught.value.response

    return asyncio.run(run())


def test_an_unknown_model_is_refused_before_the_handshake(served):
    answer = refusal(served, model="gpt-realtime")
    assert answer.status_code == 404
    assert (
        json.loads(answer.body)["error"]["message"] == "there is no model 'gpt-realtime' here; this server has 'tiny'"
    )


def test_a_key_opens_the_door_by_header_or_as_browsers_send_it():
    rules = Rules(api_keys=("open-sesame",), origins=("https://example.com",))
    with serving(tiny_ming(), rules=rules) as served:

        async def come(**options) -> str:
            async with websockets.connect(address(served), **options) as raw:
                return json.loads(await raw.recv())["type"], raw.subprotocol

        browser = {"subprotocols": ["realtime", "openai-insecure-api-key.open-sesame"]}
        for options in (
            browser,
            browser | {"origin": "https://example.com"},
            browser | {"origin": served.url},
            {"additional_headers": {"Authorization": "Bearer open-sesame"}},
        ):
            kind, protocol = asyncio.run(come(**options))
            assert kind == "session.created" and protocol == ("realtime" if "subprotocols" in options else None)
        for options in (
            {},
            {"subprotocols": ["realtime", "openai-insecure-api-key.wrong"]},
            browser | {"origin": "https://elsewhere.com"},
        ):
            assert refusal(served, **options).status_code in (401, 403)


def test_no_more_sessions_are_held_than_there_is_room_for(served, capped):
    capped(sessions=2)

    async def conversation(caller):
        async with Caller(served.url) as other:
            await other.until("session.created")
            answer = await asyncio.to_thread(refusal, served)
            assert answer.status_code == 429 and int(answer.headers["retry-after"]) > 0

    call(served, conversation)
    until(lambda: not served.app.state.realtime.sessions)
    call(served, lambda caller: caller.until("session.created"))


@pytest.mark.parametrize("letter", ["A", "\u4e00"])  # of one byte, and of three
def test_an_event_may_be_as_long_as_is_said_and_a_longer_one_ends_the_session(served, letter):
    count = (Caps().event_bytes - len('{"type": ""}')) // len(letter.encode())

    async def conversation(caller):
        await caller.connection.send_raw(f'{{"type": "{letter * count}"}}')
        assert "there is no event" in (await caller.until("error")).error.message
        await caller.update(instructions="Still here.")
        with suppress(websockets.ConnectionClosed):
            await caller.connection.send_raw(f'{{"type": "{letter * (count + 1)}"}}')
        assert await caller.closed() == 1009

    call(served, conversation)
    until(lambda: not served.app.state.realtime.sessions)


@pytest.mark.parametrize(
    ("caps", "message"),
    [
        ({"idle_seconds": 0.3}, "the session has been idle for 0.3 seconds"),
        ({"seconds": 0.3}, "a session lasts at most 0.3 seconds"),
    ],
)
def test_time_is_bounded_and_its_end_is_announced(served, capped, caps, message):
    capped(**caps)

    async def conversation(caller):
        assert (await caller.until("error")).error.message == message
        assert await caller.closed() == 1001

    call(served, conversation)


def test_an_outbox_that_is_ended_while_a_letter_leaves_ends():
    async def run():
        sent = asyncio.Event()

        async def send(data: str) -> None:
            sent.set()

        outbox = Outbox(send, 100, 1.0)
        outbox.put("session.created")
        sending = asyncio.create_task(outbox.run())
        await sent.wait()
        sending.cancel()
        _, working = await asyncio.wait([sending], timeout=2)
        assert not working

    asyncio.run(run())


def test_who_does_not_read_makes_his_answer_wait_and_is_let_go(served, capped):
    capped(unsent_bytes=50_000, stuck_seconds=1.0)
    host, port = served.url.removeprefix("http://").split(":")
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect((host, int(port)))
    key = base64.b64encode(bytes(16)).decode()
    head = f"GET /v1/realtime?model=tiny HTTP/1.1\r\nhost: {host}\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
    connection.sendall(f"{head}sec-websocket-key: {key}\r\nsec-websocket-version: 13\r\n\r\n".encode())
    connection.recv(1)  # the handshake is over, and that is all this client ever reads

    def send(**event):
        data = json.dumps(event).encode()
        connection.sendall(bytes([0x81, 0xFE]) + len(data).to_bytes(2, "big") + bytes(4) + data)

    sound = {"type": "input_audio", "audio": base64.b64encode(bytes(40_000)).decode()}
    send(type="conversation.item.create", item={"id": "long", "role": "user", "content": [sound]})
    until(lambda: served.app.state.realtime.sessions)
    [session] = served.app.state.realtime.sessions
    sizes = []
    connection.settimeout(0.2)
    with suppress(OSError):
        for _ in range(300):  # 16 MB, more than the system keeps for a connection
            send(type="conversation.item.retrieve", item_id="long", event_id="e" * 30)
    # Who does not read is not read either, and in the end let go.
    until(lambda: sizes.append(session.outbox.num_bytes) or session not in served.app.state.realtime.sessions, 60.0)
    connection.close()
    assert 50_000 < max(sizes) < 110_000


def test_logs_never_hold_what_was_said(served, caplog):
    caplog.set_level(logging.DEBUG)

    async def conversation(caller):
        await caller.update(output_modalities=["text"], max_output_tokens=4, instructions="Secret Saffron")
        await caller.refused("conversation.item.create", item={"type": "Saffron"})
        await caller.refused("Saffron")
        await caller.ask("Saffron?")

    call(served, conversation)
    own = [record for record in caplog.records if record.name.split(".")[0] in ("ming_omni", "uvicorn")]
    assert not [record for record in own if "Saffron" in record.getMessage()]


def test_a_server_that_shuts_down_says_goodbye_after_the_answer():
    with serving(tiny_ming(), grace_seconds=20.0) as served:

        async def conversation(caller):
            await caller.update(output_modalities=["text"], max_output_tokens=100)
            await caller.send("conversation.item.create", item=text_item("Hello"))
            await caller.send("response.create")
            await caller.until("response.output_text.delta")
            served.server.drain()
            assert (await caller.until("response.done")).response.usage.output_tokens == 100
            assert (await caller.until("error")).error.message == "this server is shutting down"
            assert await caller.closed() == 1012
            until(lambda: served.server.should_exit)

        call(served, conversation)
