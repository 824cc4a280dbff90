"""What people call a language or a dialect <-> the word that the model writes before a transcript."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass

from ming_omni.errors import InputError

CHINESE = "Chinese"


@dataclass(frozen=True)
class Dialect:
    name: str
    written: str
    """Its name in Chinese, which is also what the model writes."""
    aliases: tuple[str, ...] = ()


DIALECTS = (
    Dialect("Hunan", "湖南"),
    Dialect("Minnan", "闽南", ("Hokkien", "閩南")),
    Dialect("Cantonese", "粤语", ("yue", "广东", "粵語", "廣東")),
    Dialect("Chuanyu", "川渝", ("Sichuan", "四川", "重庆", "重慶")),
    Dialect("Shanghai", "上海", ("Shanghainese",)),
    Dialect("Anhui", "安徽"),
    Dialect("Dongbei", "东北", ("Northeastern", "東北")),
    Dialect("Henan", "河南"),
    Dialect("Hubei", "湖北"),
    Dialect("Jiangsu", "江苏", ("江蘇",)),
    Dialect("Hakka", "客家"),
    Dialect("Shaanxi", "陕西", ("陝西",)),
    Dialect("Shandong", "山东", ("山東",)),
    Dialect("Tianjin", "天津"),
    Dialect("Yunnan", "云南", ("雲南",)),
)


def written(language: str | None = None, dialect: str | None = None) -> str | None:
    """The word to put before a transcript: `Chinese`, `上海`; None when nothing is forced.

    language  an English name or an ISO 639-1 code
    dialect   one of the 15, in English or Chinese
    """
    for kind, name in (("language", language), ("dialect", dialect)):
        if name is not None and not isinstance(name, str):
            raise InputError(f"the {kind} is a name, not {type(name).__name__}")
    if dialect is None:
        return None if language is None else _language(language)
    if language is not None and _language(language) != CHINESE and _find(language) is not _find(dialect):
        raise InputError(f"{dialect} is a dialect of Chinese, not of {language}")
    found = _find(dialect)
    if found is None:
        names = {name.lower(): d for d in DIALECTS for name in (d.name, *d.aliases)}
        close = difflib.get_close_matches(_plain(dialect), names, 1)
        hint = f"did you mean {names[close[0]].name}?" if close else f"there are {', '.join(d.name for d in DIALECTS)}"
        raise InputError(f"the dialect {dialect!r} is not known; {hint}")
    return found.written


def read(word: str | None) -> tuple[str | None, str | None]:
    """What the model wrote -> the language and, if it is one of the 15, the dialect by its English name."""
    found = next((dialect for dialect in DIALECTS if dialect.written == word), None)
    return (CHINESE, found.name) if found else (word, None)


def _language(name: str) -> str:
    from transformers.models.whisper.tokenization_whisper import LANGUAGES, TO_LANGUAGE_CODE

    if found := _find(name):
        return found.written
    plain = name.strip().lower().replace("_", "-").split("-")[0]  # zh-CN is zh
    code = plain if plain in LANGUAGES else TO_LANGUAGE_CODE.get(name.strip().lower())
    if code is None:
        close = difflib.get_close_matches(plain, TO_LANGUAGE_CODE, 1)
        hint = f"did you mean {close[0].title()}?" if close else "give its English name or its ISO 639-1 code"
        raise InputError(f"the language {name!r} is not known; {hint}")
    return LANGUAGES[code].title()


def _find(name: str) -> Dialect | None:
    return next((d for d in DIALECTS if _plain(name) in map(_plain, (d.name, d.written, *d.aliases))), None)


def _plain(name: str) -> str:
    """Shanghai, 上海话 and "shanghai dialect" are one name."""
    return re.sub(r"( dialect|方言|话|話|语|語)$", "", name.strip().lower())
