"""Mandarin as written, English words among it -> as spoken: `2024年3月5日` -> 二零二四年三月五日.

The grammars are WeTextProcessing's, which the published model was trained with; a few rules come before and after.
"""

from __future__ import annotations

import re
from functools import cache

DIGITS = "零幺二三四五六七八九"

SERIAL = "验证码|密码|邮编|邮政编码|QQ号?|学号|工号|订单号|单号|尾号|编号|房号|手机号码?|电话号码?|电话"
"""A number after one of these is read digit by digit."""

BEFORE = (
    (r"(?<=[A-Za-z])[-‑](?=\d)", " "),  # GPT-4 is no negative number
    (r"(?<![\d-])(\d{4})-(\d{1,2})-(\d{1,2})(?![\d-])", lambda m: f"{m[1]}年{int(m[2])}月{int(m[3])}日"),
    (r"\+86[ -]?(?=1\d{10})", "八六，"),
    (
        r"(?<![\d-])(?:0\d{2,3}-\d{7,8}|[48]00-\d{3,4}-\d{3,4}|1\d\d-\d{4}-\d{4})(?![\d-])",
        lambda m: "，".join(map(_by_digit, m[0].split("-"))),
    ),
    (rf"({SERIAL})([是为：: ]{{0,2}})(\d{{3,}})(?![\d.])", lambda m: m[1] + m[2] + _by_digit(m[3])),
    (r"(比分[是为：: ]?\d+)\s?[-–—]\s?(?=\d)", r"\1比"),
    (r"(?<=\d)\s?[-–−]\s?(?=\d+(?:\.\d+)?\s*=)", "减"),
    (r"([A-Za-z]|\d+)\^(\d+)", r"\1的\2次方"),
    (r"(?<![A-Za-z\d])([A-Za-z]|\d+)²", r"\1的平方"),
    (r"√\s?", "根号"),
    (r"≈\s?", "约等于"),
    (r"(?<=[A-Za-z])\+\+", "加加"),
    (r"(?<!<)<\s?(?=\d)", "小于"),
    (r"(?<!>)>\s?(?=\d)", "大于"),
    (r"(?<=[CF])#", " sharp"),
    (r"HK\$\s?(\d[\d,.]*)", r"\1港元"),
    (r"(?<=\d)\s?[-–—~～]\s?(?=\d+(?:\.\d+)?[^\d\-~～]|\d+(?:\.\d+)?$)", "到"),
    (r"US\$|USD\s?", "$"),
    (r"(?<!\d)\d{15,}[Xx]?(?!\d)", lambda m: _by_digit(m[0])),  # identity and bank card numbers
    (r"(?<=[A-Z])\d{4,}(?!\d)", lambda m: _by_digit(m[0])),  # flights and trains
    (r"(?<![\d.])(\d{1,3}(?:,\d{3})+)", lambda m: m[0].replace(",", "")),
    (r"&", "和"),
)
AFTER = (
    (r"(?<=[一二三四五六七八九十百千万亿零两])\s+(?=[一二三四五六七八九十百千万亿零两])", "，"),
    (r"\+", "加"),
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
