"""Text <-> ids, with the tokens of a model folder's `tokenizer.json`, and a decoder for streams.

User text never becomes a special token: `escape` puts a guard inside anything that looks like one, and `encode` turns
such text into ordinary tokens while dropping the guard.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path

from tokenizers import Tokenizer as Core

from ming_omni.errors import InputError

MEDIA_TOKENS = (
    "<imagePatch>", "<image>", "</image>",
    "<framePatch>", "<video>", "</video>",
    "<audioPatch>", "<audio>", "</audio>",
)  # fmt: skip
"""Nano's take the ids 3 to 11, in this order."""

GUARD = "\ufdd0"
"""A code point Unicode sets aside for a program's own use; it never stands in text between programs."""


class Tokenizer:
    def __init__(
        self, core: Core, *, eos_token: str | None = None, pad_token: str | None = None, settings: dict | None = None
    ):
        """settings  the rest of `tokenizer_config.json`, kept for the tokenizers of other libraries"""
        core.no_padding()
        core.no_truncation()
        self.core = core
        added = core.get_added_tokens_decoder()
        self.added_ids = {token.content: index for index, token in added.items()}
        self.special_ids = {index for index, token in added.items() if token.special}
        self.eos_token, self.pad_token = eos_token, pad_token
        self.settings = settings or {}
        self._added = _any_of(self.added_ids)

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> Tokenizer:
        """Reads `tokenizer.json` and the end and padding tokens of `tokenizer_config.json`; runs no code."""
        folder = Path(folder)
        path = folder / "tokenizer.json"
        if not path.is_file():
            raise InputError(f"{folder} holds no tokenizer.json")
        try:
            core = Core.from_file(str(path))
        except Exception as error:  # the library raises bare Exception
            raise InputError(f"{path} is not a tokenizer: {error}") from error
        settings = read_json(folder / "tokenizer_config.json")
        settings.pop("auto_map", None)  # names code to run
        eos_token, pad_token = (_content(settings.get(name)) for name in ("eos_token", "pad_token"))
        return cls(core, eos_token=eos_token, pad_token=pad_token, settings=settings)

    def save_pretrained(self, folder: str | Path) -> None:
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.core.save(str(folder / "tokenizer.json"))
        usual = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
        settings = usual | self.settings | {"eos_token": self.eos_token, "pad_token": self.pad_token}
        write_json(folder / "tokenizer_config.json", settings)

    def __len__(self) -> int:
        return self.core.get_vocab_size()

    def __call__(self, text: str | Sequence[str], return_tensors: str | None = None, **_):
        """The transformers way: {"input_ids", "attention_mask"}; texts of one length, since nothing is padded here."""
        from transformers import BatchFeature

        rows = self.encode(text) if isinstance(text, str) else [self.encode(item) for item in text]
        if return_tensors is not None and isinstance(text, str):
            rows = [rows]
        mask = [[1] * len(row) for row in rows] if rows and isinstance(rows[0], list) else [1] * len(rows)
        return BatchFeature({"input_ids": rows, "attention_mask": mask}, tensor_type=return_tensors)

    def token_id(self, token: str) -> int:
        index = self.core.token_to_id(token)
        if index is None:
            raise InputError(f"this model has no {token} token")
        return index

    convert_tokens_to_ids = token_id

    @property
    def eos_token_id(self) -> int | None:
        return self.core.token_to_id(self.eos_token) if self.eos_token else None

    @property
    def pad_token_id(self) -> int | None:
        return self.core.token_to_id(self.pad_token) if self.pad_token else self.eos_token_id

    def escape(self, text: str, *also: str) -> str:
        """Text in which no added token, and none of `also`, can be found any more; `encode` undoes it."""
        text = self.unescape(text)
        pattern = _any_of([*self.added_ids, *also])
        while pattern and pattern.search(text):  # again: splitting one token may leave another that overlapped it
            text = pattern.sub(lambda match: match[0][0] + GUARD + match[0][1:], text)
        return text

    def unescape(self, text: str) -> str:
        return text.replace(GUARD, "")

    def encode(self, text: str, **_) -> list[int]:
        """Added tokens become their ids; everything else ordinary tokens. Nothing is put before or after."""
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise InputError(f"the text holds half a character: {text[error.start]!r} stands alone") from None
        ids: list[int] = []
        for piece in self._added.split(text) if self._added else [text]:
            if piece in self.added_ids:
                ids.append(self.added_ids[piece])
            elif piece:
                ids += self._ordinary(piece)
        return ids

    def decode(self, ids: Iterable[int] | int, skip_special_tokens: bool = False, **_) -> str:
        if isinstance(ids, int):
            ids = [ids]
        return self.core.decode([int(index) for index in ids], skip_special_tokens=skip_special_tokens)

    def batch_decode(self, rows: Iterable[Iterable[int]], skip_special_tokens: bool = False, **_) -> list[str]:
        return [self.decode(row, skip_special_tokens) for row in rows]

    def stream(self, skip_special_tokens: bool = True) -> StreamDecoder:
        return StreamDecoder(self, skip_special_tokens)

    def _ordinary(self, piece: str) -> list[int]:
        if GUARD not in piece:
            return self.core.encode(piece, add_special_tokens=False).ids
        return self._bare.encode(self.unescape(piece), add_special_tokens=False).ids

    @cached_property
    def _bare(self) -> Core:
        """The same vocabulary without its added tokens: reads `<image>` as seven letters."""
        return Core.from_str(json.dumps(json.loads(self.core.to_str()) | {"added_tokens": []}))


