"""Slots and noise -> one patch for each of them: plainly, or as a replayed CUDA graph. Both give the same numbers."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from ming_omni.model.talker import Step, Talker, TalkerState

BATCHES = (1, 2, 4, 8, 16, 32)
EXTENTS = (256, 512, 1024, 2048, 4096, 8192)
"""A graph has fixed sizes: it reads this many positions, of which the unused ones are masked."""


class Steps(Protocol):
    """Something that speaks one patch for sentences in the slots of its state."""

    state: TalkerState

    def __call__(self, slots: list[int], noise: Tensor, extent: int, latent_extent: int) -> Step:
        """noise (R, p, Z) on any device; extents as in `Talker.step`."""


class PlainSteps:
    """Any device."""

    def __init__(self, talker: Talker, num_slots: int):
        self.talker, self.grid = talker, talker.time_grid()
        self.state = TalkerState(talker, num_slots)

    def __call__(self, slots: list[int], noise: Tensor, extent: int, latent_extent: int) -> Step:
        places = torch.tensor(slots, device=self.talker.device)
        noise = noise.to(self.talker.device, self.talker.dtype)
        return self.talker.step(self.state, places, noise, extent, latent_extent, self.grid)


class _Graph:
    """One captured step and the tensors it reads and writes."""

    def __init__(self, talker: Talker, state: TalkerState, batch: int, extent: int, latent_extent: int, grid: Tensor):
        config = talker.config
        self.slots = torch.full((batch,), state.cache.lengths.shape[0] - 1, device=talker.device)
        self.noise = torch.zeros(
            batch, config.patch_frames, config.vae.latent_dim, device=talker.device, dtype=talker.dtype
        )
        spare = state.cache.lengths.shape[0] - 1

        def step() -> Step:
            # Rows without a sentence write to the spare slot, which must not grow.
            state.cache.lengths[spare].zero_()
            state.decoder.cache.lengths[spare].zero_()
            return talker.step(state, self.slots, self.noise, extent, latent_extent, grid)

        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):  # lazy library set-up must not be captured
            for _ in range(2):
                step()
        torch.cuda.current_stream().wait_stream(side)
        self.graph = torch.cuda.CUDAGraph()
        # Other threads may use the device meanwhile: only this one's work is captured.
        with torch.cuda.graph(self.graph, capture_error_mode="thread_local"):
            self.step = step()


class GraphSteps:
    """CUDA: the whole step, language model to samples, is one launch. Graphs are captured when first needed."""

    def __init__(self, talker: Talker, num_slots: int):
        config = talker.config
        self.talker, self.grid, self.spare = talker, talker.time_grid(), num_slots
        # The caches must never move, so they have their final size from the start; the last slot is spare.
        latents = config.max_patches * config.patch_frames
        self.limits = config.max_positions, latents
        self.state = TalkerState(talker, num_slots + 1, *self.limits)
        self.graphs: dict[tuple[int, int, int], _Graph] = {}

    def __call__(self, slots: list[int], noise: Tensor, extent: int, latent_extent: int) -> Step:
        batch = next((size for size in BATCHES if size >= len(slots)), len(slots))
        graph = self._graph(batch, extent, latent_extent)
        graph.slots.copy_(torch.tensor([*slots, *[self.spare] * (batch - len(slots))]), non_blocking=True)
        graph.noise[: len(slots)].copy_(noise, non_blocking=True)
        graph.graph.replay()
        # The graph's own tensors are overwritten by the next replay.
        return Step(*(tensor[: len(slots)].clone() for tensor in graph.step))

    def _graph(self, batch: int, extent: int, latent_extent: int) -> _Graph:
        sizes = [
            min(next((size for size in EXTENTS if size >= wanted), limit), limit)
            for wanted, limit in zip((extent, latent_extent), self.limits, strict=True)
        ]
        key = (batch, *sizes)
        if key not in self.graphs:
            self.graphs[key] = _Graph(self.talker, self.state, *key, self.grid)
        return self.graphs[key]


def make(talker: Talker, num_slots: int) -> Steps:
    """The faster one that this device has."""
    return (GraphSteps if talker.device.type == "cuda" else PlainSteps)(talker, num_slots)


def fuse(talker: Talker, mode: str | None = None) -> None:
    """Compile the block that flow head and aggregator repeat: half a minute for about a third of the step's kernels.

    mode  of `torch.compile`: "max-autotune-no-cudagraphs" also tries out matrix products, which takes minutes
    """
    # One version for each number of sentences, in each of the two parts.
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 2 * len(BATCHES) + 2)
    for part in (talker.flow, talker.aggregator):
        for block in part.body.blocks:
            block.compile(dynamic=False, mode=mode)
