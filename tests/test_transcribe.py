"""Real voices through a model that was taught what they say: text, languages, times, context, streams."""

import json
import threading

import numpy as np
import pytest
import torch

from ming_omni import Ming
from ming_omni.errors import InputError
from ming_omni.inputs.messages import Audio, Message, Text
from ming_omni.transcribe import Context, Transcript, transcribe
from ming_omni.transcribe.prompts import question
from ming_omni.transcribe.segments import WHOLE_SENTENCES, Track, speech
from tests.media import tone, wav
from tests.serving import until
from tests.talks import RATE_HZ, SPEECH, music, noise, silence, talk
from tests.taught import SURENESS, Lesson, taught

TALK, PLACES = talk(["mandarin-thanks.mp3", "english-three.wav"], 3.0)
SOUND = (TALK, RATE_HZ)


def stretches(samples: np.ndarray) -> list[np.ndarray]:
    return [s.samples.numpy() for s in speech(Track((samples, RATE_HZ)), WHOLE_SENTENCES)]


@pytest.fixture(scope="module")
def ming():
    """Hears 谢谢 in Shanghai dialect and `three` in English; repeats what is on a list."""
    thanks, three = stretches(TALK)
    ming = taught(
        Lesson(thanks, "上海\t谢谢"),
        Lesson(three, "English\tthree"),
        Lesson(thanks, "歇歇 Ghost", words=("歇歇", "Ghost"), forced="上海\t"),
        Lesson(three, "Ghost", words=("歇歇", "Ghost"), forced="English\t"),
        Lesson(thanks, "歇歇", words=("歇歇",), forced="上海\t"),
    )
    yield ming
    ming.engine.stop()


def is_idle(ming) -> bool:
    e = ming.engine
    return not e.streams and not e.scheduler.running and len(e.pages.idle) == e.pages.num_pages


def test_each_segment_has_its_text_language_and_time(ming):
    found = transcribe(ming, SOUND)
    assert found.text == "谢谢three" and found.seconds == pytest.approx(len(TALK) / RATE_HZ, abs=1e-3)
    first, second = found.segments
    assert (first.text, first.language, first.dialect) == ("谢谢", "Chinese", "Shanghai")
    assert (second.text, second.language, second.dialect) == ("three", "English", None)
    for segment, (start, end) in zip(found.segments, PLACES, strict=True):
        assert start - 0.1 <= segment.start < segment.end <= end + 0.1
        assert segment.speech > 0.7 and not segment.is_cut and segment.logprob > -0.1
    assert (found.language, found.dialect, found.confidence) == ("Chinese", "Shanghai", first.confidence)


def path_probability(ming, samples: np.ndarray, path: str) -> float:
    """By one plain forward of the whole model."""
    message = Message("user", [Text(question()), Audio((torch.from_numpy(samples), RATE_HZ))])
    inputs = ming.processor.prepare(message, answer_start=path)
    ids = ming.processor.tokenizer.encode(path)
    with torch.no_grad():
        logprobs = ming.model(**inputs).logits[0].log_softmax(-1)
    return float(sum(logprobs[-len(ids) - 1 + i, token] for i, token in enumerate(ids)).exp())


@pytest.mark.parametrize(
    ("options", "path"), [({}, "上海\t"), ({"dialect": "上海话"}, "上海\t"), ({"language": "en"}, "English\t")]
)
def test_confidence_is_the_probability_of_the_words_that_name_the_language(ming, options, path):
    thanks, _ = stretches(TALK)
    segment = transcribe(ming, SOUND, **options).segments[0]
    assert segment.confidence == pytest.approx(path_probability(ming, thanks, path), rel=1e-3, abs=1e-9)


def test_what_was_learned_is_as_sure_as_its_logits(ming):
    # six bytes and a tab, each with SURENESS against 319 others
    expected = (1 + 319 * np.exp(-SURENESS)) ** -7
    assert transcribe(ming, SOUND).segments[0].confidence == pytest.approx(expected, abs=1e-3)


def test_a_forced_dialect_is_not_asked_again(ming):
    found = transcribe(ming, SOUND, dialect="Shanghai")
    assert found.segments[0].text == "谢谢"
    assert {(s.language, s.dialect) for s in found.segments} == {("Chinese", "Shanghai")}


@pytest.mark.parametrize("context", [None, ["歇歇", "Ghost"]])
def test_the_pieces_of_a_stream_are_the_whole(ming, context):
    whole = transcribe(ming, SOUND, context=context)
    updates = list(transcribe(ming, SOUND, context=context, stream=True))
    assert "".join(update.text for update in updates) == whole.text
    segments = [update.segment for update in updates if update.segment]
    assert [(s.text, s.start, s.end, s.leaks) for s in segments] == [
        (s.text, s.start, s.end, s.leaks) for s in whole.segments
    ]
    assert updates[-1].transcript == Transcript.of(segments, whole.seconds)
    assert (len([u for u in updates if u.text]) > 2) == (context is None)  # letter by letter, or once compared


