"""A tokenizer for the tiny model: one id a byte, and the special tokens at the places that `config.tiny()` names."""

from __future__ import annotations

from tokenizers import AddedToken, decoders, models, pre_tokenizers
from tokenizers import Tokenizer as Core

from ming_omni.inputs.tokenizer import Tokenizer

SPECIAL = {
    "<|endoftext|>": 28,
    "<|role_end|>": 31,
    "<role>": 287,
    "</role>": 288,
    "<imagePatch>": 293,
    "<image>": 294,
    "</image>": 295,
    "<video>": 296,
    "</video>": 297,
    "<audioPatch>": 304,
    "<audio>": 305,
    "</audio>": 306,
    "<framePatch>": 311,
}
"""The published ids minus 156,864."""


def tiny_tokenizer() -> Tokenizer:
    """Any text survives a round trip; 320 ids."""
    free = (index for index in range(320) if index not in SPECIAL.values())
    vocabulary = dict(zip(sorted(pre_tokenizers.ByteLevel.alphabet()), free, strict=False))
    core = Core(models.BPE(vocabulary | SPECIAL, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens([AddedToken(token, normalized=False) for token in SPECIAL])
    return Tokenizer(core, eos_token="<|role_end|>", pad_token="<|role_end|>")
