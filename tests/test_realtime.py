"""The official client talks to a real server: real speech in, text and speech out, turn by turn."""

import asyncio
import base64
import re
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import soxr

from ming_omni.converse.wires import WIRES
from ming_omni.serve.realtime.schema import Transcription
from ming_omni.serve.realtime.transcribing import Transcribing
from tests.callers import WIRE_HZ, Caller, spoken, talkative_ming, text_item, written
from tests.media import board, data_url, picture_file
from tests.serving import serving, until
from tests.talks import RATE_HZ, talk

SEVEN = ("english-seven.wav",)
PUSH_TO_TALK = {"input": {"turn_detection": None}}


@pytest.fixture(scope="module")
def served():
    with serving(talkative_ming()) as served:
        yield served


@pytest.fixture
def talking(served):
    """Run a conversation; afterwards nothing of it is left at work."""

    def run(conversation, *args, **options):
        async def call():
            async with Caller(served.url, **options) as caller:
                await conversation(caller, *args)

        asyncio.run(call())
        until(lambda: served.is_idle and not served.app.state.realtime.sessions, 60.0)
        until(lambda: not served.ming.speaker.loop.speaking, 60.0)

    return run


def test_a_session_tells_its_settings_and_changes_only_what_it_is_asked_to(talking):
    async def conversation(caller):
        session = (await caller.until("session.created")).session
        assert session.model == "tiny" and session.output_modalities == ["audio"]
        assert session.audio.input.turn_detection.type == "server_vad"
        session = await caller.update(audio={"input": {"turn_detection": {"threshold": 0.7}}})
        assert session.audio.input.turn_detection.threshold == 0.7
        assert session.audio.input.turn_detection.silence_duration_ms == 500
        session = await caller.update(audio=PUSH_TO_TALK, instructions="Be brief.")
        assert session.audio.input.turn_detection is None and session.instructions == "Be brief."
        session = await caller.update(audio={"input": {"turn_detection": {"type": "server_vad"}}}, instructions=None)
        assert session.audio.input.turn_detection.threshold == 0.5 and session.instructions != "Be brief."

    talking(conversation)


def test_a_written_turn_is_answered_in_text_event_by_event(talking, served):
    async def conversation(caller):
        await caller.update(output_modalities=["text"], max_output_tokens=12)
        response = await caller.ask("Hello")
        assert (await caller.until("rate_limits.updated")).rate_limits[0].remaining > 0
        assert caller.kinds()[2:] == [
            "conversation.item.added",
            "conversation.item.done",
            "response.created",
            "response.output_item.added",
            "conversation.item.added",
            "response.content_part.added",
            "response.output_text.delta",
            "response.output_text.done",
            "response.content_part.done",
            "conversation.item.done",
            "response.output_item.done",
            "response.done",
            "rate_limits.updated",
        ]
        text = served.ming.ask("Hello", max_tokens=12)
        assert written(caller.all("response.output_text.delta")) == text
        assert response.output[0].content[0].text == text
        assert (response.status, response.status_details.reason) == ("incomplete", "max_output_tokens")
        assert response.usage.output_tokens == 12
        assert len({event.event_id for event in caller.events}) == len(caller.events)

    talking(conversation)


def test_speech_is_heard_answered_and_spoken(talking):
    async def conversation(caller):
        await caller.update(max_output_tokens=16)
        await caller.say(spoken(*SEVEN), pace=1.0)
        response = (await caller.until("response.done")).response
        started, stopped = (caller.all(f"input_audio_buffer.speech_{what}")[0] for what in ("started", "stopped"))
        assert 250 < started.audio_start_ms < 700 and 1300 < stopped.audio_end_ms < 2000
        committed = caller.all("input_audio_buffer.committed")[0]
        assert started.item_id == stopped.item_id == committed.item_id
        assert caller.all("conversation.item.added")[0].item.content[0].type == "input_audio"
        assert response.usage.input_token_details.audio_tokens > 10
        answer = response.output[0]
        assert written(caller.all("response.output_audio_transcript.delta")) == answer.content[0].transcript
        assert len(caller.heard(answer.id)) > WIRE_HZ / 5
        kinds = caller.kinds()
        order = ["output_audio.delta", "output_audio.done", "output_audio_transcript.done", "content_part.done"]
        places = [kinds.index(f"response.{kind}") for kind in order]
        assert places == sorted(places)

    talking(conversation)


