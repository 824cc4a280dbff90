"""Drawings of other things than the bank's -> a second bank file, whose names nobody is told.

Eyes that learn to guess what EfficientNet sees need no names for that, and the packages hold many times as many
drawings as the bank. Left out are whatever might show one of the bank's things, whose drawings of dev and test nobody
may meet, and the artist who is kept for the test.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from PIL import Image

from ming_omni.data import artists, packages
from ming_omni.data.bank import TEST_STYLES
from ming_omni.data.concepts import RENAMED
from ming_omni.data.splits import generator
from ming_omni.data.sprites import FEW_DRAWINGS, ICON_SETS, draw_icon, read_concepts, write_bank

DRAWN = ("game-icons", "temaki")
"""Icon sets of things; others are mostly signs for machines."""
MOST = 900
"""Drawings of an icon set; clip art, by many hands, comes whole."""
MOST_BYTES = 150_000
"""Of a file of clip art."""
DULL = re.compile(r"skin-tone|flag|keycap|arrow|button|-off$|-(line|bold|duotone|light|thin|outline|rounded|sharp)$")
"""Names of what is drawn often and alike, or is mere writing."""


def build_unnamed(path: Path, cache: Path | None = None) -> dict:
    """Write the file and its manifest beside it; returns the manifest."""
    sets = {style: package for style, package in ICON_SETS.items() if style not in (*FEW_DRAWINGS, *TEST_STYLES)}
    sets |= {"noto-v1": packages.NOTO_V1} | {style: artists.ICONS[style] for style in DRAWN}
    sources = packages.fetch_all([*sets.values(), packages.NAMES, packages.CLIPART], cache)
    concepts = read_concepts(sources[packages.NAMES])
    words = {word for name in (*concepts, *RENAMED, *artists.CALLED.values()) for word in parts(name)}
    taken = {name.lower() for names in artists.CLIPART.values() for name in names.split()}
    drawings = {}
    for style, package in sets.items():
        drawings |= others(sources[package], style, words, MOST)
    if packages.CLIPART in sources:
        drawings |= clipart(sources[packages.CLIPART], words, taken)
    about = {name: {"chinese": "", "group": "unnamed"} for name, _ in drawings}
    write_bank(path, drawings, about, {}, {})
    return packages.write_manifest(path.parent, "unnamed", 0, {"sprites": len(drawings)}, sources, [path])


def is_other(name: str, words: set[str]) -> bool:
    """Whether no word of a file's name, in singular or plural, is part of a name that the bank has."""
    return not parts(name) & words and not DULL.search(name)


def parts(name: str) -> set[str]:
    """The words of a name, each in the singular too."""
    found = {word for word in re.split(r"[_\W\d]+", name.lower()) if word}
    return found | {word.rstrip("s") for word in found}


def others(folder: Path, style: str, words: set[str], count: int) -> dict[tuple[str, str], Image.Image]:
    """At most `count` icons of a set, the same every time."""
    known = json.loads((folder / "package" / "icons.json").read_text())
    names = sorted(name for name in known["icons"] if is_other(name, words))
    ink = "white" if style in artists.DYED_STYLES else "black"
    order = generator(0, f"unnamed {style}", 0).permutation(len(names))
    return {(names[i], style): draw_icon(known["icons"][names[i]], known, ink) for i in sorted(order[:count])}


def clipart(folder: Path, words: set[str], taken: set[str]) -> dict[tuple[str, str], Image.Image]:
    """Cut-outs alone, whatever they show, without those that the bank has."""
    paths = {
        path.stem: path
        for path in sorted((folder / "usr/share/openclipart/png").rglob("*.png"))
        if path.stat().st_size < MOST_BYTES and path.stem.lower() not in taken and is_other(path.stem, words)
    }
    found = {}
    for name, path in sorted(paths.items()):
        with Image.open(path) as image:
            cut_out = image.convert("RGBA") if max(image.size) <= 2000 else None
            if cut_out and cut_out.getchannel("A").getextrema() == (0, 255):
                found[name, "clipart"] = cut_out
    return found
