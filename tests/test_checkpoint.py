"""Published, own and packed folders <-> the model: names, settings, streaming, one clear sentence for every defect."""

import ctypes
import gc
import json
import os
import shutil
import sys
import threading
from pathlib import Path

import pytest
import torch
from accelerate import cpu_offload
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from ming_omni import checkpoint
from ming_omni.checkpoint import devices, fill, names, settings
from ming_omni.checkpoint.pretrained import MingForConditionalGeneration
from ming_omni.config import (
    AudioConfig,
    MingConfig,
    MoEConfig,
    PainterConfig,
    TalkerConfig,
    ThinkerConfig,
    VisionConfig,
    flash_preview,
    tiny,
)
from ming_omni.errors import InputError
from ming_omni.model.audio_encoder import AudioEncoder, sinusoids
from ming_omni.model.painter import Painter
from ming_omni.model.talker import Talker
from ming_omni.packed import Packed, pack
from tests.folders import RECORDED, edit_config, edit_tensors, published, recorded

SHARD = "model-00001.safetensors"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return published(tmp_path_factory.mktemp("published"))


@pytest.fixture
def spoiled(folder, tmp_path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(folder, tmp_path / "spoiled"))


def logits(model, size: int = 12) -> torch.Tensor:
    ids = torch.arange(size)[None]
    with torch.inference_mode():
        return model(input_ids=ids).logits


def same_weights(a: torch.nn.Module, b: torch.nn.Module) -> None:
    assert a.state_dict().keys() == b.state_dict().keys()
    for name, tensor in a.state_dict().items():
        assert_close(tensor, b.state_dict()[name], rtol=0, atol=0, msg=name)


# Names


@pytest.mark.parametrize("name", ["thinker", "vision", "audio"])
def test_every_published_name_has_one_place_and_back(name):
    with safe_open(RECORDED / name / "model.safetensors", "pt") as file:
        stored = list(file.keys())
    places = [names.to_ours(key) for key in stored]
    assert None not in places
    assert len(set(places)) == len(stored)
    assert [names.to_published(*place) for place in places] == stored


def test_the_published_model_has_the_published_number_of_tensors():
    model = fill.empty(MingForConditionalGeneration, flash_preview())
    from ming_omni.checkpoint.save import published_tensors

    stored = dict(published_tensors(model))
    count = {part: sum(key.startswith(part) for key in stored) for part in ("model.", "vision.", "audio.")}
    assert count == {"model.": 24_285, "vision.": 390, "audio.": 487}  # spec 1.3
    assert stored["model.model.layers.31.mlp.experts.255.down_proj.weight"].shape == (4096, 1024)
    assert stored["linear_proj_audio.3.weight"].shape == (4096, 4096)


# Settings


def test_published_sizes_are_read_from_the_published_keys():
    config = settings.read(json.loads((RECORDED / "thinker" / "config.json").read_text()))
    assert (config.thinker.num_hidden_layers, config.thinker.head_dim, config.thinker.rotary_dim) == (3, 128, 64)
    assert (config.thinker.moe.num_groups, config.thinker.moe.groups_kept) == (4, 2)
    assert (config.vision.num_hidden_layers, config.vision.full_attention_layers) == (3, [1])
    assert (config.audio.max_positions, config.audio.num_mel_bins) == (400, 128)
    assert (config.thinker.image_patch_token, config.thinker.audio_patch_token) == (293, 304)


@pytest.mark.parametrize("key", ["routed_scaling_factor", "moe_router_topk_scaling_factor"])
def test_the_scaling_factor_goes_by_two_names(key):
    assert settings.read({"llm_config": {"hidden_size": 8, key: 1.5}}).thinker.moe.routed_scale == 1.5


def test_absent_keys_take_the_published_defaults():
    thinker = settings.read({"llm_config": {"hidden_size": 64, "num_attention_heads": 4}}).thinker
    assert thinker.use_qk_norm
    assert thinker.moe.routed_scale == 2.5
    assert (thinker.head_dim, thinker.num_key_value_heads) == (16, 4)
    assert (thinker.rope_theta, thinker.rms_norm_eps, thinker.num_dense_layers) == (10_000, 1e-5, 0)


