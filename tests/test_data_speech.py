"""Sentences, phonemes, accents, damage, shards and dialogue: deterministic, split without leaks, resumable."""

import io
import json
import tarfile

import numpy as np
import pytest
import torch

from ming_omni.data import dialogue, shards, speech
from ming_omni.data.accents import ACCENTS, BY_NAME, dialect_readings, dialect_text
from ming_omni.data.augment import Treatment, add_noise, add_room, augment, change_speed, pad_rows, telephone, treatment
from ming_omni.data.blind import transcript_prior
from ming_omni.data.recordings import Recording, read_manifest, read_recordings
from ming_omni.data.splits import generator, leaks
from ming_omni.data.utterances import KINDS, LISTED, utterance
from ming_omni.errors import InputError

NAMES = ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")
VOICES = (
    "af_heart",
    "af_nova",
    "am_adam",
    "am_puck",
    "bf_emma",
    "bf_lily",
    "zf_xiaobei",
    "zf_xiaoyi",
    "zm_yunxi",
    "zm_yunxia",
)


@pytest.mark.parametrize("kind", KINDS)
def test_no_sentence_or_name_of_the_test_is_said_in_training(kind):
    said = {split: [utterance(kind, split, 0, i) for i in range(80)] for split in ("train", "test")}
    texts = {split: [u.text.lower() for u in found] for split, found in said.items()}
    assert utterance(kind, "train", 0, 5) == said["train"][5]
    assert not leaks(texts["train"], texts["test"])
    assert transcript_prior(texts["train"], texts["test"]) == 0
    names = {split: {name for u in found for name in (u.name, *u.context) if name} for split, found in said.items()}
    assert not leaks(names["train"], names["test"])


@pytest.mark.parametrize("kind", ["name", "mandarin name"])
def test_a_list_usually_but_not_always_holds_the_name_that_is_said(kind):
    found = [utterance(kind, "train", 1, i) for i in range(150)]
    assert all(u.name in u.text for u in found)
    assert abs(sum(u.name in u.context for u in found) / len(found) - LISTED) < 0.12
    first = sum(u.context[0] == u.name for u in found) / len(found)
    assert first < 0.4  # its place gives nothing away


def test_voices_and_mixtures_stay_in_their_split_and_language():
    heard = {split: set() for split in ("train", "test")}
    for split in heard:
        for is_chinese in (False, True):
            names = speech.voices_of(VOICES, split, is_chinese)
            for i in range(30):
                mixed = speech.mixture(generator(i), names)
                assert sum(mixed.values()) == pytest.approx(1)
                assert all((name[0] == "z") == is_chinese for name in mixed)
                heard[split] |= set(mixed)
    assert heard["test"] == {"af_nova", "am_puck", "bf_lily", "zf_xiaoyi", "zm_yunxia"}
    assert not leaks(heard["train"], heard["test"])


# Phonemes


def test_mandarin_readings_carry_their_tones_and_sandhi():
    pytest.importorskip("pypinyin")
    from ming_omni.data.phonemes import mandarin, readings, split_syllable

    assert readings("你好") == ["ni2", "hao3"]
    assert mandarin(["ma1", "ma2", "ma3", "ma4"]) == "ma→ma↗ma↓ma↘"
    assert mandarin(["zhong1", "guo2"]) == "ꭧʊ→ŋkwo↗"
    assert mandarin(["shi4", "xi1"]) == "ʂɨ↘ɕi→"
    assert mandarin(["lv4", "jun1", "yue4"]) == "ly↘ʨy→nɥe↘"
    assert split_syllable("er2") == ("", "er", "2")


def test_english_ipa_becomes_kokoros_letters():
    from ming_omni.data.phonemes import kokoro_english

    assert kokoro_english("həlˈo^ʊ", "en-us") == "həlˈO"
    assert kokoro_english("d^ʒˈʌd^ʒ t^ʃˈa^ɪld", "en-us") == "ʤˈʌʤ ʧˈIld"
    assert kokoro_english("wˈɔːtə", "en-gb") == "wˈɔːtə"


@pytest.mark.parametrize("accent", ACCENTS, ids=lambda a: a.name)
def test_an_accent_changes_how_a_sentence_is_said(accent):
    pytest.importorskip("pypinyin")
    plain = ["zhi1", "dao4", "shen2", "me5", "ren2", "hao3"]
    assert dialect_readings(plain, accent) != plain
    assert dialect_text("我怎么知道什么", accent) != "我怎么知道什么"


