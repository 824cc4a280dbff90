"""An encoder that stays as it is stored until the first picture or sound: who only writes never pays for it."""

from __future__ import annotations

from threading import Lock
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedConfig
from transformers.initialization import no_init_weights

from ming_omni.model.layers import Part
from ming_omni.packed import register, unpack

COMPUTED = {"positions"}
"""Tables that a folder may leave out."""


class PackedEncoder(Part):
    """Does what `kind(config)` does. Its state dict holds the stored tensors as they were."""

    def __init__(self, kind: type[Part], config: PreTrainedConfig, stored: dict[str, Tensor]):
        """stored: its tensors by name, packed or plain; read from a file they take no memory until they are used"""
        super().__init__(config)
        self.kind, self.stored = kind, stored
        for name, tensor in stored.items():
            register(self, name, tensor)
        self._unfolded: list[Part] = []  # in a list, so that it is no part of the state dict
        self._unfolding = Lock()

    @property
    def plain(self) -> Part:
        """The encoder itself in fp32, made at the first call."""
        with self._unfolding:
            if not self._unfolded:
                with no_init_weights():
                    encoder = self.kind(self.config)
                missing, unknown = encoder.load_state_dict(dict(unpack(self.stored)), strict=False)
                assert not unknown and set(missing) <= COMPUTED, f"{missing} are missing, {unknown} unknown"
                self._unfolded.append(encoder.eval())
        return self._unfolded[0]

    def __getattr__(self, name: str) -> Any:
        """What the encoder can besides: to check pictures, to cut clips, to count tokens."""
        if name in vars(self.__dict__.get("kind", Part)):
            return getattr(self.plain, name)
        return super().__getattr__(name)

    @torch.no_grad()
    def forward(self, *args: Any, **options: Any) -> Any:
        return self.plain(*args, **options)
