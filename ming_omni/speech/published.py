"""Chunks of text -> fragments to speak, as the published front end cuts and spells them (spec Appendix C.1 to C.3).

By default we use `sentences.py` and `normalize.py`; this file serves comparison with the release and `compatible.py`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import cache
from typing import NamedTuple

CJK = r"\u4e00-\u9fa5"
TOKEN = re.compile(rf"(?:[A-Za-z]\.){{2,}}|[A-Za-z]+(?:['’-][A-Za-z]+)*|\d+(?:\.\d+)?|[{CJK}]|\s+|.", re.DOTALL)
SENTENCE_ENDS = "。！？"
CHINESE_MARKS = str.maketrans(".!?,\n", "。！？， ")
SHORT = 5  # a piece below this semantic length does not stand alone
PROTECTED_DOT = "\ue000"  # private use: no text holds it

UNITS = {
    "ms": "millisecond", "s": "second", "hz": "hertz", "khz": "kilohertz", "mhz": "megahertz", "ghz": "gigahertz",
    "kb": "kilobyte", "mb": "megabyte", "gb": "gigabyte", "tb": "terabyte",
    "bps": "bit per second", "kbps": "kilobit per second", "mbps": "megabit per second", "gbps": "gigabit per second",
    "cm": "centimeter", "km": "kilometer", "kg": "kilogram", "v": "volt", "w": "watt", "a": "ampere",
    "°c": "degree celsius", "°f": "degree fahrenheit",
}  # fmt: skip

NUMBER = r"\d+(?:\.\d+)?"
UNIT = "|".join(sorted(UNITS, key=len, reverse=True))


class Fragment(NamedTuple):
    """One piece to synthesise and where it lay in the text it was cut from."""

    text: str
    start: int
    end: int


def is_chinese(text: str) -> bool:
    return re.search(f"[{CJK}]", text) is not None


def tokenize(chunks: Iterable[str]) -> Iterator[str]:
    """Tokens of each chunk; a plain string is a sequence of one-character chunks, as published (Q64)."""
    for chunk in chunks:
        yield from TOKEN.findall(chunk)


def semantic_length(text: str) -> int:
    """One for every Chinese character and for every run of Latin letters."""
    return len(re.findall(rf"[{CJK}]|[A-Za-z]+", text))


def groups(chunks: Iterable[str]) -> Iterator[str]:
    """Buffer tokens until a sentence of about a dozen tokens is complete; later groups may be shorter (C.1)."""
    buffer: list[str] = []
    num_groups = 0
    for token in tokenize(chunks):
        is_full = len(buffer) >= 12 or (num_groups > 0 and len(buffer) >= 8)
        if token.endswith("\n"):
            if buffer:
                buffer.append(_line_break(token, "".join(buffer)))
        else:
            after_digit = bool(buffer) and buffer[-1][-1:].isdigit()
            is_full = is_full and (token[-1] in "！？。!?" or (token[-1] == "." and not after_digit))
            buffer.append(token)
        if is_full and buffer:
            yield "".join(buffer)
            buffer, num_groups = [], num_groups + 1
    rest = "".join(buffer)
    # The release drops a tail without a letter, CJK character or digit 1-9, and so loses a lone "0" (Q67); we keep it.
    if re.search(rf"[A-Za-z{CJK}0-9]", rest):
        yield rest


def _line_break(token: str, before: str) -> str:
    if is_chinese(before):
        return "，" if is_chinese(before[-1]) else ""
    line = token.rstrip("\n")
    return line + "." if line[-1:].isalpha() else line


def cut(text: str, limit: int) -> list[Fragment]:
    """Fragments of at most `limit` semantic length, cut at sentence ends, else clauses, else units (C.2)."""
    if not re.sub(r"[\s!-/:-@\[-`{-~]", "", text):
        return []
    flat = re.sub(r"(?<=\d)\.(?=\d)|(?<=[A-Z])\.(?=[A-Z])", PROTECTED_DOT, text)
    flat = flat.replace("\n", " ").replace("。，", "。")
    if semantic_length(flat) <= limit:
        return _locate([flat], text)
    flat = flat.translate(CHINESE_MARKS)
    fragments = [""]
    for sentence in re.findall(rf"[^{SENTENCE_ENDS}]*[{SENTENCE_ENDS}]+|[^{SENTENCE_ENDS}]+$", flat):
        ended = sentence if sentence[-1] in SENTENCE_ENDS else sentence + "。"
        for piece in _clauses(ended, limit):
            fragments = _append(fragments, piece, limit)
    return _locate([kept for f in fragments if (kept := f.lstrip("，,:; \t"))], text)


def _clauses(sentence: str, limit: int) -> list[str]:
    """Clauses of one sentence: short ones joined to their successor, long ones split at units."""
    clauses: list[str] = []
    for clause in re.findall(r"[^，,;；]*[，,;；]|[^，,;；]+$", sentence):
        pair = clauses[-1] + clause if clauses else ""
        if clauses and semantic_length(clauses[-1]) < SHORT and semantic_length(pair) <= limit:
            clauses[-1] = pair
        elif semantic_length(clause) <= limit:
            clauses.append(clause)
        else:
            clauses += _units(clause, limit)
    return clauses


def _units(clause: str, limit: int) -> list[str]:
    pieces = [""]
    for unit in re.findall(rf"[{CJK}]|[A-Za-z]+|[^{CJK}A-Za-z]+", clause):
        if semantic_length(pieces[-1] + unit) > limit:
            pieces.append("")
        pieces[-1] += unit
    return pieces


def _append(fragments: list[str], piece: str, limit: int) -> list[str]:
    last = fragments[-1]
    starts_anew = last[-1:] in tuple(SENTENCE_ENDS) and semantic_length(piece) < SHORT
    if starts_anew or semantic_length(last + piece) > limit:
        return [*fragments, piece]
    # Removed dots and joined clauses must not glue two Latin words together.
    space = " " if last and re.match("[A-Za-z0-9]", piece) and not last.endswith(" ") else ""
    return [*fragments[:-1], last + space + piece]


def _locate(pieces: list[str], text: str) -> list[Fragment]:
    """Give each piece its place in the original; a piece that was rewritten follows the one before it."""
    fragments, position = [], 0
    same_marks = text.translate(CHINESE_MARKS)
    for piece in pieces:
        piece = piece.replace(PROTECTED_DOT, ".")
        found = max(text.find(piece, position), same_marks.find(piece.translate(CHINESE_MARKS), position))
        start = found if found >= 0 else position
        position = min(start + len(piece), len(text))
        fragments.append(Fragment(piece, start, position))
    return fragments


@cache
def _inflector():
    import inflect

    return inflect.engine()


def spell(number: str) -> str:
    """A number in words without "and"; decimals digit by digit, negatives as "minus"."""
    return _inflector().number_to_words(number, andword="")


def expand_english_numbers(text: str) -> str:
    """Spell numbers in a fragment without Chinese, in the published order and with its spaces (C.3, Q73)."""
    text = re.sub(r"(?<=\d),(?=\d{3})", "", text)
    text = re.sub(rf"(?<![\w.])(-?{NUMBER})\s*({UNIT})\b", _measure, text, flags=re.IGNORECASE)
    text = re.sub(rf"£({NUMBER})", lambda m: _amount(m[1], "pound"), text)
    text = re.sub(rf"\$({NUMBER})", lambda m: _amount(m[1], "dollar"), text)
    text = re.sub(r"(\d+)/(\d+)", _fraction, text)
    text = re.sub(rf"({NUMBER})%", lambda m: f"{spell(m[1])} percent", text)
    text = re.sub(r"\b(\d+)(?:st|nd|rd|th)\b", lambda m: f" {spell(m[1])} ", text)
    text = re.sub(rf"\b([A-Za-z]+)-?({NUMBER})\b", lambda m: f"{m[1]} {spell(m[2])}", text)
    text = re.sub(rf"\b{NUMBER}\b", lambda m: f" {spell(m[0])} ", text)
    return re.sub(r"\s+", " ", text).strip()


def _amount(number: str, name: str) -> str:
    return f"{spell(number)} {name}" if number == "1" else f"{spell(number)} {_plural(name)}"


def _measure(match: re.Match) -> str:
    return f" {_amount(match[1], UNITS[match[2].lower()])} "


def _plural(name: str) -> str:
    if name.endswith("hertz"):
        return name
    first, *rest = name.split(" ", 1)
    return " ".join([first + "s", *rest])


def _fraction(match: re.Match) -> str:
    numerator, denominator = int(match[1]), int(match[2])
    if denominator in (2, 4):
        name = {2: "half", 4: "quarter"}[denominator]
        return f"one {name}" if numerator == 1 else f"{spell(match[1])} {'halves' if denominator == 2 else 'quarters'}"
    return f"{spell(match[1])} {_inflector().ordinal(spell(match[2]))}"