def test_a_turn_that_was_not_over_is_not_written_down_to_its_end(served):
    samples, _ = talk([*SEVEN] * 8, 0.3)
    transcribing = Transcribing(served.ming, None, None, "")
    with ThreadPoolExecutor() as threads:
        writing = threads.submit(transcribing.words, samples, Transcription())
        until(lambda: served.engine.streams)
        (sequence,) = served.engine.streams
        transcribing.give_up_words()
        writing.result(10)
    until(lambda: served.is_idle)
    assert sequence.cancelled


@pytest.mark.parametrize("name", ["audio/pcmu", "audio/pcma"])
def test_telephones_speak_g711_both_ways(talking, name):
    async def conversation(caller):
        wire = {"format": {"type": name}}
        session = await caller.update(audio={"input": wire, "output": wire}, max_output_tokens=12)
        assert session.audio.output.format.type == name
        samples, _ = talk(list(SEVEN), 1.0)
        sound = WIRES[name].encode(soxr.resample(samples, RATE_HZ, 8_000))
        await caller.send("input_audio_buffer.append", audio=base64.b64encode(sound).decode())
        answer = (await caller.until("response.done")).response.output[0]
        deltas = b"".join(base64.b64decode(e.delta) for e in caller.all("response.output_audio.delta"))
        assert len(deltas) > 8_000 / 5 and len(set(deltas)) > 20
        assert answer.content[0].transcript

    talking(conversation)


def test_push_to_talk_answers_when_it_is_told_to(talking):
    async def conversation(caller):
        await caller.update(audio=PUSH_TO_TALK, output_modalities=["text"], max_output_tokens=4)
        error = await caller.refused("input_audio_buffer.commit")
        assert error.code == "input_audio_buffer_commit_empty" and "0 ms" in error.message
        await caller.say(spoken(*SEVEN), pace=100)
        await caller.send("input_audio_buffer.clear")
        await caller.until("input_audio_buffer.cleared")
        await caller.say(spoken(*SEVEN), pace=100)
        await caller.send("input_audio_buffer.commit")
        item = (await caller.until("conversation.item.done")).item
        await caller.send("conversation.item.retrieve", item_id=item.id)
        sound = (await caller.until("conversation.item.retrieved")).item.content[0].audio
        sent, kept = (np.frombuffer(data, "<i2").astype(float) for data in (spoken(*SEVEN), base64.b64decode(sound)))
        assert abs(len(sent) - len(kept)) < 100
        n = min(map(len, (sent, kept)))
        assert np.corrcoef(sent[:n], kept[:n])[0, 1] > 0.99
        assert not caller.all("response.created") and not caller.all("input_audio_buffer.speech_started")
        await caller.send("response.create")
        assert (await caller.until("response.done")).response.usage.input_token_details.audio_tokens > 10

    talking(conversation)


def test_pictures_of_a_camera_are_seen_and_only_the_newest_are_kept(talking):
    async def conversation(caller):
        await caller.update(output_modalities=["text"], max_output_tokens=4)
        for side in range(60, 66):
            picture = {"type": "input_image", "image_url": data_url(picture_file(board(side)))}
            await caller.send(
                "conversation.item.create", item={"type": "message", "role": "user", "content": [picture]}
            )
        response = await caller.ask("What is this?")
        added = [event.item.id for event in caller.all("conversation.item.added")]
        assert [event.item_id for event in caller.all("conversation.item.deleted")] == added[:2]
        # 9 x 13 tokens each, after the loader's resize
        assert response.usage.input_token_details.image_tokens == 4 * 9 * 13

    talking(conversation)


