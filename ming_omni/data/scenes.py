"""Random numbers and a stock -> scenes: a background, cut-outs on it, and words. Nothing is drawn here."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ming_omni.data.artists import DYED_SHARE, DYED_STYLES
from ming_omni.data.bank import Stock
from ming_omni.data.concepts import TINTABLE
from ming_omni.data.lettering import pick_word
from ming_omni.data.names import COLOURS, INKS, SIDES, STYLE_NAMES, article
from ming_omni.data.sprites import SHAPES

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Thing:
    """A cut-out: where its middle is and how large it is, in parts of the picture; `colour` tints it."""

    sprite: int
    concept: str
    style: str
    x: float
    y: float
    size: float
    angle: float = 0.0  # degrees, clockwise
    is_mirrored: bool = False
    colour: str | None = None

    @property
    def name(self) -> str:
        return f"{self.colour} {self.concept}" if self.colour else self.concept


@dataclass(frozen=True)
class Words:
    """Printed words in one line; `size` is the height of the font in parts of the picture."""

    text: str
    font: int
    colour: str
    x: float
    y: float
    size: float


@dataclass(frozen=True)
class Background:
    """Sky from `top` to `bottom` down to the horizon, ground below it; then a pattern or a photo; a little noise."""

    name: str  # of BACKGROUNDS, or a colour
    sky: tuple[Colour, Colour]
    ground: tuple[Colour, Colour]
    horizon: float = 1.0
    pattern: str = ""  # stripes, checks, dots or stars
    ink: Colour = (0, 0, 0)
    scale: float = 8.0
    angle: float = 0.0
    noise: float = 0.03
    photo: int = -1
    shift: tuple[int, int] = (0, 0)
    """Where texture and pattern start, in 1/512 of their period."""


@dataclass(frozen=True)
class Scene:
    background: Background
    things: tuple[Thing, ...] = ()
    words: tuple[Words, ...] = ()

    def with_thing(self, number: int, **changes) -> Scene:
        things = list(self.things)
        things[number] = replace(things[number], **changes)
        return replace(self, things=tuple(things))


# Name -> English and Chinese, sky, ground, horizon, pattern, ink
LANDSCAPES = {
    "meadow": ("a meadow", "草地", ((120, 185, 240), (205, 232, 250)), ((120, 185, 80), (70, 140, 55)), 0.55),
    "beach": ("a beach", "海滩", ((90, 180, 235), (60, 140, 205)), ((240, 220, 165), (225, 195, 130)), 0.5),
    "desert": ("a desert", "沙漠", ((250, 205, 140), (252, 228, 180)), ((226, 180, 110), (198, 145, 80)), 0.6),
    "snow": ("snow", "雪地", ((175, 205, 230), (225, 238, 247)), ((250, 252, 255), (222, 232, 242)), 0.5),
    "sunset": ("a sunset", "日落", ((95, 60, 120), (250, 150, 90)), ((60, 50, 75), (35, 30, 50)), 0.75),
    "night sky": ("a night sky", "夜空", ((10, 14, 45), (40, 45, 95)), ((20, 25, 30), (12, 14, 20)), 0.88),
    "room": ("a room", "房间", ((232, 222, 205), (222, 210, 190)), ((165, 120, 80), (140, 98, 62)), 0.68),
}
PATTERNS = {"stripes": ("stripes", "条纹"), "checks": ("checks", "格子"), "dots": ("dots", "圆点")}


def pick(generator: np.random.Generator, options):
    """One of them; unlike `choice`, it keeps their types."""
    options = options if isinstance(options, tuple | list | str) else list(options)
    return options[generator.integers(len(options))]


# Backgrounds


def background(generator: np.random.Generator, stock: Stock, kind: str | None = None) -> Background:
    """One kind in equal parts: plain colour, landscape, pattern; photos where the stock has some."""
    kinds = ["plain", "landscape", "pattern"] + (["photo"] if stock.photos else [])
    return make_background(generator, stock, kind or pick(generator, kinds))


def make_background(generator: np.random.Generator, stock: Stock, kind: str) -> Background:
    shift = tuple(generator.integers(0, 512, 2).tolist())
    noise = float(generator.uniform(0, 0.08))
    if kind == "photo":
        grey = ((128,) * 3,) * 2
        return Background("photo", grey, grey, noise=0.0, photo=pick(generator, stock.photos), shift=shift)
    if kind == "landscape":
        name = pick(generator, LANDSCAPES)
        _, _, sky, ground, horizon = LANDSCAPES[name]
        sky, ground = (_vary(generator, pair) for pair in (sky, ground))
        horizon += float(generator.uniform(-0.08, 0.08))
        stars = {"pattern": "stars", "ink": (255, 250, 220), "scale": 9.0} if name == "night sky" else {}
        return Background(name, sky, ground, horizon, noise=noise, shift=shift, **stars)
    name = pick(generator, COLOURS)
    base = pastel(COLOURS[name][1], float(generator.uniform(0.0, 0.25)))
    sky = (base, _darker(base, float(generator.uniform(0.85, 1.0))))
    if kind == "plain":
        return Background(name, sky, sky, noise=noise, shift=shift)
    return Background(
        f"{name} {(pattern := pick(generator, PATTERNS))}", sky, sky, pattern=pattern,
        ink=pastel(COLOURS[name][1], float(generator.uniform(0.55, 0.8))), scale=float(generator.uniform(5, 12)),
        angle=float(generator.uniform(0, 180)), noise=noise / 2, shift=shift,
    )  # fmt: skip


def describe_background(background: Background, is_chinese: bool) -> str:
    """`a blue background`; empty for a photo, which has no name here."""
    if background.name in LANDSCAPES:
        return LANDSCAPES[background.name][is_chinese]
    if background.name == "photo":
        return ""
    colour, _, pattern = background.name.partition(" ")
    if is_chinese:
        return f"{COLOURS[colour][0]}{PATTERNS[pattern][1] if pattern else ''}背景"
    return f"{article(colour)} background" + (f" with {pattern}" if pattern else "")


def _vary(generator: np.random.Generator, pair: tuple[Colour, Colour]) -> tuple[Colour, Colour]:
    offset = generator.integers(-14, 15, 3)
    return tuple(tuple(int(np.clip(c + o, 0, 255)) for c, o in zip(colour, offset, strict=True)) for colour in pair)


def pastel(colour: Colour, amount: float) -> Colour:
    return tuple(round(c + (255 - c) * amount) for c in colour)


def _darker(colour: Colour, factor: float) -> Colour:
    return tuple(round(c * factor) for c in colour)


# Things


def concepts(generator: np.random.Generator, stock: Stock, count: int, without: tuple[str, ...] = ()) -> list[str]:
    """Different ones; one in eight is a shape, which is few enough to learn and many enough to meet."""
    found: list[str] = []
    shapes = [name for name in SHAPES if name in stock.sprites]
    others = [name for name in stock.sprites if name not in SHAPES]
    while len(found) < count:
        pool = shapes if shapes and generator.random() < 0.125 else others
        name = pick(generator, pool)
        if name not in found and name not in without:
            found.append(name)
    return found


def tintable(generator: np.random.Generator, stock: Stock, count: int, without: tuple[str, ...] = ()) -> list[str]:
    pool = [name for name in stock.sprites if (name in TINTABLE or name in SHAPES) and name not in without]
    return [pool[i] for i in generator.choice(len(pool), count, replace=False)]


def thing(
    generator: np.random.Generator, stock: Stock, concept: str, x: float, y: float, size: float, *,
    colour: str | None = None, background: str = "", style: str | None = None,
) -> Thing:  # fmt: skip
    """A drawing of the concept at a place; what has no colours of its own gets one, never that of its background."""
    drawings = [i for i in stock.sprites[concept] if style is None or stock.bank.keys[i][1] == style]
    dyed = [i for i in drawings if stock.bank.keys[i][1] in DYED_STYLES]
    if dyed and len(dyed) < len(drawings):
        drawings = dyed if generator.random() < DYED_SHARE else [i for i in drawings if i not in dyed]
    sprite = pick(generator, drawings)
    if colour is None and (concept in SHAPES or stock.bank.keys[sprite][1] in DYED_STYLES):
        colour = pick(generator, [c for c in COLOURS if c not in background.split()])
    return Thing(
        sprite, concept, stock.bank.keys[sprite][1], x, y, size, float(generator.uniform(-12, 12)),
        bool(generator.random() < 0.5), colour,
    )  # fmt: skip


def places(generator: np.random.Generator, count: int, taken: tuple[tuple[float, float, float], ...] = ()) -> list:
    """`count` free places (x, y, size); the more, the smaller; nothing overlaps or leaves the picture."""
    for shrink in range(40):
        found = list(taken)
        for _ in range(count):
            for _ in range(24):
                size = float(generator.uniform(0.6, 1.0)) * min(0.45, 0.72 / np.sqrt(count + len(taken))) * 0.93**shrink
                x, y = generator.uniform(size / 2 + 0.02, 0.98 - size / 2, 2).tolist()
                if all(np.hypot(x - a, y - b) > 0.58 * (size + s) for a, b, s in found):
                    found.append((x, y, size))
                    break
        if len(found) == count + len(taken):
            return found[len(taken) :]
    raise AssertionError("no room: too many things were asked for")


def pair(generator: np.random.Generator, stock: Stock, first: str, second: str, side: str, ground: Background) -> Scene:
    """`first` stands on that side of `second`, clearly; either may have been drawn first."""
    dx, dy = SIDES[side][1]
    gap = float(generator.uniform(0.17, 0.24))
    x, y = (
        float(0.5 + (generator.uniform(-0.05, 0.05) if step else generator.uniform(-0.25, 0.25))) for step in (dx, dy)
    )
    spots = [(x + dx * gap, y + dy * gap), (x - dx * gap, y - dy * gap)]
    size = float(generator.uniform(0.26, 0.33))
    things = [
        thing(generator, stock, name, *spot, size, background=ground.name)
        for name, spot in zip((first, second), spots, strict=True)
    ]
    return Scene(ground, tuple(things if generator.random() < 0.5 else reversed(things)))


def words(generator: np.random.Generator, stock: Stock, is_chinese: bool, y: float, background: str, room=0.9) -> Words:
    """A line of type that fits into `room`, in a colour that can be read on the background."""
    text = pick_word(generator, stock.split, is_chinese)
    fonts = stock.chinese_fonts if is_chinese else stock.latin_fonts
    font = pick(generator, fonts)
    size = min(float(generator.uniform(0.12, 0.24)), room / text_width(stock, font, text))
    half = size * text_width(stock, font, text) / 2
    x = float(generator.uniform(half, 1 - half)) if half < 0.5 else 0.5
    return Words(text, font, readable_ink(generator, background), x, y, size)


def text_width(stock: Stock, font: int, text: str) -> float:
    """In parts of the font size, a little air between the letters included."""
    face = stock.bank.fonts[font]
    return sum(face.advances[face.letters.index(letter)] for letter in text)


def readable_ink(generator: np.random.Generator, background: str) -> str:
    """Dark on light backgrounds and white on dark ones; saturated inks only where the background has no colour."""
    if background in ("night sky", "sunset"):
        return pick(generator, ("white", "yellow"))
    if background in ("snow", "room", "meadow", "beach", "desert"):
        return pick(generator, ("black", "red", "blue", "purple"))
    if background == "photo":
        return pick(generator, ("white", "black"))
    return "black" if background.split()[0] in ("yellow", "orange", "pink", "green") else "white"


def describe_thing(stock: Stock, item: Thing, is_chinese: bool, style: bool = False) -> str:
    """`red car`, or with its style `flat red car`; no article."""
    drawn = STYLE_NAMES.get(item.style, ("", ""))[is_chinese] if style else ""
    if is_chinese:
        colour = f"{INKS[item.colour][0]}的" if item.colour else ""
        return f"{f'{drawn}的' if drawn else ''}{colour}{stock.bank.chinese(item.concept)}"
    return f"{drawn} {item.name}".strip()
