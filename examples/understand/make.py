"""Makes the pictures, films and sounds of this folder from what no training has seen; they are the same every time.

    python examples/understand/make.py DATA        DATA as benchmarks/scores.py describes it

Each was chosen by its number, before any model had looked at it.
"""

from __future__ import annotations

import io
import sys
import tarfile
from pathlib import Path

import soundfile

from ming_omni.data.bank import Bank, stock
from ming_omni.data.pictures import draw, example
from ming_omni.data.speaking import encode
from ming_omni.data.speech import read_plan
from ming_omni.data.teacher import Teacher
from ming_omni.evaluate.clips import SAMPLE_RATE_HZ, real_clips
from ming_omni.evaluate.seeing import SEED, SIZE, as_picture, as_video

FOLDER = Path(__file__).parent
PICTURES = {
    "police-car.png": 10_011, "croissants.png": 10_044, "sailboat.png": 10_015, "envelope.png": 10_007,
    "word.png": 10_016, "character.png": 10_013,
}  # fmt: skip
FILMS = {"monkey.mp4": 10_028, "ant.mp4": 10_003, "otters.mp4": 10_038}
SPOKEN = {"english.flac": "question", "mandarin.flac": "mandarin", "name.flac": "name", "sichuan.flac": "accented"}
"""Synthetic voices: the first clip of each kind, of accents the first of its own."""
PROMPT = "vm-nobodyavail.wav"


def pictures(data: Path) -> None:
    chosen = stock(Bank(data / "bank" / "sprites.safetensors"), "test")
    for name, index in (PICTURES | FILMS).items():
        item = example(chosen, "film" if name in FILMS else "question", SEED, index)
        (drawn,) = draw(chosen, [item], SIZE)
        if name in FILMS:
            (FOLDER / name).write_bytes(as_video(drawn.pictures))
        else:
            as_picture(drawn.pictures[0]).save(FOLDER / name, optimize=True)
        styles = sorted({thing.style for scene in item.scenes for thing in scene.things})
        print(f"{name}: {item.prompt} {item.answer}; {', '.join(styles)}")


def sounds(data: Path) -> None:
    plan = next(path for path in sorted(data.glob("*/plan.jsonl")))
    clips = [clip for clip in read_plan(plan) if clip.split == "test"]
    teacher = Teacher(data / "teacher")
    for name, kind in SPOKEN.items():
        clip = next(c for c in clips if c.kind == kind and c.accent == ("sichuan" if kind == "accented" else ""))
        (spoken,) = teacher.speak([clip.phonemes], [clip.voices], [clip.speed])
        (FOLDER / name).write_bytes(encode(spoken.numpy(), "flac"))
        if clip.name:
            (FOLDER / "names.txt").write_text(
                "".join(f"{word}\n" for word in dict.fromkeys((*clip.context, clip.name)))
            )
        print(f"{name}: {clip.text}")
    with tarfile.open(data / "held-out" / "asterisk" / "telephone-prompts.tar") as tar:
        samples, rate = soundfile.read(io.BytesIO(tar.extractfile(PROMPT).read()))
        soundfile.write(FOLDER / "telephone.wav", samples, rate)
    real = real_clips(data, 1)
    clip = next(clip for clip in real if clip.kind == "mandarin")
    soundfile.write(FOLDER / "word.flac", clip.samples, SAMPLE_RATE_HZ, format="FLAC", subtype="PCM_16")
    print(f"word.flac: {clip.text}")


if __name__ == "__main__":
    pictures(Path(sys.argv[1]))
    sounds(Path(sys.argv[1]))