def test_what_was_said_is_read_during_the_silence_that_ends_it(talking):
    async def conversation(caller):
        await caller.update(
            output_modalities=["text"],
            max_output_tokens=4,
            audio={"input": {"turn_detection": {"silence_duration_ms": 900}}},
        )
        await caller.say(spoken(*SEVEN, pause_seconds=1.5), pace=1.0)
        usage = (await caller.until("response.done")).response.usage
        assert usage.input_token_details.audio_tokens > 10
        assert usage.input_tokens - usage.input_token_details.cached_tokens <= 16  # one page

    talking(conversation)


def test_each_turn_reads_only_what_is_new(talking):
    async def conversation(caller):
        await caller.update(output_modalities=["text"], max_output_tokens=12, instructions="Be kind. " * 20)
        before = 0
        for turn in range(5):
            usage = (await caller.ask(f"Question {turn}: and what else?")).usage
            cached = usage.input_token_details.cached_tokens
            assert cached >= before - 16  # whole pages
            before = usage.input_tokens + usage.output_tokens
        assert usage.input_tokens > 400 and usage.input_tokens - cached < 100

    talking(conversation)


def test_answers_are_those_of_the_conversation_so_far(talking, served):
    async def conversation(caller):
        await caller.update(output_modalities=["text"], max_output_tokens=8, instructions="Be kind.")
        talk = [{"role": "system", "content": "Be kind."}]
        for text in ("One?", "Two?", "Three?"):
            answer = (await caller.ask(text)).output[0].content[0].text
            talk.append({"role": "user", "content": text})
            assert answer == "".join(served.ming.reply(talk, max_tokens=8))
            talk.append({"role": "assistant", "content": answer})

    talking(conversation)


def test_speech_interrupts_an_answer_and_cuts_it_to_what_was_heard(talking, served):
    async def conversation(caller):
        await caller.update(max_output_tokens=200)
        await caller.send("conversation.item.create", item=text_item("Hello"))
        await caller.send("response.create")
        await caller.until("response.output_audio.delta", 3)
        began = caller.times[caller.events.index(caller.all("response.output_audio.delta")[0])]
        await caller.say(spoken(*SEVEN)[: 2 * WIRE_HZ])  # one second: 0.7 of silence, then speech
        started = await caller.until("input_audio_buffer.speech_started")
        done = (await caller.until("response.done")).response
        at = [caller.times[caller.events.index(event)] for event in (started, caller.all("response.done")[0])]
        assert at[1] - at[0] < 3.0  # at once, on a machine that may be busy
        assert (done.status, done.status_details.reason) == ("cancelled", "turn_detected")
        assert done.output[0].status == "incomplete"
        until(lambda: not served.engine.streams and not served.ming.speaker.loop.speaking, 20.0)
        num_deltas = len(caller.all("response.output_audio.delta"))
        full = written(caller.all("response.output_audio_transcript.delta"))
        kept = done.output[0].content[0].transcript if done.output[0].content else ""
        assert full.startswith(kept) and len(kept) < len(full)
        cut = await caller.until("conversation.item.truncated")
        assert cut.audio_end_ms <= 1000 * (at[1] - began) + 500
        await asyncio.sleep(0.3)
        assert len(caller.all("response.output_audio.delta")) == num_deltas

    talking(conversation)


def test_an_answer_goes_on_when_speech_may_not_interrupt(talking):
    async def conversation(caller):
        manners = {"turn_detection": {"interrupt_response": False, "create_response": False}}
        await caller.update(max_output_tokens=40, audio={"input": manners})
        await caller.send("conversation.item.create", item=text_item("Hello"))
        await caller.send("response.create")
        await caller.until("response.output_audio_transcript.delta")
        await caller.say(spoken(*SEVEN), pace=50)
        await caller.until("input_audio_buffer.committed")
        response = (await caller.until("response.done")).response
        assert response.status == "incomplete" and response.usage.output_tokens == 40
        assert len(caller.all("response.created")) == 1

    talking(conversation)


