"""Sentences as spoken, in English, Mandarin or both -> the phonemes that Kokoro reads.

English comes from espeak-ng, run from its unpacked Debian packages or from the path; Mandarin from pypinyin's readings.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from ming_omni.data import packages
from ming_omni.errors import InputError
from ming_omni.speech.reading import readings, split_syllable

CHINESE = re.compile(r"[\u4e00-\u9fff]+")
PIECES = re.compile(r"[\u4e00-\u9fff]+|[A-Za-z0-9' \-]+|[^\u4e00-\u9fffA-Za-z0-9' \-]")
MARKS = str.maketrans("，。！？；：、“”（）", ',.!?;:,""()')
# espeak's IPA, with ^ between the letters of one sound -> Kokoro's one-letter sounds. Order matters.
SOUNDS = (
    ("a^ɪ", "I"), ("a^ʊ", "W"), ("d^ʒ", "ʤ"), ("e^ɪ", "A"), ("t^ʃ", "ʧ"), ("ɔ^ɪ", "Y"), ("o^ʊ", "O"), ("ə^ʊ", "Q"),
    ("ə^l", "ᵊl"), ("ʔ^n", "tᵊn"), ("ʔn", "tᵊn"), ("ʔ", "t"), ("ɚ", "əɹ"), ("r", "ɹ"), ("x", "k"), ("ç", "k"),
    ("ɐ", "ə"), ("ɬ", "l"), ("\u0303", ""),
)  # fmt: skip
AMERICAN = (("ɜːɹ", "ɜɹ"), ("ɜː", "ɜɹ"), ("ɪə", "iə"), ("o", "ɔ"), ("ɾ", "T"), ("ː", ""), ("^", ""))
BRITISH = (("e^ə", "ɛː"), ("iə", "ɪə"), ("^", ""))

INITIALS = {
    "b": "p", "p": "pʰ", "m": "m", "f": "f", "d": "t", "t": "tʰ", "n": "n", "l": "l", "g": "k", "k": "kʰ", "h": "x",
    "j": "ʨ", "q": "ʨʰ", "x": "ɕ", "zh": "ꭧ", "ch": "ꭧʰ", "sh": "ʂ", "r": "ɻ", "z": "ʦ", "c": "ʦʰ", "s": "s", "": "",
}  # fmt: skip
# Final -> what comes before the tone, and after it.
FINALS = {
    "a": ("a", ""), "o": ("o", ""), "e": ("ɤ", ""), "ai": ("ai", ""), "ei": ("ei", ""), "ao": ("au", ""),
    "ou": ("ou", ""), "an": ("a", "n"), "en": ("ə", "n"), "ang": ("a", "ŋ"), "eng": ("ə", "ŋ"), "er": ("ə", "ɻ"),
    "ong": ("ʊ", "ŋ"), "i": ("i", ""), "ia": ("ja", ""), "ie": ("je", ""), "iao": ("jau", ""), "iou": ("jou", ""),
    "ian": ("jɛ", "n"), "in": ("i", "n"), "iang": ("ja", "ŋ"), "ing": ("i", "ŋ"), "iong": ("jʊ", "ŋ"),
    "io": ("jɔ", ""), "u": ("u", ""), "ua": ("wa", ""), "uo": ("wo", ""), "uai": ("wai", ""), "uei": ("wei", ""),
    "uan": ("wa", "n"), "uen": ("wə", "n"), "uang": ("wa", "ŋ"), "ueng": ("wə", "ŋ"), "v": ("y", ""),
    "ve": ("ɥe", ""), "van": ("ɥɛ", "n"), "vn": ("y", "n"), "-i": ("ɨ", ""),
}  # fmt: skip
TONES = {"1": "→", "2": "↗", "3": "↓", "4": "↘", "5": ""}


class Espeak:
    """The program and its data, wherever they are."""

    def __init__(self, cache: Path | None = None):
        self.program, self.environment = shutil.which("espeak-ng"), dict(os.environ)
        if self.program:
            return
        folders = [packages.fetch(package, cache) for package in packages.ESPEAK]
        programs = [path for folder in folders for path in folder.glob("usr/bin/espeak-ng")]
        data = [path for folder in folders for path in folder.rglob("phontab")]
        libraries = {str(path.parent) for folder in folders for path in folder.glob("usr/lib/*/lib*.so.*")}
        if not programs or not data:
            raise InputError("espeak-ng is missing; install it with the system's package manager")
        self.program = str(programs[0])
        self.environment |= {
            "LD_LIBRARY_PATH": ":".join(sorted(libraries)),
            "ESPEAK_DATA_PATH": str(data[0].parent.parent),
        }

    def ipa(self, fragments: Sequence[str], accent: str = "en-us") -> list[str]:
        """IPA of each fragment, none of which has a mark inside; all in one run of the program."""
        if not fragments:
            return []
        lines = self._run("\n".join(fragments), accent)
        if len(lines) == len(fragments):
            return lines
        # A fragment was long enough to be cut in two; apart, nothing can be mixed up.
        return [" ".join(self._run(fragment, accent)) for fragment in fragments]

    def _run(self, text: str, accent: str) -> list[str]:
        command = [self.program, "-q", "--ipa", "--tie=^", "-v", accent]
        done = subprocess.run(command, input=text, capture_output=True, text=True, env=self.environment)
        if done.returncode:
            raise InputError(f"espeak-ng failed: {done.stderr.strip()}")
        return [line.strip() for line in done.stdout.splitlines() if line.strip()]


def phonemes(texts: Sequence[str], espeak: Espeak, accent: str = "en-us") -> list[str]:
    """Each text, its numbers already spelled out -> phonemes; English parts of Mandarin stay English."""
    pieces = [PIECES.findall(text.translate(MARKS)) for text in texts]
    english = [p.strip() for text in pieces for p in text if re.search(r"[A-Za-z]", p)]
    spoken = dict(zip(english, espeak.ipa(english, accent), strict=True))
    joined = ["".join(_piece(piece, spoken, accent) for piece in text) for text in pieces]
    return [re.sub(r"\s+", " ", re.sub(r"\s+([,.!?;:])", r"\1", text)).strip() for text in joined]


def _piece(piece: str, spoken: dict[str, str], accent: str) -> str:
    if CHINESE.fullmatch(piece):
        return mandarin(readings(piece))
    if piece.strip() in spoken:
        return f" {kokoro_english(spoken[piece.strip()], accent)} "
    return f"{piece} "


def kokoro_english(ipa: str, accent: str) -> str:
    for sound, letter in (*SOUNDS, *(BRITISH if accent == "en-gb" else AMERICAN)):
        ipa = ipa.replace(sound, letter)
    return ipa


def mandarin(syllables: Sequence[str]) -> str:
    """Pinyin syllables -> phonemes, the tone behind the vowel."""
    return "".join(_syllable(*split_syllable(syllable)) for syllable in syllables)


def _syllable(initial: str, final: str, tone: str) -> str:
    before, after = FINALS.get(final, ("", ""))
    return INITIALS.get(initial, "") + before + TONES[tone] + after
