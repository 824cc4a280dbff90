"""Processor output -> a prompt the engine can cut, share and resume; and how far its answer is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from hashlib import blake2b

import numpy as np
import torch
from torch import Tensor

from ming_omni.engine.pages import page_keys
from ming_omni.errors import InputError
from ming_omni.model.omni import AUDIO, IMAGE, TEXT, MingForConditionalGeneration
from ming_omni.model.positions import SPATIAL_MERGE, positions
from ming_omni.model.sampling import Sampling


class Busy(Exception):
    """The line is full; the same request may succeed in a moment."""

    def __init__(self, message: str, retry_after_seconds: int = 1):
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class Closing(Exception):
    """The engine finishes what it has and takes nothing new."""


@dataclass(eq=False)
class Media:
    """What one encoder call turns into tokens: a picture, a video, or the sounds of a request."""

    encoder: str
    inputs: tuple[Tensor, ...]
    places: np.ndarray
    """(n,) which prompt tokens it provides"""
    rows: np.ndarray | None = None
    """(n,) which rows of the encoder's output these are; None: all of them"""
    tokens: Tensor | None = None
    """(n, D) once encoded"""
    origin: Media | None = None
    """the same in a piece of this prompt, which keeps the tokens for the prompts to come"""

    def encode(self, model: MingForConditionalGeneration, device: torch.device) -> None:
        """Run the encoder, the first time."""
        if self.tokens is None and self.origin is not None:
            self.origin.encode(model, device)
            self.tokens = self.origin.tokens
        if self.tokens is None:
            encoded = model.require(self.encoder)(*(x.to(device) for x in self.inputs))
            tokens = encoded[0] if isinstance(encoded, tuple) else encoded
            self.tokens = tokens if self.rows is None else tokens[torch.from_numpy(self.rows).to(tokens.device)]
            self.inputs = ()  # ten times as large, and needed no more


@dataclass(eq=False)
class Prompt:
    """Everything the model reads before it answers. Several requests may share one."""

    ids: list[int]
    positions: np.ndarray
    """(3, T)"""
    delta: int
    """position of a later token = tokens before it + delta"""
    modality: np.ndarray
    """(T,)"""
    contents: np.ndarray
    """(T,) token id, or a number drawn from the content of the media it belongs to"""
    media: list[Media] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def of_ids(cls, ids: Iterable[int]) -> Prompt:
        """Text alone: marks of a template, or what a model has written."""
        contents = np.fromiter(ids, np.int64)
        places = np.arange(len(contents))[None].repeat(3, 0)
        return cls(contents.tolist(), places, 0, np.full_like(contents, TEXT), contents)

    @classmethod
    def join(cls, pieces: Iterable[Prompt]) -> Prompt:
        """Pieces that were read one by one, as the one prompt that they are together."""
        pieces = list(pieces)
        placed, media, num_tokens, delta = [], [], 0, 0
        for piece in pieces:
            placed.append(piece.positions + num_tokens + delta)
            media += [replace(m, places=m.places + num_tokens, origin=m) for m in piece.media]
            num_tokens, delta = num_tokens + len(piece), delta + piece.delta
        return cls(
            [id_ for piece in pieces for id_ in piece.ids],
            np.concatenate(placed, 1),
            delta,
            np.concatenate([piece.modality for piece in pieces]),
            np.concatenate([piece.contents for piece in pieces]),
            media,
        )


@dataclass(frozen=True, eq=False)
class Request:
    prompt: Prompt
    sampling: Sampling = field(default_factory=Sampling)
    max_tokens: int | None = None
    """None: as many as the model has room for."""
    stop_ids: frozenset[int] = frozenset()
    """These end the answer and are not part of it."""
    user: str = ""
    """Users take turns."""
    num_likeliest: int = 0
    """How many of the likeliest tokens to report beside each chosen one."""
    score_prompt: bool = False
    """Report the log-probability of every prompt token too."""


