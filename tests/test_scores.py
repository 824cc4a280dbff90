"""What is measured, against figures worked out by hand and a model that was taught its answers."""

import io
import json
import math
import tarfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import soundfile
import torch

from benchmarks import scores
from ming_omni.data.bank import stock
from ming_omni.data.shards import as_json, write_shard
from ming_omni.errors import InputError
from ming_omni.evaluate import hearing, routing, seeing, talking
from ming_omni.evaluate.clips import Clip, kind_of, real_clips, synthetic_clips
from ming_omni.evaluate.metrics import Errors
from ming_omni.evaluate.score import Score, rate, share, table, wilson
from ming_omni.inputs.messages import Image, Message, Text, Video
from ming_omni.transcribe.segments import WHOLE_SENTENCES, Track, speech
from tests.data_bank import tiny_bank, write_tiny_bank
from tests.talks import RATE_HZ, silence, talk
from tests.taught import Exercise, Lesson, at_work, taught, teach, untaught

# Scores


def test_a_share_has_wilsons_interval():
    assert wilson(9, 10) == pytest.approx((0.5958, 0.9821), abs=1e-4)  # of the textbook formula
    assert wilson(0, 0) == (0, 1)
    assert wilson(20, 20)[0] < 0.9 and wilson(20, 20)[1] == pytest.approx(1)


def test_rates_add_up_counts_and_their_interval_holds_them():
    score = rate("", [Errors(1, 0, 0, 4), Errors(0, 0, 0, 16)] * 10, 0.08, 0.04)
    assert score.value == 0.05 and score.low < 0.05 < score.high and score.verdict == "floor"
    assert rate("", [Errors(0, 0, 0, 4)] * 3, 0.08, 0.04).high == 0


@pytest.mark.parametrize(
    ("value", "is_error", "verdict"),
    [(0.96, False, "goal"), (0.90, False, "floor"), (0.5, False, "below"), (0.96, True, "below"), (0.2, True, "goal")],
)
def test_the_verdict_names_the_better_bound_that_is_reached(value, is_error, verdict):
    floor, goal = (0.9, 0.5) if is_error else (0.85, 0.95)
    assert Score("", value, 0, 1, 9, floor, goal, is_error).verdict == verdict


def test_the_table_shows_shares_as_percentages_and_ratios_as_they_are():
    rows = [share("colours", [True, False], 0.85, 0.95, blind=0.125), Score("MaxVio", 0.31, 0.1, 0.5, 9, is_ratio=True)]
    rows.append(Score("text", 0.001, 0, 0.002, 5, perplexities={"own": 2.705, "base": 2.702}))
    lines = table(rows).splitlines()
    assert lines[2] == "| colours | 50.0 % | 9.5 % to 90.5 % | 85.0 % | 95.0 % | below | blind 12.5 % | 2 |"
    assert lines[3] == "| MaxVio | 0.31 | 0.10 to 0.50 |  |  |  |  | 9 |"
    assert lines[4] == "| text | 0.1 % | 0.0 % to 0.2 % |  |  |  | own 2.71, base 2.70 | 5 |"


# Hearing

TALK, _ = talk(["english-three.wav"], 1.0)
THANKS, _ = talk(["mandarin-thanks.mp3"], 1.0)


def clip(samples: np.ndarray, text: str, kind: str, source: str = "synthetic", **told) -> Clip:
    return Clip(text, source, kind, np.concatenate([samples, silence(0.1)]), text, **told)


CLIPS = [
    clip(TALK, "Three!", "everyday"),
    clip(TALK, "three", "name", context=("Thrice", "Free"), entity="three"),
    clip(TALK, "three cats", "english", source="digits"),
    clip(THANKS, "谢谢。", "mandarin"),
    clip(THANKS, "谢谢你", "accented", accent="sichuan"),
]


@pytest.fixture(scope="module")
def hearer():
    """Hears `three` and 谢谢, the second always in the accent of Sichuan; believes a list that holds `Free`."""
    (three,), (thanks,) = (
        [s.samples.numpy() for s in speech(Track((samples, RATE_HZ)), WHOLE_SENTENCES)] for samples in (TALK, THANKS)
    )
    ming = taught(
        Lesson(three, "English\tthree"),
        Lesson(thanks, "川渝\t谢谢"),
        Lesson(three, "three", words=("Thrice", "Free", "three"), forced="English\t"),
        Lesson(three, "Free", words=("Thrice", "Free"), forced="English\t"),
    )
    yield ming
    ming.engine.stop()


