"""The published README's way to ask a question, call by call, with nothing but its import lines changed."""

import json
import math
from bisect import bisect_left
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoProcessor

from ming_omni import BailingMM2NativeForConditionalGeneration  # published: from modeling_bailingmm2
from ming_omni.checkpoint import devices, fill
from ming_omni.config import flash_preview
from tests.folders import recorded

# The recorded folders keep the published order of special tokens in a vocabulary of 320 (see their README).
OFFSET = 156_864
SPECIAL = {
    "<|startoftext|>": 156_891,
    "<|endoftext|>": 156_892,
    "[CLS]": 156_893,
    "[gMASK]": 156_894,
    "<|role_end|>": 156_895,
    "<role>": 157_151,
    "</role>": 157_152,
    "<imagePatch>": 157_157,
    "<image>": 157_158,
    "</image>": 157_159,
    "<video>": 157_160,
    "</video>": 157_161,
    "<audioPatch>": 157_168,
    "<audio>": 157_169,
    "</audio>": 157_170,
    "<framePatch>": 157_175,
}
PREPROCESSOR = {
    "auto_map": {"AutoProcessor": "processing_bailingmm2.BailingMM2Processor"},
    "processor_class": "BailingMM2Processor",
    "min_pixels": 78_400,
    "max_pixels": 2_007_040,
    "patch_size": 14,
    "temporal_patch_size": 2,
    "merge_size": 2,
    "whisper_frontend_args": {"n_mels": 128},
}


