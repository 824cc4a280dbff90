"""Clips -> what Whisper hears in them, kept in a file: it takes a second a clip, and is the same at every scoring.

    python -m benchmarks.judges --data DATA [--limit 60]        before or after benchmarks.scores, with the same limit

DATA/venv-judges is an environment with faster-whisper, DATA/whisper the model, see benchmarks/whisper.py. What is known
lies in DATA/whisper-scores.json; only what is missing there is listened to.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path

import numpy as np

from ming_omni.evaluate.clips import Clip

CHUNK = 48
"""Clips between two writings of the file."""
PARTS = ("english", "mandarin", "accents")


def known(data: Path) -> dict[str, str]:
    """What was heard so far, by the clips' keys."""
    path = data / "whisper-scores.json"
    return json.loads(path.read_text()) if path.exists() else {}


def key(clip: Clip) -> str:
    digest = blake2b(np.ascontiguousarray(clip.samples, np.float32).tobytes(), digest_size=12)
    return f"{clip.language} {digest.hexdigest()}"


def is_installed(data: Path) -> bool:
    return (data / "whisper" / "model.bin").exists() and _python(data).exists()


def judge(data: Path, clips: Sequence[Clip], threads: int = 1) -> None:
    found = known(data)
    missing = [clip for clip in clips if key(clip) not in found]
    for start in range(0, len(missing), CHUNK):
        chunk = missing[start : start + CHUNK]
        found |= {key(clip): row["text"] for clip, row in zip(chunk, heard(data, chunk, threads), strict=True)}
        scratch = data / "whisper-scores.new"
        scratch.write_text(json.dumps(found, ensure_ascii=False))
        scratch.rename(data / "whisper-scores.json")
        print(f"{start + len(chunk)} of {len(missing)}", flush=True)


def heard(data: Path, clips: Sequence[Clip], threads: int) -> list[dict]:
    """text, seconds and first_word_seconds of each clip"""
    with tempfile.TemporaryDirectory() as scratch:
        sounds, output = Path(scratch) / "clips.npz", Path(scratch) / "heard.json"
        languages = np.array([clip.language for clip in clips])
        np.savez(sounds, languages=languages, **{str(i): clip.samples for i, clip in enumerate(clips)})
        script = Path(__file__).parent / "whisper.py"
        command = [_python(data), script, sounds, data / "whisper", output, "--threads", threads]
        subprocess.run([str(part) for part in command], check=True)
        return json.loads(output.read_text())


def _python(data: Path) -> Path:
    return data / "venv-judges" / "bin" / "python"


def main() -> None:
    from benchmarks.scores import LIMITS, clips_of

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--limit", type=int)
    given = parser.parse_args()
    if not is_installed(given.data):
        raise SystemExit(f"{given.data} holds no whisper/ or venv-judges/")
    judge(given.data, [clip for part in PARTS for clip in clips_of(part, given.data, given.limit or LIMITS[part])])


if __name__ == "__main__":
    main()
