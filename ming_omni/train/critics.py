"""Pictures (B, 3, H, W) or sounds (B, n) -> scores and features: the small networks that autoencoders learn against.

No pretrained perceptual network is used; these start from nothing and learn beside the autoencoder.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CRITIC_SPECTRA = (256, 1024)
"""Windows, in samples, of the spectra that the sound critic looks at."""


class Ladder(nn.Module):
    """Convolutions that halve the size; the output of each is a feature map, and the last becomes a map of scores."""

    def __init__(self, num_in: int, widths: tuple[int, ...], num_out: int):
        super().__init__()
        pairs = zip((num_in, *widths), widths, strict=False)
        self.steps = nn.ModuleList(nn.Conv2d(a, b, 4, stride=2, padding=1) for a, b in pairs)
        self.out = nn.Conv2d(widths[-1], num_out, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        features = []
        for step in self.steps:
            x = F.leaky_relu(step(x), 0.2)
            features.append(x)
        return self.out(x), features


class PictureCritic(Ladder):
    """A score for every patch: does it look like a part of a real picture?"""

    def __init__(self, width: int = 16):
        super().__init__(3, (width, 2 * width, 4 * width), 1)


class Classifier(Ladder):
    """What a picture shows; its features tell pictures apart by content rather than by pixel."""

    def __init__(self, num_labels: int, width: int = 16):
        super().__init__(3, (width, 2 * width, 4 * width), num_labels)

    def forward(self, pixels: Tensor) -> tuple[Tensor, list[Tensor]]:
        """pixels -> logits (B, labels), feature maps"""
        scores, features = super().forward(pixels)
        return scores.mean((2, 3)), features


class SoundCritic(nn.Module):
    """Scores for every stretch of a sound, from its spectra at two resolutions."""

    def __init__(self, width: int = 16):
        super().__init__()
        self.ladders = nn.ModuleList(Ladder(1, (width, 2 * width), 1) for _ in CRITIC_SPECTRA)

    def forward(self, samples: Tensor) -> tuple[Tensor, list[Tensor]]:
        scores, features = [], []
        for window, ladder in zip(CRITIC_SPECTRA, self.ladders, strict=True):
            shape = torch.hann_window(window, device=samples.device)
            spectrum = torch.stft(samples.float(), window, window // 4, window=shape, return_complex=True).abs()
            score, found = ladder((spectrum + 1e-3).log()[:, None])
            scores.append(score.flatten(1))
            features += found
        return torch.cat(scores, 1), features