@pytest.mark.parametrize(
    ("scaling", "variant"),
    [(None, "vanilla"), ({"type": "3D"}, "3d"), ({"type": "video_rope", "factor": None}, "video")],
)
def test_rope_scaling_chooses_the_rotary_variant(scaling, variant):
    assert settings.read({"llm_config": {"hidden_size": 8, "rope_scaling": scaling}}).thinker.rope_variant == variant


def test_an_unknown_rotary_variant_is_refused():
    with pytest.raises(InputError, match="'yarn'"):
        settings.read({"llm_config": {"rope_scaling": {"type": "yarn"}}})


def test_a_config_with_a_hole_says_where(spoiled):
    edit_config(spoiled, lambda config: config["vision_config"].pop("num_heads"))
    with pytest.raises(InputError, match=r"config\.json lacks the key 'num_heads'"):
        checkpoint.load(spoiled)


@given(
    heads=st.integers(1, 8),
    layers=st.integers(1, 5),
    experts=st.integers(2, 64),
    variant=st.sampled_from(["vanilla", "3d", "video"]),
    has_vision=st.booleans(),
    has_audio=st.booleans(),
    tied=st.booleans(),
)
def test_settings_survive_the_published_layout(heads, layers, experts, variant, has_vision, has_audio, tied):
    config = MingConfig(
        thinker=ThinkerConfig(
            num_attention_heads=heads,
            num_key_value_heads=1,
            num_hidden_layers=layers,
            rope_variant=variant,
            tie_word_embeddings=tied,
            audio_patch_token=7,
            moe=MoEConfig(num_experts=experts),
        ),
        vision=VisionConfig(num_hidden_layers=layers) if has_vision else None,
        audio=AudioConfig(num_attention_heads=heads) if has_audio else None,
    )
    assert settings.read(settings.write(config)).to_dict() == config.to_dict()


# Loading and saving


def test_a_recorded_folder_comes_back_as_it_was(tmp_path):
    checkpoint.load(RECORDED / "thinker").save_published(tmp_path)
    expected, written = load_file(RECORDED / "thinker" / "model.safetensors"), load_file(tmp_path / SHARD)
    assert written.keys() == expected.keys()
    assert all(torch.equal(written[name], expected[name]) for name in expected)


def test_shards_and_one_file_load_the_same_model(folder, tmp_path):
    published(tmp_path, shard_bytes=100_000)
    assert len(list(tmp_path.glob("*.safetensors"))) > 5
    same_weights(checkpoint.load(tmp_path), checkpoint.load(folder))


def test_experts_are_stacked_in_their_order(folder):
    stored = load_file(folder / SHARD)
    experts = checkpoint.load(folder).thinker.layers[2].mlp.experts
    for slot in (0, 9, 10, 15):
        assert torch.equal(experts.up[slot], stored[f"model.model.layers.2.mlp.experts.{slot}.up_proj.weight"])


def test_the_language_model_alone_loads():
    model = checkpoint.load(RECORDED / "llm")
    assert model.vision is None
    assert model.audio is None
    assert torch.equal(model.thinker.head.weight, load_file(RECORDED / "llm" / "model.safetensors")["lm_head.weight"])


@pytest.mark.parametrize(("name", "part"), [("vision", "vision"), ("audio", "audio"), ("thinker", "audio")])
def test_one_part_of_a_folder_loads_alone(name, part):
    encoder = checkpoint.load_part(RECORDED / name, part)
    stored = load_file(RECORDED / name / "model.safetensors")
    assert encoder.config.token_width == len(encoder.projector[0].weight)
    for key, tensor in encoder.state_dict().items():
        assert torch.equal(tensor, stored[names.to_published(f"{part}.{key}")])


def test_a_part_that_is_not_there_is_named():
    with pytest.raises(InputError, match="no section for audio"):
        checkpoint.load_part(RECORDED / "vision", "audio")


