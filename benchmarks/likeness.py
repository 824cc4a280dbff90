"""Sounds -> what a voice is like, 256 numbers each, by Resemblyzer; runs in an environment of its own.

    python likeness.py CLIPS.npz OUTPUT.npy --torch FOLDER

Needs `pip install --no-deps resemblyzer` and `pip install librosa webrtcvad-wheels`; FOLDER is the site-packages with
torch, which may be another environment's. The file of clips holds samples at 16 kHz as arrays `0`, `1`, ...
"""

from __future__ import annotations

import argparse
import sys

import numpy as np


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips")
    parser.add_argument("output")
    parser.add_argument("--torch", required=True)
    given = parser.parse_args()
    sys.path.append(given.torch)  # last: everything else comes from this environment
    from resemblyzer import VoiceEncoder, preprocess_wav

    encoder, clips = VoiceEncoder("cpu", verbose=False), np.load(given.clips)
    found = [encoder.embed_utterance(preprocess_wav(clips[str(number)], 16_000)) for number in range(len(clips.files))]
    np.save(given.output, np.stack(found))


if __name__ == "__main__":
    main()
