"""A VAE and clips it has not learned from -> scores, and the clips before and after to be listened to."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ming_omni.model.audio_vae import AudioVAE
from ming_omni.train.audio_vae.spectra import MelDistance, envelope_likeness, si_snr_db
from ming_omni.train.audio_vae.store import DevClip

NOISE = 0.2
"""Of latents, as a talker may err."""
MEASURES = ("mel", "noisy", "likeness", "snr_db")
PAUSE = 4800


@dataclass
class Heard:
    clip: DevClip
    after: np.ndarray
    """(n,) float"""


@torch.no_grad()
def look(vae: AudioVAE, clips: Sequence[DevClip], distance: MelDistance) -> tuple[dict[str, float], list[Heard]]:
    """Mean scores by group and of all: mel distance (from noisy latents too), likeness of envelopes, SI-SNR."""
    device = vae.device
    generator = torch.Generator(device).manual_seed(0)
    found, heard, latents = defaultdict(list), [], []
    for clip in clips:
        samples = torch.from_numpy(clip.samples).to(device).float()[None] / 32768
        posterior = vae.encode(samples)
        noise = torch.randn(posterior.mean.shape, generator=generator, device=device)
        made = vae.decode(torch.cat([posterior.mean, posterior.mean + NOISE * noise]))[:, : samples.shape[1]]
        scores = [distance(made[:1], samples), distance(made[1:], samples)]
        scores.append(envelope_likeness(made[0], samples[0], vae.config.sample_rate_hz))
        found[clip.group].append(torch.stack([*scores, si_snr_db(made[0], samples[0])]))
        heard.append(Heard(clip, made[0].cpu().numpy()))
        latents.append(torch.stack([posterior.mean, posterior.std], -1)[0])
    means = {group: torch.stack(rows).mean(0).tolist() for group, rows in found.items()}
    everyone = torch.stack([row for rows in found.values() for row in rows]).mean(0).tolist()
    named = dict(zip(MEASURES, everyone, strict=True))
    named |= {f"{name}/{g}": v for g, row in means.items() for name, v in zip(MEASURES[:3:2], row[:3:2], strict=True)}
    mean, spread = torch.cat(latents).unbind(-1)  # (all frames, Z)
    named |= {"latent_mean": float(mean.mean()), "latent_std": float(mean.std()), "posterior_std": float(spread.mean())}
    return named, heard


@torch.no_grad()
def latent_statistics(vae: AudioVAE, batches: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (Z,) of drawn latents, over samples (B, n) of training."""
    drawn = torch.cat([vae.encode(samples).sample().flatten(0, 1) for samples in batches]).double()
    return drawn.mean(0).float(), drawn.std(0).float()


def spread(heard: Sequence[Heard], count: int) -> list[Heard]:
    """As many, of each group in turn."""
    seen: Counter[str] = Counter()
    order = []
    for one in heard:
        order.append(seen[one.clip.group])
        seen[one.clip.group] += 1
    return [heard[i] for i in sorted(range(len(heard)), key=lambda i: order[i])[:count]]


def side_by_side(heard: Sequence[Heard]) -> tuple[np.ndarray, list[dict]]:
    """(n, 2): on the left each clip as it was, on the right what became of it; where each begins."""
    sounds, told, start = [], [], 0
    for one in heard:
        before = one.clip.samples.astype(np.float32) / 32768
        told.append({"text": one.clip.text, "language": one.clip.language, "group": one.clip.group})
        told[-1] |= {"start": start, "length": len(before)}
        sounds.append(np.pad(np.stack([before, one.after.clip(-1, 1)], 1), ((0, PAUSE), (0, 0))))
        start += len(before) + PAUSE
    return np.concatenate(sounds), told
