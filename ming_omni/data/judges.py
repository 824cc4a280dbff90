"""Pictures (B, 3, S, S) -> the things in them, with colours and places: a small detector for what the painter paints.

It learns from other artists' drawings than the painter does, so that it cannot reward the painter's own habits, and it
is itself judged: by its confusions, and by how surely it rejects a picture of something else than was asked for.
"""

from __future__ import annotations

import json
import math
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from itertools import permutations
from multiprocessing import get_context
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from ming_omni.data.bank import JUDGE_STYLES, PAINTER_STYLES, Bank, Stock, stock
from ming_omni.data.examples import Example
from ming_omni.data.eyes import Eyes
from ming_omni.data.names import COLOURS
from ming_omni.data.pictures import draw, example
from ming_omni.data.render import Rendered
from ming_omni.data.scenes import pick
from ming_omni.data.shards import worker
from ming_omni.data.splits import generator

COLOUR_NAMES = (*COLOURS, None)
"""The last one means: as drawn."""
FAULTS = ("concept", "count", "colour")
"""What may be wrong with a picture: a thing is another, is one too many, has another colour."""
MOST_WRONG_ACCEPTED = 0.04
"""Of each fault, on dev pictures: it sets the limits of the judge's belief."""


@dataclass(frozen=True)
class Seen:
    """One peak: where, how surely something is there, and how likely it is each concept and each colour."""

    x: float
    y: float
    certainty: float
    concepts: Tensor
    colours: Tensor


