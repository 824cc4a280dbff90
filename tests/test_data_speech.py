"""Sentences, phonemes, accents, damage, shards and dialogue: deterministic, split without leaks, resumable."""

import io
import json
import subprocess
import sys
import tarfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from ming_omni.data import dialogue, engines, parcels, sentences, shards, speaking, speech
from ming_omni.data.accents import ACCENTS, BY_NAME, dialect_readings, dialect_text, num_changes
from ming_omni.data.augment import Treatment, add_noise, add_room, augment, change_speed, pad_rows, telephone, treatment
from ming_omni.data.blind import transcript_prior
from ming_omni.data.recordings import Recording, read_manifest, read_recordings
from ming_omni.data.splits import generator, leaks
from ming_omni.data.utterances import KINDS, LISTED, MIN_CHANGES, SHARES, utterance
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


@pytest.fixture(scope="module")
def packages(tmp_path_factory) -> dict:
    """The packages of sentences in small: as many as make every split speak."""
    folder = tmp_path_factory.mktemp("packages")
    english = [f"Tom {verb} the {thing}." for verb in ("saw", "lost", "likes") for thing in speech_things()]
    english += [f"Did she buy a {thing}?" for thing in speech_things()]
    chinese = [
        f"汤姆{verb}{thing}。" for verb in ("看见了", "没有", "喜欢") for thing in "山水火木金土日月星云风雨雷电花草"
    ]
    rows = [f"{i}\t{z}\t{i}\t{e}" for i, (z, e) in enumerate(zip(chinese, english[: len(chinese)], strict=True))]
    rows += [f"0\t他說話。\t0\t{text}" for text in english[len(chinese) :]]
    (folder / "assets").mkdir()
    (folder / "assets" / "tatoeba.tsv").write_text("\n".join(rows), encoding="utf-8-sig")
    words = [f"{a}{b} {a}{b} [shan1 shui3] /x/" for a in "山水火木金土" for b in "日月星云风雨雷电"]
    places = [f"{a}{b} {a}{b} [Shan1 Shui3] /x/" for a in "东西南北" for b in "山水火木金土日月星云"]
    (folder / "assets" / "cedict_ts.u8").write_text("\n".join([*words, *places, "龜 龟 [gui1] /turtle/"]))
    tokens = [{"word": "老师", "gloss_en": "teacher; master"}, {"word": "好", "gloss_en": "good"}]
    cards = [{"chinese": f"老师喜欢{thing}。", "tokens": tokens} for thing in "山水火木金土日月星云风雨雷电花草"]
    (folder / "graded" / "data").mkdir(parents=True)
    (folder / "graded" / "data" / "sentences.json").write_text(json.dumps(cards))
    people = [f"0 18 n 02 {first}_{last} 0 X 0 001 @i 1 n | poet" for first in ("Ada", "Carl") for last in FAMILIES]
    (folder / "wordnet").mkdir()
    (folder / "wordnet" / "data.noun").write_text("\n".join(["  licence", *people]), encoding="latin-1")
    for kind, line in (("verb", '0 30 v | go; "the boy went home"'), ("adj", ""), ("adv", "")):
        (folder / "wordnet" / f"data.{kind}").write_text(line)
    return {
        split: sentences.read_sayings(split, folder / "assets", folder / "graded", folder / "wordnet")
        for split in ("train", "test")
    }


FAMILIES = [f"{a}{b}" for a in ("Mar", "Tol", "Ver", "Hal", "Bro", "Kin") for b in ("ston", "berg", "dale", "wick")]


def speech_things() -> list[str]:
    return ["dog", "lamp", "ship", "road", "cup", "hat", "door", "book", "tree", "moon", "bell", "coat", "king", "fish"]


def test_sentences_of_packages_are_split_filled_in_and_free_of_what_voices_misread(packages):
    train, test = packages["train"], packages["test"]
    assert not leaks(train.english, test.english)
    assert not leaks(train.families, test.families)
    assert "Tom saw the dog." in (*train.english, *test.english)
    assert any(text.startswith("{} ") for text in train.english_named)
    assert any(text.startswith("teacher喜欢") for text in train.mixed)
    # With another name or an English word in it, a sentence is still the same one.
    assert {text.format("Tom") for text in train.english_named} <= {*train.english, *train.questions}
    assert {text.format("汤姆") for text in test.chinese_named} <= {*test.chinese}
    assert {text.replace("teacher", "老师") for text in test.mixed} <= {*test.chinese}
    assert "他說話。" not in train.chinese  # traditional
    assert all("龟" not in word for group in train.chinese_words for word in group)  # one hanzi is no word here
    assert all(hanzi_group for hanzi_group in train.chinese_words)
    assert sentences.bare("It's late, Tom!") == sentences.bare("it s LATE tom")


