"""What the routers of every layer decided -> losses, bias moves and figures that keep the experts evenly used.

Dual-balanced routing: text, image and audio tokens are balanced each among themselves, because pictures use experts
unevenly by nature and must not push words around. Two mechanisms work together: an auxiliary loss, which bends the
router, and a bias on the choice, which moves after every step and bends nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ming_omni.config import MODALITIES
from ming_omni.model.moe import MoE, Routing


@dataclass
class Strengths:
    """One number per modality; zero turns the mechanism off for it."""

    text: float = 0.0
    image: float = 0.0
    audio: float = 0.0

    def tensor(self, like: Tensor) -> Tensor:
        return torch.tensor([self.text, self.image, self.audio]).to(like.device, non_blocking=True)

    def only(self, names: Iterable[str]) -> Strengths:
        """The same for these modalities, zero for the others."""
        return Strengths(**{name: getattr(self, name) for name in names})


@dataclass
class BalanceSettings:
    mode: str = "sequence"
    """sequence: every sequence is balanced in itself; batch: only all that are read at once, in all processes."""
    auxiliary: Strengths = field(default_factory=lambda: Strengths(1e-4, 1e-4, 1e-4))
    bias_rate: Strengths = field(default_factory=lambda: Strengths(1e-3, 1e-3, 1e-3))
    """How far a bias moves in one step; 0 freezes it."""
    z_loss: float = 3.5e-6


def alone(tensor: Tensor) -> Tensor:
    """The sum over one process."""
    return tensor


def auxiliary_loss(
    layers: Sequence[Routing],
    strengths: Strengths,
    lengths: Sequence[int] | None = None,
    num_sequences: Tensor | None = None,
    total: Callable[[Tensor], Tensor] = alone,
) -> Tensor:
    """Sum over layers and modalities of strength * sum_i f_i P_i, from counts over the tokens of that modality only.

    f_i = E / (A T) * how often expert i was chosen; P_i = mean share of expert i in a token's scores. The gradient
    flows through P: an expert used too often gets lower scores.

    layers         what each decided for the same T tokens
    lengths        of the sequences that the T tokens are, one after another; None: the batch counts as one
    num_sequences  (3,) how many sequences of the whole step hold tokens of each modality
    total          sums counts over all processes; needed only when the batch counts as one
    """
    (num_tokens, num_chosen), modality, mask = layers[0].chosen.shape, layers[0].modality, layers[0].mask
    # All layers at once: on a GPU the many small operations cost more than what they compute.
    scores = torch.stack([layer.logits.float() for layer in layers]).sigmoid()
    shares = scores / scores.sum(-1, keepdim=True)  # (layers, T, E)
    chosen = torch.zeros_like(shares).scatter(2, torch.stack([layer.chosen for layer in layers]), 1.0)
    if mask is not None:
        chosen, shares = chosen * mask[:, None], shares * mask[:, None]
    group = layers[0].chosen.new_zeros(num_tokens) if modality is None else modality
    num_rows = 1 if lengths is None else len(lengths)
    if lengths is not None:
        row = torch.arange(num_rows).repeat_interleave(torch.tensor(lengths)).to(group.device, non_blocking=True)
        group = row * len(MODALITIES) + group
    none = shares.new_zeros(len(layers), num_rows * len(MODALITIES), shares.shape[-1])
    counts = none.index_add(1, group, chosen)  # (layers, G, E)
    if lengths is None:
        counts = total(counts)
    counted = (counts.sum(-1, keepdim=True) / num_chosen).clamp(min=1)  # tokens
    f = shares.shape[-1] / (num_chosen * counted) * counts
    p = none.index_add(1, group, shares) / counted
    losses = (f * p).sum(-1).sum(0).view(num_rows, -1).sum(0)  # (3,)
    if num_sequences is not None:
        losses = losses / num_sequences.to(losses, non_blocking=True).clamp(min=1)
    return (losses * strengths.tensor(losses)).sum()


def z_loss(layers: Sequence[Routing], num_tokens: float) -> Tensor:
    """Sum over layers of the mean square of log-sum-exp of the logits over the step's tokens: keeps logits small."""
    squares = torch.stack([layer.logits.float() for layer in layers]).logsumexp(-1).square()  # (layers, T)
    mask = layers[0].mask
    return (squares if mask is None else squares * mask).sum() / num_tokens


@torch.no_grad()
def move_bias(bias: Tensor, load: Tensor, rate: float) -> None:
    """One modality's bias (E,) up for experts used less than the mean, down for the others; its mean stays.

    load (E,)  how often each expert was chosen; all zero: the modality was absent, and no sign moves anything
    """
    direction = (load.mean() - load).sign()
    bias += rate * (direction - direction.mean())


class Loads:
    """How often each expert was chosen in one optimiser step: (layers, 3, E), over all micro-batches and processes."""

    def __init__(self, thinker: nn.Module):
        self.layers = [layer.mlp for layer in thinker.layers if isinstance(layer.mlp, MoE)]
        self.counts: Tensor | None = None

    def learning(self) -> list[str]:
        """Modalities whose routers learn, in one layer at least."""
        return [n for n in MODALITIES if any(layer.routers[n].weight.requires_grad for layer in self.layers)]

    def add(self, routings: Iterable[Routing]) -> None:
        loads = torch.stack([routing.load for routing in routings])
        self.counts = loads if self.counts is None else self.counts + loads

    def take(self, total: Callable[[Tensor], Tensor] = alone) -> Tensor | None:
        """The counts of the step, summed over processes; the next step starts from nothing."""
        counts, self.counts = self.counts, None
        return None if counts is None else total(counts)

    def move(self, counts: Tensor, rates: Strengths) -> None:
        """Move the bias of every router that learns by what the step counted."""
        for layer, load in zip(self.layers, counts, strict=True):
            for modality, name in enumerate(MODALITIES):
                if layer.routers[name].weight.requires_grad:
                    move_bias(layer.routers[name].bias, load[modality], getattr(rates, name))


def max_violation(load: Tensor) -> float:
    """How far the most used expert of (E,) lies above the mean, in means: 0 when all are used alike."""
    return float(load.max() / load.mean()) - 1


def dead_share(load: Tensor) -> float:
    """Experts of (E,) that nothing chose, as a share of all."""
    return float((load == 0).float().mean())


def entropy(load: Tensor) -> float:
    """Evenness of (E,): 1 when all experts are used alike, 0 when one does everything."""
    share = load / load.sum()
    return float(torch.special.entr(share).sum()) / math.log(len(load))


def figures(counts: Tensor) -> dict[str, float]:
    """The three figures for every modality and layer that saw tokens; counts (layers, 3, E)."""
    found = {}
    for layer, loads in enumerate(counts.float().cpu()):
        for name, load in zip(MODALITIES, loads, strict=True):
            if load.any():
                where = f"balance/{name}/layer_{layer:02d}"
                found[f"{where}/max_violation"] = max_violation(load)
                found[f"{where}/dead_share"] = dead_share(load)
                found[f"{where}/entropy"] = entropy(load)
    return found