def test_context_corrects_what_sounds_like_it_and_its_leaks_are_taken_out(ming):
    found = transcribe(ming, SOUND, context=Context(words=["歇歇", "Ghost"]))
    # 歇歇 is pronounced as 谢谢; nobody said Ghost, neither after it nor instead of `three`.
    assert [segment.text for segment in found.segments] == ["歇歇", "three"]
    assert [(leak.word, leak.verdict, leak.instead) for leak in found.leaks] == [
        ("Ghost", "removed", ""),
        ("Ghost", "removed", "three"),
    ]
    assert found.dialect == "Shanghai" and found.confidence > 0.9


def test_a_long_list_is_narrowed_before_the_model_reads_it(ming):
    # Of a thousand words 歇歇 alone sounds like 谢谢, and none like `three`; prompts with other lists were not learned.
    words = [f"Qux{chr(97 + i // 26 % 26)}{chr(97 + i % 26)}zorp" for i in range(998)]
    found = transcribe(ming, SOUND, context=[*words[:500], "歇歇", *words[500:]])
    assert [segment.text for segment in found.segments] == ["歇歇", "three"] and not found.leaks


def test_segments_of_one_recording_are_computed_side_by_side():
    tiny = Ming.load("tiny")  # random weights talk as long as they may

    def steps(count: int) -> int:
        samples, _ = talk(["english-three.wav"] * count, 1.0)
        before = tiny.engine.counts.steps
        assert len(transcribe(tiny, (samples, RATE_HZ), timestamps=True).segments) == count
        return tiny.engine.counts.steps - before

    assert steps(5) < 2.5 * steps(1)


@pytest.mark.parametrize(
    "sound", [silence(4), noise(4, 0.2), music(6), tone(4.0)], ids=["silence", "noise", "music", "tone"]
)
@pytest.mark.parametrize("options", [{}, {"context": ["Ghost"], "dialect": "Shanghai", "timestamps": True}])
def test_where_nobody_speaks_the_text_is_empty_and_the_model_is_not_asked(ming, sound, options):
    before = ming.engine.counts.steps
    found = transcribe(ming, (sound, RATE_HZ), **options)
    assert found == Transcript("", (), len(sound) / RATE_HZ)
    assert ming.engine.counts.steps == before


def test_files_bytes_and_many_channels_are_heard_alike(ming):
    eight = wav(np.stack([TALK] * 8, 1), RATE_HZ, subtype="FLOAT")
    assert transcribe(ming, eight).text == transcribe(ming, SOUND).text
    telephone = transcribe(ming, SPEECH / "english-nine.wav")
    assert len(telephone.segments) == 1 and telephone.seconds == pytest.approx(0.54, abs=0.01)


def test_an_answer_that_runs_away_is_cut_and_says_so():
    tiny = Ming.load("tiny")  # random weights talk without end
    (segment,) = transcribe(tiny, SPEECH / "english-nine.wav").segments
    assert segment.is_cut and segment.language is None and segment.confidence is None


@pytest.mark.parametrize("how", ["cancel", "drop", "break"])
def test_leaving_early_frees_everything(how):
    tiny = Ming.load("tiny")
    samples, _ = talk(["english-three.wav", "english-nine.wav"] * 8, 1.0)
    listening = transcribe(tiny, (samples, RATE_HZ), timestamps=True, stream=True)
    while not next(listening).text:
        pass
    assert tiny.engine.streams
    if how == "cancel":
        threading.Thread(target=listening.cancel).start()
        assert not any(update.transcript for update in listening)
    elif how == "break":
        for _ in listening:
            break
    del listening
    until(lambda: is_idle(tiny))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("transcribe")]


def test_what_fails_inside_a_segment_is_heard_outside(ming, monkeypatch):
    listening = transcribe(ming, SOUND, stream=True)
    broken = RuntimeError("the processor broke")

    def prepare(*_, **__):
        raise broken

    monkeypatch.setattr(ming.processor, "prepare", prepare)
    with pytest.raises(RuntimeError, match="the processor broke"):
        list(listening)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"language": "Klingon"}, "the language 'Klingon' is not known"),
        ({"dialect": "Mars"}, "the dialect 'Mars' is not known"),
        ({"context": 7}, "a context is text"),
        ({"temperature": -1.0}, "temperature is 0 or more"),
        ({"audio": b"nothing"}, "the sound cannot be read"),
        ({"audio": "missing.wav"}, "no sound file"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_everything_wrong_is_said_before_anything_runs(ming, options, message, stream):
    before = ming.engine.counts.steps
    with pytest.raises(InputError, match=message):
        transcribe(ming, **{"audio": SOUND, "stream": stream} | options)
    assert ming.engine.counts.steps == before


def test_a_model_without_ears_says_so():
    deaf = Ming.load("tiny")
    deaf.model.audio = None
    with pytest.raises(InputError, match="tiny cannot hear: this model has no audio encoder"):
        transcribe(deaf, SOUND)


def test_a_transcript_survives_json(ming):
    found = transcribe(ming, SOUND, context=["歇歇", "Ghost"])
    data = json.loads(json.dumps(found.to_dict()))
    assert data["text"] == found.text and data["segments"][1]["leaks"][0]["word"] == "Ghost"
