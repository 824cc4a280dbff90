"""Scenes and films of the test through `Ming.ask` -> shares of right answers, beside those of guessing blindly."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ming_omni.data.bank import Bank, Stock, stock
from ming_omni.data.blind import blind_accuracy
from ming_omni.data.examples import Example
from ming_omni.data.pictures import draw, example
from ming_omni.evaluate.quick import is_right, plain
from ming_omni.evaluate.score import Score, share

SEED = 9
AT_ONCE = 16
"""Pictures that the engine works on side by side."""
SIZE = 256
FILM_FRAMES_PER_SECOND = 4
MOST_TOKENS = 32
GUESSED = {"question": (6000, 3000), "film": (3000, 1500)}
"""Examples of training that guessing learns from, and of the test that it is tried on: more than are asked, since the
best of several guessers is lucky on a few."""
LONGEST_LATIN, LONGEST_CHINESE = 8, 4


@dataclass(frozen=True)
class Row:
    ability: str
    templates: tuple[str, ...]
    """of questions, without their language"""
    part: float = 1.0
    """of the limit"""


SCENES = (
    Row("- what", ("what", "what left", "what right", "what above", "what below")),
    Row("- is there", ("is there",)),
    Row("counting to 6", ("how many",), 1.5),
    Row("positions", ("where", "side"), 1.5),
    Row("colours", ("colour",), 1.5),
)
FILMS = (
    Row("video: direction", ("direction",), 0.5),
    Row("video: order", ("order",), 0.5),
    Row("video: count", ("film count",), 0.5),
    Row("- video: what appears, disappears", ("appears", "disappears"), 0.5),
)


def scene_scores(ming: Any, bank: Path, limit: int) -> list[Score]:
    found = _rows(ming, Bank(bank), "question", SCENES, limit)
    rights = [right for _, cases, _ in found for right in cases]
    blind = _mean([(guess, len(cases)) for _, cases, guess in found])
    whole = share("scene questions", rights, 0.85, 0.95, blind=blind)
    return [whole, *(_score(row, cases, guess) for row, cases, guess in found)]


def video_scores(ming: Any, bank: Path, limit: int) -> list[Score]:
    return [_score(row, cases, guess) for row, cases, guess in _rows(ming, Bank(bank), "film", FILMS, limit)]


def word_scores(ming: Any, bank: Path, limit: int) -> list[Score]:
    """Printed words, letter by letter; those of capitals alone count as another spelling only beside the score."""
    chosen = stock(Bank(bank), "test")
    examples = _chosen(chosen, "question", {"latin": limit, "chinese": limit}, _script)
    found = []
    bounds = {"latin": ("printed words, Latin", 0.80, 0.95), "chinese": ("printed words, Chinese", 0.60, 0.85)}
    said = dict(zip(map(id, examples), answers(ming, chosen, examples), strict=True))
    for script, (ability, floor, goal) in bounds.items():
        pairs = [(item.answer, said[id(item)]) for item in examples if _script(item) == script]
        exact = [_bare(right) == _bare(answer) for right, answer in pairs]
        loose = sum(is_right(right, answer) for right, answer in pairs) / max(1, len(pairs))
        beside = {"ignoring case": loose} if script == "latin" else {}
        found.append(share(ability, exact, floor, goal, **beside))
    return found


def _script(item: Example) -> str | None:
    if _template(item) != "says":
        return None
    if item.answer.isascii():
        return "latin" if len(item.answer) <= LONGEST_LATIN else None
    return "chinese" if len(item.answer) <= LONGEST_CHINESE else None


def _bare(text: str) -> str:
    return text.strip(" .!?\"'“”。！")


def _rows(ming: Any, bank: Bank, kind: str, rows: Sequence[Row], limit: int) -> list[tuple[Row, list[bool], float]]:
    """Each row, its cases, and how far guessing goes."""
    chosen = stock(bank, "test")
    row_of = {template: row for row in rows for template in row.templates}
    quotas = {row: max(1, round(limit * row.part)) for row in rows}
    examples = _chosen(chosen, kind, quotas, lambda item: row_of.get(_template(item)))
    blind = _blind(stock(bank, "train"), chosen, kind)
    counts = Counter(item.facts["template"] for item in examples)
    rights = [
        plain(item.answer) == plain(said) for item, said in zip(examples, answers(ming, chosen, examples), strict=True)
    ]
    found = []
    for row in rows:
        cases = [right for item, right in zip(examples, rights, strict=True) if row_of[_template(item)] is row]
        mine = [template for template in counts if row_of[template[: -len(" en")]] is row]
        found.append((row, cases, _mean([(blind.get(template, 0.0), counts[template]) for template in mine])))
    return found


def _blind(known: Stock, chosen: Stock, kind: str) -> dict[str, float]:
    """How far guessing goes with each template."""
    learned, tried = GUESSED[kind]
    return blind_accuracy(
        (example(known, kind, SEED, i) for i in range(learned)),
        (example(chosen, kind, SEED + 1, i) for i in range(tried)),
    )


def _score(row: Row, cases: Sequence[bool], blind: float) -> Score:
    bounds = (None, None) if row.ability.startswith("-") else (0.85, 0.95)
    return share(row.ability, cases, *bounds, blind=blind)


def _template(item: Example) -> str:
    """Without the language at its end."""
    return item.facts["template"][: -len(" en")]


def _mean(weighted: Iterable[tuple[float, int]]) -> float:
    weighted = list(weighted)
    return sum(value * count for value, count in weighted) / max(1, sum(count for _, count in weighted))


def _chosen(chosen: Stock, kind: str, quotas: dict, group_of) -> list[Example]:
    """The first examples of the test, as many of each group as its quota says."""
    found, left, index = [], dict(quotas), 0
    while any(left.values()):
        item = example(chosen, kind, SEED, index)
        index += 1
        if left.get(group := group_of(item), 0):
            left[group] -= 1
            found.append(item)
    return found


# Asking


def answers(ming: Any, chosen: Stock, examples: Sequence[Example]) -> list[str]:
    """What Ming says to each, as a user would ask: a picture or an MP4 file, then the question."""

    def ask(item: Example, pictures: Tensor) -> str:
        media = {"video": as_video(pictures)} if item.kind == "film" else {"images": [as_picture(pictures[0])]}
        return ming.ask(item.prompt, max_tokens=MOST_TOKENS, **media).strip()

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(lambda pair: ask(*pair), _drawn(chosen, examples)))


def _drawn(chosen: Stock, examples: Sequence[Example], batch: int = 16) -> Iterator[tuple[Example, Tensor]]:
    """Each with its pictures (T, 3, S, S)."""
    for start in range(0, len(examples), batch):
        part = list(examples[start : start + batch])
        for item, rendered in zip(part, draw(chosen, part, SIZE), strict=True):
            yield item, rendered.pictures


def as_picture(pixels: Tensor):
    """(3, H, W) uint8 -> a PIL picture"""
    from PIL import Image

    return Image.fromarray(pixels.permute(1, 2, 0).cpu().numpy())


def as_video(frames: Tensor) -> bytes:
    """(T, 3, H, W) uint8 -> an MP4 file, H.264 at high quality"""
    import av

    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream(
            "libx264", rate=FILM_FRAMES_PER_SECOND, options={"crf": "12", "preset": "veryfast"}
        )
        stream.width, stream.height, stream.pix_fmt = frames.shape[3], frames.shape[2], "yuv420p"
        for frame in frames.permute(0, 2, 3, 1).cpu().contiguous().numpy():
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return file.getvalue()