def scored(hearer, clips, other):
    heard = dict(zip(clips, hearing.hear(hearer, clips), strict=True))
    named = [c for c in clips if c.entity]
    listed = dict(zip(named, hearing.with_lists(hearer, named), strict=True))
    return {score.ability: score for score in hearing.speech_scores(heard, listed, other)}


def test_clips_are_heard_through_the_product_and_counted_by_hand(hearer):
    other = {"Three!": "three", "three": "tree", "three cats": "three cats", "谢谢。": "谢"}
    found = scored(hearer, CLIPS, {c: other[c.text] for c in CLIPS if c.text in other})
    english = found["English WER, synthetic unseen voices"]
    assert (english.value, english.count, english.verdict, english.beside) == (0, 2, "goal", {"whisper-base": 0.5})
    real = found["English WER, real speech"]
    assert (real.value, real.goal, real.verdict) == (0.5, 0, "below")  # of two words one is missing
    assert found["- digits"].value == 0.5
    mandarin = found["Mandarin CER, synthetic unseen voices"]
    assert (mandarin.value, mandarin.beside) == (0, {"whisper-base": 0.5})
    assert "Mandarin CER, real words" not in found
    assert found["dialect tag, synthetic accents"].value == 1
    assert found["- plain Mandarin left untagged, synthetic"].value == 0
    accented = found["- Mandarin CER in synthetic accents"]
    assert (accented.value, accented.beside) == (pytest.approx(1 / 3), {})  # whisper-base has not heard them all
    without = found["named entities: NE-WER without list"]
    assert (without.value, without.floor, without.beside) == (0, 1, {"whisper-base": 1})
    assert found["named entities: NE-WER with list"].value == 0
    assert found["false insertions from a wrong list"].value == 0.5  # Free of Thrice and Free: near enough to three


def test_each_kind_has_a_row_and_rare_words_stand_apart(hearer):
    clips = [clip(TALK, "three", "everyday"), clip(TALK, "three trees", "rare words")]
    found = scored(hearer, clips, dict.fromkeys(clips, "three"))
    name = "English WER, synthetic unseen voices"
    rows = {ability: score.value for ability, score in found.items()}
    assert rows == {
        name: pytest.approx(1 / 3), f"{name}, without rare words": 0, "- everyday": 0, "- rare words": 0.5,
    }  # fmt: skip
    assert found[name].verdict == "below" and found[f"{name}, without rare words"].verdict == "goal"
    assert found["- rare words"].beside == {"whisper-base": 0.5} and found["- rare words"].verdict == ""


def test_a_wrong_list_lacks_the_name_and_a_right_one_has_it():
    named = clip(TALK, "I met Ada.", "name", context=("Bo", "Ada"), entity="Ada")
    assert hearing.wrong_list(named) == ("Bo",)
    assert hearing.name_errors(named, "i met ada").total == 0
    assert hearing.name_errors(named, "i met otto").rate == 1
    assert hearing.inserted(named, "bo met ada").rate == 1


