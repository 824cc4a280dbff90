"""A sentence as spoken -> symbols that say how it sounds, and their ids: what nano's talker reads.

English words come from a dictionary of phonemes; the dictionary's inflected forms too; a word it does not know is read
letter by letter, by symbols of their own. Mandarin is pinyin with its tones as spoken, each syllable in two parts.
"""

from __future__ import annotations

import json
import lzma
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ming_omni.speech.alphabet import END, UNKNOWN
from ming_omni.speech.plain import CJK

SYMBOLS_FILE, WORDS_FILE = "symbols.json", "words.tsv.xz"
GAP = "_"
"""Between two words where one of them is English."""
MARKS = {
    ",": ",", "，": ",", "、": ",", "(": ",", ")": ",", "（": ",", "）": ",", "—": ",", "–": ",", ";": ";", "；": ";",
    ":": ":", "：": ":", ".": ".", "。": ".", "…": ".", "!": "!", "！": "!", "?": "?", "？": "?",
}  # fmt: skip
ENDINGS = ".!?"
"""One of them stands at the end of every sentence that the talker has learned from."""
PHONEMES = "AIOWYbdfhijklmnpstuvwzæðŋɑɔəɛɜɡɪɹɾʃʊʌʒʔʤʧθᵊᵻˈˌT"
"""Of misaki's American dictionary: A, I, O, W, Y are diphthongs, ˈ and ˌ stand before a stressed vowel."""
LETTERS = "abcdefghijklmnopqrstuvwxyz'"
INITIALS = (
    "b", "p", "m", "f", "d", "t", "n", "l", "g", "k", "h", "j", "q", "x", "zh", "ch", "sh", "r", "z", "c", "s",
)  # fmt: skip
FINALS = (
    "a", "o", "e", "ai", "ei", "ao", "ou", "an", "en", "ang", "eng", "er", "ong", "i", "ia", "ie", "iao", "iou", "ian",
    "in", "iang", "ing", "iong", "io", "u", "ua", "uo", "uai", "uei", "uan", "uen", "uang", "ueng", "v", "ve", "van",
    "vn", "-i",
)  # fmt: skip
HISSING = ("zh", "ch", "sh", "r", "z", "c", "s")
SYMBOLS = (
    END, UNKNOWN, GAP, *dict.fromkeys(MARKS.values()), *PHONEMES, *(f"<{letter}>" for letter in LETTERS),
    *(f"{initial}-" for initial in INITIALS), *(f"{final}{tone}" for final in FINALS for tone in "12345"),
)  # fmt: skip
WORD = re.compile(rf"[A-Za-z]+(?:'[A-Za-z]+)*|[{CJK}]+|[^\sA-Za-z{CJK}]")
VOICELESS, SIBILANT = "ptkfθ", "szʃʒʧʤ"
MAX_INITIALS = 5
"""Capitals of a word that is spelled out, such as NTT, rather than read."""


class Unit(NamedTuple):
    """One word, run of hanzi or mark."""

    symbols: list[str]
    letters: list[str] | None = None
    """Its other reading, letter by letter; English words have one."""


class Reader:
    """Called like a tokenizer, from which `Speaker` cannot tell it."""

    def __init__(self, words: Mapping[str, str], symbols: Sequence[str] = SYMBOLS):
        """words: English in small letters -> phonemes."""
        self.words, self.symbols = words, list(symbols)
        self.numbers = {symbol: i for i, symbol in enumerate(self.symbols)}
        self.eos_token_id = self.numbers[END]

    def __len__(self) -> int:
        return len(self.symbols)

    def __call__(self, text: str, add_special_tokens: bool = False) -> dict[str, list[int]]:
        symbols = [symbol for unit in self.units(text) for symbol in unit.symbols]
        if symbols and symbols[-1] not in ENDINGS:  # a clause that is spoken alone, a quotation
            symbols = [*(symbols[:-1] if symbols[-1] in MARKS.values() else symbols), "."]
        return {"input_ids": self.ids(symbols)}

    def ids(self, symbols: Sequence[str]) -> list[int]:
        return [self.numbers[symbol] for symbol in symbols if symbol in self.numbers]

    def convert_tokens_to_ids(self, symbol: str) -> int:
        return self.numbers.get(symbol, self.numbers[UNKNOWN])

    def units(self, text: str) -> list[Unit]:
        """The text in order; gaps stand in units of their own."""
        found: list[Unit] = []
        was_english = was_word = False
        for part in WORD.findall(_latin(text)):
            if part in MARKS:
                if found and found[-1].symbols != [MARKS[part]]:
                    found.append(Unit([MARKS[part]]))
                was_word = False
                continue
            is_english = part[0].isascii() and part[0].isalpha()
            unit = self._english(part) if is_english else Unit(_mandarin(part))
            if not unit.symbols:
                continue
            if was_word and (is_english or was_english):
                found.append(Unit([GAP]))
            found.append(unit)
            was_word, was_english = True, is_english
        return found

    def _english(self, word: str) -> Unit:
        letters = [f"<{letter}>" for letter in word.lower()]
        return Unit(self._sounds(word) or letters, letters)

    def _sounds(self, word: str) -> list[str] | None:
        """Phonemes of a word, or None for one that is not known."""
        small = word.lower()
        for stem, ending in ((small, ""), *_stems(small)):
            if stem in self.words:
                return list(self.words[stem] + _ended(self.words[stem], ending))
        if word.isupper() and len(word) <= MAX_INITIALS and all(letter in self.words for letter in small):
            return [symbol for letter in small for symbol in (*self.words[letter], GAP)][:-1]
        return None

    def save_pretrained(self, folder: str | Path) -> None:
        folder = Path(folder)
        (folder / SYMBOLS_FILE).write_text(json.dumps(self.symbols, ensure_ascii=False) + "\n", encoding="utf-8")
        write_words(folder / WORDS_FILE, self.words)

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> Reader:
        symbols = json.loads((Path(folder) / SYMBOLS_FILE).read_text(encoding="utf-8"))
        return cls(read_words(Path(folder) / WORDS_FILE), symbols)


