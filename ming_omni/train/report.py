"""The log and samples of a run -> report.html, one file that needs nothing else: plots, pictures, sounds, texts."""

from __future__ import annotations

import base64
import html
import json
import math
from collections import defaultdict
from pathlib import Path
from typing import Any

from ming_omni.train.log import read
from ming_omni.train.recipe import Recipe, to_dict

WIDTH, HEIGHT, MARGIN = 440, 160, 66
"""Pixels of a plot."""
KINDS = {".png": "image/png", ".wav": "audio/wav"}
STYLE = """body{font:15px/1.5 system-ui,sans-serif;max-width:1400px;margin:2em auto;padding:0 1em;color:#222}
figure{display:inline-block;margin:0 1em 1em 0;vertical-align:top}figcaption{font-size:13px;color:#555}
pre{background:#f5f5f5;padding:.7em;overflow:auto;max-width:40em;white-space:pre-wrap}svg text{font:11px sans-serif}"""


def write(output: Path, recipe: Recipe, facts: dict[str, Any]) -> Path:
    """facts: what to say at the top, such as how many parameters learned."""
    rows = read(output)
    series: dict[str, list[tuple[int, float]]] = defaultdict(list)
    for row in rows:
        for name, value in row.items():
            if name != "step" and isinstance(value, int | float):
                series[name].append((row["step"], value))
    main = {name: points for name, points in series.items() if not name.startswith("balance/")}
    balance = {name: points for name, points in series.items() if name.startswith("balance/")}
    events = [f"step {row['step']}: {row['event']}: {row['message']}" for row in rows if "event" in row]
    parts = [
        f"<h1>{html.escape(recipe.name)}</h1><p>{html.escape(recipe.about)}</p>",
        "<table>" + "".join(f"<tr><td>{name}</td><td>{value}</td></tr>" for name, value in facts.items()) + "</table>",
        *(plot(name, points) for name, points in main.items()),
        _section("What went wrong", [f"<pre>{html.escape(event)}</pre>" for event in events]),
        _section("Samples", [_show(path) for path in sorted((output / "samples").rglob("*.*"))]),
        _section("Expert load", [_show(path) for path in sorted((output / "heatmaps").glob("*.png"))[-4:]]),
        _section("Balance", [plot(name, points) for name, points in balance.items()]),
        _section("Recipe", [f"<pre>{html.escape(json.dumps(to_dict(recipe), indent=1))}</pre>"]),
    ]
    page = f"<!doctype html><meta charset=utf-8><title>{html.escape(recipe.name)}</title><style>{STYLE}</style>"
    path = output / "report.html"
    path.write_text(page + "".join(parts))
    return path


def plot(name: str, points: list[tuple[int, float]]) -> str:
    """One curve as SVG, of no more points than can be told apart; values that are not finite are gaps."""
    finite = [(x, y) for x, y in points if math.isfinite(y)]
    if not finite:
        return f"<figure><figcaption>{html.escape(name)}: never finite</figcaption></figure>"
    finite = [*finite[: -1 : len(finite) // WIDTH + 1], finite[-1]]
    left, right = points[0][0], max(points[-1][0], points[0][0] + 1)
    low, high = min(y for _, y in finite), max(y for _, y in finite)
    height = high - low or abs(high) or 1.0

    def place(x: float, y: float) -> str:
        across = MARGIN + (x - left) / (right - left) * (WIDTH - 2 * MARGIN)
        return f"{across:.1f},{HEIGHT - 20 - (y - low) / height * (HEIGHT - 40):.1f}"

    line = " ".join(place(x, y) for x, y in finite)
    return (
        f'<figure><svg width="{WIDTH}" height="{HEIGHT}" role="img" aria-label="{html.escape(name)}">'
        f'<polyline points="{line}" fill="none" stroke="#2060c0" stroke-width="1.5"/>'
        f'<text x="2" y="16">{high:.4g}</text><text x="2" y="{HEIGHT - 22}">{low:.4g}</text>'
        f'<text x="{MARGIN}" y="{HEIGHT - 4}">{left}</text>'
        f'<text x="{WIDTH - MARGIN}" y="{HEIGHT - 4}" text-anchor="end">{right}</text></svg>'
        f"<figcaption>{html.escape(name)}: {finite[-1][1]:.4g}</figcaption></figure>"
    )


def _show(path: Path) -> str:
    name = html.escape(f"{path.parent.name}/{path.name}")
    if path.suffix not in KINDS:
        return f"<figure><pre>{html.escape(path.read_text())}</pre><figcaption>{name}</figcaption></figure>"
    source = f"data:{KINDS[path.suffix]};base64,{base64.b64encode(path.read_bytes()).decode()}"
    medium = (
        f'<img src="{source}" alt="{name}">' if path.suffix == ".png" else f'<audio controls src="{source}"></audio>'
    )
    return f"<figure>{medium}<figcaption>{name}</figcaption></figure>"


def _section(title: str, items: list[str]) -> str:
    return f"<h2>{title}</h2>{''.join(items)}" if items else ""
