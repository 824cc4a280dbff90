"""A script and the teacher -> parts of a store: samples at 16 kHz, and which phoneme lasts when; stopped, it goes on.

    python -m ming_omni.train.talker.speak script.xz --teacher teacher --output store --seconds 60

With several GPUs put `torchrun --nproc-per-node N -m` before the module: each speaks parts of its own. Nothing is
compressed, since the machine that speaks is the one that learns.

part-00000.npy           int16 (n,)      clips one behind another, each a whole number of the teacher's frames long
part-00000.phonemes.npy  uint8 (frames,) the teacher's symbol of every frame of 25 ms, 0 where nothing is said
part-00000.voices.npy    fp16 (clips, V) what each clip's voice is like, as the teacher is told
part-00000.json          the script's lines, with `start` and `length` of each clip, in samples
"""

from __future__ import annotations

import argparse
import json
import os
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ming_omni.data.kokoro import FRAME_SAMPLES, SAMPLE_RATE_HZ
from ming_omni.data.speaking import BATCH_SYMBOLS, batches
from ming_omni.data.teacher import Teacher
from ming_omni.train.talker.script import Line, read_script

RATE_HZ = 16_000
PHONEME_SAMPLES = FRAME_SAMPLES * RATE_HZ // SAMPLE_RATE_HZ
"""400: of our samples, in a frame of the teacher."""
LINES_PER_PART = 960
"""Lines of one speaker follow one another, so that nearly all of them lie in one part."""
LEVEL, PEAK = 0.1, 0.95
"""Root mean square of what is spoken, as `speech.voices` levels a prompt, as far as peaks allow."""
AUDIBLE, AIR = 0.02, 4
"""The part of the loudest frame above which someone speaks, and frames that are kept before and after, as of a prompt:
where speech ends, the clip ends, which the stop head can learn.
"""
TAPS, CUTOFF = 36, 0.95
"""Of the filter between 24 and 16 kHz: its half width in samples, and how much of the lower band it keeps."""


def speak_script(
    lines: list[Line], teacher: Teacher, output: Path, rank: int, size: int, seconds: float = float("inf")
) -> dict[str, float]:
    """This process's parts, those already there left alone; nothing is begun after that many seconds."""
    began, made = time.perf_counter(), 0.0
    output.mkdir(parents=True, exist_ok=True)
    for number in range(rank, -(-len(lines) // LINES_PER_PART), size):
        path = output / f"part-{number:05}"
        if path.with_suffix(".json").exists():
            continue
        if time.perf_counter() - began > seconds:
            break
        made += speak_part(lines[number * LINES_PER_PART : (number + 1) * LINES_PER_PART], teacher, path)
    took = time.perf_counter() - began
    return {"hours": made / 3600, "seconds": took, "times_real_time": made / max(took, 1e-9)}


def speak_part(lines: list[Line], teacher: Teacher, path: Path) -> float:
    """Write one part, its lines last; returns seconds of sound."""
    clips: list[tuple[np.ndarray, np.ndarray] | None] = [None] * len(lines)
    symbols = BATCH_SYMBOLS[teacher.device.type]
    for rows in batches([len(line.phonemes) / line.speed for line in lines], symbols):
        chosen = [lines[i] for i in rows]
        spoken = teacher.speak_aligned(
            [line.phonemes for line in chosen], [line.voices for line in chosen], [line.speed for line in chosen]
        )
        for i, (samples, phonemes) in zip(rows, spoken, strict=True):
            clips[i] = stored(samples, phonemes)
    starts = np.cumsum([0, *(len(samples) for samples, _ in clips)]).tolist()
    about = [asdict(line) | {"start": starts[i], "length": len(clips[i][0])} for i, line in enumerate(lines)]
    np.save(path.with_suffix(".npy"), np.concatenate([samples for samples, _ in clips]))
    np.save(path.with_suffix(".phonemes.npy"), np.concatenate([phonemes for _, phonemes in clips]))
    np.save(path.with_suffix(".voices.npy"), likenesses([line.voices for line in lines], teacher.voices).numpy())
    part = path.with_suffix(".part")
    part.write_text(json.dumps(about, ensure_ascii=False))
    os.replace(part, path.with_suffix(".json"))
    return starts[-1] / RATE_HZ


def likenesses(mixtures: list[dict[str, float]], voices: dict[str, Tensor]) -> Tensor:
    """What mixtures of voices (L, V) are like, (n, V) fp16: among the teacher's voices, each number has mean 0 and
    standard deviation 1. A voice is nearly the same for all lengths L of text."""
    means = {name: voice.mean(0) for name, voice in voices.items()}
    everyone = torch.stack(list(means.values()))
    mixed = [sum(means[name] * share for name, share in own.items()) / sum(own.values()) for own in mixtures]
    return ((torch.stack(mixed) - everyone.mean(0)) / everyone.std(0).clamp(min=1e-6)).half()


def stored(samples: Tensor, phonemes: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Samples (n) at 24 kHz, symbols (n / 600) -> the clip as it is kept, trimmed and level."""
    frames = to_16_khz(samples).unflatten(0, (-1, PHONEME_SAMPLES))  # (n / 600, 400)
    loudness = frames.square().mean(1).sqrt()
    spoken = (loudness > AUDIBLE * loudness.max()).nonzero().flatten().tolist() or [0]
    kept = slice(max(0, spoken[0] - AIR), spoken[-1] + 1 + AIR)
    level = min(LEVEL / float(loudness[spoken].square().mean().sqrt()), PEAK / float(frames.abs().max()))
    integers = (frames[kept].flatten() * level * 32767).round().to(torch.int16)
    return integers.cpu().numpy(), phonemes[kept].to(torch.uint8).cpu().numpy()


def to_16_khz(samples: Tensor) -> Tensor:
    """(n,) at 24 kHz -> (2n / 3,): two filters, of which one lies half a sample further, every third sample."""
    count = len(samples) // 3 * 3
    offsets = torch.arange(-TAPS, TAPS + 1, device=samples.device)
    times = offsets - torch.tensor([[0.0], [1.5]], device=samples.device)  # (2, taps)
    band = CUTOFF * RATE_HZ / SAMPLE_RATE_HZ
    window = (torch.pi / 2 * (times / (TAPS + 2)).clamp(-1, 1)).cos().square()
    filters = band * torch.sinc(band * times) * window
    padded = F.pad(samples[:count], (TAPS, TAPS))
    return F.conv1d(padded[None, None], filters[:, None], stride=3)[0].T.reshape(-1)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("script", type=Path)
    parser.add_argument("--teacher", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="no part is begun after that")
    given = parser.parse_args(arguments)
    rank, size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    device = f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if given.device == "cuda" else given.device
    teacher = Teacher(given.teacher, device)
    print(json.dumps(speak_script(read_script(given.script), teacher, given.output, rank, size, given.seconds)))


if __name__ == "__main__":
    main()
