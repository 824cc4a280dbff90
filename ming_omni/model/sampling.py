"""Next-token logits (B, V) -> one id per row and its log-probability; every row has its own settings and seed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral, Real

import torch
from torch import Tensor

from ming_omni.errors import InputError

_RULES = {
    "temperature": (Real, lambda value: 0 <= value < math.inf, "0 or more"),
    "top_k": (Integral, lambda value: value >= 0, "0 or more"),
    "top_p": (Real, lambda value: 0 < value <= 1, "above 0 and at most 1"),
    "min_p": (Real, lambda value: 0 <= value <= 1, "from 0 to 1"),
    "repetition_penalty": (Real, lambda value: 0 < value < math.inf, "above 0"),
    "banned": (tuple, lambda value: all(isinstance(i, Integral) and i >= 0 for i in value), "a tuple of token ids"),
    "seed": (Integral | None, lambda value: value is None or -(2**63) <= value < 2**64, "a 64-bit integer"),
}


@dataclass(frozen=True)
class Sampling:
    """How one request picks its tokens; the default is greedy."""

    temperature: float = 0.0
    """0: always the likeliest token."""
    top_k: int = 0
    """Keep this many likeliest tokens; 0: all."""
    top_p: float = 1.0
    """Keep the smallest set of likeliest tokens that holds this much probability."""
    min_p: float = 0.0
    """Drop tokens less likely than this fraction of the likeliest."""
    repetition_penalty: float = 1.0
    """Above 1: tokens that were read or written before become less likely."""
    penalize_prompt: bool = True
    """False: the penalty holds only for what the answer itself repeats, so that facts in the question stay likely."""
    seed: int | None = None
    """The same seed gives the same answer, whatever else runs beside it; None: drawn anew."""
    banned: tuple[int, ...] = ()
    """Ids that are never chosen."""

    def __post_init__(self):
        for name, (kind, is_allowed, range_) in _RULES.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, kind) or not is_allowed(value):
                raise InputError(f"{name} is {range_}, not {value!r}")

    def generator(self) -> torch.Generator:
        """A fresh source of randomness for one row; on the CPU, so that a seed means the same on every device."""
        generator = torch.Generator()
        if self.seed is None:
            generator.seed()
        else:
            generator.manual_seed(int(self.seed))
        return generator


GREEDY = Sampling()
NEAR = 256
"""Tokens looked at first; only a row that keeps more of them sorts its whole vocabulary."""


def choose(
    logits: Tensor, history: Tensor, sampling: Sequence[Sampling], generators: Sequence[torch.Generator | None]
) -> tuple[Tensor, Tensor]:
    """Pick the next id of each row.

    logits      (B, V)  straight from the model
    history     (B, S)  ids each row has read and written; negative numbers are filler
    sampling    B settings
    generators  B sources of randomness, one number drawn per sampled row; greedy rows need none
    returns (B,) ids and (B,) log-probabilities under the model itself, before any setting bends them
    """
    plain = logits.float()
    scores = _ban(_penalize(plain, history, sampling), sampling)
    ids = scores.argmax(-1)
    rows = [i for i, s in enumerate(sampling) if s.temperature > 0]
    if rows:
        ids[rows] = _draw(scores[rows], [sampling[i] for i in rows], [generators[i] for i in rows])
    return ids, plain.log_softmax(-1).gather(-1, ids[:, None]).squeeze(-1)


def likeliest(logits: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The ids (B, n) with the highest log-probabilities (B, n) under the model itself."""
    top = logits.float().log_softmax(-1).topk(count)
    return top.indices, top.values


def _penalize(scores: Tensor, history: Tensor, sampling: Sequence[Sampling]) -> Tensor:
    if all(s.repetition_penalty == 1 for s in sampling):
        return scores
    size = scores.shape[-1]
    seen = scores.new_zeros(len(scores), size + 1, dtype=torch.bool)  # the last column takes the filler
    seen.scatter_(1, history.where(history >= 0, size).clamp(max=size), True)
    penalty = torch.tensor([s.repetition_penalty for s in sampling]).to(scores.device)[:, None]
    return torch.where(seen[:, :size], torch.where(scores < 0, scores * penalty, scores / penalty), scores)


