"""A module called again and again on tensors of the same shapes -> its kernels recorded once and replayed (CUDA only).

A step of the diffusion transformer is over a thousand short kernels; launching them one by one takes longer than
running them. The recording launches them all at once. Results are those of the module itself.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from copy import deepcopy

import torch
from torch import Tensor, nn

MAX_RECORDINGS = 4
"""Each keeps the memory of its shapes; the one unused for longest goes first."""


class Recorded:
    """Stands in for `module` where it is called without gradients, with tensors or None by position."""

    def __init__(self, module: nn.Module):
        self.module = module
        self._recordings: OrderedDict[tuple, tuple[torch.cuda.CUDAGraph, list[Tensor | None], Tensor]] = OrderedDict()
        self._lock = threading.Lock()  # a recording has one set of inputs

    def __deepcopy__(self, memo: dict) -> Recorded:
        return Recorded(deepcopy(self.module, memo))

    @torch.inference_mode()
    def __call__(self, *inputs: Tensor | None) -> Tensor:
        # The address of the weights is part of the key: a recording goes on reading where they were.
        key = (next(self.module.parameters()).data_ptr(), *(None if x is None else (x.shape, x.dtype) for x in inputs))
        with self._lock:
            if key not in self._recordings:
                self._recordings[key] = self._record(inputs)
                if len(self._recordings) > MAX_RECORDINGS:
                    self._recordings.popitem(last=False)
            self._recordings.move_to_end(key)
            graph, places, output = self._recordings[key]
            for place, x in zip(places, inputs, strict=True):
                if x is not None:
                    place.copy_(x)
            graph.replay()
            return output.clone()

    def _record(self, inputs: tuple[Tensor | None, ...]) -> tuple[torch.cuda.CUDAGraph, list[Tensor | None], Tensor]:
        places = [None if x is None else x.clone() for x in inputs]
        warm_up = torch.cuda.Stream()
        warm_up.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(warm_up):
            self.module(*places)
        torch.cuda.current_stream().wait_stream(warm_up)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            output = self.module(*places)
        return graph, places, output
