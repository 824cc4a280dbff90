"""Sounds -> how natural DNSMOS finds them; runs in an environment of its own.

    python mos.py CLIPS.npz OUTPUT.json

Needs `pip install speechmos onnxruntime`, which bring the models. The file of clips holds samples at 16 kHz as arrays
`0`, `1`, ...; a clip shorter than nine seconds is repeated, as DNSMOS does.
"""

from __future__ import annotations

import argparse
import json

import numpy as np
from speechmos import dnsmos

SAMPLE_RATE_HZ = 16_000
NAMES = {"overall": "ovrl_mos", "signal": "sig_mos", "background": "bak_mos", "p808": "p808_mos"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips")
    parser.add_argument("output")
    given = parser.parse_args()
    clips = np.load(given.clips)
    found = []
    for number in range(len(clips.files)):
        scores = dnsmos.run(clips[str(number)].clip(-1, 1), SAMPLE_RATE_HZ, return_df=False)
        found.append({name: round(float(scores[theirs]), 4) for name, theirs in NAMES.items()})
    with open(given.output, "w") as file:
        json.dump(found, file)


if __name__ == "__main__":
    main()
