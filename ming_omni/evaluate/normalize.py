"""Text as written -> the form it is compared in: English by Whisper's rules, Chinese simplified and without marks.

Whisper's rules (`whisper-normalizer`, MIT) and OpenCC (Apache-2.0) come with the extra `evaluate`; pypinyin (MIT) is
part of the product, since context words are matched by their sound.
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache

from ming_omni.errors import InputError

HAN = "\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
"""Chinese characters, as the inside of a regular expression's brackets."""
_UNIT = re.compile(rf"[{HAN}]|[^\W_{HAN}]+")
_SPELLED = re.compile(r"\b(?:[a-z]\s)+[a-z]\b")


def english(text: str) -> str:
    """Lower case without marks; contractions and numbers in one form; spelled letters joined: `A M A` is `ama`."""
    return _SPELLED.sub(lambda match: match[0].replace(" ", ""), _whisper()(text)).strip()


def chinese(text: str) -> str:
    """Simplified characters, half-width letters in lower case, no marks; numbers as they are read: 百分之二十五."""
    text = unicodedata.normalize("NFKC", text).casefold()
    text = _to_simplified().convert(text)
    if any(letter.isdecimal() for letter in text):
        text = _numbers().normalize(text)
    return " ".join(units(text))


def units(text: str) -> list[str]:
    """What errors are counted in: each Chinese character, each word of any other script. Marks are none."""
    return _UNIT.findall(text)


def characters(text: str) -> list[str]:
    """Every letter and digit."""
    return [letter for letter in text if letter.isalnum()]


def syllables(text: str) -> list[str]:
    """As `units`, with each Chinese character as its pinyin without tone."""
    return [sound for run in re.findall(rf"[{HAN}]+|[^\W_{HAN}]+", text) for sound in pinyin(run)]


def pinyin(text: str) -> list[str]:
    """Chinese characters in one run, so that their neighbours decide how they are read, or one other word."""
    if not re.match(rf"[{HAN}]", text):
        return [text]
    from pypinyin import lazy_pinyin

    return lazy_pinyin(text, v_to_u=True, errors=lambda unknown: list(unknown))


@cache
def _whisper():
    try:
        from whisper_normalizer.english import EnglishTextNormalizer
    except ImportError as error:
        raise InputError('comparing texts needs the extra: pip install "ming-omni[evaluate]"') from error

    return EnglishTextNormalizer()


@cache
def _to_simplified():
    try:
        from opencc import OpenCC
    except ImportError as error:
        raise InputError('comparing texts needs the extra: pip install "ming-omni[evaluate]"') from error

    return OpenCC("t2s")


@cache
def _numbers():
    from wetext import Normalizer

    return Normalizer(lang="zh", operator="tn")