class Judge(nn.Module):
    def __init__(self, concepts: Sequence[str], width: float = 1.0, limits: dict[str, float] | None = None):
        super().__init__()
        self.concepts, self.width = list(concepts), width
        self.limits = limits or dict.fromkeys(FAULTS, 0.5)
        self.eyes, inner = Eyes(width), max(16, 8 * round(32 * width))
        near, far = self.eyes.channels
        self.near, self.far = nn.Conv2d(near, inner, 1), nn.Conv2d(far, inner, 1)
        self.joined = nn.Sequential(
            nn.GroupNorm(8, inner), nn.GELU(), nn.Conv2d(inner, inner, 3, padding=1), nn.GroupNorm(8, inner), nn.GELU()
        )
        self.head = nn.Conv2d(inner, 3 + len(self.concepts) + len(COLOUR_NAMES), 1)
        nn.init.constant_(self.head.bias[:1], -3.0)  # few cells hold a thing

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(B, 3, S, S) in [0, 255] -> per cell: presence (B, h, w), offset (B, h, w, 2), concept and colour logits."""
        near, far = self.eyes(pictures.float())
        far = F.interpolate(self.far(far), size=near.shape[2:], mode="bilinear", align_corners=False)
        x = self.head(self.joined(self.near(near) + far)).permute(0, 2, 3, 1).float()
        presence, offset, concept, colour = x.split((1, 2, len(self.concepts), len(COLOUR_NAMES)), -1)
        return presence[..., 0], offset.sigmoid(), concept, colour

    @torch.inference_mode()
    def look(self, pictures: Tensor, threshold: float = 0.05) -> list[list[Seen]]:
        """What may be there in each picture: peaks of presence, the surest first."""
        presence, offset, concept, colour = self(pictures)
        certainty, side = presence.sigmoid(), presence.shape[1]
        is_peak = (certainty == F.max_pool2d(certainty[:, None], 3, 1, 1)[:, 0]) & (certainty > threshold)
        b, i, j = is_peak.nonzero().unbind(1)
        places = ((torch.stack([j, i], 1) + offset[b, i, j]) / side).cpu()
        concepts, colours = concept[b, i, j].softmax(-1).cpu(), colour[b, i, j].softmax(-1).cpu()
        found: list[list[Seen]] = [[] for _ in pictures]
        sure = certainty[b, i, j].tolist()
        for n in sorted(range(len(sure)), key=lambda n: -sure[n]):
            found[int(b[n])].append(Seen(*places[n].tolist(), sure[n], concepts[n], colours[n]))
        return found

    def agrees(self, facts: dict, seen: Sequence[Seen]) -> bool:
        """Whether exactly the asked things are there, as often as asked, in the asked colour where there was one."""
        beliefs = self.beliefs(facts, seen)
        return all(beliefs[fault] > self.limits[fault] for fault in FAULTS)

    def beliefs(self, facts: dict, seen: Sequence[Seen]) -> dict[str, float]:
        """How likely the picture is free of each fault, at its weakest thing."""
        wanted, count = facts["things"], len(facts["things"])
        sure = [*(item.certainty for item in seen[: count + 1]), 0.0, 0.0]
        if len(seen) < count:
            return dict.fromkeys(FAULTS, 0.0)
        best = (-math.inf, 0.0, 0.0)
        for order in set(permutations(map(tuple, wanted))):
            concepts = [float(item.concepts[self._place(name)]) for item, (name, _) in zip(seen, order, strict=False)]
            colours = [
                float(item.colours[COLOUR_NAMES.index(colour)]) if colour else 1.0
                for item, (_, colour) in zip(seen, order, strict=False)
            ]
            total = sum(math.log(value + 1e-9) for value in (*concepts, *colours))
            best = max(best, (total, min(concepts), min(colours)))
        return {"concept": best[1], "count": min(sure[count - 1], 1 - sure[count]), "colour": best[2]}

    def _place(self, concept: str) -> int:
        return self.concepts.index(concept)

    def name(self, item: Seen) -> str:
        return self.concepts[int(item.concepts.argmax())]

    def save(self, path: Path) -> None:
        about = {"concepts": self.concepts, "width": self.width, "limits": self.limits}
        weights = {k: v.half() if v.is_floating_point() else v for k, v in self.state_dict().items()}
        save_file(weights, path, metadata={"about": json.dumps(about, ensure_ascii=False)})

    @classmethod
    def load(cls, path: Path) -> Judge:
        with safe_open(path, "pt") as file:
            judge = cls(**json.loads(file.metadata()["about"]))
            judge.load_state_dict({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118  it is no dict
        return judge.eval()


# Training


def loss(judge: Judge, pictures: Tensor, examples: Sequence[Example]) -> Tensor:
    presence, offset, concept, colour = judge(pictures)
    side, device = presence.shape[1], presence.device
    rows = [(b, thing) for b, item in enumerate(examples) for thing in item.scenes[0].things]
    places = torch.tensor([[t.x * side, t.y * side] for _, t in rows], device=device).clamp(0, side - 1e-3)
    cells = places.long()
    at = (torch.tensor([b for b, _ in rows], device=device), cells[:, 1], cells[:, 0])
    names = {name: i for i, name in enumerate(judge.concepts)}
    wanted = torch.zeros_like(presence)
    wanted[at] = 1.0
    # Few cells hold a thing, so that each of them weighs as much as several empty ones.
    return (
        F.binary_cross_entropy_with_logits(presence, wanted, pos_weight=torch.tensor(8.0, device=device)) * 4
        + F.cross_entropy(
            concept[at], torch.tensor([names[t.concept] for _, t in rows], device=device), label_smoothing=0.1
        )
        + F.cross_entropy(colour[at], torch.tensor([COLOUR_NAMES.index(t.colour) for _, t in rows], device=device))
        + F.l1_loss(offset[at], places - cells)
    )


def varied(drawn: Sequence[Rendered], examples: Sequence[Example]) -> Tensor:
    """(B, 3, S, S) in [0, 255]: as another artist might have drawn it; hues stay where a colour is asked for."""
    pictures = torch.cat([d.pictures for d in drawn]).float()
    owners = torch.cat([d.owners for d in drawn])
    count, device = len(pictures), pictures.device

    def chance(part: float) -> Tensor:
        return (torch.rand(count, 1, 1, 1, device=device) < part).float()

    def spread(scale: float, *shape: int) -> Tensor:
        return torch.randn(count, *shape, device=device) * scale

    is_free = torch.tensor([not any(t.colour for t in item.scenes[0].things) for item in examples], device=device)
    bend = torch.where(is_free, 0.18, 0.03)[:, None, None] * spread(1.0, 3, 3) + torch.eye(3, device=device)
    grey = torch.tensor([0.3, 0.6, 0.1], device=device).expand(3, 3)
    is_grey = (torch.rand(count, device=device) < 0.12) & is_free
    bend = torch.where(is_grey[:, None, None], grey, bend)
    pictures = torch.einsum("bij,bjhw->bihw", bend, pictures)
    # Light from a side, on the things alone; a dark line around them; softer or harder drawing.
    inside = ((owners > 0) & (owners < 255)).float()[:, None]
    slope = F.interpolate(spread(35.0, 1, 3, 3), size=pictures.shape[2:], mode="bicubic", align_corners=False)
    pictures = pictures + slope * inside * chance(0.5)
    body = F.max_pool2d(inside, 3, 1, 1)
    line = (body + F.max_pool2d(-inside, 3, 1, 1)) * chance(0.3)  # where the neighbourhood is not all one
    pictures = pictures * (1 - line) + 70 * torch.rand(count, 1, 1, 1, device=device) * line
    soft = F.avg_pool2d(F.pad(pictures, (2, 2, 2, 2), mode="replicate"), 5, 1)
    pictures = torch.lerp(pictures, soft, spread(0.6, 1, 1, 1).clamp(-1.0, 1.0))
    pictures = 255 * (pictures.clamp(0, 255) / 255) ** spread(0.2, 1, 1, 1).exp()
    return (pictures + spread(6.0, *pictures.shape[1:]) * chance(0.4)).clamp(0, 255)


def plan(bank: Path, styles: tuple[str, ...], seed: int, start: int, count: int) -> list[Example]:
    """Scenes with a thing in them, not yet drawn."""
    chosen = _stock(bank, styles)
    found = [example(chosen, "paint", seed, i) for i in range(start, start + count)]
    return [item for item in found if item.scenes[0].things]


@cache
def _stock(bank: Path, styles: tuple[str, ...]) -> Stock:
    return stock(Bank(bank), "train", styles)


def plans(
    bank: Path, styles: tuple[str, ...], seed: int, steps: int, batch: int, workers: int
) -> Iterator[list[Example]]:
    """Every step's scenes, thought out by other processes a little ahead of the training."""
    if workers <= 1:
        yield from (plan(bank, styles, seed, step * batch, batch) for step in range(steps))
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=worker) as pool:
        waiting = []
        try:
            for step in range(steps):
                waiting.append(pool.submit(plan, bank, styles, seed, step * batch, batch))
                if len(waiting) > 4 * workers:
                    yield waiting.pop(0).result()
            while waiting:
                yield waiting.pop(0).result()
        finally:
            pool.shutdown(cancel_futures=True)


