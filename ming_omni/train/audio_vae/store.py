"""Folders of shards that may still grow -> rows (B, n) of sound on the device, and clips to look at.

A folder may as well hold parts of the talker's store (`talker.speak`), which nothing has compressed. All samples lie on
the device as 16 bits, each folder in a region of its own; a batch is one reading from random places.
"""

from __future__ import annotations

import time
from collections import Counter
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ming_omni.data.shards import worker
from ming_omni.errors import InputError
from ming_omni.train.audio_vae.made import made
from ming_omni.train.audio_vae.settings import Settings
from ming_omni.train.senses.sounds import SAMPLE_RATE_HZ, decode, lines, place

MADE = "made"
PEAK = 0.98


@dataclass
class Region:
    start: int
    room: int
    filled: int = 0


@dataclass(frozen=True)
class DevClip:
    group: str
    """What is averaged together when looking."""
    text: str
    language: str
    samples: np.ndarray
    """(n,) int16"""


class Store:
    def __init__(self, settings: Settings, cache: Path, device: torch.device):
        self.settings, self.cache, self.device = settings, cache, device
        sounds = settings.sounds
        if unknown := set(sounds.rows) - {*sounds.folders, MADE}:
            raise InputError(f"rows of {min(unknown)} are asked for, but it names no folder")
        generator = torch.Generator(device).manual_seed(settings.seed)
        tunes = (made(sounds.made_seconds, generator) * 32767).round().to(torch.int16)
        sizes = {name: int(sounds.hours[name] * 3600 * SAMPLE_RATE_HZ) for name in sounds.folders}
        self.regions, end = {}, 0
        for name, size in (sizes | {MADE: len(tunes)}).items():
            self.regions[name] = Region(end, size)
            end += size
        self.samples = torch.empty(end, dtype=torch.int16, device=device)
        self._append(MADE, tunes)
        self.dev: list[DevClip] = []
        self.counts: Counter[str] = Counter()
        self.waiting: dict[Path, tuple[str, Path, Future | None]] = {}
        """Shards and parts to take in: of which folder, where their samples and lines lie, and when."""
        self.known: set[Path] = set()
        cache.mkdir(parents=True, exist_ok=True)
        self.pool = None
        if sounds.workers:
            self.pool = ProcessPoolExecutor(sounds.workers, get_context("spawn"), initializer=worker)

    @property
    def num_rows(self) -> int:
        return sum(self.settings.sounds.rows.values())

    @property
    def hours(self) -> float:
        return sum(region.filled for region in self.regions.values()) / SAMPLE_RATE_HZ / 3600

    # Shards -> samples on the device.

    def wait(self) -> None:
        """Until every folder gives something, and all that is there is decoded or the time is over."""
        began = time.monotonic()
        while True:
            self.refresh()
            is_late = time.monotonic() - began > self.settings.sounds.wait_seconds
            empty = [name for name in self.settings.sounds.rows if not self.regions[name].filled]
            if not empty and (is_late or not self.waiting):
                break
            if is_late and not self.waiting:
                raise InputError(f"there are no shards with clips for training in {', '.join(empty)}")
            time.sleep(0.2)
        self._aim()

    def refresh(self) -> None:
        """Begin to decode shards that are new, and take in those that are ready."""
        for name, folder in self.settings.sounds.folders.items():
            shards = [(shard, place(shard, self.cache)) for shard in sorted(Path(folder).rglob("*.tar"))]
            parts = [(part, part) for part in sorted(Path(folder).glob("part-*.json"))]  # decoded as they are
            for found, path in shards + parts:
                if found not in self.known:
                    self.known.add(found)
                    self.waiting[found] = name, path, self._begin(found, path)
        ready = [found for found, (_, _, future) in self.waiting.items() if future is None or future.done()]
        for found in ready:
            name, path, future = self.waiting.pop(found)
            if future is not None:
                future.result()
            self._take(name, path)
        if ready:
            self._aim()

    def close(self) -> None:
        if self.pool is not None:
            self.pool.shutdown(wait=False, cancel_futures=True)

    def _begin(self, shard: Path, path: Path) -> Future | None:
        if path.with_suffix(".json").exists():
            return None
        if self.pool is not None:
            return self.pool.submit(decode, shard, path)
        decode(shard, path)
        return None

    def _take(self, name: str, path: Path) -> None:
        samples = np.load(path.with_suffix(".npy"), mmap_mode="r")
        for about in lines(path, "dev"):
            kind = about.get("kind", "")
            group = kind if kind.startswith("real") else about["language"]
            if self.counts[group] < self.settings.look_clips:
                self.counts[group] += 1
                clip = samples[about["start"] : about["start"] + about["length"]]
                self.dev.append(DevClip(group, about["text"], about["language"], np.array(clip)))
        learned = np.zeros(len(samples), bool)
        for about in lines(path, "train"):
            learned[about["start"] : about["start"] + about["length"]] = True
        self._append(name, torch.from_numpy(samples[learned]))

    def _append(self, name: str, samples: Tensor) -> None:
        """As far as there is room."""
        region = self.regions[name]
        samples = samples[: region.room - region.filled]
        start = region.start + region.filled
        self.samples[start : start + len(samples)] = samples.to(self.device)
        region.filled += len(samples)

    # Samples -> batches.

    def _aim(self) -> None:
        """Where each row of a batch may come from."""
        regions = [self.regions[name] for name, count in self.settings.sounds.rows.items() for _ in range(count)]
        self.starts = torch.tensor([region.start for region in regions], device=self.device)[:, None]
        self.filled = torch.tensor([region.filled for region in regions], device=self.device)[:, None]

    def rows(self, length: int) -> Tensor:
        """(B, length) between -1 and 1, at new levels. A region that is shorter begins again."""
        first = (torch.rand(self.filled.shape, dtype=torch.float64, device=self.device) * self.filled).long()
        index = (first + torch.arange(length, device=self.device)) % self.filled + self.starts
        samples = self.samples[index].float() / 32768
        sounds = self.settings.sounds
        decibels = sounds.quietest_db + (sounds.loudest_db - sounds.quietest_db) * torch.rand_like(samples[:, :1])
        peak = samples.abs().amax(1, keepdim=True).clamp(min=1e-4)
        return samples * torch.minimum(10 ** (decibels / 20), PEAK / peak)