def test_clips_of_the_test_are_found_and_no_others(tmp_path):
    def sample(i: int, kind: str, split: str):
        file = io.BytesIO()
        soundfile.write(file, np.full(160, 0.1), RATE_HZ, format="FLAC")
        about = {"text": f"{kind} {i}", "kind": kind, "split": split, "context": [], "name": "", "accent": ""}
        return f"{i:03}", {"json": as_json(about), "flac": file.getvalue()}

    folder = tmp_path / "speech"
    folder.mkdir()
    picture = as_json({"kind": "question", "split": "test"})  # a folder of scenes lies beside
    (tmp_path / "scenes").mkdir()
    write_shard(tmp_path / "scenes" / "shard-00000.tar", [("0", {"json": picture, "0.png": b""})])
    kinds = ["everyday"] * 4 + ["number"] * 3
    write_shard(folder / "shard-00000.tar", [sample(i, kind, "test") for i, kind in enumerate(kinds)])
    write_shard(folder / "shard-00001.tar", [sample(9, "question", "train"), sample(8, "question", "test")])
    found = synthetic_clips(tmp_path, 1)  # twice as many everyday sentences, no half number
    assert [c.text for c in found] == ["everyday 0", "everyday 1", "question 8"]
    assert [c.kind for c in synthetic_clips(tmp_path, 1, {"everyday", "0"})] == ["everyday", "rare words", "rare words"]
    (folder / "held-leaks.json").write_text(json.dumps(["everyday 0", "question 8"]))
    assert [c.text for c in synthetic_clips(tmp_path, 1)] == ["everyday 1", "everyday 2"]

    words = {"a.wav": "stay", "b.wav": "go", "c.wav": "ma1"}
    kept = tmp_path / "held-out" / "prompts"
    kept.mkdir(parents=True)
    with tarfile.open(kept / "prompts.tar", "w") as tar:
        for name in words:
            file = io.BytesIO()
            soundfile.write(file, np.zeros(800), 8000, format="WAV")
            entry = tarfile.TarInfo(name)
            entry.size = len(file.getvalue())
            tar.addfile(entry, io.BytesIO(file.getvalue()))
    lines = [json.dumps({"tar": "prompts.tar", "file": name, "label": label}) for name, label in words.items()]
    (kept / "manifest.jsonl").write_text("\n".join(lines))
    found = real_clips(tmp_path, 9)
    assert sorted(c.text for c in found) == ["go", "stay"]  # a syllable with its tone is no word
    assert all((c.source, c.kind, len(c.samples)) == ("prompts", "english", 1600) for c in found)


@pytest.mark.parametrize(
    ("kind", "text", "called"),
    [
        ("everyday", "We're here.", "everyday"),
        ("everyday", "Pidgins are here.", "rare words"),
        ("name", "Pidgins are here.", "name"),  # a name is rare by its nature
        ("mandarin", "盛誉，瓦砾，雪橇。", "mandarin rare words"),
        ("mandarin", "你好，我打嗝了。", "mandarin"),
        ("accented", "盛誉，瓦砾，雪橇。", "accented"),
    ],
)
def test_rare_words_make_a_plain_sentence_another_kind(kind, text, called):
    assert kind_of(kind, text, {"we", "re", "are", "here"}) == called
    assert kind_of("everyday", text, None) == "everyday"


# Seeing


def lesson(processor, chosen, item, answer: str) -> Exercise:
    (rendered,) = seeing.draw(chosen, [item], seeing.SIZE)
    pictures = rendered.pictures
    medium = Video(seeing.as_video(pictures)) if item.kind == "film" else Image(seeing.as_picture(pictures[0]))
    return Exercise(processor.prepare(Message("user", [medium, Text(item.prompt)])), answer)


@pytest.fixture(scope="module")
def bank(tmp_path_factory):
    return write_tiny_bank(tmp_path_factory.mktemp("bank") / "sprites.safetensors")


@pytest.fixture(scope="module", autouse=True)
def few_guesses():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(seeing, "GUESSED", {"question": (60, 60), "film": (60, 60)})
        yield


def seer(examples, answers):
    model, processor = untaught(width=256)
    chosen = stock(tiny_bank(), "test")
    lessons = [lesson(processor, chosen, item, said) for item, said in zip(examples, answers, strict=True)]
    return at_work(teach(model, processor, lessons), processor)


def test_right_answers_about_scenes_score_full_marks_and_a_wrong_one_is_seen(bank):
    chosen = stock(tiny_bank(), "test")
    row_of = {template: row for row in seeing.SCENES for template in row.templates}
    quotas = {row: round(row.part) for row in seeing.SCENES}
    examples = seeing._chosen(chosen, "question", quotas, lambda item: row_of.get(seeing._template(item)))
    answers = [item.answer for item in examples]
    colours = [i for i, item in enumerate(examples) if seeing._template(item) == "colour"]
    answers[colours[0]] = "beige"
    ming = seer(examples, answers)
    whole, *rows = seeing.scene_scores(ming, bank, 1)
    ming.engine.stop()
    assert {row.ability: row.value for row in rows} == {
        "- what": 1, "- is there": 1, "counting to 6": 1, "positions": 1, "colours": 0.5,
    }  # fmt: skip
    assert (whole.value, whole.count) == (7 / 8, 8)
    assert all(0 <= row.beside["blind"] <= 1 for row in rows)


