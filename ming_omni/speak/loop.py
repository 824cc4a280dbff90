"""Sentences of many callers -> their patches, spoken together: every step serves all sentences that are open.

There is no thread of its own. Whoever waits for a patch takes a step for everyone, and the others find theirs ready.
"""

from __future__ import annotations

import threading
import warnings
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from ming_omni.errors import InputError
from ming_omni.model.talker import Talker
from ming_omni.speak.steps import Steps, make


class Utterance:
    """One sentence: what to say, in which voice, with which noise, and what has been said so far."""

    def __init__(
        self, ids: Tensor, prompt: Tensor | None, generator: torch.Generator, max_patches: int, min_patches: int = 1
    ):
        """ids (T,) text, prompt (n, p, Z) patches of the voice

        max_patches  where a runaway ends
        min_patches  before which the stop head is not heard
        """
        self.ids, self.prompt, self.generator = ids, prompt, generator
        self.max_patches, self.min_patches = max_patches, min_patches
        self.has_another_try = False
        """If it finds no end it is said again, so no warning is due yet."""
        self.found_end = False
        """By the stop head."""
        self.slot: int | None = None
        self.length = len(ids) + (0 if prompt is None else len(prompt))
        self.num_patches = 0
        self.is_done = False
        self.error: BaseException | None = None
        self.ready: deque[Tensor] = deque()  # samples (n,) not fetched yet
        self.num_samples = 0  # decoded so far, those to drop included

    def put(self, samples: Tensor, trim: int) -> None:
        """Keep new samples, less what lies among the first `trim` of the sentence."""
        kept = samples[max(0, trim - self.num_samples) :]
        self.num_samples += len(samples)
        if len(kept):
            self.ready.append(kept)


class Loop:
    """Speaks up to `max_sentences` sentences at once; more wait for their turn."""

    def __init__(self, talker: Talker, max_sentences: int = 8, steps: Steps | None = None):
        self.talker = talker
        self.steps = steps or make(talker, max_sentences)
        self.free = list(range(max_sentences))
        self.waiting: deque[Utterance] = deque()
        self.speaking: list[Utterance] = []
        # Re-entrant: the garbage collector may close a forgotten stream in the middle of a step.
        self.lock = threading.RLock()

    def speak(self, utterance: Utterance) -> Iterator[Tensor]:
        """Samples (n,) of one sentence, patch by patch. Closing the iterator ends the sentence before the next step."""
        room = self.talker.config.max_positions - utterance.length
        if room < 1:
            raise InputError(
                f"the sentence and its voice take {utterance.length} positions; "
                f"this talker has {self.talker.config.max_positions}"
            )
        utterance.max_patches = min(utterance.max_patches, room, self.talker.config.max_patches)
        with self.lock:
            self.waiting.append(utterance)
        try:
            while (samples := self._next(utterance)) is not None:
                yield samples
        finally:
            with self.lock:
                self._leave(utterance)

    def _next(self, utterance: Utterance) -> Tensor | None:
        with self.lock:
            while not utterance.ready:
                if utterance.error is not None:
                    raise utterance.error
                if utterance.is_done:
                    return None
                self._turn()
            return utterance.ready.popleft()

    @torch.inference_mode()
    def _turn(self) -> None:
        """Give free slots to those who wait, then take one step for all; who fails is told when it looks next."""
        while self.waiting and self.free:
            utterance = self.waiting.popleft()
            with self._blame([utterance]):
                self._enter(utterance)
        with self._blame(list(self.speaking)):
            self._step(list(self.speaking))

    @contextmanager
    def _blame(self, utterances: list[Utterance]) -> Iterator[None]:
        try:
            yield
        except BaseException as error:
            for utterance in utterances:
                utterance.error = error
                self._leave(utterance)
            if not isinstance(error, Exception):
                raise

    def _enter(self, utterance: Utterance) -> None:
        utterance.slot = self.free.pop(0)
        self.speaking.append(utterance)
        self.steps.state.free(utterance.slot)
        device = self.talker.device
        prompt = None if utterance.prompt is None else utterance.prompt.to(device, self.talker.dtype)
        self.talker.prefill(self.steps.state, utterance.slot, utterance.ids.to(device), prompt)

    def _step(self, speaking: list[Utterance]) -> None:
        if not speaking:
            return
        config, vae = self.talker.config, self.talker.vae
        shape = (config.patch_frames, config.vae.latent_dim)
        # Each sentence has its own noise, drawn on the CPU: a seed means the same alone, in company, and on any device.
        noise = config.noise * torch.stack([torch.randn(shape, generator=u.generator) for u in speaking])
        extent = 1 + max(u.length for u in speaking)
        latent_extent = (1 + max(u.num_patches for u in speaking)) * config.patch_frames
        step = self.steps([u.slot for u in speaking], noise, extent, latent_extent)
        stops, samples, rest = step.stop.tolist(), step.samples.cpu(), step.rest.cpu()
        for i, utterance in enumerate(speaking):
            utterance.num_patches += 1
            utterance.length += 1
            is_over = utterance.num_patches >= utterance.max_patches
            may_stop = utterance.num_patches >= max(config.min_patches, utterance.min_patches)
            utterance.found_end = stops[i] > 0.5 and may_stop
            is_last = utterance.found_end or is_over
            utterance.put(torch.cat([samples[i], rest[i]]) if is_last else samples[i], vae.trim)
            if is_last:
                if not utterance.found_end and not utterance.has_another_try:
                    seconds = utterance.num_patches * config.patch_seconds
                    warnings.warn(f"a sentence found no end and was stopped after {seconds:.1f} seconds", stacklevel=2)
                utterance.is_done = True
                self._leave(utterance)

    def _leave(self, utterance: Utterance) -> None:
        """Give the slot back; also for one who never got a slot, or has left already."""
        if utterance in self.waiting:
            self.waiting.remove(utterance)
        if utterance in self.speaking:
            self.speaking.remove(utterance)
            self.free.append(utterance.slot)
            self.free.sort()
