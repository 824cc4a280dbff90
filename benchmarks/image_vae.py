"""Pieces of the autoencoder's run -> JSON: PSNR on held-out scenes, printed words still read, seconds a picture.

    python -m benchmarks.image_vae PIECES --bank sprites.safetensors --ocr OCR_PYTHON [--pictures 64] [--split test]

OCR_PYTHON is the interpreter of an environment with rapidocr-onnxruntime (see benchmarks/ocr.py); without it words are
not read. A line of type counts when the OCR reads it right in the scene itself; it is kept when what came back through
the latents is read right too.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ming_omni.data.bank import Bank, stock
from ming_omni.data.scenes import Scene
from ming_omni.model.image_vae import ImageVAE
from ming_omni.train.image_vae import looks, states
from ming_omni.train.image_vae.learner import pixels, reconstruct
from ming_omni.train.image_vae.scenes import Planner, draw
from ming_omni.train.image_vae.settings import PictureSettings, Settings


def word_scores(
    vae: ImageVAE, bank: Bank, split: str, seed: int, count: int, pixels_a_side: int, ocr: Path, threads: int
) -> dict[str, dict[str, float]]:
    """Of the lines read in the scenes, how many are still read after the round trip; by script."""
    plan = Planner(stock(bank, split), PictureSettings(), seed, count, "words").batch(0)
    before = draw(bank, plan, pixels_a_side)
    with torch.inference_mode():
        made = torch.cat([reconstruct(vae, pixels(part)) for part in before.split(8)])
    after = ((made + 1) * 127.5).round().to(torch.uint8)
    both = [lines(pictures, ocr, threads) for pictures in (before[:, :3], after)]
    return kept(plan.scenes, *both)


def lines(pictures: Tensor, ocr: Path, threads: int) -> list[list[str]]:
    """(n, 3, S, S) uint8 -> what is read in each."""
    with tempfile.TemporaryDirectory() as scratch:
        file, output = Path(scratch) / "pictures.npy", Path(scratch) / "lines.json"
        np.save(file, pictures.permute(0, 2, 3, 1).numpy())
        script = Path(__file__).parent / "ocr.py"
        command = [ocr, script, file, output, "--threads", threads]
        subprocess.run([str(part) for part in command], check=True)
        return json.loads(output.read_text())


def kept(scenes: Sequence[Scene], before: Sequence[list[str]], after: Sequence[list[str]]) -> dict[str, dict]:
    """Scenes and what was read in them, before and after -> counts and shares of their lines, by script."""
    counts = {"latin": [0, 0, 0], "chinese": [0, 0, 0]}
    for scene, *found in zip(scenes, before, after, strict=True):
        first, second = ({plain(text) for text in texts} for texts in found)
        for line in scene.words:
            count, wanted = counts["latin" if line.text.isascii() else "chinese"], plain(line.text)
            count[0] += 1
            count[1] += wanted in first
            count[2] += wanted in first and wanted in second
    counts["all"] = [sum(column) for column in zip(*counts.values(), strict=True)]
    return {
        name: {"lines": total, "read": read, "kept": still, "share_kept": round(still / max(1, read), 4)}
        for name, (total, read, still) in counts.items()
    }


def plain(text: str) -> str:
    """OCR sets spaces as it likes and guesses whether a lone letter is large; both count as read."""
    return "".join(text.split()).casefold()


@torch.inference_mode()
def seconds(vae: ImageVAE, pixels_a_side: int, times: int = 5) -> dict[str, float]:
    """Median seconds to code one picture, each way."""
    picture = torch.rand(1, vae.config.in_channels, pixels_a_side, pixels_a_side) * 2 - 1
    latents = vae.encode(picture)
    found = {}
    for name, code, given in (("encode", vae.encode, picture), ("decode", vae.decode, latents)):
        taken = []
        for _ in range(times):
            started = time.perf_counter()
            code(given)
            taken.append(time.perf_counter() - started)
        found[f"{name}_seconds"] = round(statistics.median(taken), 4)
    return found


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pieces", type=Path, help="folder with image_vae.safetensors and image_vae.json")
    parser.add_argument("--bank", type=Path, required=True)
    parser.add_argument("--ocr", type=Path, help="python of an environment with rapidocr-onnxruntime")
    parser.add_argument("--pictures", type=int, default=64, help="of each kind, and of words for the OCR")
    parser.add_argument("--pixels", type=int, default=256, help="side of a picture")
    parser.add_argument("--split", default="test")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    vae, bank = states.load(given.pieces), Bank(given.bank)
    settings = Settings(seed=given.seed, look_cases=given.pictures, look_split=given.split)
    settings.pictures.pixels = given.pixels
    found = {"split": given.split, "pictures": given.pictures, "seed": given.seed}
    found["psnr"] = {name: round(value, 2) for name, value in looks.look(vae, looks.cases(settings, bank)).items()}
    if given.ocr:
        chosen = given.split, given.seed, given.pictures, given.pixels
        found["words"] = word_scores(vae, bank, *chosen, given.ocr, given.threads)
    found |= seconds(vae, given.pixels) | {"threads": given.threads}
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
