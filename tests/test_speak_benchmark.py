"""The talker's benchmark runs at tiny size, and says what it promises."""

import shutil

import pytest
import torch

from benchmarks.speak import Plan, measure
from ming_omni.config import TalkerConfig
from ming_omni.model.talker import Talker
from ming_omni.speak.steps import fuse


def test_the_benchmark_checks_and_times_the_tiny_talker():
    figures = list(measure(Plan(num_patches=4)))
    assert next(f for f in figures if "check" in f)["relative_difference"] < 1e-5
    assert next(f["first_chunk_ms"] for f in figures if "first_chunk_ms" in f) > 0
    batches = [f for f in figures if "batch" in f]
    assert [f["batch"] for f in batches] == [1, 2]
    assert all(f["rtf_total"] == pytest.approx(f["rtf"] / f["batch"]) for f in batches)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="compiling needs a compiler")
def test_compiled_blocks_speak_like_plain_ones_in_batches_of_any_size():
    torch.manual_seed(0)
    talker = Talker(TalkerConfig(steps=2)).eval()
    inputs = [(torch.randn(n, 64), torch.randn(n, 4, 64), torch.randn(n, 4, 64)) for n in (1, 2, 4, 8, 16)]
    with torch.inference_mode():
        plain = [talker.sample(*rows, talker.time_grid()) for rows in inputs]
        fuse(talker)
        with torch._dynamo.config.patch(fail_on_recompile_limit_hit=True):
            fused = [talker.sample(*rows, talker.time_grid()) for rows in inputs]
            assert all(talker.aggregator(patch).isfinite().all() for patch in fused)
    for a, b in zip(plain, fused, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


def test_nothing_is_started_once_the_time_is_up():
    figures = list(measure(Plan(num_patches=2, until=0)))
    assert [f["skipped"] for f in figures if "skipped" in f] == [
        "fast, batch 1: the time is up",
        "fast, batch 2: the time is up",
    ]


@pytest.mark.gpu
def test_on_a_gpu_the_replayed_step_is_the_plain_one():
    figures = list(measure(Plan(device="cuda", num_patches=4, batches=(1, 3))))
    assert all(v < 1e-3 for f in figures for k, v in f.items() if k.endswith("difference"))
    assert torch.cuda.is_available()
