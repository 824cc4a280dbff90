"""Next-token logits (B, V) -> one id per row and its log-probability; every row has its own settings and seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ming_omni.errors import InputError


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
    seed: int | None = None
    """The same seed gives the same answer, whatever else runs beside it; None: drawn anew."""
    banned: tuple[int, ...] = ()
    """Ids that are never chosen."""

    def __post_init__(self):
        rules = (
            ("temperature", self.temperature >= 0, "0 or more"),
            ("top_k", self.top_k >= 0, "0 or more"),
            ("top_p", 0 < self.top_p <= 1, "above 0 and at most 1"),
            ("min_p", 0 <= self.min_p <= 1, "from 0 to 1"),
            ("repetition_penalty", self.repetition_penalty > 0, "above 0"),
            ("seed", self.seed is None or -(2**63) <= self.seed < 2**64, "a 64-bit integer"),
        )
        for name, holds, range_ in rules:
            if not holds:
                raise InputError(f"{name} is {range_}, not {getattr(self, name)}")

    def generator(self) -> torch.Generator:
        """A fresh source of randomness for one row; on the CPU, so that a seed means the same on every device."""
        generator = torch.Generator()
        if self.seed is None:
            generator.seed()
        else:
            generator.manual_seed(self.seed)
        return generator


GREEDY = Sampling()


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
    penalty = _column(scores, [s.repetition_penalty for s in sampling])
    return torch.where(seen[:, :size], torch.where(scores < 0, scores * penalty, scores / penalty), scores)


def _ban(scores: Tensor, sampling: Sequence[Sampling]) -> Tensor:
    if not any(s.banned for s in sampling):
        return scores
    scores = scores.clone()
    for row, s in zip(scores, sampling, strict=True):
        row[list(s.banned)] = -torch.inf
    return scores


def _draw(scores: Tensor, sampling: Sequence[Sampling], generators: Sequence[torch.Generator | None]) -> Tensor:
    """Scores (B, V) -> ids (B,): cut the tail off each row, then find where one random number falls."""
    size = scores.shape[-1]
    # A tiny temperature is greedy: no overflow, as the largest score is zero, and no division by a rounded zero.
    temperature = _column(scores, [max(s.temperature, 1e-6) for s in sampling])
    scores = (scores - scores.amax(-1, keepdim=True)) / temperature
    scores, order = scores.sort(dim=-1, descending=True, stable=True)
    rank = torch.arange(size, device=scores.device)
    scores = scores.masked_fill(rank >= _column(scores, [s.top_k or size for s in sampling]), -torch.inf)
    probability = scores.softmax(-1)
    before = probability.cumsum(-1) - probability  # probability of everything likelier
    keep = (probability > 0) & (before < _column(scores, [s.top_p for s in sampling]))
    keep &= probability >= probability[:, :1] * _column(scores, [s.min_p for s in sampling])
    mass = probability.where(keep, 0).cumsum(-1)
    number = _column(scores, [torch.rand((), generator=g).item() for g in generators])
    place = torch.searchsorted(mass, number * mass[:, -1:], right=True)
    place = place.minimum(keep.sum(-1, keepdim=True) - 1)  # rounding may carry a number past the end
    return order.gather(-1, place).squeeze(-1)


def _column(like: Tensor, values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float32).to(like.device, non_blocking=True)[:, None]
