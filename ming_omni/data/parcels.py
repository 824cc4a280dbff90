"""A folder's shards -> a few files small enough to be carried away, then the next few; and back into a folder.

    python -m ming_omni.data.parcels pack FOLDER TARGET --count 4     those not yet packed
    python -m ming_omni.data.parcels unpack FOLDER PARCEL...

For a machine that hands back little at a time. What has been packed is noted in FOLDER/packed.json.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path

LIMIT = 16 * 2**20


def pack(folder: Path, target: Path, count: int, limit: int = LIMIT) -> list[Path]:
    """At most `count` files below `limit` bytes in `target`, with the next shards of `folder` in order."""
    note = folder / "packed.json"
    packed = json.loads(note.read_text()) if note.exists() else []
    waiting = [path for path in sorted(folder.glob("shard-*.tar")) if path.name not in packed]
    target.mkdir(parents=True, exist_ok=True)
    parcels: list[Path] = []
    for _ in range(count):
        if not waiting:
            break
        content, names = io.BytesIO(), []
        with tarfile.open(fileobj=content, mode="w") as tar:
            while waiting:
                # Sound is compressed already; what shrinks is the tar's padding and the labels.
                data = gzip.compress(waiting[0].read_bytes(), 1, mtime=0)
                if content.tell() + len(data) + 4 * tarfile.RECORDSIZE > limit:
                    break
                entry = tarfile.TarInfo(f"{waiting[0].name}.gz")
                entry.size = len(data)
                tar.addfile(entry, io.BytesIO(data))
                names.append(waiting.pop(0).name)
        if not names:
            raise ValueError(f"{waiting[0].name} alone is larger than {limit} bytes")
        parcels.append(target / f"parcel-{names[0][6:11]}.tar")
        parcels[-1].write_bytes(content.getvalue())
        packed += names
    note.write_text(json.dumps(packed))
    return parcels


def unpack(folder: Path, parcels: Sequence[Path]) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for parcel in parcels:
        with tarfile.open(parcel) as tar:
            for entry in tar:
                path = folder / Path(entry.name).stem  # without its folder, whatever the archive says
                path.write_bytes(gzip.decompress(tar.extractfile(entry).read()))
                found.append(path)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", choices=("pack", "unpack"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("paths", type=Path, nargs="+")
    parser.add_argument("--count", type=int, default=4)
    arguments = parser.parse_args()
    if arguments.verb == "pack":
        done = pack(arguments.folder, arguments.paths[0], arguments.count)
        left = len(list(arguments.folder.glob("shard-*.tar"))) - len(
            json.loads((arguments.folder / "packed.json").read_text())
        )
        print(json.dumps({"parcels": [path.name for path in done], "shards_left": left}))
    else:
        print(json.dumps({"shards": len(unpack(arguments.folder, arguments.paths))}))


if __name__ == "__main__":
    main()
