"""Sounds (B, n) made and wanted -> how different they sound, from spectra of many resolutions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ming_omni.train.losses import log_mel, mel_triangles

FLOOR = 1e-4
"""80 dB below a full sine, in amplitude: what is softer is not heard."""
STRETCH = 48
"""Frames whose loudness is compared together."""


class MelDistance(nn.Module):
    """Mean distance of log-mel spectra. Windows and filters stay on the device, both sounds share one transform."""

    def __init__(self, windows: Sequence[int], sample_rate_hz: int):
        super().__init__()
        self.windows = list(windows)
        for window in windows:
            self.register_buffer(f"hann_{window}", torch.hann_window(window))
            self.register_buffer(f"mel_{window}", mel_triangles(window, window // 10, sample_rate_hz))

    def forward(self, made: Tensor, wanted: Tensor) -> Tensor:
        both = torch.cat([made, wanted])
        distances = []
        for window in self.windows:
            ours, theirs = self.log_mel(both, window).chunk(2)
            distances.append((ours - theirs).abs().mean())
        return torch.stack(distances).mean()

    def log_mel(self, samples: Tensor, window: int) -> Tensor:
        """(B, n) -> (B, M, F), a quarter window apart; a full sine is about zero."""
        hann, mel = getattr(self, f"hann_{window}"), getattr(self, f"mel_{window}")
        spectrum = torch.stft(samples, window, window // 4, window=hann, return_complex=True).abs() * (4 / window)
        return (mel @ spectrum + FLOOR).log()


def envelope_likeness(made: Tensor, wanted: Tensor, sample_rate_hz: int) -> Tensor:
    """How far the loudness of each band rises and falls alike, over 0.4 s: 1 is the same (after STOI).

    made and wanted (n,)
    """
    room = (0, max(0, STRETCH * 128 - len(wanted)))
    sounds = [F.pad(sound, room)[None] for sound in (made, wanted)]
    bands = [log_mel(sound, 512, sample_rate_hz)[0].exp() * (4 / 512) for sound in sounds]  # (M, F), 8 ms apart
    made, wanted = (band.unfold(1, STRETCH, STRETCH // 2) for band in bands)  # (M, stretches, 48)
    made, wanted = made - made.mean(-1, keepdim=True), wanted - wanted.mean(-1, keepdim=True)
    sizes = (made.norm(dim=-1) * wanted.norm(dim=-1)).clamp(min=1e-8)
    is_heard = wanted.norm(dim=-1) > 10 * FLOOR
    return (((made * wanted).sum(-1) / sizes) * is_heard).sum() / is_heard.sum().clamp(min=1)


def si_snr_db(made: Tensor, wanted: Tensor) -> Tensor:
    """How much stronger the wanted wave (n,) is in what was made than all else; its level does not count."""
    along = (made * wanted).sum() / wanted.square().sum().clamp(min=1e-8) * wanted
    return 10 * (along.square().sum() / (made - along).square().sum().clamp(min=1e-8) + 1e-8).log10()
