"""The scoring of speech: which sentences in which voices, what counts as a fault, and the whole at a small nano."""

import io
import json

import numpy as np
import pytest
import soundfile

from benchmarks import speech as bench
from ming_omni.data.shards import as_json, write_shard
from tests.test_nano_talker import folder, talker  # noqa: F401  fixtures
from tests.test_voices import speech

ENGLISH = "the old man walked slowly along the river"


@pytest.mark.parametrize(
    ("heard", "seconds", "found_no_end", "wanted"),
    [
        (ENGLISH, 3.0, False, ""),
        ("the old man walked slowly along a liver", 3.0, False, ""),
        ("the old man walked", 3.0, False, "cut-off"),
        (ENGLISH, 1.0, False, "cut-off"),
        (ENGLISH, 3.0, True, "runaway"),
        (ENGLISH, 8.0, False, "runaway"),
        ("the old man the old man walked slowly along the river", 4.0, False, "repeat"),
        ("", 3.0, False, "cut-off"),
    ],
)
def test_a_fault_is_told_by_what_is_heard_and_by_the_length(heard, seconds, found_no_end, wanted):
    assert bench.fault(ENGLISH, heard, "en", seconds, 3.0, found_no_end) == wanted


def test_what_is_said_twice_on_purpose_is_no_repeat():
    text = "very very good very very good"
    assert bench.fault(text, text, "en", 3.0, 3.0, False) == ""


def test_mandarin_faults_are_told_by_syllables_and_not_by_characters():
    assert bench.fault("他在河边慢慢地走。", "她在河边慢慢的走", "zh", 3.0, 3.0, False) == ""
    assert bench.fault("他在河边慢慢地走。", "他在河边", "zh", 3.0, 3.0, False) == "cut-off"


def test_people_are_others_when_half_of_their_mixture_is():
    assert bench.is_other({"a": 1.0}, {"b": 1.0}) and not bench.is_other({"a": 1.0}, {"a": 0.7, "b": 0.3})
    assert bench.is_other({"a": 1.2, "c": -0.2}, {"b": 1.0})


def spoken(number: int, voice: str, kind: str = "everyday", seconds: float = 4.0) -> bench.Spoken:
    language = "zh" if voice[0] == "z" else "en"
    text = f"{'一二三四五六七八九'[number % 9]}条船。" if language == "zh" else f"Sentence {number} here."
    samples = np.random.default_rng(number).normal(0, 0.1, int(16_000 * seconds)).astype(np.float32)
    return bench.Spoken(text, language, kind, {voice: 1.0}, samples)


def test_a_sentence_is_said_in_the_voice_of_another_sentence_of_its_language():
    clips = [spoken(i, ("af_a", "zf_b")[i % 2], ("everyday", "mandarin")[i % 2]) for i in range(16)]
    clips += [spoken(20, "af_c", seconds=1.0), spoken(21, "af_c", kind="number")]
    clips[0].samples[16_000:] = 0  # too little of it is speech
    found = bench.trials(clips, 10)
    assert clips[0] not in [trial.prompt for trial in found]
    assert [t.teacher.language for t in found] == ["en"] * 5 + ["zh"] * 5
    for trial in found:
        assert trial.prompt.language == trial.teacher.language and trial.prompt.text != trial.teacher.text
        assert 3.2 <= trial.prompt.seconds <= 10 and trial.teacher.kind in bench.KINDS
    assert len({trial.prompt.text for trial in found}) >= 6


def test_a_clone_is_compared_with_people_of_its_sex_only():
    voices = [f"a{sex}_{i}" for i in range(30) for sex in "fm"]
    pool = [spoken(i, voice) for i, voice in enumerate(voices)]
    directions = np.eye(len(pool) + 1)
    trial = bench.Trial(spoken(0, "af_x"), spoken(1, "af_x"), 0)
    prompt = directions[-1:]
    near_men = 0.6 * prompt + 0.8 * directions[1]  # nearer to a man of the pool than to the prompt
    assert bench.clones([trial], near_men, prompt, pool, directions[:-1]) == [True]
    women = sum(directions[i] for i in range(0, len(pool), 2))
    assert bench.clones([trial], 0.1 * prompt + 0.2 * women, prompt, pool, directions[:-1]) == [False]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Test clips of six speakers, four sentences each, and some of training to stand beside them."""
    data = tmp_path_factory.mktemp("data")
    (data / "speech").mkdir()
    samples = []
    for number in range(32):
        split, chinese = ("test", "train")[number >= 24], number % 4 == 3
        voice = f"{'z' if chinese else 'a'}{'fm'[number % 2]}_{number % 6}"
        text = (
            f"{'一二三四五六七八'[number // 4]}条船在河边。"
            if chinese
            else f"Boat {'abcdefgh'[number // 4]} is {number}."
        )
        about = {"text": text, "language": "zh" if chinese else "en", "kind": "mandarin" if chinese else "everyday"}
        about |= {"split": split, "voices": {voice: 1.0}, "accent": "", "context": [], "name": ""}
        file = io.BytesIO()
        soundfile.write(file, speech(4.0).numpy(), 16_000, format="FLAC")
        samples.append((f"{number:08}", {"json": as_json(about), "flac": file.getvalue()}))
    write_shard(data / "speech" / "shard-00000.tar", samples)
    return data


def test_the_whole_scoring_of_a_small_nano(folder, data, tmp_path, monkeypatch, capsys):  # noqa: F811
    judged = []

    def listens(data, samples, languages, threads):
        judged.append(len(samples))
        return ["Boat a is 0." if language == "en" else "一条船在河边。" for language in languages]

    monkeypatch.setattr(bench, "heard", listens)
    monkeypatch.setattr(bench, "quality", lambda data, samples: [3.0] * len(samples))
    monkeypatch.setattr(bench, "likeness", lambda data, samples: np.eye(256)[: len(samples)])
    output = tmp_path / "speech.json"
    wavs = tmp_path / "wavs"
    more = ["--limit", "2", "--output", str(output), "--wavs", str(wavs), "--workers", "0"]
    bench.main([str(folder), "--data", str(data), *more])
    report = json.loads(output.read_text())
    assert judged == [2, 2] and report["sentences"] == 2
    assert {row["ability"] for row in report["scores"]} == {
        bench.ENGLISH, bench.MANDARIN, bench.QUALITY, bench.FAULTS, bench.CLONE,
    }  # fmt: skip
    named = {row["ability"]: row for row in report["scores"]}
    assert named[bench.QUALITY]["reached"] == "floor" and named[bench.QUALITY]["beside"] == {"teacher": 3.0}
    assert named[bench.ENGLISH]["value"] == report["teacher"][0]["value"] == 0.0
    assert named[bench.MANDARIN]["floor"] == pytest.approx(0.08)
    assert len(report["rows"]) == 2 and report["speed"]["times_real_time"] > 0
    assert report["speed"]["voice"] == "heart" and report["speed"]["first_audio_ms"] > 0
    assert sorted(path.name for path in wavs.iterdir()) == [
        "000-prompt.wav", "000.wav", "001-prompt.wav", "001.wav", "index.html",
    ]  # fmt: skip
    assert (wavs / "index.html").read_text().count("<audio") == 4
    assert "| DNSMOS | 3.00 |" in capsys.readouterr().out