def test_our_own_layout_comes_back(folder, tmp_path):
    model = checkpoint.load(folder)
    model.save_pretrained(tmp_path, max_shard_size="200KB")
    assert (tmp_path / "model.safetensors.index.json").is_file()
    again = MingForConditionalGeneration.from_pretrained(tmp_path)
    same_weights(again, model)
    assert again.config.thinker.to_dict() == model.config.thinker.to_dict()


def test_a_talker_is_saved_beside_the_model_and_loaded_when_asked_for(folder, tmp_path):
    model = checkpoint.load(folder)
    torch.manual_seed(0)
    model.talker = Talker(TalkerConfig())
    model.save_pretrained(tmp_path)
    assert (tmp_path / "talker" / "config.json").is_file()
    assert checkpoint.load(tmp_path).talker is None
    same_weights(checkpoint.load(tmp_path, load_talker=True).talker, model.talker)


def test_a_painter_is_saved_beside_the_model_and_loaded_when_asked_for(folder, tmp_path):
    model = checkpoint.load(folder)
    torch.manual_seed(0)
    model.painter = Painter(PainterConfig())
    model.save_pretrained(tmp_path)
    assert (tmp_path / "painter" / "config.json").is_file()
    assert checkpoint.load(tmp_path).painter is None
    same_weights(checkpoint.load(tmp_path, load_image_gen=True).painter, model.painter)


def test_a_model_saved_here_loads_through_transformers_itself(folder, tmp_path):
    model = checkpoint.load(folder)
    model.save_pretrained(tmp_path)
    from ming_omni.model.omni import MingForConditionalGeneration as Plain

    assert_close(logits(Plain.from_pretrained(tmp_path)), logits(model))


def test_packed_weights_unfold_to_their_exact_values(tmp_path):
    model = checkpoint.load("tiny")
    stored, expected = {}, {}
    for name, tensor in model.state_dict().items():
        packed = pack(tensor, 8) if name.endswith(("qkv.weight", "experts.up", "thinker.embedding.weight")) else None
        stored |= packed.named(name) if packed else {name: tensor.contiguous()}
        expected[name] = packed.float() if packed else tensor
    save_file(stored, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(model.config.to_dict() | {"packed": {"version": 1}}))
    loaded = checkpoint.load(tmp_path)
    assert loaded.dtype == torch.float32
    for name, tensor in loaded.state_dict().items():
        assert torch.equal(tensor, expected[name]), name
    loaded.save_pretrained(tmp_path / "again")
    assert "packed" not in json.loads((tmp_path / "again" / "config.json").read_text())


def test_tiny_is_the_same_model_every_time_and_leaves_the_seed_alone():
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    first = checkpoint.load("tiny")
    assert torch.equal(torch.rand(1), expected)
    same_weights(first, checkpoint.load("tiny"))


def test_tiny_comes_with_every_part_that_is_asked_for():
    model = checkpoint.load("tiny", load_image_gen=True, load_talker=True, experts="fp8", dtype="bfloat16")
    same_weights(model.talker, checkpoint.load("tiny", load_talker=True, dtype="bfloat16").talker)
    assert (model.painter.dtype, model.dtype) == (torch.bfloat16, torch.bfloat16)


def test_tied_embeddings_stay_tied(tmp_path):
    config = tiny()
    config.thinker.tie_word_embeddings = True
    published(tmp_path, config)
    with_head = checkpoint.load(tmp_path)
    edit_tensors(tmp_path / SHARD, lambda tensors: tensors.pop("model.lm_head.weight", None))
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    index["weight_map"].pop("model.lm_head.weight", None)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    for model in (with_head, checkpoint.load(tmp_path)):
        assert model.thinker.head.weight is model.thinker.embedding.weight


def test_extra_state_of_the_training_library_is_ignored(spoiled):
    edit_tensors(spoiled / SHARD, lambda t: t.update({"vision.blocks.0.norm1._extra_state": torch.zeros(3)}))
    checkpoint.load(spoiled)


