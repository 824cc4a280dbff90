"""A sentence as a model or a person writes it -> words only: no Markdown, HTML, links, emoji or ornaments.

Reading marks aloud helps nobody, so structure becomes pauses and addresses become what a person would say of them.
"""

from __future__ import annotations

import html
import re
import unicodedata
from functools import cache
from urllib.parse import urlsplit

CJK = r"\u3400-\u4dbf\u4e00-\u9fff"
KEPT_SYMBOLS = "£€¢¥₹₩°×÷±≤≥≠≈−→"  # they have a reading
CHINESE_MARKS = "，。！？：；（）《》“”‘’、…—～"
GREEK = "[\u0370-\u03ff]"
TABLE_RULE = re.compile(r"\|?[\s:|-]*-{3,}[\s:|-]*\|?")
RULE = re.compile(r"([-*_]\s*){3,}")
EMAIL = re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+", re.ASCII)
URL = re.compile(
    r"(?:https?://|ftp://|www\.)[^\s<>\"'`，。！？；（）“”、" + CJK + r"]+"
    r"|\b(?:[a-zA-Z0-9-]+\.)+(?:com|org|net|io|ai|edu|gov|cn|dev|app|co\.uk)\b(?:/[\w./?=&%#-]*)?"
)


def has_chinese(text: str) -> bool:
    return re.search(f"[{CJK}]", text) is not None


def has_words(text: str) -> bool:
    """Whether anything in it can be said."""
    return any(c.isalnum() for c in text)


def plain(text: str, chinese: bool) -> str:
    """One sentence or line without any markup; empty when nothing speakable is left."""
    text = _block_marks(text.strip(), chinese)
    text = _inline_marks(_name_addresses(text, chinese))
    text = _without_emoji(text, chinese)
    if chinese:
        text = re.sub("[Ⅰ-Ⅻ]", lambda m: str(ord(m[0]) - ord("Ⅰ") + 1), text)
    text = _usual_letters(text)
    return re.sub(r"\s+", " ", text).strip()


def _block_marks(line: str, chinese: bool) -> str:
    """Headings, quotes, bullets and table rows lose their marks; a numbered item keeps its number as a word apart."""
    if TABLE_RULE.fullmatch(line) or RULE.fullmatch(line):
        return ""
    comma = "，" if chinese else ", "
    if line.startswith("|") and line.count("|") > 1:
        line = comma.join(cell.strip() for cell in line.strip("|").split("|") if cell.strip())
    line = re.sub(r"^(?:>\s?)+", "", line)
    line = re.sub(r"^#{1,6}\s+", "", line)
    line = re.sub(r"^[-*+•·▪‣]\s+(?:\[[ xX]\]\s+)?", "", line)
    return re.sub(r"^(\d{1,3})[.)]\s+(?=\S)", rf"\1{comma}", line)


def _name_addresses(text: str, chinese: bool) -> str:
    """`joe@site.com` -> "joe at site dot com"; a link is its host, whose path nobody could follow by ear."""
    dot = "点" if chinese else " dot "
    # A Markdown link is named by its own text, a picture by nothing.
    text = re.sub(r"!\[[^\]]*\]\([^)\s]*(?:\s+\"[^\"]*\")?\)", "", text)
    text = re.sub(r"\[([^\]]+)\]\([^)\s]*(?:\s+\"[^\"]*\")?\)", r"\1", text)
    text = EMAIL.sub(lambda m: m[0].replace("@", " at ").replace(".", dot), text)
    return URL.sub(lambda m: _host(m[0], dot), text)


def _host(address: str, dot: str) -> str:
    end = re.search(r"[.,;:!?)\]]*$", address)[0]
    address = address.removesuffix(end)
    host = urlsplit(address if "://" in address else f"//{address}").netloc
    return host.removeprefix("www.").replace(".", dot) + end


@cache
def _markdown():
    from markdown_it import MarkdownIt

    return MarkdownIt("commonmark", {"html": True}).enable(["strikethrough"])


def _inline_marks(text: str) -> str:
    """Emphasis, code spans, HTML and escapes, by CommonMark's rules; marks that close in another sentence go too."""
    if not re.search(r"[*_`~<&\\]", text):
        return text
    words = []
    for token in _markdown().parseInline(text)[0].children:
        if token.type in ("text", "code_inline"):
            words.append(token.content)
        elif token.type in ("softbreak", "hardbreak") or token.content.lower().startswith("<br"):
            words.append(" ")
    text = html.unescape("".join(words))
    text = re.sub(r"\*{2,}|_{2,}|~~|`+|(?<!\w)[*_](?=\w)|(?<=\w)[*_](?!\w)", "", text)
    return re.sub(r"(?<=\w)_(?=\w)", " ", text)  # snake_case is two words


def _without_emoji(text: str, chinese: bool) -> str:
    """Emoji are dropped beside words, and named where they are all there is."""
    if text.isascii():
        return text
    import emoji

    if not emoji.emoji_count(text):
        return text
    without = emoji.replace_emoji(text, " ")
    if has_words(without):
        return without
    emoji.config.load_language("zh" if chinese else "en")
    named = emoji.demojize(text, delimiters=(" ", ", "), language="zh" if chinese else "en")
    return named.replace("_", " ").rstrip(", ")


def _usual_letters(text: str) -> str:
    """Wide, circled and composed forms as plain ones; other scripts in Latin letters; ornaments and controls go."""
    if text.isascii():
        return text
    text = re.sub(r"(?<=\d)(?=[¼-¾⅐-⅞])", " ", text)  # 2½ is not 21/2
    text = re.sub(r"(?<=\d)( ?)[µμ](?=[a-zA-Z])", r"\1u", text)
    text = re.sub(r"(?<=\d)( ?k?)[Ωω]\b", r"\1Ω", text)
    text = re.sub(rf"(?<!{GREEK})(?!Ω){GREEK}(?!{GREEK})", _name_of_letter, text)
    return "".join(_usual_letter(c) for c in text)


@cache
def _usual_letter(char: str) -> str:
    if char.isascii() or char in CHINESE_MARKS or re.match(f"[{CJK}]", char):
        return char
    if char in "²³√Ω":
        return char
    usual = unicodedata.normalize("NFKC", char).replace("\u2044", "/")
    kind = unicodedata.category(char)
    if usual.isascii() and usual.strip():
        return usual
    if kind[0] == "L" or kind in ("Mn", "Mc", "Nd", "No", "Nl"):
        return _latin(usual)
    if kind[0] in "ZC":
        return " " if kind[0] == "Z" else ""
    if kind[0] == "S" and not all(c in KEPT_SYMBOLS or c.isascii() for c in usual):
        return ""
    return usual


def _name_of_letter(match: re.Match) -> str:
    """A Greek letter by itself is a symbol, called by its name."""
    name = re.search(r"LETTER (?:FINAL )?(\w+)$", unicodedata.name(match[0], ""))
    return f" {name[1].lower()} " if name else match[0]


def _latin(text: str) -> str:
    """Latin letters with marks stay; letters of other scripts are written with Latin ones."""
    if all("LATIN" in unicodedata.name(c, "") or unicodedata.combining(c) for c in text):
        return text
    from anyascii import anyascii

    return anyascii(text)
