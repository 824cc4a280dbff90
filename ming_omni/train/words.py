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


def spoken(words: Iterable[str], text: str) -> list[str]:
    """Those of the words that occur in the text as whole words."""
    return [word for word in words if re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text, re.IGNORECASE)]


def choose(text: str, vocabulary: list[str], settings: WordSettings, random: Random) -> list[str]:
    """The list for one look at a recording whose transcript is `text`; the vocabulary is that of the whole set."""
    present = spoken(vocabulary, text)
    absent = [word for word in vocabulary if word not in present]
    luck = random.random()
    if luck < settings.without_list:
        return []
    if luck < settings.without_list + settings.only_absent:
        present = []
    kept = [word for word in present if random.random() < settings.keep]
    most = min(settings.distractors, len(absent))
    listed = kept + random.sample(absent, random.randint(0, most))
    random.shuffle(listed)
    return listed
