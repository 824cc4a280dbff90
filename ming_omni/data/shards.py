"""Numbered work -> tar files of samples, each written whole or not at all, so that a stopped run goes on."""

from __future__ import annotations

import io
import json
import os
import tarfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context, parent_process
from multiprocessing.process import BaseProcess
from pathlib import Path

Sample = tuple[str, dict[str, bytes]]
"""A name, and its files by suffix: ("000017", {"json": ..., "flac": ...})."""


def make_shards(
    folder: Path,
    count: int,
    make: Callable[[int], Iterable[Sample]],
    workers: int = 1,
    deadline: float = float("inf"),
) -> list[Path]:
    """Write shard-00000.tar, ... from `make(number)`; those already there stay. `make` must pickle.

    deadline   no shard is begun after it, on the clock of time.monotonic
    """
    folder.mkdir(parents=True, exist_ok=True)
    sweep(folder)
    paths = [folder / f"shard-{number:05}.tar" for number in range(count)]
    missing = [number for number, path in enumerate(paths) if not path.exists()]
    if workers <= 1:
        for number in missing:
            _make_one(paths[number], number, make, deadline)
    else:
        # A fresh interpreter for each worker: torch's threads do not survive a fork.
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=worker) as pool:
            list(pool.map(partial(_make_one, make=make, deadline=deadline), [paths[n] for n in missing], missing))
    return paths


def sweep(folder: Path) -> None:
    """Remove what a killed run had begun; a folder belongs to one run at a time."""
    for part in folder.glob("shard-*.part"):
        part.unlink(missing_ok=True)


def worker() -> None:
    """How a process of a pool begins: one thread of torch's, and one that ends it when whoever began it is killed."""
    import torch

    torch.set_num_threads(1)
    threading.Thread(target=_end_with, args=(parent_process(),), daemon=True).start()


def _end_with(process: BaseProcess) -> None:
    process.join()
    os._exit(1)


def _make_one(path: Path, number: int, make: Callable[[int], Iterable[Sample]], deadline: float) -> None:
    if time.monotonic() <= deadline:
        write_shard(path, make(number))


def write_shard(path: Path, samples: Iterable[Sample]) -> None:
    """The same samples give the same bytes: no times, no owners."""
    part = path.with_suffix(f".{os.getpid()}.part")
    with tarfile.open(part, "w") as tar:
        for name, files in samples:
            for suffix, content in files.items():
                entry = tarfile.TarInfo(f"{name}.{suffix}")
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))
    os.replace(part, path)


def read_shard(path: Path) -> Iterator[Sample]:
    with tarfile.open(path) as tar:
        name, files = "", {}
        for entry in tar:
            stem, _, suffix = entry.name.partition(".")
            if files and stem != name:
                yield name, files
                files = {}
            name = stem
            files[suffix] = tar.extractfile(entry).read()
        if files:
            yield name, files


def as_json(value: dict) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()
