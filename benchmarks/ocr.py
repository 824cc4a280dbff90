"""Pictures -> the lines that an OCR reads in them; runs in an environment of its own.

    python ocr.py PICTURES.npy OUTPUT.json [--threads N]

Needs `pip install rapidocr-onnxruntime`, whose wheel holds its models. The file of pictures is (n, S, S, 3) uint8, RGB.
"""

from __future__ import annotations

import argparse
import json

import numpy as np
from rapidocr_onnxruntime import RapidOCR


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures")
    parser.add_argument("output")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    reader = RapidOCR(intra_op_num_threads=given.threads, inter_op_num_threads=1)
    found = []
    for picture in np.load(given.pictures):
        lines, _ = reader(np.ascontiguousarray(picture[:, :, ::-1]), use_cls=False)  # nothing stands on its head
        found.append([text for _, text, _ in lines or []])
    with open(given.output, "w") as file:
        json.dump(found, file, ensure_ascii=False)


if __name__ == "__main__":
    main()