def test_an_absent_position_table_is_computed(tmp_path):
    folder = recorded("audio", tmp_path / "audio")
    edit_tensors(folder / "model.safetensors", lambda tensors: tensors.pop("audio.positional_embedding"))
    encoder = checkpoint.load_part(folder, "audio")
    assert torch.equal(encoder.positions, sinusoids(600, 32))
    assert_close(encoder.positions, checkpoint.load_part(RECORDED / "audio", "audio").positions)
    assert isinstance(encoder, AudioEncoder)


def test_a_bar_shows_on_a_terminal_only(folder, monkeypatch, capsys):
    checkpoint.load(folder)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    checkpoint.load(folder)
    assert f"Loading {folder.name}" in capsys.readouterr().err


# Dtype, attention, devices


@pytest.mark.parametrize(("numerics", "bias"), [("native", torch.float32), ("reference", torch.bfloat16)])
def test_weights_take_the_wanted_dtype_and_the_bias_stays_fine_in_native_numerics(folder, numerics, bias):
    model = checkpoint.load(folder, torch_dtype="bfloat16", numerics=numerics)
    dtypes = {name: tensor.dtype for name, tensor in model.state_dict().items()}
    assert {dtype for name, dtype in dtypes.items() if not names.is_expert_bias(name)} == {torch.bfloat16}
    assert {dtype for name, dtype in dtypes.items() if names.is_expert_bias(name)} == {bias}
    assert (model.config.dtype, model.vision.config.numerics) == (torch.bfloat16, numerics)


def test_without_a_dtype_weights_stay_as_stored(folder, tmp_path):
    checkpoint.load(folder, dtype=torch.bfloat16).save_published(tmp_path)
    assert checkpoint.load(tmp_path).dtype == torch.bfloat16
    assert checkpoint.load(tmp_path, dtype="auto").dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"numerics": "fast"}, "numerics is native or reference, not 'fast'"),
        ({"video_positions": "4d"}, "video_positions is published or 3d, not '4d'"),
        ({"device_map": [1]}, "there is no device"),
        ({"config": 5}, "config is a MingConfig"),
    ],
)
def test_an_option_with_a_wrong_value_is_refused(options, message):
    with pytest.raises(InputError, match=message):
        checkpoint.load("tiny", **options)


@pytest.mark.parametrize("name", [None, 5, "x" * 5000])
def test_what_names_no_model_is_refused(name):
    with pytest.raises(InputError, match="model"):
        checkpoint.load(name)


def test_a_packed_thinker_does_not_pretend_to_change_its_experts():
    with pytest.raises(InputError, match="leave out experts"):
        checkpoint.load("nano", packed=True, experts="fp8")


@pytest.mark.parametrize("dtype", ["int8", "float33", torch.int64])
def test_a_dtype_that_is_none_is_refused(folder, dtype):
    with pytest.raises(InputError, match="dtype is"):
        checkpoint.load(folder, dtype=dtype)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_attention_reaches_every_part(folder, attention):
    model = checkpoint.load(folder, attn_implementation=attention)
    parts = (model, model.thinker, model.vision, model.audio)
    assert {part.config._attn_implementation for part in parts} == {attention}


@pytest.mark.skipif(shutil.which("nvidia-smi") is not None, reason="flash-attn may be installed")
def test_flash_that_is_not_installed_becomes_sdpa_with_one_warning(folder):
    with pytest.warns(UserWarning) as record:
        model = checkpoint.load(folder, attn_implementation="flash_attention_2")
    assert [str(w.message) for w in record] == ["flash-attn is not installed: attention runs as sdpa"]
    assert model.thinker.config._attn_implementation == model.vision.config._attn_implementation == "sdpa"