def read_words(path: Path) -> dict[str, str]:
    """A dictionary file: a word, a tab and its phonemes in each line."""
    lines = lzma.decompress(path.read_bytes()).decode().splitlines()
    return dict(line.split("\t") for line in lines)


def write_words(path: Path, words: Mapping[str, str]) -> None:
    lines = "".join(f"{word}\t{phonemes}\n" for word, phonemes in sorted(words.items()))
    path.write_bytes(lzma.compress(lines.encode(), preset=9))


def readings(text: str) -> list[str]:
    """`你好` -> ["ni2", "hao3"]: pinyin with its tone as spoken, sandhi included."""
    from pypinyin import Style, lazy_pinyin

    return lazy_pinyin(text, style=Style.TONE3, neutral_tone_with_five=True, tone_sandhi=True)


def split_syllable(syllable: str) -> tuple[str, str, str]:
    """`zhi1` -> ("zh", "-i", "1"): initial, final as pronounced, tone."""
    from pypinyin.contrib.tone_convert import to_finals, to_initials

    tone = syllable[-1] if syllable[-1].isdigit() else "5"
    plain = syllable.rstrip("12345")
    initial, final = to_initials(plain, strict=True), to_finals(plain, strict=True).replace("ü", "v")
    return initial, "-i" if final == "i" and initial in HISSING else final, tone


def _mandarin(hanzi: str) -> list[str]:
    """A hanzi that has no reading is left out."""
    found = []
    for syllable in readings(hanzi):
        if re.fullmatch(r"[a-zü]+[1-5]?", syllable):
            initial, final, tone = split_syllable(syllable)
            found += [f"{initial}-"] * bool(initial) + [f"{final}{tone}"] * bool(final)
    return found


def _stems(word: str) -> Iterator[tuple[str, str]]:
    """What an English word may be a form of, each with its ending."""
    for ending in ("'s", "s"):
        if word.endswith(ending) and len(word) > len(ending) + 1:
            yield word.removesuffix(ending), "s"
    if word.endswith("ies"):
        yield f"{word[:-3]}y", "s"
    elif word.endswith("es"):
        yield word[:-2], "s"
    for ending in ("ed", "ing"):
        stem = word.removesuffix(ending)
        if stem != word and len(stem) > 1:
            yield from ((stem, ending), (f"{stem}e", ending))
            if stem[-1] == stem[-2]:
                yield stem[:-1], ending
    if word.endswith("ied"):
        yield f"{word[:-3]}y", "ed"


def _ended(phonemes: str, ending: str) -> str:
    """How an ending sounds behind these phonemes."""
    last = phonemes[-1]
    match ending:
        case "s":
            return "ᵻz" if last in SIBILANT else "s" if last in VOICELESS else "z"
        case "ed":
            return "ᵻd" if last in "td" else "t" if last in VOICELESS + "sʃʧ" else "d"
        case "ing":
            return "ɪŋ"
    return ""


def _latin(text: str) -> str:
    """`café` -> "cafe"; hyphens are gaps."""
    text = text.replace("’", "'").replace("-", " ")
    if text.isascii():
        return text
    return "".join(c for c in unicodedata.normalize("NFD", text) if not unicodedata.combining(c))
