"""A tokenizer that reads letters: for the tiny talker, and for any that learns from characters."""

from __future__ import annotations

import string

END = "<|endoftext|>"
UNKNOWN = "<|unknown|>"
CHINESE_MARKS = "，。！？；：、“”（）…"


def character_tokenizer(letters: str = string.printable[:95] + CHINESE_MARKS):
    """One id for each letter, one that ends a text (0), one for everything else (1)."""
    from tokenizers import Regex, Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Split
    from transformers import PreTrainedTokenizerFast

    vocabulary = {token: i for i, token in enumerate([END, UNKNOWN, *dict.fromkeys(letters)])}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = Split(Regex(r"[\s\S]"), "isolated")
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END, unk_token=UNKNOWN)