def published_map(num_gpus: int, num_layers: int) -> dict[str, int]:
    """Layers in equal runs; all else, the last layer too, on the first GPU."""
    device_map = {f"model.model.layers.{i}": i * num_gpus // num_layers for i in range(num_layers)}
    first = ("vision", "audio", "linear_proj", "linear_proj_audio", "model.model.norm.weight", "model.lm_head.weight")
    device_map |= dict.fromkeys([*first, "model.model.word_embeddings.weight", "talker"], 0)
    return device_map | {f"model.model.layers.{num_layers - 1}": 0}


@pytest.fixture
def two_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


def test_a_published_device_map_places_every_piece(two_gpus):
    model = fill.empty(MingForConditionalGeneration, flash_preview())
    placement = devices.place(model, published_map(2, 32), torch.bfloat16)
    assert placement.keys() == devices.pieces(model).keys()
    second = {piece for piece, device in placement.items() if device.index == 1}
    assert second == {f"thinker.layers.{i}" for i in range(16, 31)}
    assert placement["thinker.layers.31"] == placement["vision"] == torch.device("cuda", 0)


def test_our_own_names_work_in_a_device_map_and_the_longest_wins(two_gpus):
    model = fill.empty(MingForConditionalGeneration, tiny())
    placement = devices.place(model, {"": "cpu", "thinker": 0, "thinker.layers.3": 1}, torch.bfloat16)
    assert placement["vision"] == torch.device("cpu")
    assert placement["thinker.norm"] == torch.device("cuda", 0)
    assert placement["thinker.layers.3"] == torch.device("cuda", 1)


@pytest.mark.parametrize(
    ("device_map", "message"),
    [
        ({"model": 0, "vision": 0}, "no device to"),
        ({"": 0, "model.model.layers.2": 2}, "GPU 2; this machine has 2"),
        ({"": 0, "linear_proj": 1}, "cuts vision over"),
        ("gpu", "no device 'gpu'"),
    ],
)
def test_a_bad_device_map_is_refused_in_one_sentence(two_gpus, device_map, message):
    with pytest.raises(InputError, match=message):
        devices.place(fill.empty(MingForConditionalGeneration, tiny()), device_map, torch.bfloat16)


@pytest.mark.filterwarnings("ignore:there is no GPU here")
@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without GPUs")
@pytest.mark.parametrize("device_map", [0, "cuda:0", {"": 0}, published_map(2, 32), "auto"])
def test_a_map_for_gpus_loads_on_a_machine_without(folder, device_map):
    assert checkpoint.load(folder, device_map=device_map).device == torch.device("cpu")


@pytest.mark.parametrize("experts", [None, "fp8", "int4"])
def test_weights_that_only_visit_the_device_give_the_same_answer(experts):
    model = checkpoint.load(RECORDED / "thinker", experts=experts)
    inputs = load_file(RECORDED / "thinker" / "inputs.safetensors")
    inputs = {key: value for key, value in inputs.items() if not key.endswith("only_input_ids")}
    expected = model.generate(**inputs, max_new_tokens=3)
    model = cpu_offload(model, torch.device("cpu"), **devices.offloading(model))
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}
    assert torch.equal(model.generate(**inputs, max_new_tokens=3), expected)


# Host memory


def test_host_memory_stays_flat_while_experts_are_quantised(tmp_path):
    moe = MoEConfig(num_experts=64, experts_per_token=2, expert_width=256)
    config = MingConfig(thinker=ThinkerConfig(hidden_size=256, num_hidden_layers=3, num_dense_layers=1, moe=moe))
    checkpoint.load("tiny", config=config, dtype=torch.bfloat16).save_published(tmp_path, shard_bytes=4 << 20)
    stored = sum(file.stat().st_size for file in tmp_path.glob("*.safetensors"))
    model, peak = _with_peak(lambda: checkpoint.load(tmp_path, experts="int4"))
    held = sum(tensor.nbytes for tensor in model.state_dict().values())
    assert stored > 48 << 20
    assert held < stored / 3
    assert peak < held + (8 << 20), "more than the model and one tensor was in memory"


def _with_peak(work):
    """The result, and by how much anonymous memory had grown at its worst."""
    grown, done = [0], threading.Event()

    def anonymous() -> int:
        _, resident, shared, *_ = map(int, Path("/proc/self/statm").read_text().split())
        return (resident - shared) * os.sysconf("SC_PAGE_SIZE")

    def watch():
        while not done.wait(0.001):
            grown.append(anonymous() - start)

    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # memory freed earlier would be reused unseen
    start = anonymous()
    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        return work(), max(grown)
    finally:
        done.set()
        watcher.join()


