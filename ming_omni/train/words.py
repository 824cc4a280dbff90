"""Words that may occur in a recording -> the list that a prompt for transcription carries, different at every look.

A list that always held exactly the right words would teach copying. So words of the transcript are dropped, words of
other transcripts come in, some lists hold only words that nobody says, and some prompts have no list.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from random import Random

from ming_omni.train.recipe import WordSettings

PROMPT = "Please recognize the language of this speech and transcribe it. Format: oral."
"""Published, as is the sentence that introduces the words (spec 5.4); the answer names the language first."""
LIST = "This audio may contains the following words or phrases:"


def prompt(words: Iterable[str] = ()) -> str:
    listed = ",".join(words)
    return f"{PROMPT}{LIST}{listed}." if listed else PROMPT


UNSPACED = "\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u2e80-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
"""Scripts that put no space between words: Thai, Lao, Tibetan, Burmese, Khmer, Chinese, Japanese."""
LETTER = rf"[^\W{UNSPACED}]"


def spoken(words: Iterable[str], text: str) -> list[str]:
    """Those of the words that occur in the text, as whole words where a script has spaces."""
    low = text.lower()
    return [word for word in words if word.lower() in low and re.search(_whole(word), text, re.IGNORECASE)]


def _whole(word: str) -> str:
    before = rf"(?<!{LETTER})" if re.match(LETTER, word) else ""
    after = rf"(?!{LETTER})" if re.match(LETTER, word[-1:]) else ""
    return before + re.escape(word) + after


def choose(text: str, vocabulary: list[str], settings: WordSettings, random: Random) -> list[str]:
    """The list for one look at a recording whose transcript is `text`; the vocabulary is that of the whole set."""
    present = dict.fromkeys(spoken(vocabulary, text))
    absent = [word for word in vocabulary if word not in present]
    luck = random.random()
    if luck < settings.without_list:
        return []
    is_negative = luck < settings.without_list + settings.only_absent
    kept = [word for word in present if random.random() < settings.keep and not is_negative]
    most = min(settings.distractors, len(absent))
    listed = kept + random.sample(absent, random.randint(min(is_negative, most), most))
    random.shuffle(listed)
    return listed
