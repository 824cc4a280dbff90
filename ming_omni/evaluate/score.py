"""Right and wrong cases -> a score with its 95 % interval, floor, goal and what stands beside it; scores -> a table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ming_omni.evaluate.metrics import Errors, Share

Z = 1.96
"""Standard deviations to either side that hold 95 %."""
DRAWS = 2000


@dataclass(frozen=True)
class Score:
    ability: str
    value: float
    low: float
    high: float
    """of the 95 % interval"""
    count: int
    """clips, questions or conversations"""
    floor: float | None = None
    goal: float | None = None
    is_error: bool = False
    """smaller is better"""
    beside: dict[str, float] = field(default_factory=dict)
    """`blind` or `whisper-base` on the same cases"""
    is_ratio: bool = False
    """no percentage"""
    perplexities: dict[str, float] = field(default_factory=dict)
    """`own` and `base`, whose growth the score is"""

    @property
    def verdict(self) -> str:
        for name, bound in (("goal", self.goal), ("floor", self.floor)):
            if bound is not None and (self.value <= bound if self.is_error else self.value >= bound):
                return name
        return "" if self.floor is None else "below"


def share(ability: str, cases: Sequence[bool], floor: float | None, goal: float | None, **beside: float) -> Score:
    """Right answers among all, with Wilson's interval."""
    low, high = wilson(sum(cases), len(cases))
    return Score(ability, sum(cases) / max(1, len(cases)), low, high, len(cases), floor, goal, beside=beside)


def rate(
    ability: str, cases: Sequence[Errors | Share], floor: float | None, goal: float | None, **beside: float
) -> Score:
    """Errors among all units of all cases; the interval comes from drawing the cases anew."""
    pairs = np.array([_pair(case) for case in cases], dtype=float).reshape(-1, 2)
    return Score(ability, _rate(pairs), *bootstrap(pairs), len(cases), floor, goal, is_error=True, beside=beside)


def wilson(hits: int, count: int) -> tuple[float, float]:
    """95 % interval of a share; also where all or none are right it has a width."""
    if not count:
        return 0.0, 1.0
    p, spread = hits / count, Z**2 / count
    middle = (p + spread / 2) / (1 + spread)
    half = Z * math.sqrt(p * (1 - p) / count + spread / (4 * count)) / (1 + spread)
    return max(0.0, middle - half), min(1.0, middle + half)


def bootstrap(pairs: np.ndarray) -> tuple[float, float]:
    """95 % interval of a sum over a sum: pairs (n, 2) of what is counted and of what it is counted in."""
    if not len(pairs):
        return 0.0, math.inf
    draws = np.random.default_rng(0).integers(len(pairs), size=(DRAWS, len(pairs)))
    rates = [_rate(pairs[draw]) for draw in draws]
    return float(np.percentile(rates, 2.5)), float(np.percentile(rates, 97.5))


def _pair(case: Errors | Share) -> tuple[int, int]:
    return (case.total, case.length) if isinstance(case, Errors) else (case.count, case.total)


def _rate(pairs: np.ndarray) -> float:
    counted, units = pairs.sum(0)
    return float(counted / units) if units else (math.inf if counted else 0.0)


def table(scores: Sequence[Score]) -> str:
    """Markdown, a row for each score."""
    lines = [
        "| ability | score | 95 % | floor | goal | reached | beside | cases |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for s in scores:
        show = _plain if s.is_ratio else _percent
        beside = [f"{name} {show(value)}" for name, value in s.beside.items()]
        beside += [f"{name} {_plain(value)}" for name, value in s.perplexities.items()]
        cells = (s.ability, show(s.value), f"{show(s.low)} to {show(s.high)}", show(s.floor), show(s.goal), s.verdict)
        lines.append(f"| {' | '.join((*cells, ', '.join(beside), str(s.count)))} |")
    return "\n".join(lines) + "\n"


def targets(scores: Sequence[Score]) -> str:
    """Markdown: of those with a floor, whether it and the goal are met."""
    lines = ["| ability | score | floor | | goal | |", "|---|---|---|---|---|---|"]
    for s in scores:
        if s.floor is not None:
            show, met = _plain if s.is_ratio else _percent, s.verdict in ("floor", "goal")
            cells = (show(s.floor), _met(met), show(s.goal), _met(s.verdict == "goal") if s.goal is not None else "")
            lines.append(f"| {' | '.join((s.ability, show(s.value), *cells))} |")
    return "\n".join(lines) + "\n"


def _met(is_met: bool) -> str:
    return "met" if is_met else "not met"


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f} %"


def _plain(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
