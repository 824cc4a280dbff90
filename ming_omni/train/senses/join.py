"""Pieces of what was trained, as they came back from a GPU -> one trained.safetensors with float tensors.

python -m ming_omni.train.senses.join trained-*.safetensors --output trained.safetensors
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from ming_omni.train.senses.states import join


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("pieces", type=Path, nargs="+")
    parser.add_argument("--output", type=Path, required=True)
    given = parser.parse_args(arguments)
    print(json.dumps(join(given.pieces, given.output)))


if __name__ == "__main__":
    main()
