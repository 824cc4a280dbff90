"""Emoji families, clip art, fonts and photos of public packages -> one bank file, small by palettes of 256 colours."""

from __future__ import annotations

import io
import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from safetensors.torch import save_file
from torch import Tensor

from ming_omni.data import artists, packages
from ming_omni.data.bank import packed
from ming_omni.data.concepts import (
    CHINESE,
    CLIPART_OUT,
    DRAWINGS_OUT,
    GROUPS,
    KEPT,
    LEFT_OUT,
    PHOTOS_OUT,
    RENAMED,
    SUBGROUPS_OUT,
    WORDS_OUT,
)  # fmt: skip
from ming_omni.data.lettering import (
    CHINESE_CHARACTERS,
    CHINESE_FONTS,
    LATIN_FONTS,
    MORE_CHINESE_FONTS,
    MORE_LATIN_FONTS,
    faces,
)  # fmt: skip
from ming_omni.errors import InputError

SIDE = 96
"""Pixels of a sprite; scenes of 256 pixels show it at 32 to 128."""
GLYPH_SIDE, GLYPH_SIZE = 48, 36
"""Pixels of a letter's cell, and the font size drawn into it."""
PHOTO_SIDE = 256
LATIN = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
ICON_SETS = {
    "noto": packages.NOTO,
    "fluent": packages.FLUENT,
    "twemoji": packages.TWEMOJI,
    "openmoji": packages.OPENMOJI,
    "fxemoji": packages.FXEMOJI,
    "streamline": packages.STREAMLINE,
    "emojione": packages.EMOJIONE,
}
FEW_DRAWINGS = ("fxemoji", "streamline")
"""They add to what others drew, too few to decide what a thing is."""
SHAPES = {
    "circle": ("圆形", '<circle cx="50" cy="50" r="47"/>'),
    "square": ("正方形", '<rect x="7" y="7" width="86" height="86"/>'),
    "triangle": ("三角形", '<path d="M50 5 97 92H3z"/>'),
    "diamond": ("菱形", '<path d="M50 2 92 50 50 98 8 50z"/>'),
    "star": ("星形", '<path d="M50 3 62 38H98L69 60 80 96 50 74 20 96 31 60 2 38H38z"/>'),
    "cross": ("十字形", '<path d="M35 4h30v31h31v30H65v31H35V65H4V35h31z"/>'),
    "hexagon": ("六边形", '<path d="M27 8h46l24 42-24 42H27L3 50z"/>'),
}


def build_bank(path: Path, cache: Path | None = None, styles: tuple[str, ...] | None = None) -> dict:
    """Write the bank and its manifest beside it; returns the manifest."""
    wanted = [
        *ICON_SETS.values(),
        *artists.EMOJI.values(),
        *artists.ICONS.values(),
        packages.SYMBOLA,
        packages.SCRATCH,
        packages.FLUENT_3D,
        packages.NAMES,
        packages.CLIPART,
        *packages.PHOTOS,
        *packages.FONTS,
        *packages.MORE_FONTS,
    ]
    sources = packages.fetch_all(wanted, cache)
    concepts = read_concepts(sources[packages.NAMES])
    drawings = dict(shapes())
    for style, package in ICON_SETS.items():
        drawings |= icons(sources[package], style, concepts)
    drawings = {key: image for key, image in drawings.items() if key not in DRAWINGS_OUT}
    drawings |= webps(sources[packages.FLUENT_3D], concepts)
    if packages.CLIPART in sources:
        drawings |= clipart(sources[packages.CLIPART], concepts)
    # A thing is only worth learning when several artists drew it.
    drawn_by = Counter(concept for concept, style in drawings if style not in FEW_DRAWINGS)
    drawings = {key: image for key, image in drawings.items() if drawn_by[key[0]] >= 4 or key[1] == "shape"}
    known = {name: concepts[name] for name in sorted({concept for concept, _ in drawings} - SHAPES.keys())}
    drawings |= further(sources, known)
    if styles:
        drawings = {key: image for key, image in drawings.items() if key[1] in (*styles, "shape")}
    concepts |= {name: {"chinese": chinese, "group": "shape"} for name, (chinese, _) in SHAPES.items()}
    fonts = draw_fonts([sources[p] for p in packages.FONTS + packages.MORE_FONTS if p in sources])
    photos = read_photos([sources[package] for package in packages.PHOTOS if package in sources])
    write_bank(path, drawings, concepts, fonts, photos)
    counts = {
        "sprites": len(drawings),
        "concepts": len({c for c, _ in drawings}),
        "fonts": len(fonts),
        "photos": len(photos),
    }
    return packages.write_manifest(path.parent, "sprites", 0, counts, sources, [path])


