"""Mandarin as written, English words among it -> as spoken: `2024年3月5日` -> 二零二四年三月五日.

The grammars are WeTextProcessing's, which the published model was trained with; a few rules come before and after.
"""

from __future__ import annotations

import re
from functools import cache

DIGITS = "零幺二三四五六七八九"

BEFORE = (
    (r"(?<=[A-Za-z])[-‑](?=\d)", " "),  # GPT-4 is no negative number
    (r"(?<=\d)\s?[-–—~～]\s?(?=\d+(?:\.\d+)?[^\d\-~～]|\d+(?:\.\d+)?$)", "到"),
    (r"US\$|USD\s?", "$"),
    (r"(?<!\d)\d{15,}[Xx]?(?!\d)", lambda m: _by_digit(m[0])),  # identity and bank card numbers
    (r"(?<=[A-Z])\d{4,}(?!\d)", lambda m: _by_digit(m[0])),  # flights and trains
    (r"(?<![\d.])(\d{1,3}(?:,\d{3})+)", lambda m: m[0].replace(",", "")),
    (r"&", "和"),
)
AFTER = (
    (r"(?<=[一二三四五六七八九十百千万亿零两])\s+(?=[一二三四五六七八九十百千万亿零两])", "，"),
    (r"[*_^|\\{}\[\]<>=~～$€£#@]", " "),
    (r"…+|\.{3,}", "……"),
    (r"\s+", " "),
    (r"(?<=[\u4e00-\u9fff])\s+(?=[\u4e00-\u9fff])|(?<=[，。！？；：、])\s+|\s+(?=[，。！？；：、])", ""),
)


def _by_digit(text: str) -> str:
    return "".join(DIGITS[int(c)] if c.isdecimal() else c for c in text)


@cache
def _grammar():
    from wetext import Normalizer

    return Normalizer(lang="zh", operator="tn")


def spoken(text: str) -> str:
    """Mandarin text -> the same without digits or symbols."""
    for pattern, words in BEFORE:
        text = re.sub(pattern, words, text)
    text = _grammar().normalize(text)
    for pattern, words in AFTER:
        text = re.sub(pattern, words, text)
    return text.strip()