def test_words_are_right_letter_by_letter(bank):
    chosen = stock(tiny_bank(), "test")
    examples = seeing._chosen(chosen, "question", {"latin": 2, "chinese": 1}, seeing._script)
    latin = [i for i, item in enumerate(examples) if seeing._script(item) == "latin"]
    answers = [f"{item.answer}." for item in examples]
    answers[latin[0]] = examples[latin[0]].answer.swapcase()
    for quota in (examples, answers):
        assert len(quota) == 3
    ming = seer(examples, answers)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(seeing, "_chosen", lambda *_: examples)
        scores = {score.ability: score for score in seeing.word_scores(ming, bank, 2)}
    ming.engine.stop()
    assert scores["printed words, Latin"].value == 0.5
    assert scores["printed words, Latin"].beside == {"ignoring case": 1}
    assert scores["printed words, Chinese"].value == 1


def test_films_are_asked_about_as_files(bank):
    chosen = stock(tiny_bank(), "test")
    row_of = {template: row for row in seeing.FILMS for template in row.templates}
    examples = seeing._chosen(chosen, "film", dict.fromkeys(seeing.FILMS, 1), lambda i: row_of.get(seeing._template(i)))
    ming = seer(examples, [item.answer for item in examples])
    scores = seeing.video_scores(ming, bank, 1)
    ming.engine.stop()
    assert [score.value for score in scores] == [1, 1, 1, 1]
    assert scores[0].ability == "video: direction"


# Talking


@pytest.fixture(scope="module")
def talkers():
    """Two models of the same shape with other weights."""
    pair = []
    for seed in (0, 1):
        model, processor = untaught()
        torch.manual_seed(seed)
        torch.nn.init.normal_(model.thinker.head.weight, std=0.3)
        pair.append(at_work(model, processor))
    yield pair
    for ming in pair:
        ming.engine.stop()


def test_surprise_is_what_a_plain_forward_says(talkers):
    ming = talkers[0]
    inputs = ming.processor.prepare(Message("user", [Text("Who are you?")]), answer_start="A model.")
    with torch.no_grad():
        logits = ming.model(inputs["input_ids"]).logits[0].log_softmax(-1)
    ids = inputs["input_ids"][0]
    expected = -sum(logits[i - 1, ids[i]].item() for i in range(len(ids) - 8, len(ids)))
    ((surprise, count),) = talking.surprises(ming, [("Who are you?", "A model.")])
    assert count == 8 and surprise == pytest.approx(expected, rel=1e-4)


def test_a_model_is_compared_with_its_base_on_held_out_answers_alone(talkers, tmp_path):
    folder = tmp_path / "text"
    folder.mkdir()
    rows = [("Hi?", "Hello.", "test"), ("Why?", "Because.", "train"), ("No?", "Yes.", "test")]
    lines = [json.dumps({"question": q, "answer": a, "split": s}) for q, a, s in rows]
    (folder / "packaged.jsonl").write_text("\n".join(lines))
    assert talking.conversations(tmp_path, 9) == [("Hi?", "Hello."), ("No?", "Yes.")]
    (same,) = talking.text_scores(talkers[0], talkers[0], tmp_path, 9)
    assert same.value == pytest.approx(0, abs=1e-5) and same.verdict == "goal"
    (other,) = talking.text_scores(*talkers, tmp_path, 9)
    assert other.value == pytest.approx(other.perplexities["own"] / other.perplexities["base"] - 1, rel=1e-6)
    assert not math.isclose(other.value, 0, abs_tol=1e-3)


# Routing


def test_the_watch_sees_every_token_that_the_engine_reads():
    ming = at_work(*untaught())  # nothing is known to its engine yet
    with routing.watched(ming.model.thinker) as watch:
        ming.ask("Hello", max_tokens=3)
    config = ming.model.config.thinker
    prompt = ming.processor.prepare(Message("user", [Text("Hello")]))["input_ids"].shape[1]
    read = prompt + 2  # the third token of the answer is never read
    layers = config.num_hidden_layers - config.num_dense_layers
    assert watch.counts.shape == (layers, 3, config.moe.num_experts)
    assert watch.counts[:, 0].sum(1).tolist() == [read * config.moe.experts_per_token] * layers
    assert watch.counts[:, 1:].sum() == 0
    before = watch.counts.clone()
    ming.ask("Hello", max_tokens=3)
    ming.engine.stop()
    assert torch.equal(watch.counts, before)