def read_concepts(folder: Path) -> dict[str, dict]:
    """English name -> Chinese name, group, and the code points that the icon sets know it by."""
    data = folder / "package"
    groups = json.loads((data / "meta" / "groups.json").read_text())["subgroups"]
    chinese = {e["hexcode"]: e["label"] for e in json.loads((data / "zh" / "data.json").read_text())}
    found = {}
    for entry in json.loads((data / "en" / "data.json").read_text()):
        name = entry["label"].lower()
        if entry.get("group") not in GROUPS or name in LEFT_OUT:
            continue
        words = set(name.split())
        is_poor = words & WORDS_OUT or len(words) > 2 or "face" in words
        if name not in (*KEPT, *RENAMED) and (is_poor or groups[str(entry["subgroup"])] in SUBGROUPS_OUT):
            continue
        name = RENAMED.get(name, name)
        label = CHINESE.get(name, chinese[entry["hexcode"]])
        if name in CHINESE or (len(label) <= 4 and not re.search(r"[^\u4e00-\u9fff]", label)):
            found[name] = {"chinese": label, "group": GROUPS[entry["group"]], "code": entry["hexcode"].lower()}
    return found


def icons(folder: Path, style: str, concepts: dict, newer: Path | None = None) -> dict[tuple[str, str], Image.Image]:
    """One family's SVGs, rasterised: (concept, style) -> picture. `newer` has the codes of a set without its own."""
    package = folder / "package"
    known = json.loads((package / "icons.json").read_text())
    codes = json.loads((package / "chars.json").read_text())
    if not codes and newer:
        codes = json.loads((newer / "package" / "chars.json").read_text())
    found, ink = {}, "white" if style in artists.DYED_STYLES else "black"
    for name, concept in concepts.items():
        code = concept["code"].removesuffix("-fe0f")
        key = codes.get(code) or codes.get(concept["code"]) or name.replace(" ", "-")
        if icon := known["icons"].get(key):
            found[name, style] = draw_icon(icon, known, ink)
    return found


def draw_icon(icon: dict, known: dict, ink: str) -> Image.Image:
    """One of the icons of a set, whose size is its own or the set's; ink: of what names no colour."""
    width, height = (icon.get(side, known.get(side, 16)) for side in ("width", "height"))
    return draw_svg(f'viewBox="0 0 {width} {height}" color="{ink}"', icon["body"])


def draw_svg(frame: str, body: str) -> Image.Image:
    try:
        from resvg_py import svg_to_bytes
    except ImportError as error:
        raise InputError('drawing sprites needs resvg-py: pip install "ming-omni[data]"') from error

    names = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    png = svg_to_bytes(svg_string=f"<svg {names} {frame}>{body}</svg>", width=2 * SIDE, height=2 * SIDE)
    return Image.open(io.BytesIO(bytes(png))).convert("RGBA")


def shapes() -> dict[tuple[str, str], Image.Image]:
    """White shapes, which scenes always tint."""
    return {(name, "shape"): draw_svg('viewBox="0 0 100 100" fill="#fff"', body) for name, (_, body) in SHAPES.items()}


def webps(folder: Path, concepts: dict) -> dict[tuple[str, str], Image.Image]:
    found = {}
    for name, concept in concepts.items():
        for code in (concept["code"], concept["code"].removesuffix("-fe0f"), f"{concept['code']}-fe0f"):
            if (path := folder / "package" / "assets" / f"{code}.webp").exists():
                found[name, "fluent-3d"] = Image.open(path).convert("RGBA")
    return found