def test_what_a_client_did_not_play_is_not_remembered(talking, served):
    async def conversation(caller):
        await caller.update(max_output_tokens=24)
        first = await caller.ask("Hello")
        item = first.output[0]
        seconds = len(caller.heard(item.id)) / WIRE_HZ
        error = await caller.refused(
            "conversation.item.truncate", item_id=item.id, content_index=0, audio_end_ms=int(1000 * seconds) + 500
        )
        assert "ms of sound" in error.message
        whole = item.content[0].transcript
        lengths = []
        for share in (0.9, 0.5, 0.0):
            await caller.send(
                "conversation.item.truncate",
                item_id=item.id,
                content_index=0,
                audio_end_ms=int(1000 * share * seconds),
            )
            await caller.until("conversation.item.truncated", len(lengths) + 1)
            await caller.send("conversation.item.retrieve", item_id=item.id)
            kept = (await caller.until("conversation.item.retrieved", len(lengths) + 1)).item
            lengths.append(len(kept.content[0].transcript) if kept.content else 0)
            assert kept.status == "incomplete"
            assert not kept.content or whole.startswith(kept.content[0].transcript)
        assert len(whole) > lengths[0] >= lengths[1] >= lengths[2] == 0
        second = await caller.ask("Hello")
        # The answer is gone from the prompt: two messages of the user became one.
        assert second.usage.input_tokens < first.usage.input_tokens + 30

    talking(conversation)


def test_a_cancelled_response_ends_at_once(talking, served):
    async def conversation(caller):
        error = await caller.refused("response.cancel")
        assert error.code == "response_cancel_not_active"
        await caller.update(max_output_tokens=4000, output_modalities=["text"])
        await caller.send("conversation.item.create", item=text_item("Hello"))
        await caller.send("response.create")
        await caller.until("response.output_text.delta", 3)
        error = await caller.refused("response.create")
        assert error.code == "conversation_already_has_active_response"
        await caller.send("response.cancel")
        done = (await caller.until("response.done")).response
        assert (done.status, done.status_details.reason) == ("cancelled", "client_cancelled")
        assert done.output[0].content[0].text == written(caller.all("response.output_text.delta"))
        until(lambda: not served.engine.streams, 20.0)

    talking(conversation)


def test_who_hangs_up_in_mid_answer_frees_everything(served):
    async def call():
        async with Caller(served.url) as caller:
            await caller.update(max_output_tokens=200)
            await caller.send("conversation.item.create", item=text_item("Hello"))
            await caller.send("response.create")
            await caller.until("response.output_audio.delta")
            assert served.engine.streams and served.ming.speaker.loop.speaking

    asyncio.run(call())
    until(lambda: served.is_idle and not served.ming.speaker.loop.speaking, 20.0)
    assert not served.app.state.realtime.sessions


def test_two_conversations_at_once_do_not_mix(talking, served):
    async def conversation(caller):
        async with Caller(served.url) as other:
            for one, text in ((caller, "Hello"), (other, "Good morning")):
                await one.update(max_output_tokens=16, instructions=text)
            await asyncio.gather(caller.say(spoken(*SEVEN)), other.say(spoken("english-nine.wav")))
            answers = [await one.until("response.done") for one in (caller, other)]
            texts = [answer.response.output[0].content[0].transcript for answer in answers]
            assert texts[0] != texts[1] and all(texts)
            for one, answer in zip((caller, other), answers, strict=True):
                assert written(one.all("response.output_audio_transcript.delta")) == texts[answers.index(answer)]
                assert {e.item_id for e in one.all("response.output_audio.delta")} == {answer.response.output[0].id}

    talking(conversation)


def test_what_was_said_is_written_down_when_asked(talking):
    async def conversation(caller):
        await caller.update(
            audio={"input": {"transcription": {"language": "en", "keywords": ["Ming"]}}},
            output_modalities=["text"],
            max_output_tokens=4,
        )
        await caller.say(spoken(*SEVEN), pace=50)
        kind = "conversation.item.input_audio_transcription"
        done = await caller.until(f"{kind}.completed")
        item = caller.all("input_audio_buffer.committed")[0].item_id
        assert done.item_id == item and done.usage.seconds > 0.5
        assert written(caller.all(f"{kind}.delta")) == done.transcript
        await caller.send("conversation.item.retrieve", item_id=item)
        assert (await caller.until("conversation.item.retrieved")).item.content[0].transcript == done.transcript

    talking(conversation)


