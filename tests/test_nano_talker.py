"""A trained talker in a nano folder: packed, reading phonemes, with voices of its own, spoken by `Ming` itself."""

import warnings

import numpy as np
import pytest
import torch

from ming_omni import checkpoint
from ming_omni.checkpoint.talker import load_speaker
from ming_omni.config import TalkerConfig, audio_vae_nano
from ming_omni.errors import InputError
from ming_omni.ming import Ming
from ming_omni.model.audio_vae import AudioVAE
from ming_omni.model.talker import Talker
from ming_omni.nano.speech import NOISE, SENTENCE_SECONDS, VOICE_SECONDS, ship_talker
from ming_omni.speak.compatible import PublishedTalker
from ming_omni.speech.reading import Reader, write_words
from ming_omni.speech.voices import Voice
from ming_omni.train.audio_vae import pieces as vae_pieces
from ming_omni.train.talker import pieces
from ming_omni.train.talker.learner import Learner
from ming_omni.train.talker.settings import read
from tests.small_nano import small_folder
from tests.test_voices import CONSENT, speech

WORDS = {"hello": "həlˈO", "one": "wˈʌn", "thing": "θˈɪŋ"}


@pytest.fixture(scope="module")
def talker() -> Talker:
    torch.manual_seed(0)
    config = TalkerConfig(steps=4, guidance=0.0, min_patches=2, max_patches=8)
    config.backbone.vocab_size = 320
    return Talker(config).eval()


@pytest.fixture(scope="module")
def folder(talker, tmp_path_factory):
    """A small nano that speaks."""
    folder = small_folder(tmp_path_factory.mktemp("nano"))
    voices, words = tmp_path_factory.mktemp("voices"), tmp_path_factory.mktemp("words")
    for name, transcript in (("heart", "Hello, 3 things."), ("xiaobei", "你好。"), ("other", None)):
        Voice.clone(name, speech(4.0), transcript, consent=CONSENT).save(voices / f"{name}.safetensors")
    write_words(words / "words.tsv.xz", WORDS)
    weights = {name: p.data for name, p in talker.named_parameters()}
    ship_talker(TalkerConfig(**pieces.all_settings(talker.config)), weights, folder, words, voices)
    return folder


def quietly(function, *arguments, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # random weights rarely find an end
        return function(*arguments, **options)


def test_the_shipped_talker_is_the_trained_one_but_for_rounding(folder, talker):
    shipped = load_speaker(folder).talker
    assert isinstance(shipped, PublishedTalker) and not shipped.training
    for (name, ours), theirs in zip(talker.named_parameters(), shipped.parameters(), strict=True):
        assert theirs.dtype == torch.float32
        assert (ours - theirs).norm() <= 0.01 * ours.norm() + 1e-6, name
    matrices = sum(p.numel() for p in talker.parameters() if p.dim() == 2)
    # Eight bits a weight, a scale for each group: groups are short at this size.
    assert (folder / "talker" / "model.safetensors").stat().st_size < 1.25 * matrices + 60_000


def test_ming_speaks_with_a_shipped_folder(folder):
    ming = Ming.load(folder)
    assert ming.speaker.voices == ["heart", "other", "xiaobei"]
    sound = quietly(ming.speak, "Hello, one thing.", seed=1)
    assert sound.sample_rate_hz == 16_000 and np.isfinite(sound.samples).all() and len(sound.samples) > 1000
    assert isinstance(ming.speaker.tokenizer, Reader)


def test_who_speaks_by_default_depends_on_the_language_of_the_sentence(folder):
    speaker = load_speaker(folder)
    assert speaker.talker.config.default_voices == {"en": "heart", "zh": "xiaobei"}
    for text, name in (("Hello.", "heart"), ("你好。", "xiaobei")):
        ours, named = (quietly(speaker.speak, text, voice, seed=3).samples for voice in (None, name))
        other = quietly(speaker.speak, text, "other", seed=3).samples
        assert np.array_equal(ours, named)
        assert len(ours) != len(other) or not np.array_equal(ours, other)


def test_a_transcript_is_read_as_it_is_spoken(folder):
    speaker = load_speaker(folder)
    voice = speaker.shelf.get("heart")
    ids = speaker._utterance("One.", voice, torch.Generator()).ids.tolist()
    reader = speaker.tokenizer
    assert ids == [i for text in ("Hello, three things.", "One.") for i in reader(text)["input_ids"]] + [0]


def test_ming_says_a_long_sentence_in_breaths_of_what_nano_has_learned_from(folder):
    ming = Ming.load(folder)
    entered, enter = [], ming.speaker.loop.speak
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ming.speaker.loop, "speak", lambda utterance: (entered.append(utterance), enter(utterance))[1])
        chunks = quietly(lambda: list(ming.speak("Hello one thing " * 12 + "and hello.", seed=1, stream=True)))
    config = ming.speaker.talker.config
    assert (config.sentence_seconds, config.voice_seconds, config.noise) == (SENTENCE_SECONDS, VOICE_SECONDS, NOISE)
    # The prompt of four seconds stands before each half, which ends as a sentence does.
    reader, patches = ming.speaker.tokenizer, round(4.0 / config.patch_seconds)
    assert [utterance.ids.tolist()[-2:] for utterance in entered] == [[*reader.ids(["."]), 0]] * 2
    assert all(len(utterance.prompt) == pytest.approx(patches, abs=2) for utterance in entered)
    assert sum(map(len, chunks)) > 2 * 8 * config.patch_seconds * 16_000