def clipart(folder: Path, concepts: dict) -> dict[tuple[str, str], Image.Image]:
    """Clip art whose file is named like a concept and nothing else; file names end with the artist."""
    found = {}
    concepts = concepts.keys() - CLIPART_OUT
    for path in sorted((folder / "usr/share/openclipart/png").rglob("*.png")):
        words = [word for word in re.split(r"[_\-\s\d]+", path.stem.lower()) if word]
        name = next((" ".join(words[:n]) for n in (2, 1) if " ".join(words[:n]) in concepts), None)
        if (
            name is None
            or (name, "clipart") in found
            or len(words) > len(name.split()) + 2
            or path.stat().st_size > 400_000
        ):
            continue
        with Image.open(path) as image:
            is_cut_out = image.mode == "RGBA" and max(image.size) <= 4000
            if is_cut_out and image.getchannel("A").getextrema()[0] == 0:
                found[name, "clipart"] = image.copy()
    return found


# Further artists


def further(sources: dict, concepts: dict) -> dict[tuple[str, str], Image.Image]:
    """What the further artists drew, of things that are known already."""
    found = {}
    # An old set names its pictures as the new one does, and lacks the table of codes.
    newer = sources.get(packages.NOTO)
    for style, package in artists.EMOJI.items():
        if package in sources:
            found |= icons(sources[package], style, concepts, newer)
    for style, package in artists.ICONS.items():
        if package in sources:
            found |= silhouettes(sources[package], style, concepts)
    if packages.SYMBOLA in sources:
        found |= symbols(sources[packages.SYMBOLA], concepts)
    if packages.CLIPART in sources:
        folder = sources[packages.CLIPART] / "usr/share/openclipart/png"
        found |= files(folder, "png", "clipart", 2, artists.CLIPART, concepts)
    if packages.SCRATCH in sources:
        folder = sources[packages.SCRATCH] / "usr/share/scratch/Media/Costumes"
        found |= files(folder, "*", "scratch", 1, artists.SCRATCH, concepts)
    return found


def silhouettes(folder: Path, style: str, concepts: dict) -> dict[tuple[str, str], Image.Image]:
    """Icons by their plain names, in white where they have no colour."""
    known, found = json.loads((folder / "package" / "icons.json").read_text()), {}
    wrong = artists.WRONG[style].split(", ")
    ending = "-fill" if style == "mingcute" else ""
    for name in concepts.keys() - set(wrong):
        names = artists.CALLED.get(name, name.replace(" ", "-")).split()
        icon = next((known["icons"][n + ending] for n in names if n + ending in known["icons"]), None)
        if icon:
            found[name, style] = draw_icon(icon, known, "white")
    return found


def symbols(folder: Path, concepts: dict) -> dict[tuple[str, str], Image.Image]:
    """Signs of a font that draws emoji as type; one it lacks looks like a character that nobody has."""
    (path,) = (folder / "usr/share/fonts").rglob("Symbola*.?tf")
    font, found = ImageFont.truetype(path, 2 * SIDE), {}

    def sign(character: str) -> Image.Image:
        ink = Image.new("L", (4 * SIDE, 4 * SIDE))
        ImageDraw.Draw(ink).text((2 * SIDE, 2 * SIDE), character, fill=255, font=font, anchor="mm")
        return ink

    absent = sign("\U0010fffd")
    for name, concept in concepts.items():
        code = concept["code"].removesuffix("-fe0f")
        if "-" not in code and (ink := sign(chr(int(code, 16)))) != absent:
            found[name, "symbola"] = Image.new("RGBA", ink.size, "white")
            found[name, "symbola"].putalpha(ink)
    return found


def files(
    folder: Path, ending: str, style: str, first: int, chosen: dict[str, str], concepts: dict
) -> dict[tuple[str, str], Image.Image]:
    """Named pictures, several of a thing: numbered styles from `first` on."""
    paths = {path.name: path for path in sorted(folder.rglob("*.*"), reverse=True)}
    found = {}
    for name in concepts.keys() & chosen.keys():
        for number, file in enumerate(chosen[name].split(), first):
            path = paths.get(file if ending == "*" else f"{file}.{ending}")
            if path is None:  # another release of the package
                continue
            with Image.open(path) as image:
                found[name, f"{style}-{number}"] = image.convert("RGBA")
    return found


# Type


def draw_fonts(folders: list[Path]) -> dict[str, tuple[str, np.ndarray, np.ndarray]]:
    """Font name -> its letters, their cells (n, 48, 48) and advances (n,) in parts of the font size."""
    files = {path.name: path for folder in folders for path in sorted((folder / "usr/share/fonts").rglob("*.*"))}
    stems: dict[str, Path] = {}
    for path in files.values():
        stems.setdefault(path.stem, path)
    files |= stems
    tables = (
        (LATIN_FONTS | faces(MORE_LATIN_FONTS), LATIN),
        (CHINESE_FONTS | faces(MORE_CHINESE_FONTS), CHINESE_CHARACTERS),
    )
    found = {}
    for names, letters in tables:
        for name, (file, face) in names.items():
            if file in files:
                found[name] = (letters, *draw_letters(ImageFont.truetype(files[file], GLYPH_SIZE, index=face), letters))
    return found