def test_max_violation_is_the_mean_of_the_layers():
    counts = torch.zeros(2, 3, 4)
    counts[0, 1], counts[1, 1] = torch.tensor([4.0, 0, 0, 0]), torch.tensor([1.0, 1, 1, 1])
    (score,) = routing.balance_scores(counts)  # text and sound were not read
    assert (score.value, score.low, score.high, score.count, score.verdict) == (1.5, 0, 3, 4, "below")
    assert score.ability.startswith("MaxVio, image")


# The command


def small(folder, seed: int = 0):
    """A model folder."""
    model, processor = untaught()
    torch.manual_seed(seed)
    torch.nn.init.normal_(model.thinker.head.weight, std=0.3)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def command(monkeypatch, tmp_path, *options):
    """Runs it in this process, and returns the figures."""
    monkeypatch.setattr(scores, "ProcessPoolExecutor", lambda workers, mp_context: ThreadPoolExecutor(workers))
    monkeypatch.setattr("sys.argv", [str(a) for a in ("scores", *options, "--data", tmp_path)])
    scores.main()
    return json.loads((tmp_path / "out.json").read_text())


def test_the_command_writes_figures_and_tables_and_measures_no_part_twice(tmp_path, monkeypatch, capsys):
    (tmp_path / "text").mkdir()
    line = json.dumps({"question": "Hi?", "answer": "Hello.", "split": "test"})
    (tmp_path / "text" / "packaged.jsonl").write_text(line)
    one, other = small(tmp_path / "one"), small(tmp_path / "other", 1)
    options = ["--base", one, "--limit", 1, "--output", tmp_path / "out.json", "--only", "text"]
    growth, balance = command(monkeypatch, tmp_path, one, *options)["scores"]
    assert (growth["ability"], growth["reached"]) == ("text perplexity above the base", "goal")
    assert balance["ability"].startswith("MaxVio, text") and balance["value"] > 0
    shown = capsys.readouterr().out
    assert (tmp_path / "out.md").read_text() in shown
    assert "| text perplexity above the base | 0.0 % | 2.0 % | met | 0.5 % | met |" in shown
    assert "Not measured: lists, english" in shown

    part = tmp_path / "out.parts" / "text.json"
    measured_at = part.stat().st_mtime_ns
    assert command(monkeypatch, tmp_path, one, *options)["scores"] == [growth, balance]
    assert part.stat().st_mtime_ns == measured_at
    (grown, _) = command(monkeypatch, tmp_path, other, *options)["scores"]
    assert grown["value"] != growth["value"] and part.stat().st_mtime_ns > measured_at


def test_a_part_that_fails_leaves_the_others_done(tmp_path):
    kept = {}

    def fail():
        raise InputError("nothing there")

    with pytest.MonkeyPatch.context() as patch, pytest.raises(InputError, match="nothing there"):
        patch.setattr(scores, "ProcessPoolExecutor", lambda workers, mp_context: ThreadPoolExecutor(workers))
        scores.side_by_side({"words": fail, "video": lambda: {"scores": []}}, 1, kept.__setitem__)
    assert kept == {"video": {"scores": []}}


def test_parts_put_together_stand_beside_what_whisper_heard():
    told = {"source": "synthetic", "context": ["Ada", "Bo"], "accent": ""}
    rows = [
        told | {"name": str(i), "kind": kind, "text": text, "entity": name, "key": key, "heard": {"text": said}}
        for i, (kind, text, name, key, said) in enumerate(
            [("name", "I met Ada.", "Ada", "a", "i met otto"), ("everyday", "Hello.", "", "b", "hello")]
        )
    ]
    parts = {"english": {"clips": rows, "counts": None}, "speed": {"num_clips": 2, "nano": {}}}
    found = {score.ability: score for score in scores.scores_of(parts, {"a": "I met Ada"})}
    assert found["- name"].beside == {"whisper-base": 0} and found["- everyday"].beside == {}
    assert "named entities: NE-WER with list" not in found
    parts["lists"] = {"listed": {"0": ["i met ada", "bo met ada"]}}
    found = {score.ability: score for score in scores.scores_of(parts, {"a": "I met Ada"})}
    assert found["named entities: NE-WER with list"].value == 0
    wrong = found["false insertions from a wrong list"]
    assert (wrong.value, wrong.beside) == (1, {"whisper-base, no list": 0})
    parts["lists"]["listed"]["unheard"] = ["", ""]  # of a part that is not done
    assert not any("list" in score.ability for score in scores.scores_of(parts, {}))
