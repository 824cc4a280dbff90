"""Tokenizers a test can afford: byte-level with the markers of a chat format, and one that falls back to bytes."""

from __future__ import annotations

from tokenizers import AddedToken, decoders, models, pre_tokenizers
from tokenizers import Tokenizer as Core

from ming_omni.inputs.processor import MingProcessor
from ming_omni.inputs.tokenizer import MEDIA_TOKENS, Tokenizer

SPECIAL = {
    "ming": ["<|endoftext|>", "<|role_end|>", "<role>", "</role>", *MEDIA_TOKENS],
    "chatml": ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *MEDIA_TOKENS],
}
END = {"ming": "<|role_end|>", "chatml": "<|im_end|>"}
MERGES = [
    "h e",
    "l l",
    "he ll",
    "hell o",
    "Ġ t",
    "Ġt h",
    "Ġth e",
    "i m",
    "im a",
    "g e",
    "ima ge",
    "< image",
    "ä ½",
    "ä½ ł",
]


def byte_level(chat_format: str = "ming") -> Tokenizer:
    """Special tokens first, then all bytes, then a few merges; any text survives."""
    special = SPECIAL[chat_format]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    merged = [merge.replace(" ", "") for merge in MERGES]
    vocabulary = {token: i for i, token in enumerate([*special, *letters, *merged])}
    core = Core(models.BPE(vocab=vocabulary, merges=[tuple(merge.split(" ")) for merge in MERGES]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens([AddedToken(token, normalized=False) for token in special])
    return Tokenizer(core, eos_token=END[chat_format], pad_token=END[chat_format])


def byte_fallback() -> Tokenizer:
    """As SentencePiece writes them: words begin with a block, and what the vocabulary lacks is spelled in bytes."""
    special = SPECIAL["ming"]
    letters = ["▁", *"abcdefghijklmnopqrstuvwxyz<>/|_", "▁t", "▁th", "▁the"]
    octets = [f"<0x{value:02X}>" for value in range(256)]
    vocabulary = {token: i for i, token in enumerate([*special, *octets, *letters])}
    merges = [("▁", "t"), ("▁t", "h"), ("▁th", "e")]
    core = Core(models.BPE(vocab=vocabulary, merges=merges, byte_fallback=True, fuse_unk=True))
    core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    core.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", left=1, right=0),
        ]
    )
    core.add_special_tokens([AddedToken(token, normalized=False) for token in special])
    return Tokenizer(core, eos_token="<|role_end|>", pad_token="<|role_end|>")


def processor(chat_format: str = "ming", **options) -> MingProcessor:
    return MingProcessor(byte_level(chat_format), **options)