def train(
    judge: Judge, chosen: Stock, planned: Iterator[list[Example]], steps: int, size: int, rate: float, seconds: float,
    has_seen: bool,
) -> int:  # fmt: skip
    """Along a cosine that ends with the steps or the seconds, whichever comes first; returns the steps done."""
    device = next(judge.parameters()).device.type
    eyes = set(judge.eyes.parameters()) if has_seen else set()
    groups = [
        {"params": [p for p in judge.parameters() if p not in eyes], "share": 1.0},
        {"params": list(eyes), "share": 0.25},  # what photographs taught is bent, not replaced
    ]
    optimizer = torch.optim.AdamW([group for group in groups if group["params"]], rate, weight_decay=0.02)
    began, done = time.monotonic(), 0
    for step, examples in enumerate(planned):
        progress = max(step / steps, (time.monotonic() - began) / seconds)
        if progress >= 1:
            break
        for group in optimizer.param_groups:
            group["lr"] = rate * group["share"] * min(1, step / 50 + 0.02) * 0.5 * (1 + math.cos(math.pi * progress))
        pictures = varied(draw(chosen, examples, size), examples)
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            value = loss(judge, pictures, examples)
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        nn.utils.clip_grad_norm_(judge.parameters(), 1.0)
        optimizer.step()
        done = step + 1
    return done


def _report(folder: Path) -> dict:
    path = folder / "report.json"
    return json.loads(path.read_text()) if path.exists() else {}


def train_judge(
    bank: Path, folder: Path, *, seed: int = 0, steps: int = 4000, batch: int = 32, size: int = 256, width: float = 1.0,
    rate: float = 2e-3, device: str = "cpu", styles: Sequence[str] = JUDGE_STYLES, exam: int = 512, workers: int = 1,
    seconds: float = math.inf, start: Path | None = None,
) -> dict:  # fmt: skip
    """Train, write `judge.safetensors` and `report.json`; returns the report's main figures.

    A judge that is there already is only examined again.

    seconds   the schedule ends after that long, or after `steps`, whichever comes first
    start     an unpacked package with the eyes' weights; without it they start blind
    """
    folder.mkdir(parents=True, exist_ok=True)
    shelf, path = Bank(bank, device), folder / "judge.safetensors"
    chosen = stock(shelf, "train", styles)
    began, about = time.monotonic(), {"seed": seed}
    if path.exists():
        judge = Judge.load(path).to(device)
        about |= {key: value for key, value in _report(folder).items() if key in ("steps", "seconds")}
    else:
        torch.manual_seed(seed)
        judge = Judge(sorted(shelf.concepts), width)
        if start is not None:
            judge.eyes.start_from(start)
        about["steps"] = train(
            judge.to(device), chosen, plans(bank, tuple(styles), seed, steps, batch, workers), steps, size, rate,
            seconds, start is not None,
        )  # fmt: skip
        about["seconds"] = round(time.monotonic() - began)
    judge.eval()
    dev = stock(shelf, "dev", (*styles, *PAINTER_STYLES))
    judge.limits = find_limits(judge, dev, seed, exam, size)
    judge.save(path)
    sets = {
        "judge's artists, known drawings": chosen,
        "judge's artists, drawings unseen": stock(shelf, "test", styles),
        "painter's artists, all unseen": stock(shelf, "train", PAINTER_STYLES),
    }
    report = (
        about | {"limits": judge.limits} | {name: examine(judge, part, seed, exam, size) for name, part in sets.items()}
    )
    (folder / "report.json").write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    return {name: {k: v for k, v in report[name].items() if k != "confusions"} for name in sets}