# Defects


def rename(tensors: dict, old: str, new: str) -> None:
    tensors[new] = tensors.pop(old)


EXPERT = "model.model.layers.1.mlp.experts.3.up_proj.weight"
DEFECTS = {
    "missing": (lambda t: t.pop("model.model.norm.weight"), r"lacks tensor model\.model\.norm\.weight"),
    "missing expert": (lambda t: t.pop(EXPERT), r"lacks tensor model.*experts\.3\.up_proj"),
    "extra": (lambda t: t.update(surprise=torch.zeros(1)), r"safetensors: tensor surprise belongs to no part"),
    "extra layer": (
        lambda t: t.update({"vision.blocks.9.norm1.weight": torch.zeros(32)}),
        r"tensor vision\.blocks\.9\.norm1\.weight has no place",
    ),
    "extra expert": (lambda t: rename(t, EXPERT, EXPERT.replace(".3.", ".16.")), "expert too many"),
    "shape": (
        lambda t: t.update({"audio.ln_post.bias": torch.zeros(33)}),
        r"safetensors: tensor audio\.ln_post\.bias has shape \(33,\), expected \(32,\)",
    ),
    "expert shape": (lambda t: t.update({EXPERT: torch.zeros(64, 16)}), r"experts\.3.*\(64, 16\), expected \(16, 64\)"),
}


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_defect_names_file_and_tensor(spoiled, defect):
    change, message = DEFECTS[defect]
    edit_tensors(spoiled / SHARD, change)
    (spoiled / "model.safetensors.index.json").unlink()
    (spoiled / SHARD).rename(spoiled / "model.safetensors")
    with pytest.raises(InputError, match=message) as error:
        checkpoint.load(spoiled)
    assert str(spoiled) in str(error.value)


def test_many_defects_are_counted():
    with pytest.raises(InputError, match=r"\(and \d+ more\)"):
        checkpoint.load(RECORDED / "vision")


def test_a_truncated_file_names_the_first_tensor_it_lacks(spoiled):
    with (spoiled / SHARD).open("r+b") as file:
        file.truncate((spoiled / SHARD).stat().st_size - 5)
    with pytest.raises(InputError, match=rf"{SHARD} is truncated: tensor \S+ ends at byte \d+ of \d+"):
        checkpoint.load(spoiled)


@pytest.mark.parametrize("content", [b"", b"abc", b"\xff" * 64, (8).to_bytes(8, "little") + b"{nonsens"])
def test_a_file_that_is_no_safetensors_is_named(spoiled, content):
    (spoiled / SHARD).write_bytes(content)
    with pytest.raises(InputError, match=SHARD):
        checkpoint.load(spoiled)


@pytest.mark.parametrize("file", [SHARD, "config.json", "model.safetensors.index.json"])
def test_a_git_lfs_pointer_says_what_to_run(spoiled, file):
    (spoiled / file).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(InputError, match=rf"{file} is a git-lfs pointer.*git lfs pull"):
        checkpoint.load(spoiled)


def test_index_and_shards_must_agree(spoiled):
    index = json.loads((spoiled / "model.safetensors.index.json").read_text())
    index["weight_map"]["model.ghost"] = SHARD
    (spoiled / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match=rf"{SHARD} lacks tensor model\.ghost"):
        checkpoint.load(spoiled)
    index["weight_map"]["model.ghost"] = "model-00002.safetensors"
    (spoiled / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match=r"model-00002\.safetensors is missing"):
        checkpoint.load(spoiled)
    index["weight_map"]["model.ghost"] = "../../etc/model.safetensors"
    (spoiled / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match="outside its folder"):
        checkpoint.load(spoiled)


def test_pickles_are_refused(spoiled):
    (spoiled / "model.safetensors.index.json").unlink()
    (spoiled / SHARD).rename(spoiled / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"pickled weights \(pytorch_model\.bin\)"):
        checkpoint.load(spoiled)