def test_a_long_silence_is_answered_when_asked(talking):
    async def conversation(caller):
        await caller.update(
            audio={"input": {"turn_detection": {"idle_timeout_ms": 5000}}},
            output_modalities=["text"],
            max_output_tokens=4,
        )
        await caller.ask("Hello")
        began = time.monotonic()
        await caller.say(bytes(2 * WIRE_HZ), pace=100)
        timeout = await caller.until("input_audio_buffer.timeout_triggered")
        assert 4.5 < time.monotonic() - began < 20
        assert timeout.audio_end_ms == pytest.approx(1000, abs=40)
        second = (await caller.until("response.done", 2)).response
        assert second.usage.input_token_details.audio_tokens > 5

    talking(conversation)


def test_a_response_beside_the_conversation_leaves_no_trace(talking):
    async def conversation(caller):
        await caller.update(output_modalities=["text"], max_output_tokens=8)
        await caller.send("conversation.item.create", item=text_item("A secret", id="item_mine"))
        aside = {"conversation": "none", "metadata": {"topic": "aside"}, "input": [text_item("Name it.")]}
        await caller.send("response.create", response=aside)
        done = (await caller.until("response.done")).response
        assert done.conversation_id is None and done.metadata == {"topic": "aside"} and done.output[0].content[0].text
        assert [event.item.id for event in caller.all("conversation.item.added")] == ["item_mine"]
        aside["input"].insert(0, {"type": "item_reference", "id": "item_mine"})
        await caller.send("response.create", response=aside)
        longer = (await caller.until("response.done", 2)).response
        assert longer.usage.input_tokens == done.usage.input_tokens + len("A secret\n")

    talking(conversation)


def test_items_go_where_they_are_put_and_leave_when_they_are_deleted(talking):
    async def conversation(caller):
        await caller.update(output_modalities=["text"], max_output_tokens=4)
        for id_, after in (("b", None), ("c", None), ("a", "root"), ("bb", "b")):
            item = text_item(f"text {id_}", "assistant" if id_ == "bb" else "user", id=id_)
            where = {} if after is None else {"previous_item_id": after}
            await caller.send("conversation.item.create", item=item, **where)
        await caller.until("conversation.item.done", 4)
        assert [event.previous_item_id for event in caller.all("conversation.item.added")] == [None, "b", None, "b"]
        await caller.send("conversation.item.delete", item_id="bb")
        assert (await caller.until("conversation.item.deleted")).item_id == "bb"
        error = await caller.refused("conversation.item.retrieve", item_id="bb")
        assert error.message == "there is no item bb in this conversation"

    talking(conversation)


def test_long_conversations_forget_their_oldest_turns_and_say_so(talking):
    async def conversation(caller):
        retention = {"type": "retention_ratio", "retention_ratio": 0.5, "token_limits": {"post_instructions": 400}}
        await caller.update(output_modalities=["text"], max_output_tokens=4, instructions="Stay.", truncation=retention)
        sizes = []
        for turn in range(12):
            response = await caller.ask(f"Question {turn}: what do you think of it?")
            sizes.append(response.usage.input_tokens)
        gone = [event.item_id for event in caller.all("conversation.item.deleted")]
        added = [event.item.id for event in caller.all("conversation.item.added")]
        assert max(sizes) < 520 and gone == added[: len(gone)] and len(gone) >= 8
        assert len(gone) % 2 == 0  # a question goes with its answer
        error = await caller.refused("conversation.item.create", item=text_item("x" * 500))
        assert "a conversation holds 400" in error.message
        for text in ("y" * 300, "z" * 50):
            await caller.ask(text)
        error = await caller.refused("conversation.item.create", item=text_item("x" * 200), previous_item_id="root")
        assert "so far back that there is no room" in error.message
        await caller.update(truncation="disabled")
        assert (await caller.ask("Still there?")).output

    talking(conversation)


def test_the_example_of_the_documentation_runs(served, capsys):
    text = (Path(__file__).parent.parent / "docs" / "realtime.md").read_text()
    [example] = re.findall(r"```python\n(.*?)```", text, re.S)
    exec(example.replace("http://127.0.0.1:8000", served.url), {})
    assert capsys.readouterr().out.strip()
