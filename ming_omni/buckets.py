"""The shape of a picture -> the size (height, width) at which the published painter works on it."""

from __future__ import annotations

# Height/width ratio -> (height, width). The keys are rounded, and the nearest *key* decides (spec 6.8, appendix D).
BUCKETS_512 = {
    0.25: (256, 1024), 0.26: (256, 992), 0.27: (256, 960), 0.28: (256, 928), 0.32: (288, 896), 0.33: (288, 864),
    0.35: (288, 832), 0.4: (320, 800), 0.42: (320, 768), 0.48: (352, 736), 0.5: (352, 704), 0.52: (352, 672),
    0.57: (384, 672), 0.6: (384, 640), 0.68: (416, 608), 0.72: (416, 576), 0.78: (448, 576), 0.82: (448, 544),
    0.88: (480, 544), 0.94: (480, 512), 1.0: (512, 512), 1.07: (512, 480), 1.13: (544, 480), 1.21: (544, 448),
    1.29: (576, 448), 1.38: (576, 416), 1.46: (608, 416), 1.67: (640, 384), 1.75: (672, 384), 2.0: (704, 352),
    2.09: (736, 352), 2.4: (768, 320), 2.5: (800, 320), 2.89: (832, 288), 3.0: (864, 288), 3.11: (896, 288),
    3.62: (928, 256), 3.75: (960, 256), 3.88: (992, 256), 4.0: (1024, 256),
}  # fmt: skip

BUCKETS_672 = {
    0.28: (352, 1280), 0.32: (384, 1184), 0.38: (416, 1088), 0.44: (448, 1024), 0.52: (480, 928), 0.57: (512, 896),
    0.65: (544, 832), 0.75: (576, 768), 0.83: (608, 736), 0.91: (640, 704), 1.00: (672, 672), 1.10: (704, 640),
    1.21: (736, 608), 1.33: (768, 576), 1.39: (800, 576), 1.53: (832, 544), 1.69: (864, 512), 1.75: (896, 512),
    1.93: (928, 480), 2.00: (960, 480), 2.21: (992, 448), 2.29: (1024, 448), 2.54: (1056, 416), 2.62: (1088, 416),
    2.69: (1120, 416), 3.00: (1152, 384), 3.08: (1184, 384), 3.17: (1216, 384), 3.55: (1248, 352), 3.64: (1280, 352),
}  # fmt: skip

BUCKETS_1024 = {ratio: (2 * height, 2 * width) for ratio, (height, width) in BUCKETS_512.items()}


def bucket(height: int, width: int, highres: bool | int | None = False) -> tuple[int, int]:
    """(height, width) the painter works at for a picture of this shape.

    highres  False or None: around 512², 672: around 672², anything else: around 1024²
    """
    if not highres:
        table = BUCKETS_512
    elif highres is not True and highres == 672:
        table = BUCKETS_672
    else:
        table = BUCKETS_1024
    ratio = height / width
    return table[min(table, key=lambda key: abs(key - ratio))]
