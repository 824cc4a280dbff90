"""A sprite bank of a few kilobytes, drawn in code: twelve things by six artists, blocky fonts, two photos."""

from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from ming_omni.data.bank import JUDGE_STYLES, PAINTER_STYLES, TEST_STYLES, Bank
from ming_omni.data.lettering import CHINESE_CHARACTERS
from ming_omni.data.sprites import LATIN, SHAPES, write_bank

THINGS = {
    "dog": "狗", "cat": "猫", "car": "汽车", "apple": "苹果", "fish": "鱼", "bus": "公交车", "key": "钥匙",
    "bird": "鸟", "chair": "椅子", "kite": "风筝", "door": "门", "socks": "袜子",
}  # fmt: skip


def drawing(number: int, artist: int) -> Image.Image:
    """A disc in the artist's colour with four windows; the dark ones spell the thing's number in binary."""
    image = Image.new("RGBA", (96, 96))
    draw = ImageDraw.Draw(image)
    draw.ellipse((2, 2, 94, 94), fill=(120 + 20 * artist, 250 - 25 * artist, 150 + 15 * artist, 255))
    for bit, (x, y) in enumerate(((24, 24), (52, 24), (24, 52), (52, 52))):
        if number >> bit & 1:
            draw.rectangle((x, y, x + 20, y + 20), fill=(20, 20, 20, 255))
    return image


def shape(corners: int) -> Image.Image:
    """White; four corners fill the whole square."""
    if corners == 4:
        return Image.new("RGBA", (96, 96), "white")
    image = Image.new("RGBA", (96, 96))
    turns = np.linspace(0, 2 * np.pi, corners + 1)[:-1]
    points = [(48 + 46 * np.cos(t), 48 + 46 * np.sin(t)) for t in turns]
    ImageDraw.Draw(image).polygon(points, fill="white")
    return image


def font(letters: str, width: int) -> tuple[str, np.ndarray, np.ndarray]:
    """Every letter is a block; enough to see where it stands."""
    cells = np.zeros((len(letters), 48, 48), np.uint8)
    cells[:, 10:36, 24 - width // 2 : 24 + width // 2] = 255
    return letters, cells, np.full(len(letters), 0.6, np.float32)


def write_tiny_bank(path: Path) -> Path:
    styles = (*PAINTER_STYLES, *JUDGE_STYLES, *TEST_STYLES)
    drawings = {
        (name, style): drawing(number, artist)
        for number, name in enumerate(THINGS, 1)
        for artist, style in enumerate(styles[:6] if number % 2 else styles)
    }
    for name, corners in zip(SHAPES, (12, 4, 3, 5, 6, 7, 8), strict=True):
        drawings[name, "shape"] = shape(corners)
    concepts = {name: {"chinese": chinese, "group": "object"} for name, chinese in THINGS.items()}
    concepts |= {name: {"chinese": chinese, "group": "shape"} for name, (chinese, _) in SHAPES.items()}
    fonts = {
        "DejaVuSans": font(LATIN, 16),
        "ComicNeue-Bold": font(LATIN, 18),
        "Cabin-SemiBold": font(LATIN, 17),
        "NotoSerifCJK-Bold": font(CHINESE_CHARACTERS, 21),
        "NotoSansCJK-Bold": font(CHINESE_CHARACTERS, 22),
        "wqy-microhei": font(CHINESE_CHARACTERS, 20),
    }
    numbers = np.random.default_rng(0)
    photos = {name: numbers.integers(0, 256, (32, 32, 3)).astype(np.uint8) for name in ("hills", "sea", "fog", "wall")}
    write_bank(path, drawings, concepts, fonts, photos)
    return path


@cache
def tiny_bank() -> Bank:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        return Bank(write_tiny_bank(Path(folder) / "sprites.safetensors"))