# How good the judge is


def wrong(facts: dict, concepts: Sequence[str], seed: int) -> tuple[str, dict]:
    """A fault, and the facts of a picture that was not painted: its right picture would have it."""
    numbers = generator(seed, "wrong")
    things = [list(thing) for thing in facts["things"]]
    place = int(numbers.integers(len(things)))
    fault = pick(numbers, FAULTS if things[place][1] else FAULTS[:2])
    if fault == "concept":
        things[place][0] = pick(numbers, [name for name in concepts if name not in {t[0] for t in things}])
    elif fault == "count":
        things.append(list(things[place]))
    else:
        things[place][1] = pick(numbers, [name for name in COLOURS if name != things[place][1]])
    return fault, {"things": things}


def looks(judge: Judge, chosen: Stock, seed: int, count: int, size: int) -> Iterator[tuple[int, Example, list[Seen]]]:
    device = next(judge.parameters()).device
    for begin in range(0, count, 32):
        examples = [example(chosen, "paint", seed, begin + i) for i in range(32)]
        examples = [item for item in examples if item.scenes[0].things]
        pictures = torch.cat([drawn.pictures for drawn in draw(chosen, examples, size)]).to(device)
        for number, (item, seen) in enumerate(zip(examples, judge.look(pictures), strict=True)):
            yield begin + number, item, seen


def find_limits(judge: Judge, dev: Stock, seed: int, count: int, size: int) -> dict[str, float]:
    """As low as lets pass few of the wrong pictures of each fault."""
    passed: dict[str, list[float]] = {fault: [] for fault in FAULTS}
    for number, item, seen in looks(judge, dev, seed + 2, 2 * count, size):
        for turn in range(4):
            fault, facts = wrong(item.facts, judge.concepts, 4 * number + turn)
            passed[fault].append(judge.beliefs(facts, seen)[fault])
    return {
        fault: float(torch.tensor(values or [0.5]).quantile(1 - MOST_WRONG_ACCEPTED))
        for fault, values in passed.items()
    }


def examine(judge: Judge, chosen: Stock, seed: int, count: int = 512, size: int = 256) -> dict:
    """Right pictures accepted, wrong ones rejected, things and colours named rightly, and the usual confusions."""
    accepted = total = 0
    rejected: dict[str, Counter] = {fault: Counter() for fault in FAULTS}
    named, coloured, confusions = Counter(), Counter(), Counter()
    for number, item, seen in looks(judge, chosen, seed + 1, count, size):
        total += 1
        accepted += judge.agrees(item.facts, seen)
        fault, facts = wrong(item.facts, judge.concepts, number)
        rejected[fault][not judge.agrees(facts, seen)] += 1
        sure = [peak for peak in seen if peak.certainty > 0.5]
        for thing in item.scenes[0].things:
            nearest = min(sure, key=lambda f: (f.x - thing.x) ** 2 + (f.y - thing.y) ** 2, default=None)
            is_seen = nearest is not None and (nearest.x - thing.x) ** 2 + (nearest.y - thing.y) ** 2 < 0.1**2
            name = judge.name(nearest) if is_seen else "nothing"
            named[name == thing.concept] += 1
            if thing.colour and is_seen:
                coloured[COLOUR_NAMES[int(nearest.colours.argmax())] == thing.colour] += 1
            if name != thing.concept:
                confusions[f"{thing.concept} -> {name}"] += 1
    all_rejected = sum(rejected.values(), Counter())
    return {
        "pictures": total,
        "right_accepted": round(accepted / total, 4),
        "wrong_rejected": round(all_rejected[True] / total, 4),
        "rejected_by_fault": {f: round(c[True] / max(1, c.total()), 4) for f, c in rejected.items()},
        "things_named": round(named[True] / named.total(), 4),
        "colours_named": round(coloured[True] / max(1, coloured.total()), 4),
        "confusions": dict(confusions.most_common(50)),
    }
