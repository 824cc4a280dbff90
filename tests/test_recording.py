"""model/recording.py: a recorded module gives what the module itself gives."""

from copy import deepcopy

import pytest
import torch

from ming_omni.config import DiTConfig
from ming_omni.model.dit import DiT
from ming_omni.model.recording import MAX_RECORDINGS, Recorded
from tests.painters import open_up, tiny_painter


def test_a_copy_records_the_copied_module():
    painter = tiny_painter()
    other = deepcopy(painter)
    assert other.recorded_dit.module is other.dit and painter.recorded_dit.module is painter.dit


@pytest.mark.gpu
def test_recorded_steps_equal_plain_ones_whatever_shape_comes_when():
    torch.manual_seed(0)
    dit = open_up(DiT(DiTConfig())).cuda()
    recorded = Recorded(dit)
    sizes = [(4, 4), (8, 4), (4, 8), (6, 6), (8, 8), (4, 4)]
    assert len(set(sizes)) > MAX_RECORDINGS
    with torch.inference_mode():
        for rows, columns in sizes:
            for reference in (None, torch.randn(2, 16, rows, columns, device="cuda")):
                latents = torch.randn(2, 16, rows, columns, device="cuda")
                context, pooled = torch.randn(2, 5, 128, device="cuda"), torch.randn(2, 64, device="cuda")
                inputs = latents, torch.full((2,), 400.0, device="cuda"), context, pooled, reference
                torch.testing.assert_close(recorded(*inputs), dit(*inputs), atol=1e-4, rtol=1e-3)


@pytest.mark.gpu
def test_moving_the_weights_records_anew():
    torch.manual_seed(0)
    dit = open_up(DiT(DiTConfig())).cuda()
    recorded = Recorded(dit)
    inputs = [torch.randn(1, 16, 4, 4), torch.full((1,), 400.0), torch.randn(1, 5, 128), torch.randn(1, 64)]
    inputs = [x.cuda() for x in inputs]
    with torch.inference_mode():
        before = recorded(*inputs)
        for parameter in dit.parameters():
            parameter.data = parameter.data * 0.5
        after = recorded(*inputs)
        torch.testing.assert_close(after, dit(*inputs), atol=1e-4, rtol=1e-3)
    assert (before - after).abs().max() > 1e-4
