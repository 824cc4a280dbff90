"""Clips -> what Whisper hears in them, kept in a file: it takes seconds a clip, and is the same at every scoring.

    python -m benchmarks.judges --data DATA [--limit 25]      ahead of benchmarks.scores, which asks for what is missing

DATA/venv-judges is an environment with faster-whisper, DATA/whisper the model, see benchmarks/whisper.py.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from hashlib import blake2b
from pathlib import Path

import numpy as np

from ming_omni.evaluate.clips import Clip, real_clips, synthetic_clips

CHUNK = 16
"""Clips between two writings of the file."""


def whisper(data: Path, threads: int = 1) -> Callable[[Sequence[Clip]], list[str]] | None:
    """A judge as `evaluate.hearing` takes it, or None where it is not installed."""
    if not ((data / "whisper" / "model.bin").exists() and _python(data).exists()):
        return None

    def judge(clips: Sequence[Clip]) -> list[str]:
        kept = data / "whisper" / "heard.json"
        known = json.loads(kept.read_text()) if kept.exists() else {}
        missing = [clip for clip in clips if _key(clip) not in known]
        for start in range(0, len(missing), CHUNK):
            chunk = missing[start : start + CHUNK]
            known |= {_key(clip): row["text"] for clip, row in zip(chunk, heard(data, chunk, threads), strict=True)}
            kept.write_text(json.dumps(known, ensure_ascii=False))
        return [known[_key(clip)] for clip in clips]

    return judge


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


def _key(clip: Clip) -> str:
    digest = blake2b(np.ascontiguousarray(clip.samples, np.float32).tobytes(), digest_size=12)
    return f"{clip.language} {digest.hexdigest()}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--limit", type=int, default=25)
    given = parser.parse_args()
    judge = whisper(given.data)
    if judge is None:
        raise SystemExit(f"{given.data} holds no whisper/ or venv-judges/")
    judge(real_clips(given.data, 2 * given.limit))
    judge([clip for clip in synthetic_clips(given.data, given.limit) if not clip.accent])


if __name__ == "__main__":
    main()