def test_what_is_no_model_gets_one_sentence(tmp_path, spoiled):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "readme.txt").write_text("hello")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text('{"model_type": "llama"}')
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text("{")
    (spoiled / "model.safetensors.index.json").unlink()
    (spoiled / SHARD).unlink()
    cases = {
        tmp_path / "empty": "is empty",
        tmp_path / "text": r"holds no config\.json",
        tmp_path / "text" / "readme.txt": "is a file",
        tmp_path / "other": "no Ming model.*'llama'",
        tmp_path / "broken": "not valid JSON",
        spoiled: "holds no weights",
        "no-such-model": "no model 'no-such-model'",
        tmp_path / "absent": "there is no model",
    }
    for name, message in cases.items():
        with pytest.raises(InputError, match=message) as error:
            checkpoint.load(name)
        assert "\n" not in str(error.value)


def test_an_unknown_hub_id_gets_one_sentence():
    with pytest.raises(InputError, match="'some-org/no-such-model'"):
        checkpoint.load("some-org/no-such-model", local_files_only=True)


def test_an_unknown_option_is_refused(folder):
    with pytest.raises(InputError, match="no option load_in_9bit"):
        checkpoint.load(folder, load_in_9bit=True)


def test_absent_optional_parts_warn_and_give_a_model_without_them(folder):
    with pytest.warns(UserWarning) as record:
        model = checkpoint.load(folder, load_image_gen=True, load_talker=True)
    assert ["painter" in str(w.message) for w in record] == [True, False]
    with pytest.raises(InputError, match="without its talker"):
        model.require("talker")


# Other releases


def lite(llm: dict) -> None:
    """The traits of the lite language model, at any size."""
    llm.update(model_type="bailing_moe", multi_gate=True)


RELEASES = {
    "Ming-lite-omni v1": lambda c: (
        c.update(model_type="bailingmm"),
        lite(c["llm_config"] | {"rope_scaling": None}),
        c["llm_config"].update(rope_scaling=None, model_type="bailing_moe"),
        c["audio_config"].update(audio_encoder_config_sanm={}),
    ),
    "Ming-lite-omni v1.5": lambda c: (lite(c["llm_config"]), c["llm_config"].update(rope_scaling={"type": "3D"})),
    "Ming-flash-omni 2.0": lambda c: c["vision_config"].update(patch_size=16, deepstack_visual_indexes=[1]),
}


@pytest.mark.parametrize("release", RELEASES)
def test_another_release_is_refused_by_its_name_whatever_the_folder_is_called(spoiled, release):
    edit_config(spoiled, RELEASES[release])
    with pytest.raises(InputError, match=rf"holds {release};"):
        checkpoint.load(spoiled)


def test_2_0_is_known_by_its_painter_settings(spoiled):
    (spoiled / "mlp").mkdir()
    (spoiled / "mlp" / "config.json").write_text("{}")
    with pytest.raises(InputError, match=r"Ming-flash-omni 2\.0"):
        checkpoint.load(spoiled)


@pytest.mark.parametrize(
    ("release", "change"),
    [
        ("Ming-flash-omni 2.0", lambda t: t.update({"vision.pos_embed.weight": torch.zeros(4, 4)})),
        ("Ming-lite-omni v1", lambda t: [t.pop(name) for name in list(t) if name.endswith("expert_bias")]),
    ],
)
def test_another_release_is_known_by_its_tensors_alone(tmp_path, release, change):
    folder = recorded("thinker", tmp_path / "folder")
    edit_tensors(folder / "model.safetensors", change)
    with pytest.raises(InputError, match=f"holds {release}"):
        checkpoint.load(folder)


def test_packed_values_need_their_scale(tmp_path):
    model = checkpoint.load("tiny")
    stored = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    codes = Packed(*pack(stored.pop("thinker.norm.weight")[None], 8)).named("thinker.norm.weight")
    stored["thinker.norm.weight.codes"] = codes["thinker.norm.weight.codes"]
    save_file(stored, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(model.config.to_dict()))
    with pytest.raises(InputError, match=r"no file has thinker\.norm\.weight\.scale"):
        checkpoint.load(tmp_path)