def _ban(scores: Tensor, sampling: Sequence[Sampling]) -> Tensor:
    if not any(s.banned for s in sampling):
        return scores
    scores = scores.clone()
    for row, s in zip(scores, sampling, strict=True):
        row[[index for index in s.banned if index < len(row)]] = -torch.inf
    return scores


def _draw(scores: Tensor, sampling: Sequence[Sampling], generators: Sequence[torch.Generator]) -> Tensor:
    """Scores (B, V) -> ids (B,): cut the tail off each row, then find where one random number falls."""
    size = scores.shape[-1]
    # A tiny temperature is greedy: no overflow, as the largest score is zero, and no division by a rounded zero.
    temperature = torch.tensor([max(s.temperature, 1e-6) for s in sampling]).to(scores.device)[:, None]
    probability = ((scores - scores.amax(-1, keepdim=True)) / temperature).softmax(-1)
    numbers = [torch.rand((), generator=generator).item() for generator in generators]
    cuts = torch.tensor(
        [(min(s.top_k or size, size), s.top_p, s.min_p, number) for s, number in zip(sampling, numbers, strict=True)]
    ).to(scores.device)
    chosen = _land(probability.cumsum(-1), cuts[:, 3:]).squeeze(-1)
    rows = [i for i, s in enumerate(sampling) if s.top_k or s.top_p < 1 or s.min_p]
    if rows:
        chosen[rows] = _cut(probability[rows], cuts[rows])
    return chosen


def _cut(probability: Tensor, cuts: Tensor) -> Tensor:
    """Choose among the likeliest tokens: probability (B, V), cuts (B, 4) of top_k, top_p, min_p, number -> ids (B,)."""
    size = probability.shape[-1]
    # Sorting a vocabulary is slow, and what is kept is mostly a few tokens.
    near = probability.topk(min(NEAR, size))
    near_ids, place = near.indices.sort(dim=-1)
    likely, order = near.values.gather(-1, place).sort(dim=-1, descending=True, stable=True)
    chosen, is_whole = _pick(likely, near_ids.gather(-1, order), cuts, size)
    if not is_whole.all():
        wide = ~is_whole
        chosen[wide] = _pick(*probability[wide].sort(dim=-1, descending=True, stable=True), cuts[wide], size)[0]
    return chosen


def _pick(likely: Tensor, ids: Tensor, cuts: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Cut rows whose tokens are sorted already.

    likely  (B, n)  the largest probabilities, in falling order; equal ones by rising id, so that no neighbour decides
    ids     (B, n)  their tokens
    returns (B,) chosen ids, (B,) True where the n tokens hold all that the cuts keep of `size`
    """
    num_tokens = likely.shape[-1]
    top_k, top_p, min_p, number = cuts.split(1, -1)  # each (B, 1)
    mass = likely.cumsum(-1)
    held = mass.gather(-1, top_k.long().clamp(max=num_tokens) - 1).where(top_k < size, 1.0)  # by the top_k tokens
    keep = torch.arange(num_tokens, device=likely.device) < top_k
    keep &= mass - likely < top_p * held  # what is likelier does not hold top_p yet
    keep &= likely >= likely[:, :1] * min_p
    last = keep.sum(-1, keepdim=True) - 1
    is_whole = (likely.gather(-1, last) > likely[:, -1:]) & ((top_k <= num_tokens) | (top_k >= size))
    place = _land(mass.minimum(mass.gather(-1, last)), number)
    return ids.gather(-1, place).squeeze(-1), is_whole.squeeze(-1)


def _land(mass: Tensor, number: Tensor) -> Tensor:
    """Where a number in [0, 1) falls: rising sums of probability (B, n), numbers (B, 1) -> (B, 1)."""
    total = mass[:, -1:]
    # Never the total itself, to which the product may be rounded: behind it stand tokens of no probability.
    below = torch.nextafter(total, torch.zeros_like(total))
    return torch.searchsorted(mass, (number * total).minimum(below), right=True)
