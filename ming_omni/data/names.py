"""What is called what in English and Chinese: colours, places, sides, moves, styles; plurals and articles."""

from __future__ import annotations

COLOURS = {
    "red": ("红色", (214, 40, 40)),
    "orange": ("橙色", (247, 127, 0)),
    "yellow": ("黄色", (250, 210, 40)),
    "green": ("绿色", (45, 160, 65)),
    "blue": ("蓝色", (40, 95, 215)),
    "purple": ("紫色", (125, 60, 175)),
    "pink": ("粉色", (250, 135, 180)),
    "brown": ("棕色", (125, 75, 40)),
}
"""English name -> Chinese name and RGB; far enough apart that a person never hesitates."""
INKS = COLOURS | {"black": ("黑色", (20, 20, 20)), "white": ("白色", (250, 250, 250))}
"""Colours of letters."""
PLACES = {
    "top left": ("左上角", (0.22, 0.22)),
    "top right": ("右上角", (0.78, 0.22)),
    "bottom left": ("左下角", (0.22, 0.78)),
    "bottom right": ("右下角", (0.78, 0.78)),
    "middle": ("中间", (0.5, 0.5)),
}
SIDES = {"left": ("左边", (-1, 0)), "right": ("右边", (1, 0)), "above": ("上面", (0, -1)), "below": ("下面", (0, 1))}
MOVES = {"left": ("向左", (-1, 0)), "right": ("向右", (1, 0)), "up": ("向上", (0, -1)), "down": ("向下", (0, 1))}
STYLE_NAMES = {
    "noto": ("cartoon", "卡通"),
    "fluent": ("flat", "扁平"),
    "fluent-3d": ("3-D", "立体"),
    "twemoji": ("simple", "简约"),
    "openmoji": ("outlined", "描边"),
    "emojione": ("glossy", "亮面"),
    "clipart": ("clip-art", "剪贴画"),
    "fxemoji": ("rounded", "圆润"),
    "streamline": ("line-art", "线描"),
}
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six")
CHINESE_NUMBERS = "零一两三四五六"

_UNCOUNTED = {
    "popcorn",
    "rice",
    "bread",
    "broccoli",
    "bacon",
    "corn",
    "garlic",
    "cheese",
    "sushi",
    "soap",
    "yarn",
    "spaghetti",
}
_SAME_PLURAL = {"fish", "sheep", "deer", "sushi", "bison", "shrimp", "squid", "broccoli", "bread", "popcorn", "garlic"}
_PLURALS = {"mouse": "mice", "goose": "geese", "ox": "oxen", "leaf": "leaves", "knife": "knives", "cactus": "cacti"}


def article(name: str) -> str:
    """`apple` -> `an apple`; what is plural already or cannot be counted takes none."""
    if is_plural(name) or name.rpartition(" ")[2] in _UNCOUNTED:
        return name
    return f"an {name}" if name[0] in "aeiou" and not name.startswith(("uni", "ewe")) else f"a {name}"


def is_plural(name: str) -> bool:
    return name.endswith("s") and not name.endswith(("ss", "us", "is"))


def plural(name: str) -> str:
    head, _, last = name.rpartition(" ")
    if last in _SAME_PLURAL or is_plural(last):
        several = last
    elif last in _PLURALS:
        several = _PLURALS[last]
    elif last.endswith(("s", "x", "ch", "sh")) or last in ("potato", "tomato", "mango", "volcano"):
        several = f"{last}es"
    elif last.endswith("y") and last[-2] not in "aeiou":
        several = f"{last[:-1]}ies"
    else:
        several = f"{last}s"
    return f"{head} {several}".strip()


def beside(side: str) -> str:
    return f"to the {side} of" if side in ("left", "right") else side