def toy_tokenizer() -> Tokenizer:
    """One token a byte; special tokens where the recorded model expects them."""
    special = {token: official - OFFSET for token, official in SPECIAL.items()}
    free = iter(sorted(set(range(320)) - set(special.values())))
    vocabulary = special | {character: next(free) for character in sorted(pre_tokenizers.ByteLevel.alphabet())}
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens(list(special))
    return core


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The recorded whole model, completed to what a published folder holds."""
    path = recorded("thinker", tmp_path_factory.mktemp("hub") / "Ming")
    toy_tokenizer().save(str(path / "tokenizer.json"))
    settings = {"eos_token": "<|role_end|>", "pad_token": "<|role_end|>", "tokenizer_class": "PreTrainedTokenizerFast"}
    (path / "tokenizer_config.json").write_text(json.dumps(settings))
    (path / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR))
    return path


@pytest.fixture(scope="module")
def media(tmp_path_factory) -> dict[str, str]:
    path = tmp_path_factory.mktemp("media")
    gradient = np.add.outer(np.arange(90), np.arange(120)).astype(np.uint8)
    for i in range(4):
        Image.fromarray(np.stack([gradient + 40 * i, gradient, gradient], -1)).save(path / f"{i}.png")
    (path / "frames").mkdir()
    for i in range(4):
        (path / f"{i}.png").rename(path / "frames" / f"{i}.png")
    Image.fromarray(np.stack([gradient] * 3, -1)).save(path / "picture.png")
    tone = [math.sin(2 * math.pi * 440 * i / 16_000) / 2 for i in range(16_000)]
    soundfile.write(path / "tone.wav", np.array(tone), 16_000)
    return {"image": str(path / "picture.png"), "video": str(path / "frames"), "audio": str(path / "tone.wav")}


# The snippet.


def split_model():
    device_map = {}
    num_layers = 32
    per_gpu = num_layers // torch.cuda.device_count()
    ends = [n * per_gpu for n in range(1, torch.cuda.device_count() + 1)]
    for n in range(num_layers):
        device_map[f"model.model.layers.{n}"] = bisect_left(ends, n)
    for name in ("vision", "audio", "linear_proj", "linear_proj_audio"):
        device_map[name] = 0
    device_map["model.model.word_embeddings.weight"] = 0
    device_map["model.model.norm.weight"] = 0
    device_map["model.lm_head.weight"] = 0
    device_map["model.model.norm"] = 0
    device_map[f"model.model.layers.{num_layers - 1}"] = 0
    device_map["talker"] = 0
    return device_map


def load(model_path):
    model = BailingMM2NativeForConditionalGeneration.from_pretrained(
        model_path,
        torch_dtype=torch.bfloat16,
        attn_implementation="flash_attention_2",
        device_map=split_model(),
        load_image_gen=True,
        load_talker=True,
    ).to(dtype=torch.bfloat16)
    return model, AutoProcessor.from_pretrained(model_path, trust_remote_code=True)


def answer(messages, processor, model, sys_prompt_exp=None, use_cot_system_prompt=False, max_new_tokens=512):
    text = processor.apply_chat_template(
        messages, sys_prompt_exp=sys_prompt_exp, use_cot_system_prompt=use_cot_system_prompt
    )
    image_inputs, video_inputs, audio_inputs = processor.process_vision_info(messages)
    inputs = processor(
        text=[text],
        images=image_inputs,
        videos=video_inputs,
        audios=audio_inputs,
        return_tensors="pt",
        audio_kwargs={"use_whisper_encoder": True},
    ).to(model.device)
    for key in inputs.keys():  # noqa: SIM118
        if key in ("pixel_values", "pixel_values_videos", "audio_feats"):
            inputs[key] = inputs[key].to(dtype=torch.bfloat16)
    with torch.no_grad():
        generated = model.generate(
            **inputs,
            max_new_tokens=max_new_tokens,
            use_cache=True,
            eos_token_id=processor.gen_terminator,
            num_logits_to_keep=1,
        )
    trimmed = [out[len(given) :] for given, out in zip(inputs.input_ids, generated, strict=True)]
    return processor.batch_decode(trimmed, skip_special_tokens=True, clean_up_tokenization_spaces=False)[0], trimmed[0]


# What must be true of it.


def message(media: dict[str, str], *kinds: str) -> list[dict]:
    content = [{"type": kind, kind: media[kind]} for kind in kinds]
    return [{"role": "HUMAN", "content": [*content, {"type": "text", "text": "What is this?"}]}]


@pytest.fixture(scope="module", params=[1, 2])
def loaded(request, folder):
    with pytest.MonkeyPatch.context() as patch, pytest.warns(UserWarning):
        patch.setattr(torch.cuda, "device_count", lambda: request.param)
        patch.setattr(torch.cuda, "is_available", lambda: False)
        yield load(folder)


def test_the_snippet_loads_on_a_machine_without_gpus(loaded):
    model, processor = loaded
    assert {parameter.device.type for parameter in model.parameters()} == {"cpu"}
    assert model.thinker.head.weight.dtype == torch.bfloat16
    assert processor.gen_terminator == [31]


@pytest.mark.parametrize(
    "kinds", [(), ("image",), ("video",), ("audio",), ("image", "image", "audio"), ("video", "audio", "image")]
)
def test_the_snippet_answers_any_medium_as_our_own_calls_do(loaded, media, kinds):
    model, processor = loaded
    text, ids = answer(message(media, *kinds), processor, model, max_new_tokens=4)
    assert isinstance(text, str)
    assert 1 <= len(ids) <= 4
    inputs = processor.prepare(message(media, *kinds)).to(torch.bfloat16)
    steps = model.steps(inputs, max_new_tokens=4, eos_token_id=processor.gen_terminator)
    assert [int(step.ids) for step in steps] == ids.tolist()


def test_the_system_prompt_and_the_picture_change_the_answer(loaded, media):
    model, processor = loaded
    logits = []
    for options in ({}, {"sys_prompt_exp": "You are a pirate."}, {"use_cot_system_prompt": True}):
        text = processor.apply_chat_template(message(media), **options)
        with torch.no_grad():
            logits.append(model(**processor(text=[text], painting=False)).logits[0, -1].float())
    assert not torch.equal(logits[0], logits[1])
    assert not torch.equal(logits[0], logits[2])


@pytest.mark.parametrize("num_gpus", [1, 2, 3, 4, 5, 6, 8])
def test_the_map_of_the_snippet_places_the_whole_published_model(monkeypatch, num_gpus):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: num_gpus)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    model = fill.empty(BailingMM2NativeForConditionalGeneration, flash_preview())
    placement = devices.place(model, split_model(), torch.bfloat16)
    assert {device.index for device in placement.values()} == set(range(num_gpus))
    assert placement["thinker.layers.31"].index == placement["thinker.head"].index == placement["audio"].index == 0
    assert placement["thinker.layers.30"].index == num_gpus - 1