def test_sichuan_has_no_curled_initials():
    pytest.importorskip("pypinyin")
    assert dialect_readings(["zhong1", "shi4", "neng2"], BY_NAME["sichuan"]) == ["zong1", "si2", "len4"]


# Damage


def tone(hz: float, seconds: float = 0.5, rate: int = 16_000) -> torch.Tensor:
    return 0.3 * torch.sin(2 * torch.pi * hz * torch.arange(int(seconds * rate)) / rate)


def test_what_happens_to_a_row_does_not_depend_on_its_neighbours():
    rows = [tone(440, 0.5), tone(220, 0.3), tone(880, 0.4), tone(660, 0.2)]
    treatments = [treatment(seed) for seed in (3, 8, 11)] + [Treatment(is_telephone=True)]
    together, lengths = augment(*pad_rows(rows), treatments)
    for i in range(4):
        alone, (length,) = augment(rows[i][None], torch.tensor([len(rows[i])]), [treatments[i]])
        assert length == lengths[i]
        torch.testing.assert_close(together[i, :length], alone[0, :length], atol=2e-3, rtol=0)
        assert not together[i, length:].any()


def test_twice_the_speed_is_half_as_long_and_an_octave_higher():
    changed, lengths = change_speed(tone(440)[None], torch.tensor([8000]), [2.0])
    assert lengths.tolist() == [4000]
    assert torch.fft.rfft(changed[0]).abs().argmax() * 16_000 / 4000 == 880


def test_noise_comes_at_the_asked_ratio():
    clean = tone(440)[None]
    noisy = add_noise(clean, torch.tensor([8000]), [Treatment(snr_db=10.0)])
    assert 20 * torch.log10(clean.norm() / (noisy - clean).norm()) == pytest.approx(10, abs=0.01)


def test_a_room_keeps_loudness_and_adds_a_tail():
    click = torch.zeros(1, 8000)
    click[0, 100] = 0.5
    wet = add_room(click, torch.tensor([8000]), [Treatment(reverberation_seconds=0.3)], 16_000)
    assert wet.norm() == pytest.approx(click.norm().item(), rel=1e-4)
    assert wet[0, :100].abs().max() < 1e-4
    assert wet[0, 101:4000].norm() > 0.2 * wet.norm()


def test_a_telephone_passes_speech_and_nothing_below_or_above():
    heard = [
        telephone(tone(hz)[None], torch.tensor([8000]), [True], 16_000).norm() / tone(hz).norm()
        for hz in (100, 1000, 5000)
    ]
    assert heard[0] < 0.1
    assert heard[1] == pytest.approx(1, abs=0.05)
    assert heard[2] < 0.1


# Files


def numbered(number: int):
    for i in range(3):
        yield f"{number}-{i}", {"json": shards.as_json({"i": i}), "bin": bytes([number, i])}


def test_shards_are_whole_or_absent_and_never_made_twice(tmp_path):
    paths = shards.make_shards(tmp_path, 3, numbered)
    before = paths[0].read_bytes()
    paths[1].unlink()
    paths[0].write_bytes(before + b"kept")  # a mark that would vanish if it were made again
    shards.make_shards(tmp_path, 3, numbered)
    assert paths[0].read_bytes() == before + b"kept"
    assert list(shards.read_shard(paths[1])) == list(numbered(1))
    assert not list(tmp_path.glob("*.part"))


def test_a_failing_shard_leaves_nothing_behind_that_looks_finished(tmp_path):
    def broken(number):
        yield "0", {"json": b"{}"}
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError):
        shards.make_shards(tmp_path, 1, broken)
    assert not list(tmp_path.glob("*.tar"))