@pytest.mark.parametrize("kind", KINDS)
def test_utterances_of_packages_do_not_leak_either(kind, packages):
    said = {split: [utterance(kind, split, 0, i, packages[split]) for i in range(60)] for split in packages}
    texts = {split: {sentences.bare(u.text) for u in found} for split, found in said.items()}
    assert not leaks(texts["train"], texts["test"])
    assert not leaks({u.name for u in said["train"] if u.name}, {u.name for u in said["test"] if u.name})


def test_an_accent_is_always_heard(packages):
    for i in range(60):
        said = utterance("accented", "train", 3, i, packages["train"])
        assert num_changes(said.text, BY_NAME[said.accent]) >= MIN_CHANGES


def test_the_shares_of_kinds_are_kept():
    from collections import Counter

    from ming_omni.data.utterances import pick_kind

    assert sum(SHARES.values()) == pytest.approx(1)
    found = Counter(pick_kind(generator(7, i)) for i in range(2000))
    assert all(abs(found[kind] / 2000 - share) < 0.03 for kind, share in SHARES.items())


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


def test_other_engines_speak_voices_of_their_split_and_say_what_they_are_for(packages):
    drafts = {split: [engines.draft(split, 0, i, packages[split]) for i in range(60)] for split in packages}
    assert not leaks(engines.VOICES["train"], (*engines.VOICES["test"], *engines.VOICES["dev"]))
    for split, found in drafts.items():
        assert {about["speaker"] for about in found} == set(engines.VOICES[split])
        assert all(about["purpose"] == "recognition" and about["language"] == "en" for about in found)
        assert all(about["spoken"] and not about["spoken"].startswith("-") for about in found)
    assert not leaks(*({about["text"] for about in found} for found in drafts.values()))


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


MAKER = """
import sys, time
from pathlib import Path
from ming_omni.data.shards import make_shards

def make(number):
    if number:  # the first is made, the others take for ever
        Path(sys.argv[1], f"at-work-{number}").write_text(str(__import__("os").getpid()))
        time.sleep(600)
    yield "0", {"json": b"{}"}

if __name__ == "__main__":
    make_shards(Path(sys.argv[1]), 3, make, 2)
"""


def test_a_killed_command_leaves_whole_shards_and_no_process_behind(tmp_path):
    program = tmp_path / "maker.py"
    program.write_text(MAKER)
    running = subprocess.Popen([sys.executable, program, tmp_path], cwd=Path(__file__).parent.parent)
    marks = [tmp_path / f"at-work-{number}" for number in (1, 2)]
    wait_until(lambda: all(mark.exists() and mark.read_text() for mark in marks) and any(tmp_path.glob("*.tar")))
    workers = [int(mark.read_text()) for mark in marks]
    running.kill()
    running.wait()
    wait_until(lambda: not any(is_alive(worker) for worker in workers))
    assert [path.name for path in tmp_path.glob("*.tar")] == ["shard-00000.tar"]
    assert list(shards.read_shard(tmp_path / "shard-00000.tar")) == [("0", {"json": b"{}"})]
    assert list(tmp_path.glob("*.part"))
    shards.make_shards(tmp_path, 3, numbered)
    assert not list(tmp_path.glob("*.part"))


def wait_until(is_so, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end, "it never came to pass"
        time.sleep(0.1)


def is_alive(process: int) -> bool:
    """A zombie that nobody has buried yet is dead."""
    status = Path(f"/proc/{process}/stat")
    try:
        return status.read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_failing_shard_leaves_nothing_behind_that_looks_finished(tmp_path):
    def broken(number):
        yield "0", {"json": b"{}"}
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError):
        shards.make_shards(tmp_path, 1, broken)
    assert not list(tmp_path.glob("*.tar"))


@pytest.mark.parametrize("codec", speaking.CODECS)
def test_a_clip_survives_its_codec_and_resampling(codec, tmp_path):
    sound = tone(440, 1.0, speaking.TEACHER_HZ).numpy()
    clip = {"text": "a <tone>", "speaker": "af_heart*1.0", "speed": 1.0, "kind": "everyday", "accent": ""}
    path = tmp_path / "shard-00000.tar"
    shards.write_shard(path, [("0", {"json": shards.as_json(clip), codec: speaking.encode(sound, codec)})])
    ((about, samples),) = speaking.read_clips(path)
    assert about == clip
    assert len(samples) == pytest.approx(16_000, abs=400)
    assert np.abs(np.fft.rfft(samples)).argmax() * 16_000 / len(samples) == pytest.approx(440, abs=2)
    page = speaking.write_index(tmp_path, [path])
    assert "a &lt;tone&gt;" in page.read_text()
    assert (page.parent / "000.wav").exists()


