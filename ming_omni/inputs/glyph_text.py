"""A prompt -> the words to be painted into the picture: what stands between quotes (spec 6.5)."""

from __future__ import annotations

import re

QUOTED = (re.compile(r'"(.*?)"'), re.compile(r"‘(.*?)’"), re.compile(r"“(.*?)”"))
OPENING = re.compile(r'["‘“]')
TAKING_AWAY = re.compile(r"remove|delete|clear", re.IGNORECASE)
CJK = re.compile(r"[\u4e00-\u9fff]")
LONGEST_SPAN = 60
"""Longer spans between single quotes are apostrophes far apart, not quotations; a CJK character counts three."""


def glyph_text(prompt: str) -> str:
    """`Text "OPEN". ` for `a sign 'OPEN'`; empty when nothing is to be written. The last quotation counts."""
    if _are_quotes(prompt):
        prompt = prompt.replace("'", '"')
    found = [text for pattern in QUOTED for text in pattern.findall(prompt)]
    if len(found) == 1:
        opening = OPENING.search(prompt).start()
        if TAKING_AWAY.search(prompt[:opening]):  # "remove the word ..." asks for the opposite
            return ""
    return f'Text "{found[-1]}". ' if found else ""


def _are_quotes(prompt: str) -> bool:
    spans = prompt.split("'")[1::2]
    return prompt.count("'") % 2 == 0 and all(len(span) + 2 * len(CJK.findall(span)) < LONGEST_SPAN for span in spans)
