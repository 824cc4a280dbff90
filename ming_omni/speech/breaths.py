"""A sentence as it is said -> breaths: what a talker that has learned from short sentences can say at once."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from itertools import accumulate

from ming_omni.speech.plain import CJK, has_chinese
from ming_omni.speech.sentences import CLAUSE

SECONDS_PER_LETTER, SECONDS_PER_CHINESE = 0.07, 0.25
"""Of slow speech: medians of Kokoro's, over 3,840 sentences, are 0.060 and 0.216 at its own pace, of which the slowest
speakers that nano has learned from keep 0.85. Spaces and marks count as letters."""
PLACES = (
    re.compile(rf"(?:{CLAUSE.pattern})\s*"),
    re.compile(
        r"\s+(?=(?:and|or|but|nor|so|yet|because|since|although|though|while|when|where|which|who|that|if|unless|until"
        r"|before|after|than|as)\s)"
        r"|(?=但|而且|并且|以及|或者|因为|所以|因此|如果|虽然|不过|然后|于是|同时|(?<!然)而)"
    ),
    re.compile(rf"\s+|(?<=[{CJK}])(?=[{CJK}])"),
    re.compile(r"(?s:.)"),
)
"""Where a sentence may be divided, the best first: behind a clause, before a conjunction, between words, anywhere."""


def seconds_of(said: str) -> float:
    """About how long it takes a slow speaker."""
    return sum(map(_seconds, said))


def _seconds(char: str) -> float:
    return SECONDS_PER_CHINESE if has_chinese(char) else SECONDS_PER_LETTER


def breaths(said: str, seconds: float | None) -> Iterator[str]:
    """Parts of about one length, none longer than so many seconds (at least 1); None: the sentence as it is."""
    while seconds is not None and (count := math.ceil(seconds_of(said) / seconds)) > 1:
        times = list(accumulate(map(_seconds, said), initial=0.0))  # of what lies before each place
        share = times[-1] / count
        # A breath of a word or two would sound chopped off.
        room = share / 2, min(seconds, times[-1] - share / 2)
        for places in PLACES:
            ends = [m.end() for m in places.finditer(said) if room[0] <= times[m.end()] <= room[1]]
            if ends:
                break
        end = min(ends, key=lambda end: abs(times[end] - share))
        yield said[:end].strip()
        said = said[end:].strip()
    yield said
