"""benchmarks/train.py runs at tiny size on a CPU and counts operations as a person would."""

import json

import torch

from benchmarks import train
from ming_omni.config import MoEConfig, ThinkerConfig
from ming_omni.model.thinker import Thinker


def test_the_benchmark_measures_and_writes_its_figures(tmp_path, capsys):
    options = ["--steps", "2", "--micro-batches", "2", "--no-compile", "--attention", "flash", "--profile"]
    figures = train.main([*options, "--output", str(tmp_path / "train.json")])
    assert json.loads((tmp_path / "train.json").read_text()) == json.loads(json.dumps(figures))
    assert figures["error_against_cpu"] < 1e-5 and figures["tokens_per_second"] > 0
    assert (figures["tokens_per_pass"], figures["tokens_per_step"]) == (64 * 4, 64 * 4 * 2)
    assert "grouped_mm" in capsys.readouterr().out


def test_active_parameters_are_those_that_a_token_meets():
    """One dense and one MoE layer, width 8: attention 2 x (16 x 8 + 8 x 8), dense 3 x 8 x 4, one of two experts and
    the shared one 2 x 3 x 8 x 2, text router 2 x 8, head 8 x 8, norms 5 x 8."""
    config = ThinkerConfig(
        vocab_size=8,
        hidden_size=8,
        intermediate_size=4,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        use_qk_norm=False,
        moe=MoEConfig(num_experts=2, experts_per_token=1, expert_width=2),
    )
    thinker = Thinker(config)
    total = sum(p.numel() for n, p in thinker.named_parameters() if not n.endswith("bias"))
    active, per_token = train.operations(config, total, 10)
    assert active == 2 * (16 * 8 + 8 * 8) + 3 * 8 * 4 + 2 * 3 * 8 * 2 + 2 * 8 + 8 * 8 + 5 * 8
    assert per_token == 3 * (2 * active + 2 * 2 * 2 * 8 * 10 / 2)


def test_the_large_model_has_a_few_billion_parameters():
    config, _, _ = train.MODELS["3b"]
    with torch.device("meta"):
        total = sum(p.numel() for p in Thinker(config).parameters())
    active, _ = train.operations(config, total, 4096)
    assert 3e9 < total < 4e9 and 0.5e9 < active < 0.9e9
