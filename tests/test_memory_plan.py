"""What a model needs, from file headers alone: parts, parameters, bytes per format, and where the pieces go."""

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from ming_omni import checkpoint
from ming_omni.checkpoint import fill, memory, settings
from ming_omni.checkpoint.memory import Device
from ming_omni.checkpoint.pretrained import MingForConditionalGeneration
from ming_omni.checkpoint.save import published_tensors
from ming_omni.config import flash_preview
from ming_omni.errors import InputError
from tests.folders import RECORDED, edit_config, published

GB = 10**9
H200 = Device("GPU 0", 141 * GB)


@pytest.fixture(scope="module")
def flash(tmp_path_factory) -> Iterator[Path]:
    """The published checkpoint as files without content: true headers, then a hole as large as the weights."""
    folder = tmp_path_factory.mktemp("flash")
    (folder / "config.json").write_text(json.dumps(settings.write(flash_preview())))
    header, end = {}, 0
    for name, tensor in published_tensors(fill.empty(MingForConditionalGeneration, flash_preview())):
        start, end = end, end + 2 * tensor.numel()
        header[name] = {"dtype": "BF16", "shape": list(tensor.shape), "data_offsets": [start, end]}
    raw = json.dumps(header).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(raw).to_bytes(8, "little") + raw)
        file.truncate(8 + len(raw) + end)
    yield folder
    (folder / "model.safetensors").unlink()  # tools that do not know holes would take it for 209 GB


def test_the_published_model_has_the_published_number_of_parameters(flash):
    plan = checkpoint.plan(flash, [H200])
    assert plan.release == "Ming-flash-omni Preview"
    # spec 0.1: each encoder with its projector, the position table not counted
    assert plan.parameters == {
        "thinker": 102_954_732_800,
        "vision": 704_573_696 + 50_339_840,
        "audio": 635_048_960 + 32_514_048,
    }
    assert sum(plan.parameters.values()) == 104_377_209_344


def test_the_published_model_fits_one_large_gpu_only_with_quantised_experts(flash):
    plan = checkpoint.plan(flash, [H200])
    assert {format: plan.fits(format) for format in memory.FORMATS} == {
        "fp32": False,
        "bf16": False,
        "fp8": True,
        "int4": True,
    }
    experts = 31 * 256 * 3 * 4096 * 1024
    others = 2 * (104_377_209_344 - experts) + 2 * 15_000 * 1280  # the position table is stored too
    rows = 31 * 256 * (1024 + 1024 + 4096)
    assert plan.bytes("bf16") == 2 * experts + others
    assert plan.bytes("fp8") == experts + 4 * rows + others
    assert plan.bytes("int4") == experts // 2 + 2 * experts // 64 + others


def test_pieces_fill_the_devices_in_order_and_leave_room(flash):
    devices = [Device("GPU 0", 80 * GB), Device("GPU 1", 80 * GB), Device("host memory", 100 * GB)]
    plan = checkpoint.plan(flash, devices)
    layout = plan.layout("bf16")
    assert [piece for pieces in layout for piece in pieces] == list(plan.pieces)
    assert layout[0][0].name == "vision"
    for device, pieces in zip(devices, layout, strict=True):
        assert pieces
        assert sum(piece.bytes["bf16"] for piece in pieces) <= device.bytes * 0.9
    assert checkpoint.plan(flash, devices[:2]).layout("bf16") is None


@pytest.mark.parametrize("format", ["fp32", "bf16", "fp8", "int4"])
def test_the_plan_counts_the_bytes_that_loading_uses(tmp_path, format):
    folder = published(tmp_path)
    dtype = torch.float32 if format == "fp32" else torch.bfloat16
    experts = format if format in ("fp8", "int4") else None
    model = checkpoint.load(folder, dtype=dtype, experts=experts, numerics="reference")
    held = sum(tensor.nbytes for tensor in model.state_dict().values())
    assert checkpoint.plan(folder).bytes(format) == held


def test_own_and_quantised_and_packed_folders_count_what_they_unfold_to(tmp_path):
    published(tmp_path / "published")
    expected = checkpoint.plan(tmp_path / "published")
    for experts in (None, "fp8", "int4"):
        folder = tmp_path / f"own-{experts}"
        checkpoint.load(tmp_path / "published", experts=experts).save_pretrained(folder)
        assert checkpoint.plan(folder).parameters == expected.parameters
        assert checkpoint.plan(folder).bytes("int4") == expected.bytes("int4")


def test_tiny_and_parts_are_planned_too():
    tiny = checkpoint.plan("tiny")
    assert sum(tiny.parameters.values()) == checkpoint.load("tiny").num_parameters()
    assert set(checkpoint.plan(RECORDED / "llm").parameters) == {"thinker"}
    assert set(checkpoint.plan(RECORDED / "vision").parameters) == {"vision"}


def test_the_text_names_release_parts_and_verdict(flash):
    text = memory.describe(checkpoint.plan(flash, [H200]))
    assert "Ming-flash-omni Preview" in text
    assert "102,954,732,800 parameters" in text
    assert "experts in bf16   208.8 GB  does not fit" in text
    assert "experts in fp8    109.1 GB  fits: 109.1 GB on GPU 0" in text


def test_one_format_shows_the_pieces_of_each_device(flash):
    devices = [Device("GPU 0", 80 * GB), Device("GPU 1", 80 * GB)]
    text = memory.describe(checkpoint.plan(flash, devices), experts="fp8")
    assert "  GPU 0: vision, audio, thinker.embedding, thinker.layers.0-" in text
    assert "  GPU 1: thinker.norm, thinker.head, thinker.layers." in text
    with pytest.raises(InputError, match="int3"):
        memory.describe(checkpoint.plan(flash, devices), experts="int3")


def test_another_release_is_refused_by_the_plan_as_well(tmp_path):
    folder = published(tmp_path)
    edit_config(folder, lambda config: config["vision_config"].update(patch_size=16))
    with pytest.raises(InputError, match=r"Ming-flash-omni 2\.0"):
        checkpoint.describe(folder)


def test_this_machine_has_memory():
    assert memory.here()[-1].bytes > GB


def test_a_hub_out_of_reach_is_said_in_one_line(monkeypatch):
    def no_network(*args, **kwargs):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    with pytest.raises(InputError, match="could not be fetched from the hub") as error:
        memory.plan("nobody/knows-this")
    assert "\n" not in str(error.value)
