"""The averaged autoencoder and scenes of another split -> PSNR by kind, and a sheet of pictures before and after."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from ming_omni.data.bank import Bank, stock
from ming_omni.data.sheet import write_sheet
from ming_omni.model.image_vae import ImageVAE
from ming_omni.train.image_vae.learner import pixels, psnr, reconstruct, weights
from ming_omni.train.image_vae.scenes import Planner, draw
from ming_omni.train.image_vae.settings import Settings

PAINTED = 0.2
"""Noise on scaled latents: how much worse is what a painter missed by so much?"""
CHUNK = 32
SHOWN = 6
"""Pictures of each kind on the sheet."""


def cases(settings: Settings, bank: Bank) -> dict[str, Tensor]:
    """(n, 4, S, S) pictures of each kind, always the same."""
    chosen, pictures = stock(bank, settings.look_split), settings.pictures
    planners = {kind: Planner(chosen, pictures, settings.seed, settings.look_cases, kind) for kind in pictures.kinds}
    return {kind: draw(bank, planner.batch(0), pictures.pixels) for kind, planner in planners.items()}


@torch.no_grad()
def look(vae: ImageVAE, shown: dict[str, Tensor]) -> dict[str, float]:
    """Mean PSNR (dB) of the pictures of each kind, of all, of letters alone, of all with noise on the latents."""
    found, whole, worn, letters = {}, [], [], []
    for kind, pictures in shown.items():
        errors = []
        for part in pictures.split(CHUNK):
            target = pixels(part)
            error = (reconstruct(vae, target) - target).square()
            errors.append(error.mean((1, 2, 3)))
            worn.append((reconstruct(vae, target, PAINTED) - target).square().mean((1, 2, 3)))
            if part[:, 3].any():
                near = weights(part[:, 3:], 1e6)  # as good as zero elsewhere
                letters.append((error * near).mean())
        found[kind] = float(psnr(torch.cat(errors)).mean())
        whole += errors
    found["all"], found["with noise"] = (float(psnr(torch.cat(errors)).mean()) for errors in (whole, worn))
    if letters:
        found["letters"] = float(psnr(torch.stack(letters).mean()))
    return found


@torch.no_grad()
def sheet(vae: ImageVAE, shown: dict[str, Tensor], path: Path) -> None:
    """Each picture and, to its right, what came back."""
    pictures, labels = [], []
    for kind, drawn in shown.items():
        target = pixels(drawn[:SHOWN])
        made = reconstruct(vae, target)
        quality = psnr((made - target).square().mean((1, 2, 3))).tolist()
        for before, after, value in zip(drawn, (made + 1) * 127.5, quality, strict=False):
            pictures += [before[:3], after.round().to(torch.uint8)]
            labels += [kind, f"{value:.1f} dB"]
    write_sheet(path, pictures, labels)