class Whistler:
    """A voice without a network: a tone as long as its phonemes; it notes what it was asked for at once."""

    device = torch.device("cpu")

    def __init__(self):
        self.batches: list[list[int]] = []

    def speak(self, phonemes, mixtures, speeds):
        self.batches.append([len(row) for row in phonemes])
        return [tone(400, len(row) / 20, speaking.TEACHER_HZ) for row in phonemes]


def test_a_stopped_set_of_speech_goes_on_and_ends_byte_by_byte_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(speaking, "CLIPS_PER_SHARD", 4)
    monkeypatch.setattr(speaking, "SHARDS_AT_ONCE", 2)
    clips = [
        speech.Clip(f"{i}", "", "a" * (1 + i % 7), {"af_heart": 1.0}, 1.0, "en", "x", [], "", "") for i in range(22)
    ]
    endless = float("inf")
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    for folder in (whole, halves):
        folder.mkdir()
    speaking._speak_on_gpu(whole, clips, Whistler(), "flac", 1, endless)
    speaking._speak_on_gpu(halves, clips, Whistler(), "flac", 1, 0.0)  # too late to begin anything
    assert not list(halves.iterdir())
    speaking._speak_on_gpu(halves, clips[:9], Whistler(), "flac", 1, endless)
    (halves / "shard-00002.tar").unlink()  # of nine clips it held one only
    again = Whistler()
    speaking._speak_on_gpu(halves, clips, again, "flac", 1, endless)
    assert sum(map(len, again.batches)) == 22 - 8  # what was there was not spoken again
    assert [p.name for p in sorted(whole.iterdir())] == [f"shard-{i:05}.tar" for i in range(6)]
    assert all((halves / p.name).read_bytes() == p.read_bytes() for p in whole.iterdir())
    texts = [about["text"] for path in sorted(whole.iterdir()) for about, _ in speaking.read_clips(path)]
    assert texts == [clip.text for clip in clips]
    assert speaking.seconds_of(sorted(whole.iterdir())) == pytest.approx(sum(1 + i % 7 for i in range(22)) / 20)


def test_batches_hold_rows_of_like_length_and_never_more_than_their_symbols():
    lengths = [5, 100, 7, 30, 6, 31, 500]
    found = list(speaking.batches(lengths, 62))
    assert found == [[6], [1], [5, 3], [2, 4, 0]]


def test_parcels_hold_every_shard_once_and_stay_below_their_limit(tmp_path):
    random = np.random.default_rng(0)
    for i in range(5):
        (tmp_path / f"shard-{i:05}.tar").write_bytes(random.bytes(50_000 + i))
    limit = 180_000
    first = parcels.pack(tmp_path, tmp_path / "out", 1, limit)
    rest = parcels.pack(tmp_path, tmp_path / "out", 4, limit)
    assert [len(first), len(rest)] == [1, 2]
    assert all(path.stat().st_size < limit for path in (*first, *rest))
    assert parcels.pack(tmp_path, tmp_path / "out", 4, limit) == []
    back = parcels.unpack(tmp_path / "back", [*first, *rest])
    assert len(back) == 5
    assert all(path.read_bytes() == (tmp_path / path.name).read_bytes() for path in back)


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
        dialogue.go_on(path, partial(dialogue.written, ask, 0), 6)
    dialogue.go_on(path, partial(dialogue.written, ask, 0), 6)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["question"] for line in lines] == [dialogue.question(0, i)[0] for i in range(6)]
    assert lines[0]["answer"] == f"about {lines[0]['question']}"
    assert len(asked) == 7  # the interrupted one again, none of the others


def test_a_models_own_questions_are_made_up_again_until_they_can_be_asked(tmp_path):
    invented = []

    def invent(start: str, seed: int) -> str:
        invented.append((start, seed))
        return f"{start} is it {seed}?\n" if len(invented) % 2 else "?"

    def ask(question: str, max_tokens: int) -> str:
        return f" {question} at most {max_tokens} "

    path = tmp_path / "own.jsonl"
    dialogue.go_on(path, partial(dialogue.own, ask, invent, 0), 2)
    dialogue.go_on(path, partial(dialogue.own, ask, invent, 0), 4)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert len({line["question"] for line in lines}) == 4 and all(len(line["question"]) > 4 for line in lines)
    assert lines[3]["answer"] == f"{lines[3]['question']} at most {dialogue.OWN_TOKENS}"
    assert len(set(invented)) == len(invented) > 4


def test_facts_are_all_for_training_and_name_each_capital_in_every_way_of_asking():
    found = {exchange.question: exchange for exchange in dialogue.facts()}
    assert {exchange.split for exchange in found.values()} == {"train"}
    for asked in ("What is", "What's", "Which city is"):
        assert found[f"{asked} the capital of Japan?"].answer == "The capital of Japan is Tokyo."