def test_a_shipped_talker_saves_and_loads_as_a_plain_one(folder, tmp_path):
    speaker = load_speaker(folder)
    speaker.talker.save_pretrained(tmp_path / "talker")
    again = load_speaker(tmp_path)
    assert again.tokenizer("Hello 你好")["input_ids"] == speaker.tokenizer("Hello 你好")["input_ids"]
    first, second = (quietly(s.speak, "Hello.", speaker.shelf.get("heart"), seed=2).samples for s in (speaker, again))
    assert np.array_equal(first, second)


def test_the_model_attaches_its_talker(folder):
    model = checkpoint.load(folder)
    assert model.attach("talker").config.steps == 4


def test_pieces_of_two_runs_become_one_talker(talker, tmp_path):
    """As `ming build nano-talker` joins them."""
    torch.manual_seed(1)
    vae = AudioVAE(audio_vae_nano())
    config = TalkerConfig(steps=4, guidance=0.0, vae=audio_vae_nano())
    config.backbone.vocab_size = 320
    whole = Talker(config)
    whole.vae = vae
    learner = Learner(whole, read("nano_talker", ["model=tiny"]))
    learner.begin_distilling()
    pieces.export(tmp_path / "talker", learner, {"step": 1, "seconds": 1.0})
    scale = torch.zeros(32), torch.ones(32)
    vae_pieces.export(tmp_path / "vae", vae, scale, {"facts": {}}, [])
    config, weights = pieces.load_whole(tmp_path / "talker", tmp_path / "vae")
    write_words(tmp_path / "words.tsv.xz", WORDS)
    ship_talker(config, weights, tmp_path / "nano", tmp_path / "words.tsv.xz")
    shipped = load_speaker(tmp_path / "nano").talker
    assert shipped.config.guidance == 0.0 and shipped.config.default_voices is None
    for (name, ours), theirs in zip(whole.named_parameters(), shipped.parameters(), strict=True):
        assert (ours - theirs).norm() <= 0.015 * ours.norm() + 1e-5, name


def test_a_lacking_tensor_or_voice_is_named(talker, tmp_path):
    weights = {name: p.data for name, p in talker.named_parameters() if name != "stop_head.bias"}
    write_words(tmp_path / "words.tsv.xz", WORDS)
    with pytest.raises(InputError, match="lacks stop_head"):
        ship_talker(talker.config, weights, tmp_path / "out", tmp_path)
    whole = {name: p.data for name, p in talker.named_parameters()}
    (tmp_path / "voices").mkdir()
    with pytest.raises(InputError, match="holds no voices"):
        ship_talker(talker.config, whole, tmp_path / "out", tmp_path, tmp_path / "voices")
