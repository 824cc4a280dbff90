"""Pictures (B, 3, S, S) -> the things in them, with colours and places: a small detector for what the painter paints.

It learns from other artists' drawings than the painter does, so that it cannot reward the painter's own habits, and it
is itself judged: by its confusions, and by how surely it rejects a picture of something else than was asked for.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from ming_omni.data.bank import JUDGE_STYLES, PAINTER_STYLES, Bank, Stock, stock
from ming_omni.data.examples import Example
from ming_omni.data.names import COLOURS
from ming_omni.data.pictures import draw, example
from ming_omni.data.scenes import pick
from ming_omni.data.splits import generator

STRIDE = 16
"""Pixels of a cell; at most one thing has its middle in a cell."""
NUM_COLOURS = len(COLOURS) + 1
"""The last one means: as drawn."""


@dataclass(frozen=True)
class Found:
    concept: str
    colour: str | None
    x: float
    y: float
    certainty: float


class Residual(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1),
            nn.GroupNorm(8, width),
            nn.GELU(),
            nn.Conv2d(width, width, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class Judge(nn.Module):
    def __init__(self, concepts: Sequence[str], width: int = 64):
        super().__init__()
        self.concepts, self.width = list(concepts), width
        layers: list[nn.Module] = []
        inputs = 3
        for factor in (1, 2, 4, 6):
            outputs = width * factor
            layers += [nn.Conv2d(inputs, outputs, 3, 2, 1), nn.GroupNorm(8, outputs), nn.GELU(), Residual(outputs)]
            inputs = outputs
        self.body = nn.Sequential(*layers, Residual(inputs))
        self.head = nn.Conv2d(inputs, 3 + len(self.concepts) + NUM_COLOURS, 1)

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(B, 3, S, S) uint8 -> per cell: presence (B, h, w), offset (B, h, w, 2), concept and colour logits."""
        x = self.head(self.body(pictures.float() / 127.5 - 1)).permute(0, 2, 3, 1)
        presence, offset, concept, colour = x.split((1, 2, len(self.concepts), NUM_COLOURS), -1)
        return presence[..., 0], offset.sigmoid(), concept, colour

    @torch.inference_mode()
    def look(self, pictures: Tensor, threshold: float = 0.5) -> list[list[Found]]:
        """What is seen in each picture: peaks of presence."""
        presence, offset, concept, colour = self(pictures)
        certainty = presence.sigmoid()
        is_peak = (certainty == F.max_pool2d(certainty[:, None], 3, 1, 1)[:, 0]) & (certainty > threshold)
        side, names = presence.shape[1], [*COLOURS, None]
        found: list[list[Found]] = [[] for _ in pictures]
        for b, i, j in is_peak.nonzero().tolist():
            x, y = ((torch.tensor([j, i]) + offset[b, i, j].cpu()) / side).tolist()
            what, which = int(concept[b, i, j].argmax()), int(colour[b, i, j].argmax())
            found[b].append(Found(self.concepts[what], names[which], x, y, float(certainty[b, i, j])))
        return found

    def save(self, path: Path) -> None:
        about = json.dumps({"concepts": self.concepts, "width": self.width}, ensure_ascii=False)
        save_file(self.state_dict(), path, metadata={"about": about})

    @classmethod
    def load(cls, path: Path) -> Judge:
        with safe_open(path, "pt") as file:
            about = json.loads(file.metadata()["about"])
            judge = cls(about["concepts"], about["width"])
            judge.load_state_dict({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118  it is no dict
        return judge.eval()


def loss(judge: Judge, pictures: Tensor, examples: Sequence[Example]) -> Tensor:
    presence, offset, concept, colour = judge(pictures)
    side, device = presence.shape[1], presence.device
    rows = [(b, thing) for b, item in enumerate(examples) for thing in item.scenes[0].things]
    places = torch.tensor([[t.x * side, t.y * side] for _, t in rows], device=device).clamp(0, side - 1e-3)
    cells = places.long()
    at = (torch.tensor([b for b, _ in rows], device=device), cells[:, 1], cells[:, 0])
    names = {name: i for i, name in enumerate(judge.concepts)}
    colours = {name: i for i, name in enumerate(COLOURS)}
    wanted = torch.zeros_like(presence)
    wanted[at] = 1.0
    # Few cells hold a thing, so that each of them weighs as much as several empty ones.
    return (
        F.binary_cross_entropy_with_logits(presence, wanted, pos_weight=torch.tensor(8.0, device=device)) * 4
        + F.cross_entropy(concept[at], torch.tensor([names[t.concept] for _, t in rows], device=device))
        + F.cross_entropy(
            colour[at], torch.tensor([colours.get(t.colour, NUM_COLOURS - 1) for _, t in rows], device=device)
        )
        + F.l1_loss(offset[at], places - cells)
    )


def train_judge(
    bank: Path, folder: Path, *, seed: int = 0, steps: int = 4000, batch: int = 32, size: int = 256, width: int = 64,
    rate: float = 2e-3, device: str = "cpu", styles: Sequence[str] = JUDGE_STYLES, exam: int = 512,
) -> dict:  # fmt: skip
    """Train, write `judge.safetensors` and `report.json`; returns the report's main figures."""
    folder.mkdir(parents=True, exist_ok=True)
    shelf = Bank(bank, device)
    chosen = stock(shelf, "train", styles)
    torch.manual_seed(seed)
    judge = Judge(sorted(shelf.concepts), width).to(device)
    optimizer = torch.optim.AdamW(judge.parameters(), rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, max(steps, 2), pct_start=0.1)
    for step in range(steps):
        examples = [example(chosen, "paint", seed, step * batch + i) for i in range(batch)]
        examples = [item for item in examples if item.scenes[0].things]
        pictures = torch.cat([drawn.pictures for drawn in draw(chosen, examples, size)])
        value = loss(judge, pictures, examples)
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        nn.utils.clip_grad_norm_(judge.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    judge.eval().save(folder / "judge.safetensors")
    sets = {"judge's artists, drawings unseen": stock(shelf, "test", styles)}
    sets["painter's artists, all unseen"] = stock(shelf, "train", PAINTER_STYLES)
    report = {"steps": steps, "seed": seed} | {
        name: examine(judge, part, seed, exam, size) for name, part in sets.items()
    }
    (folder / "report.json").write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    return {name: {k: v for k, v in report[name].items() if k != "confusions"} for name in sets}


# How good the judge is


def agrees(facts: dict, found: Sequence[Found]) -> bool:
    """Whether exactly the asked things are seen, as often as asked, and in the asked colour where there was one."""
    wanted = Counter(concept for concept, _ in facts["things"])
    if Counter(item.concept for item in found) != wanted:
        return False
    coloured = Counter((concept, colour) for concept, colour in facts["things"] if colour)
    seen = Counter((item.concept, item.colour) for item in found)
    return all(seen[key] >= count for key, count in coloured.items())


def wrong(facts: dict, concepts: Sequence[str], seed: int) -> dict:
    """The facts of a picture that was not painted: one thing is another, one more, or of another colour."""
    numbers = generator(seed, "wrong")
    things = [list(thing) for thing in facts["things"]]
    place = int(numbers.integers(len(things)))
    kind = numbers.integers(3)
    if kind == 0 or (kind == 2 and not things[place][1]):
        things[place][0] = pick(numbers, [name for name in concepts if name not in {t[0] for t in things}])
    elif kind == 1:
        things.append(list(things[place]))
    else:
        things[place][1] = pick(numbers, [name for name in COLOURS if name != things[place][1]])
    return {"things": things}


def examine(judge: Judge, chosen: Stock, seed: int, count: int = 512, size: int = 256, batch: int = 32) -> dict:
    """Right pictures accepted, wrong ones rejected, things and colours named rightly, and the usual confusions."""
    accepted = rejected = total = 0
    named, coloured, confusions = Counter(), Counter(), Counter()
    for start in range(0, count, batch):
        examples = [example(chosen, "paint", seed + 1, start + i) for i in range(batch)]
        examples = [item for item in examples if item.scenes[0].things]
        pictures = torch.cat([drawn.pictures for drawn in draw(chosen, examples, size)])
        for number, (item, found) in enumerate(zip(examples, judge.look(pictures), strict=True)):
            total += 1
            accepted += agrees(item.facts, found)
            rejected += not agrees(wrong(item.facts, judge.concepts, start + number), found)
            for thing in item.scenes[0].things:
                nearest = min(found, key=lambda f: (f.x - thing.x) ** 2 + (f.y - thing.y) ** 2, default=None)
                is_seen = nearest is not None and (nearest.x - thing.x) ** 2 + (nearest.y - thing.y) ** 2 < 0.1**2
                name = nearest.concept if is_seen else "nothing"
                named[name == thing.concept] += 1
                if thing.colour and is_seen:
                    coloured[nearest.colour == thing.colour] += 1
                if name != thing.concept:
                    confusions[f"{thing.concept} -> {name}"] += 1
    return {
        "pictures": total,
        "right_accepted": round(accepted / total, 4),
        "wrong_rejected": round(rejected / total, 4),
        "things_named": round(named[True] / named.total(), 4),
        "colours_named": round(coloured[True] / max(1, coloured.total()), 4),
        "confusions": dict(confusions.most_common(50)),
    }