@dataclass(frozen=True)
class Token:
    id: int
    logprob: float | None
    """None for the first token of a prompt, which nothing predicts"""
    likeliest: tuple[tuple[int, float], ...] = ()
    """(id, log-probability), best first"""


class Sequence:
    """One running request: prompt and answer so far, and the pages that hold its keys and values."""

    def __init__(self, request: Request):
        self.request = request
        self.user = request.user
        self.prompt = request.prompt
        self.ids = list(request.prompt.ids)
        self.prompt_scores: list[Token] = []
        self.generator = request.sampling.generator()
        self.num_computed = 0
        self.pages: list[int] = []
        self.num_reused = 0
        """prompt tokens that were found in pages of others"""
        self.cancelled: str | None = None
        """how, once somebody asked to stop"""
        self._keys: list[bytes] = []

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def num_answered(self) -> int:
        return len(self.ids) - len(self.prompt)

    def positions(self, start: int, stop: int) -> np.ndarray:
        """(3, stop - start)"""
        read = self.prompt.positions[:, start:stop]
        written = np.arange(start + read.shape[1], stop) + self.prompt.delta
        written = written[None].repeat(3, 0)
        return np.concatenate([read, written], 1) if read.size else written

    def modality(self, start: int, stop: int) -> np.ndarray:
        """(stop - start,); what is written is text"""
        read = self.prompt.modality[start:stop]
        return np.concatenate([read, np.full(stop - start - len(read), TEXT)])

    def page_keys(self, page_tokens: int, num_pages: int) -> list[bytes]:
        """Names of the first pages, all of them full."""
        start, stop = len(self._keys) * page_tokens, num_pages * page_tokens
        if stop > start:
            self._keys += page_keys(self._signatures(start, stop), page_tokens, self._keys[-1] if start else b"")
        return self._keys[:num_pages]

    def shareable_keys(self, page_tokens: int) -> list[bytes]:
        """Pages that may come from others; the last token is always computed, since it predicts the next."""
        if self.request.score_prompt:
            return []
        return self.page_keys(page_tokens, (len(self) - 1) // page_tokens)

    def _signatures(self, start: int, stop: int) -> np.ndarray:
        """(stop - start, 5): everything that keys and values depend on"""
        contents = np.concatenate(
            [self.prompt.contents[start:stop], np.array(self.ids[max(start, len(self.prompt)) : stop], np.int64)]
        )
        return np.stack([contents, self.modality(start, stop), *self.positions(start, stop)], 1)


def read_prompt(model: MingForConditionalGeneration, inputs: Mapping[str, Tensor | None]) -> Prompt:
    """One request as the processor returns it (published keys, one row, no padding) -> Prompt.

    The plain twin is `model.prepare`, which encodes at once; here nothing is encoded before somebody needs it.
    """
    ids, vocab_size = inputs["input_ids"], model.config.thinker.vocab_size
    if len(ids) != 1 or ids.shape[1] == 0:
        raise InputError(f"a request is one prompt of one token or more, not {tuple(ids.shape)}")
    if not 0 <= int(ids.min()) <= int(ids.max()) < vocab_size:
        raise InputError(f"token ids are 0 to {vocab_size - 1}; the prompt has {int(ids.min())} to {int(ids.max())}")
    grids = inputs.get("image_grid_thw"), inputs.get("video_grid_thw")
    placed, delta = positions(model.config.thinker, ids, None, *grids, inputs.get("second_per_grid_ts"))
    placed, contents = placed[:, 0].cpu().numpy(), ids[0].cpu().numpy().astype(np.int64)
    prompt = Prompt(contents.tolist(), placed, int(delta), np.full(len(contents), TEXT), contents)
    _read_pictures(model, prompt, "image", model.config.thinker.image_patch_token, inputs.get("pixel_values"), grids[0])
    _read_pictures(
        model, prompt, "video", model.config.thinker.video_patch_token, inputs.get("pixel_values_videos"), grids[1]
    )
    if inputs.get("audio_feats") is not None:
        keys = ("audio_feats", "audio_feats_lengths", "audio_placeholder_loc_lens")
        _read_clips(model, prompt, *(inputs.get(key) for key in keys))
    return prompt


def _read_pictures(
    model: MingForConditionalGeneration,
    prompt: Prompt,
    name: str,
    patch_token: int,
    patches: Tensor | None,
    grids: Tensor | None,
) -> None:
    """Find the places of pictures or videos, patches (P, C·T·p·p) and grids (n, 3); each is encoded on its own."""
    places = np.flatnonzero(np.array(prompt.ids) == patch_token)
    if patches is not None:
        if grids is None:
            raise InputError("pixel values come with the grids that describe them")
        model.require("vision").check(patches, grids)
    num_patches = [] if patches is None else grids.prod(-1).tolist()
    counts = [n // SPATIAL_MERGE**2 for n in num_patches]
    if sum(counts) != len(places):
        raise InputError(f"the prompt has {len(places)} {name} tokens, its {name}s have {sum(counts)}")
    prompt.modality[places] = IMAGE
    for picture, grid, place in zip(
        () if patches is None else patches.split(num_patches),
        () if patches is None else grids,
        np.split(places, np.cumsum(counts))[:-1],
        strict=True,
    ):
        prompt.media.append(Media("vision", (picture, grid[None]), place))
        prompt.contents[place] = content_numbers(len(place), picture, grid)


def _read_clips(
    model: MingForConditionalGeneration,
    prompt: Prompt,
    features: Tensor,
    lengths: Tensor | None,
    spans: Tensor | None,
) -> None:
    """Find the places of sounds: features (1, F, M), lengths (1, n) of clips, spans (1, n, 2) of start and length."""
    if lengths is None or spans is None:
        raise InputError("audio features come with the clips' lengths and spans")
    encoder = model.require("audio")
    clips, counts = encoder.clips(features, lengths), encoder.num_tokens(lengths).flatten().tolist()
    declared = [tuple(span) for span in spans[0].tolist() if span[1]]
    if len(declared) != len(clips):
        raise InputError(f"the prompt has places for {len(declared)} audio clips, {len(clips)} are given")
    places, rows, end_of_last = [], [], 0
    for (start, length), count in zip(declared, counts, strict=True):
        if start < end_of_last or start + length > len(prompt):
            raise InputError(f"audio spans follow one another inside the prompt; ({start}, {length}) does not")
        if (prompt.modality[start : start + length] != TEXT).any():
            raise InputError("an audio clip and a picture claim the same place in the prompt")
        prompt.modality[start : start + length] = AUDIO
        used = min(count, length)
        places.append(np.arange(start, start + used))
        rows.append(np.arange(used))
        end_of_last = start + length
    # As published, clips are padded to the longest of their request, and the padding is heard (spec Q25): then they
    # are encoded together, and what a clip becomes depends on that length.
    is_alone = encoder.config.clip_isolation
    padding = torch.tensor(0 if is_alone else max(map(len, clips)))
    for place, clip in zip(places, clips, strict=True):
        prompt.contents[place] = content_numbers(len(place), clip, padding)
    for group in [[i] for i in range(len(clips))] if is_alone else [range(len(clips))]:
        sizes = torch.tensor([[len(clips[i]) for i in group]])
        first_rows = np.cumsum([0] + [counts[i] for i in group])
        prompt.media.append(
            Media(
                "audio",
                (torch.cat([clips[i] for i in group])[None], sizes),
                np.concatenate([places[i] for i in group]),
                np.concatenate([rows[i] + first for i, first in zip(group, first_rows, strict=False)]),
            )
        )


def content_numbers(count: int, *contents: Tensor) -> np.ndarray:
    """A number for each token of some media, drawn from its content: negative, so it never equals a token id."""
    digest = blake2b(digest_size=8)
    for content in contents:
        digest.update(f"{content.dtype} {tuple(content.shape)}".encode())
        digest.update(content.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    first = int.from_bytes(digest.digest(), "little")
    return (np.arange(count, dtype=np.uint64) + np.uint64(first) | np.uint64(1 << 63)).view(np.int64)
