"""Makers of batches, one for each kind -> ready batches, made ahead in processes of their own, or where needed.

Batches come as files, in memory where there is room, and only their names through a queue. A queue would hand over
64 kB at a time, and the thread that reads it would ask for the interpreter's lock each time, hundreds of times a batch,
while another thread launches kernels.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import queue
import shutil
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ming_omni.train.senses.rows import Batch

MEMORY = "/dev/shm"
ROOM_BYTES = 16 << 30
"""Free there, or batches lie on the disk, where the system keeps what is read at once in memory too."""
AHEAD = 4
"""Batches of a kind that wait, beside those in the workers' hands."""
SECONDS = 300.0
"""No batch takes that long: something is broken."""

CLOSE_SECONDS = 30.0
"""The batch in hand is finished first."""

Make = Callable[[], Any]
"""Builds an object whose `batch(number)` makes batches; called in the process that uses it, so it must pickle."""


class Feed:
    """`next(kind)` gives that kind's next batch; numbers begin with `first`, so that a resumed run sees new ones."""

    def __init__(self, makers: dict[str, Make], workers: dict[str, int], first: int = 0):
        self.first = first
        self.folder = tempfile.mkdtemp(prefix="senses-", dir=_memory())
        self.local = {kind: make() for kind, make in makers.items() if not workers.get(kind)}
        self.counts = dict.fromkeys(self.local, first)
        context = multiprocessing.get_context("spawn")
        self.ready: dict[str, Any] = {}
        self.processes = []
        for kind, make in makers.items():
            count = workers.get(kind, 0)
            if count:
                self.ready[kind] = context.Queue(AHEAD)
                for number in range(count):
                    arguments = make, self.ready[kind], self.folder, first + number, count
                    self.processes.append(context.Process(target=_work, args=arguments, daemon=True))
        for process in self.processes:
            process.start()

    def next(self, kind: str) -> Batch:
        if kind in self.local:
            self.counts[kind] += 1
            return self.local[kind].batch(self.counts[kind] - 1)
        try:
            path, error = self.ready[kind].get(timeout=SECONDS)
        except queue.Empty:
            raise RuntimeError(f"no batch of {kind} came for {SECONDS:.0f} s") from None
        if error:
            raise RuntimeError(f"a worker that makes {kind} failed:\n{error}")
        content = Path(path).read_bytes()
        os.unlink(path)
        return pickle.loads(content)  # noqa: S301 (our own worker made it)

    def waiting(self) -> dict[str, int]:
        """How many batches of each kind are ready: 0 means that the workers are the bottleneck."""
        return {kind: ready.qsize() for kind, ready in self.ready.items()}

    def close(self) -> None:
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            process.join()
        shutil.rmtree(self.folder, ignore_errors=True)


def _memory() -> str | None:
    has_room = os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > ROOM_BYTES
    return MEMORY if has_room else None


def _work(make: Make, ready: Any, folder: str, first: int, stride: int) -> None:
    import torch

    torch.set_num_threads(1)
    try:
        maker, number = make(), first
        while True:
            with tempfile.NamedTemporaryFile(dir=folder, delete=False) as file:
                pickle.dump(maker.batch(number), file, protocol=5)
            ready.put((file.name, ""))
            number += stride
    except KeyboardInterrupt:
        pass
    except Exception:
        ready.put(("", traceback.format_exc()))


class Ahead:
    """One thread takes what `read` gives and prepares it, so that the next is there when it is wanted."""

    def __init__(self, read: Callable[[], Any], size: int = 2):
        self.read, self.waiting = read, queue.Queue(size)
        self.is_over = False
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        while not self.is_over:
            try:
                found = self.read()
            except Exception as error:
                found = error
            while not self.is_over:
                try:
                    self.waiting.put(found, timeout=0.5)
                    break
                except queue.Full:
                    continue
            if isinstance(found, Exception):
                return

    def next(self) -> Any:
        found = self.waiting.get()
        if isinstance(found, Exception):
            raise found
        return found

    def wait(self) -> None:
        """Until something is there."""
        while self.waiting.empty():
            time.sleep(0.02)

    def close(self) -> None:
        """Ends the thread: one that still computes when the interpreter goes would take the process down with it."""
        self.is_over = True
        self.thread.join(CLOSE_SECONDS)
