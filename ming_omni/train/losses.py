"""Predictions and what they should have been -> losses, each a mean. (Flow losses live with the models they train.)"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

IGNORE = -100
"""A target that asks nothing."""
CHANGED = 0.1
"""Of the range -1 ... 1: a pixel that an edit moves by more belongs to the edited region."""
SPECTRA = (128, 512, 1024)
"""Windows, in samples, of the spectra that a reconstructed sound is compared by: from attacks to tones."""


def next_token(logits: Callable[[Tensor], Tensor], hidden: Tensor, targets: Tensor) -> Tensor:
    """Sum of the cross entropy over the targets that ask something; logits are made for those places only.

    hidden (..., D), targets (...) the id that follows each token, or IGNORE
    """
    asked = (targets != IGNORE).flatten().nonzero()[:, 0]
    return cross_entropy(logits, hidden.flatten(0, -2).index_select(0, asked), targets.flatten()[asked])


def cross_entropy(logits: Callable[[Tensor], Tensor], hidden: Tensor, targets: Tensor) -> Tensor:
    """Sum over hidden (n, D) whose next ids are targets (n,); one graph, so that compiled code need not keep fp32."""
    return F.cross_entropy(logits(hidden).float(), targets, reduction="sum")


def edit_weight(before: Tensor, after: Tensor, strength: float, cells: Sequence[int]) -> Tensor:
    """Pictures (B, 3, H, W) before and after an edit -> weights (B, 1, h, w), mean one for each picture.

    Most of an edited picture is what it was; without the weight, copying would be nearly right.
    """
    changed = (before - after).abs().amax(1, keepdim=True) > CHANGED
    share = F.adaptive_max_pool2d(changed.float(), tuple(cells))
    weight = 1 + (strength - 1) * share
    return weight / weight.mean((1, 2, 3), keepdim=True)


def reconstruction(pixels: Tensor, target: Tensor) -> Tensor:
    return (pixels.float() - target.float()).abs().mean()


def gaussian_kl(mean: Tensor, std: Tensor) -> Tensor:
    """Mean distance of the latents' Gaussians from the unit Gaussian."""
    return 0.5 * (mean.square() + std.square() - 1 - 2 * std.log()).mean()


def mel_distance(samples: Tensor, target: Tensor, sample_rate_hz: int) -> Tensor:
    """Mean distance of log-mel spectra (B, n) at several resolutions: near to how different sounds are heard to be."""
    distances = []
    for window in SPECTRA:
        mels = [log_mel(sound, window, sample_rate_hz) for sound in (samples, target)]
        distances.append((mels[0] - mels[1]).abs().mean())
    return torch.stack(distances).mean()


def log_mel(samples: Tensor, window: int, sample_rate_hz: int) -> Tensor:
    """samples (B, n) -> (B, M, F), a quarter window apart, with as many bins as the window can tell apart."""
    shape = torch.hann_window(window, device=samples.device)
    spectrum = torch.stft(samples.float(), window, window // 4, window=shape, return_complex=True).abs()
    mel = mel_triangles(window, min(80, window // 16), sample_rate_hz).to(samples.device) @ spectrum
    return mel.clamp(min=1e-5).log()


@lru_cache
def mel_triangles(window: int, num_bins: int, sample_rate_hz: int) -> Tensor:
    """(M, window / 2 + 1) overlapping triangles, evenly spaced in mel."""
    top = 2595 * torch.tensor(1 + sample_rate_hz / 2 / 700, dtype=torch.float64).log10()
    corners = 700 * (10 ** (torch.linspace(0, float(top), num_bins + 2, dtype=torch.float64) / 2595) - 1)
    frequency = torch.linspace(0, sample_rate_hz / 2, window // 2 + 1, dtype=torch.float64)
    left, centre, right = (corners[i : i + num_bins, None] for i in range(3))
    rising, falling = (frequency - left) / (centre - left), (right - frequency) / (right - centre)
    return torch.minimum(rising, falling).clamp(min=0).float()


def critic_loss(real: Tensor, made: Tensor) -> Tensor:
    """Hinge: scores of real ones above 1, of made ones below -1."""
    return (F.relu(1 - real.float()) + F.relu(1 + made.float())).mean()


def adversarial_loss(made: Tensor) -> Tensor:
    """What the maker wants: high scores for what it made."""
    return -made.float().mean()


def feature_distance(made: Sequence[Tensor], real: Sequence[Tensor]) -> Tensor:
    """Mean distance of feature maps, layer by layer, each in units of the real one's size."""
    distances = []
    for ours, theirs in zip(made, real, strict=True):
        theirs = theirs.detach().float()
        distances.append((ours.float() - theirs).abs().mean() / theirs.abs().mean().clamp(min=1e-6))
    return torch.stack(distances).mean()


def held(module: nn.Module) -> Callable[..., Tensor]:
    """The module with its parameters held: gradients reach its input, not the module itself."""
    weights = {name: parameter.detach() for name, parameter in module.named_parameters()}
    return lambda *inputs: functional_call(module, weights, inputs)