_BYTE_TOKEN = re.compile(r"<0x[0-9A-F]{2}>")


class StreamDecoder:
    """Ids one by one -> pieces of text that, joined, are the text of all ids; never half a character.

    Decoders treat the first token of a text differently from later ones (a leading space goes), so each piece is the
    difference between two decodings: of the last shown token alone, and of that token with everything after it.
    """

    def __init__(self, tokenizer: Tokenizer, skip_special_tokens: bool = True):
        self.tokenizer, self.skip_special_tokens = tokenizer, skip_special_tokens
        self.ids: list[int] = []  # the last shown tokens, then the ones still to show
        self.shown = ""  # what has been shown of the text of `ids`

    def push(self, index: int) -> str:
        """The text that became certain with this id; often empty inside a character of several bytes."""
        if self.skip_special_tokens and index in self.tokenizer.special_ids:
            return ""  # the whole decoding also joins what stands on both sides of it
        self.ids.append(int(index))
        return self._show(final=False)

    def finish(self) -> str:
        """What is left: bytes that never became a character show as U+FFFD."""
        return self._show(final=True)

    def _show(self, final: bool) -> str:
        text = self.tokenizer.decode(self.ids, self.skip_special_tokens)
        # A trailing U+FFFD may be the first bytes of a character still to come.
        certain = text if final else text.rstrip("\ufffd")
        if len(certain) < len(self.shown):
            return ""
        piece = certain[len(self.shown) :]
        self.shown = certain
        if certain == text and piece:
            self.ids = self.ids[self._context() :]
            self.shown = self.tokenizer.decode(self.ids, self.skip_special_tokens)
        return piece

    def _context(self) -> int:
        """Where the last token that is no single byte stands: runs of `<0xE2>` tokens are decoded as one."""
        for start in range(len(self.ids) - 1, 0, -1):
            if not _BYTE_TOKEN.fullmatch(self.tokenizer.core.id_to_token(self.ids[start]) or ""):
                return start
        return 0


def read_json(path: Path) -> dict:
    """A settings file of a model folder; an absent one says nothing."""
    if not path.is_file():
        return {}
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(settings, dict):
        raise InputError(f"{path} is not a JSON object")
    return settings


def write_json(path: Path, settings: dict) -> None:
    path.write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _any_of(tokens: Iterable[str]) -> re.Pattern | None:
    """One group that matches any of the tokens, the longest first."""
    ordered = sorted((token for token in tokens if token), key=len, reverse=True)
    return re.compile("(" + "|".join(map(re.escape, ordered)) + ")") if ordered else None


def _content(token: object) -> str | None:
    """`"<eos>"` or `{"content": "<eos>", ...}`."""
    return token.get("content") if isinstance(token, dict) else token
