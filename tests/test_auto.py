"""The auto classes of transformers load Ming folders with our code, and never run code that lies in a folder."""

import contextlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers

import ming_omni
from ming_omni.config import MingConfig
from ming_omni.errors import InputError
from ming_omni.inputs.processor import MingProcessor
from tests.folders import edit_config, published

MARKERS = ("<image>", "</image>", "<imagePatch>", "<video>", "</video>", "<framePatch>")
MARKERS += ("<audio>", "</audio>", "<audioPatch>", "<role>", "</role>", "<|role_end|>", "<|endoftext|>")
AUTO_CLASSES = (
    "AutoConfig",
    "AutoModel",
    "AutoModelForCausalLM",
    "AutoModelForImageTextToText",
    "AutoModelForSpeechSeq2Seq",
    "AutoModelForSequenceClassification",
    "AutoTokenizer",
    "AutoProcessor",
    "AutoImageProcessor",
    "AutoFeatureExtractor",
)
SETTINGS = ("config.json", "tokenizer_config.json", "preprocessor_config.json", "processor_config.json")
POISON = """
from pathlib import Path

Path({marker!r}).touch()


class Poison:
    @classmethod
    def from_pretrained(cls, *args, **kwargs):
        return cls()

    register_for_auto_class = classmethod(lambda cls, *args: None)
"""

ming_omni.register()


def write_tokenizer(folder: Path) -> None:
    core = Tokenizer(models.WordLevel({"[UNK]": 0, "hello": 1}, unk_token="[UNK]"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    core.add_special_tokens(list(MARKERS))
    core.save(str(folder / "tokenizer.json"))


def write_poison(folder: Path, marker: Path, class_name: str = "poison.Poison") -> None:
    """Point every auto class, in every settings file, to a Python file of the folder."""
    (folder / "poison.py").write_text(POISON.format(marker=str(marker)))
    auto_map = dict.fromkeys(AUTO_CLASSES, class_name) | {"AutoTokenizer": [class_name, class_name]}
    for name in SETTINGS:
        file = folder / name
        settings = json.loads(file.read_text()) if file.is_file() else {}
        names = {"tokenizer_class": "PoisonTokenizer", "processor_class": "PoisonProcessor"}
        file.write_text(json.dumps(settings | names | {"auto_map": auto_map}))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = published(tmp_path_factory.mktemp("clean"))
    write_tokenizer(path)
    return path


@pytest.fixture(scope="module", params=["published", "own"])
def poisoned(request, tmp_path_factory) -> tuple[Path, Path]:
    path = tmp_path_factory.mktemp(request.param)
    marker = path.parent / f"{request.param}-ran"
    if request.param == "published":
        published(path)
    else:
        ming_omni.MingForConditionalGeneration.from_pretrained("tiny").save_pretrained(path)
    write_tokenizer(path)
    write_poison(path, marker)
    return path, marker


def test_the_auto_classes_give_our_classes(folder):
    config = transformers.AutoConfig.from_pretrained(folder)
    assert type(config) is MingConfig
    assert config.thinker.moe.num_experts == 16
    for auto in (transformers.AutoModel, transformers.AutoModelForCausalLM, transformers.AutoModelForImageTextToText):
        model = auto.from_pretrained(folder, dtype="bfloat16", attn_implementation="eager", device_map="cpu")
        assert type(model) is ming_omni.MingForConditionalGeneration
        assert model.dtype == torch.bfloat16
        assert model.vision.config._attn_implementation == "eager"
    assert isinstance(transformers.AutoProcessor.from_pretrained(folder), MingProcessor)
    assert transformers.AutoTokenizer.from_pretrained(folder)("hello").input_ids == [1]


def test_options_reach_the_model_through_the_auto_class(folder):
    model = transformers.AutoModel.from_pretrained(folder, experts="int4", video_positions="3d")
    assert type(model.thinker.layers[1].mlp.experts).__name__ == "QuantisedExperts"
    assert model.config.thinker.video_positions == "3d"


def test_a_model_can_be_made_from_its_configuration_alone(folder):
    model = transformers.AutoModel.from_config(transformers.AutoConfig.from_pretrained(folder))
    assert type(model) is ming_omni.MingForConditionalGeneration


@pytest.mark.parametrize("name", AUTO_CLASSES)
@pytest.mark.parametrize("trusting", [True, False])
def test_no_auto_class_runs_code_from_a_model_folder(poisoned, name, trusting):
    path, marker = poisoned
    try:
        loaded = getattr(transformers, name).from_pretrained(path, trust_remote_code=trusting)
        assert type(loaded).__name__ != "Poison"
    except (InputError, ValueError, OSError):  # nothing of ours under this auto class
        assert name not in ("AutoConfig", "AutoModel", "AutoModelForCausalLM", "AutoTokenizer", "AutoProcessor")
    assert not marker.exists()


def test_pipelines_and_nested_folders_run_no_code_either(poisoned):
    path, marker = poisoned
    nested = path / "talker" / "llm"
    nested.mkdir(parents=True, exist_ok=True)
    (nested / "config.json").write_text('{"model_type": "qwen2"}')
    write_tokenizer(nested)
    write_poison(nested, marker)
    edit_config(path, lambda c: c.update(custom_pipelines={"odd": {"impl": "poison.Poison", "pt": ["AutoModel"]}}))
    for load in (
        lambda: transformers.AutoTokenizer.from_pretrained(nested, trust_remote_code=True),
        lambda: transformers.AutoTokenizer.from_pretrained(path, subfolder="talker/llm", trust_remote_code=True),
        lambda: transformers.pipeline("odd", model=str(path), trust_remote_code=True),
    ):
        with contextlib.suppress(InputError, ValueError, KeyError, OSError):
            load()
    assert not marker.exists()


@pytest.mark.parametrize("name", ["AutoConfig", "AutoTokenizer", "AutoProcessor"])
def test_the_poison_works_where_we_do_not_stand_in_its_way(tmp_path, name):
    folder = tmp_path / f"folder_{name}"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "qwen2"}')
    write_poison(folder, tmp_path / "ran")
    edit_config(folder, lambda c: c.update(auto_map={name: "poison.Poison"}))
    getattr(transformers, name).from_pretrained(folder, trust_remote_code=True)
    assert (tmp_path / "ran").exists()


def test_importing_a_class_registers_and_importing_the_package_does_not():
    code = (
        "import sys, ming_omni; assert 'transformers' not in sys.modules\n"
        "from ming_omni import BailingMM2NativeForConditionalGeneration as Published, MingForConditionalGeneration\n"
        "assert Published is MingForConditionalGeneration\n"
        "from transformers import AutoConfig; assert AutoConfig.for_model('ming_omni').vision is None"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_unknown_name_is_no_attribute():
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = ming_omni.nonsense
