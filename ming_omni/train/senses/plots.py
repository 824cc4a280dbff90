"""log.jsonl of a run -> curves.png: losses, error rates, shares right, balance, speed.

python -m ming_omni.train.senses.plots log.jsonl --output curves.png
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable
from pathlib import Path

from PIL import Image, ImageDraw

from ming_omni.train.senses.sounds import ACCENTS

WIDTH, HEIGHT, MARGIN = 560, 300, 34
"""Pixels of a panel."""
COLOURS = ("#1f60c0", "#c04020", "#208040", "#8040a0", "#b08000", "#008090", "#c02080", "#606060", "#70a000", "#4060ff")
PANELS: dict[str, Callable[[str], bool]] = {
    "next token": lambda name: name in ("pictures", "films", "speech", "texts"),
    "helpers": lambda name: name.startswith(("pictures/", "films/", "speech/", "texts/")),
    "error rate, dev": lambda name: name.startswith("look/") and name.endswith("/errors"),
    "language named, dev": lambda name: name.startswith("look/") and name.endswith("/language"),
    "right, stills, dev": lambda name: name.startswith("look/") and "/" not in name[5:] and not _is_apart(name),
    "right, films, dev": lambda name: name.startswith("look/film "),
    "max violation": lambda name: name.startswith("max_violation") and name.count("/") == 1,
    "perplexity against the base": lambda name: name == "look/perplexity",
    "tokens a second": lambda name: name == "tokens_per_second",
    "gradient norm": lambda name: name == "gradient_norm",
}

Points = list[tuple[float, float]]


def _is_apart(name: str) -> bool:
    return name == "look/perplexity" or name.startswith("look/film ")


def curves(log: Path) -> dict[str, Points]:
    """Name -> (seconds of training, value)."""
    found: dict[str, Points] = {}
    for line in log.read_text().splitlines():
        row = json.loads(line)
        for name, value in row.items():
            if isinstance(value, int | float) and math.isfinite(value):
                found.setdefault(name, []).append((row["seconds"], value))
    return found


def draw(found: dict[str, Points], output: Path) -> None:
    found = {name: points for name, points in found.items() if any(value for _, value in points)}
    panels = {title: {n: p for n, p in found.items() if wanted(n)} for title, wanted in PANELS.items()}
    panels = {title: lines for title, lines in panels.items() if lines}
    rows = -(-len(panels) // 2)
    picture = Image.new("RGB", (2 * WIDTH, max(1, rows) * HEIGHT), "white")
    for number, (title, lines) in enumerate(panels.items()):
        _panel(ImageDraw.Draw(picture), (number % 2 * WIDTH, number // 2 * HEIGHT), title, lines)
    picture.save(output)


def _panel(pen: ImageDraw.ImageDraw, corner: tuple[int, int], title: str, lines: dict[str, Points]) -> None:
    x0, y0 = corner[0] + MARGIN, corner[1] + MARGIN
    x1, y1 = corner[0] + WIDTH - 12, corner[1] + HEIGHT - MARGIN
    values = sorted(value for points in lines.values() for _, value in points)
    # The first steps are far off; they may leave the panel.
    low, high = values[0], values[min(len(values) - 1, int(0.98 * len(values)))]
    high = high if high > low else low + 1
    end = max(seconds for points in lines.values() for seconds, _ in points) or 1

    def place(seconds: float, value: float) -> tuple[float, float]:
        return x0 + seconds / end * (x1 - x0), y1 - min(1.0, (value - low) / (high - low)) * (y1 - y0)

    pen.rectangle((x0, y0, x1, y1), outline="#bbbbbb")
    pen.text((x0, corner[1] + 4), f"{title}   {low:.3g} to {high:.3g} over {end:.0f} s", fill="black")
    colours = {name: COLOURS[number % len(COLOURS)] for number, name in enumerate(sorted(lines))}
    for name, colour in colours.items():
        pen.line([place(*point) for point in lines[name]], fill=colour, width=2)
    for number, (name, colour) in enumerate(colours.items()):
        label = f"{_plain(name)} {lines[name][-1][1]:.3g}"
        corner = x0 + 6 + number // 10 * 260, y0 + 4 + number % 10 * 13
        pen.text(corner, label, fill=colour, stroke_width=2, stroke_fill="white")


def _plain(name: str) -> str:
    """In letters that the font has."""
    first, *rest = name.removeprefix("look/").split("/")
    return "/".join([next((accent for accent, written in ACCENTS.items() if written == first), first), *rest])


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("log", type=Path)
    parser.add_argument("--output", type=Path, default=Path("curves.png"))
    given = parser.parse_args(arguments)
    draw(curves(given.log), given.output)


if __name__ == "__main__":
    main()