@pytest.mark.parametrize("codec", speech.CODECS)
def test_a_clip_survives_its_codec_and_resampling(codec, tmp_path):
    sound = tone(440, 1.0, speech.TEACHER_HZ).numpy()
    clip = {"text": "a <tone>", "speaker": "af_heart*1.0", "speed": 1.0, "kind": "everyday", "accent": ""}
    path = tmp_path / "shard-00000.tar"
    shards.write_shard(path, [("0", {"json": shards.as_json(clip), codec: speech.encode(sound, codec)})])
    ((about, samples),) = speech.read_clips(path)
    assert about == clip
    assert len(samples) == pytest.approx(16_000, abs=400)
    assert np.abs(np.fft.rfft(samples)).argmax() * 16_000 / len(samples) == pytest.approx(440, abs=2)
    page = speech.write_index(tmp_path, [path])
    assert "a &lt;tone&gt;" in page.read_text()
    assert (page.parent / "000.wav").exists()


def test_a_plan_reads_back_as_written(tmp_path):
    clip = speech.Clip("Hi 3.", "Hi three.", "hˈI", {"af_heart": 1.0}, 1.1, "en", "number", ["Ann"], "", "")
    speech.write_plan(tmp_path / "plan.jsonl", [clip, clip])
    assert speech.read_plan(tmp_path / "plan.jsonl") == [clip, clip]
    assert clip.speaker == "af_heart*1.0"


def test_recordings_are_read_from_where_they_are_and_split_by_label(tmp_path):
    import soundfile

    rows = []
    with tarfile.open(tmp_path / "digits.tar", "w") as tar:
        for i in range(40):
            file = io.BytesIO()
            soundfile.write(file, tone(300, 0.1, 8000).numpy(), 8000, format="WAV")
            entry = tarfile.TarInfo(f"{i}.wav")
            entry.size = len(file.getvalue())
            tar.addfile(entry, io.BytesIO(file.getvalue()))
            rows.append({"tar": "digits.tar", "file": f"{i}.wav", "label": f"label {i // 2}"})
    (tmp_path / "manifest.jsonl").write_text("\n".join(map(json.dumps, rows)))
    found = {split: list(read_recordings(tmp_path, split)) for split in ("train", "dev", "test")}
    assert sum(map(len, found.values())) == len(read_manifest(tmp_path)) == 40
    labels = {split: {recording.label for recording, _ in clips} for split, clips in found.items()}
    assert not leaks(labels["train"], labels["test"])
    assert len(found["train"][0][1]) == pytest.approx(1600, abs=2)


def test_a_recording_whose_file_names_its_speaker_is_split_by_speaker():
    digits = [Recording("d.tar", f"{digit}_{name}_0.wav", str(digit)) for digit in range(10) for name in NAMES]
    splits = {name: {r.split for r in digits if name in r.file} for name in NAMES}
    assert all(len(found) == 1 for found in splits.values())
    assert set().union(*splits.values()) == {"train", "dev", "test"}


def test_recordings_that_are_not_there_are_an_optional_extra(tmp_path):
    with pytest.raises(InputError, match="optional"):
        read_manifest(tmp_path)


# Dialogue


def test_packaged_dialogue_leaves_out_a_bots_talk_about_itself(tmp_path):
    pytest.importorskip("yaml")
    for language, name, text in (
        ("english", "food", "conversations:\n- - do you cook?\n  - I do.\n  - What?\n"),
        ("english", "botprofile", "conversations:\n- - who are you?\n  - I am Bob.\n"),
        ("chinese", "food", "conversations:\n- - 你吃饭吗\n  - 吃\n"),
    ):
        (tmp_path / language).mkdir(exist_ok=True)
        (tmp_path / language / f"{name}.yml").write_text(text)
    found = list(dialogue.read_corpus(tmp_path))
    assert [(e.question, e.answer, e.language) for e in found] == [
        ("do you cook?", "I do.", "en"),
        ("I do.", "What?", "en"),
        ("你吃饭吗", "吃", "zh"),
    ]


def test_written_dialogue_goes_on_where_it_stopped(tmp_path):
    asked = []

    def ask(question: str) -> str:
        asked.append(question)
        if len(asked) == 4:
            raise KeyboardInterrupt
        return f" about {question} "

    path = tmp_path / "written.jsonl"
    with pytest.raises(KeyboardInterrupt):
        dialogue.write_written(path, ask, 0, 6)
    dialogue.write_written(path, ask, 0, 6)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["question"] for line in lines] == [dialogue.question(0, i)[0] for i in range(6)]
    assert lines[0]["answer"] == f"about {lines[0]['question']}"
    assert len(asked) == 7  # the interrupted one again, none of the others
