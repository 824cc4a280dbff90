"""The published call and the published folder, from the recorded talker with a letter tokenizer beside it."""

import json
import shutil
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from ming_omni.checkpoint import talker as checkpoint
from ming_omni.errors import InputError
from ming_omni.model.audio_vae import AudioVAE
from ming_omni.speak.output import Sound
from ming_omni.speech.alphabet import character_tokenizer
from tests.test_voices import speech

RECORDED = Path(__file__).parent / "fixtures" / "parity" / "talker"
TEXT = "Hello there, my dear friend. It costs $5."


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A checkpoint with talker/, talker/llm (tokenizer included), talker/vae and a preset voice."""
    root = tmp_path_factory.mktemp("release")
    shutil.copytree(RECORDED, root / "talker")
    character_tokenizer().save_pretrained(root / "talker" / "llm")
    (root / "data").mkdir()
    Sound(speech(1.05).numpy(), 16_000).save(root / "data" / "db30.wav")
    presets = {"DB30": {"prompt_text": "Hello.", "prompt_wav_path": "data/db30.wav"}}
    (root / "data" / "voice_name.json").write_text(json.dumps(presets))
    return root


@pytest.fixture(scope="module")
def talker(folder):
    talker = checkpoint.load(folder)
    talker.config.max_patches, talker.config.steps = 14, 2
    return talker


def say(talker, *args, seed=0, **options):
    torch.manual_seed(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # random weights find no end
        return list(talker.omni_audio_generation(*args, **options))


def test_the_published_talker_says_at_least_twelve_patches(talker):
    assert talker.config.min_patches == 12
    (waveform, text, place, seconds), *_ = say(talker, "Hi.", voice_name=None)
    assert waveform.dtype == torch.float32 and waveform.shape[0] == 1
    assert (text, place) == ("Hi.", (0, 3))
    assert seconds == waveform.shape[1] / 16_000 >= 12 * 4 * 320 / 16_000


def test_the_first_group_streams_and_the_others_are_whole(talker):
    chunks = say(talker, TEXT, None, stream=True)
    streamed = [chunk for chunk in chunks if chunk[3] is None]
    whole = [chunk for chunk in chunks if chunk[3] is not None]
    assert len(streamed) > 5
    assert [text for _, text, _, _ in streamed if text] == ["Hello there, my dear friend."]
    assert [(text, place) for _, text, place, _ in whole] == [(" It costs $5.", (28, 41))]


def test_streaming_changes_no_sample(talker):
    streamed, whole = (torch.cat([c[0] for c in say(talker, TEXT, None, stream=s)], 1) for s in (True, False))
    assert torch.equal(streamed, whole)


def test_the_text_may_be_a_generator_or_a_list_of_words(talker):
    expected = [chunk[1] for chunk in say(talker, "Hello there.", None)]
    assert [chunk[1] for chunk in say(talker, iter(["Hello", " there", "."]), None)] == expected
    assert [chunk[1].strip() for chunk in say(talker, ["Hello", "there."], None)] == expected


def test_a_preset_voice_is_used_and_explicit_prompts_win_over_it(talker, folder, tmp_path):
    Sound(speech(2.0).flip(0).numpy(), 16_000).save(tmp_path / "mine.wav")
    mine = {"prompt_text": "Mine.", "prompt_wav_path": str(tmp_path / "mine.wav")}
    preset, none, explicit, explicit_without_preset = (
        say(talker, "Hello.", **options)[0][0]
        for options in ({}, {"voice_name": None}, mine, {"voice_name": None, **mine})
    )
    assert not torch.equal(preset[:, :2000], none[:, :2000])
    assert torch.equal(explicit, explicit_without_preset)
    assert not torch.equal(explicit[:, :2000], preset[:, :2000])


def test_chinese_is_cut_at_the_length_asked_for(talker):
    chunks = say(talker, "这是一条测试语句。欢迎使用百灵。", None, max_length=10)
    assert [chunk[1] for chunk in chunks] == ["这是一条测试语句。", "欢迎使用百灵。"]


def test_text_without_words_says_nothing(talker):
    assert say(talker, "?!", None) == []


def test_the_detokenizer_is_the_talkers_own(talker):
    assert say(talker, "Hi.", None, audio_detokenizer=talker.vae)
    with pytest.raises(InputError, match="own AudioVAE"):
        say(talker, "Hi.", None, audio_detokenizer=AudioVAE(talker.config.vae))


def test_the_product_speaks_with_the_published_talker_and_its_preset_voices(folder, tmp_path):
    speaker = checkpoint.load_speaker(folder, device="cpu")
    speaker.shelf.folder = tmp_path
    speaker.talker.config.max_patches = 14
    assert speaker.voices == ["DB30"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plain, preset = (speaker.speak("Hello.", voice, seed=1) for voice in (None, "DB30"))
    assert plain.seconds >= 0.9
    assert abs(plain.samples[:2000] - preset.samples[:2000]).max() > 1e-3


def test_a_saved_talker_loads_with_its_tokenizer(talker, tmp_path):
    talker.save_pretrained(tmp_path)
    again = checkpoint.load(tmp_path)
    assert again.tokenizer("Hi")["input_ids"] == talker.tokenizer("Hi")["input_ids"]
    assert torch.equal(say(again, "Hi.", None)[0][0], say(talker, "Hi.", None)[0][0])


def test_bf16_and_reference_numerics_load_and_stay_close(folder):
    noise = torch.randn(1, 4, 64)
    patches = []
    for options in ({}, {"dtype": torch.bfloat16}, {"dtype": torch.bfloat16, "numerics": "reference"}):
        loaded = checkpoint.load(folder, **options)
        hidden, history = torch.ones(1, 64, dtype=loaded.dtype), torch.zeros(1, 4, 64, dtype=loaded.dtype)
        with torch.inference_mode():
            patches.append(loaded.sample(hidden, history, noise.to(loaded.dtype), loaded.time_grid()).float())
    exact, native, reference = patches
    assert (native - exact).abs().mean() < 0.05
    assert (reference - exact).abs().mean() < 0.2
    assert not torch.equal(native, reference)


def test_a_language_models_unused_output_matrix_is_left_alone(folder, tmp_path):
    shutil.copytree(folder / "talker", tmp_path / "talker", copy_function=shutil.copyfile)
    file = tmp_path / "talker" / "model.safetensors"
    save_file(load_file(file) | {"lm_head.weight": torch.zeros(160, 64)}, file)
    assert checkpoint.load(tmp_path).backbone.embedding.weight.shape == (160, 64)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("stop_head.bias"), "lacks tensor stop_head.bias"),
        (lambda w: w.update(extra=torch.zeros(1)), "tensor extra has no place"),
        (lambda w: w.update({"stop_head.bias": torch.zeros(3)}), r"stop_head.bias has shape \(3,\), expected \(2,\)"),
    ],
)
def test_a_wrong_tensor_is_named(folder, tmp_path, change, message):
    shutil.copytree(folder / "talker", tmp_path / "talker")
    file = tmp_path / "talker" / "model.safetensors"
    weights = load_file(file)
    change(weights)
    file.unlink()
    save_file(weights, file)
    with pytest.raises(InputError, match=message):
        checkpoint.load(tmp_path)


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("vae/config.json", {"semantic_module_kwargs": {"a": 1}}, "semantic module"),
        ("llm/config.json", {"use_sliding_window": True}, "sliding window"),
        ("llm/config.json", {"hidden_act": "gelu"}, "activation 'gelu'"),
        ("config.json", {"flowmodel": {"qk_norm": "layer_norm"}}, "qk_norm 'layer_norm'"),
        ("vae/config.json", {"enc_kwargs": {}}, "lacks the key 'latent_dim'"),
    ],
)
def test_a_setting_that_is_not_supported_is_named(folder, tmp_path, file, change, message):
    shutil.copytree(folder / "talker", tmp_path / "talker")
    path = tmp_path / "talker" / file
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(InputError, match=message):
        checkpoint.load(tmp_path)


def test_a_folder_without_a_talker_is_named(tmp_path):
    with pytest.raises(InputError, match="holds no talker"):
        checkpoint.load(tmp_path)


def test_a_talker_without_a_tokenizer_says_so():
    with pytest.raises(InputError, match="no tokenizer"):
        checkpoint.load_speaker(RECORDED, device="cpu")