def draw_letters(font: ImageFont.FreeTypeFont, letters: str) -> tuple[np.ndarray, np.ndarray]:
    cells = np.zeros((len(letters), GLYPH_SIDE, GLYPH_SIDE), np.uint8)
    for cell, letter in zip(cells, letters, strict=True):
        image = Image.new("L", (GLYPH_SIDE, GLYPH_SIDE))
        # Middle of the advance and one baseline for the whole font.
        ImageDraw.Draw(image).text((GLYPH_SIDE / 2, GLYPH_SIDE * 0.74), letter, fill=255, font=font, anchor="ms")
        cell[:] = np.asarray(image)
    return cells, np.array([font.getlength(letter) / GLYPH_SIZE for letter in letters], np.float32)


def read_photos(folders: list[Path]) -> dict[str, np.ndarray]:
    """Photo name -> its middle square (256, 256, 3)."""
    found = {}
    for folder in folders:
        for path in sorted((folder / "usr/share/backgrounds").rglob("*_by_*.jpg")):
            if path.stem.split("_by")[0] in PHOTOS_OUT:
                continue
            with Image.open(path) as image:
                side = min(image.size)
                left, top = (image.width - side) // 2, (image.height - side) // 2
                image = image.convert("RGB").crop((left, top, left + side, top + side))
                found[path.stem] = np.asarray(image.resize((PHOTO_SIDE, PHOTO_SIDE), Image.Resampling.LANCZOS))
    return found


# The file


def write_bank(path: Path, drawings: dict, concepts: dict, fonts: dict, photos: dict) -> None:
    """drawings: (concept, style) -> RGBA picture; everything ends up in one safetensors file."""
    keys = sorted(drawings)
    drawn = [pack_sprite(drawings[key]) for key in keys]
    tensors = {
        "sprites": packed(torch.stack([index for index, _ in drawn])),  # (N, 96, 96) places in the palette
        "palettes": torch.stack([palette for _, palette in drawn]),  # (N, 256, 4) RGBA
        "photos": torch.from_numpy(
            np.stack([photos[name] for name in sorted(photos)] or [np.zeros((1, 1, 3), np.uint8)])
        ),
    }
    for number, name in enumerate(sorted(fonts)):
        tensors[f"glyphs.{number}"] = torch.from_numpy(fonts[name][1])
        tensors[f"advances.{number}"] = torch.from_numpy(fonts[name][2])
    used = {concept for concept, _ in keys}
    about = {
        "sprites": keys,
        "concepts": {
            name: {"chinese": c["chinese"], "group": c["group"]} for name, c in concepts.items() if name in used
        },
        "fonts": [[name, fonts[name][0]] for name in sorted(fonts)],
        "photos": sorted(photos),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path, metadata={"about": json.dumps(about, ensure_ascii=False)})


def pack_sprite(image: Image.Image) -> tuple[Tensor, Tensor]:
    """A cut-out, trimmed and centred -> places (96, 96) in its palette (256, 4)."""
    image = image.convert("RGBA")
    image = image.crop(image.getchannel("A").getbbox() or (0, 0, *image.size))
    scale = (SIDE - 4) / max(image.size)
    size = tuple(max(1, round(length * scale)) for length in image.size)
    # Premultiplied, so that no colour of transparent pixels bleeds into the edge.
    image = image.convert("RGBa").resize(size, Image.Resampling.LANCZOS).convert("RGBA")
    canvas = Image.new("RGBA", (SIDE, SIDE))
    canvas.paste(image, ((SIDE - size[0]) // 2, (SIDE - size[1]) // 2))
    quantised = canvas.quantize(256, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    palette = np.zeros((256, 4), np.uint8)
    colours = np.array(quantised.getpalette("RGBA"), np.uint8).reshape(-1, 4)
    palette[: len(colours)] = colours
    return torch.from_numpy(np.array(quantised)), torch.from_numpy(palette)
