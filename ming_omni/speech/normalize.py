"""A sentence as written -> as spoken, in English or Mandarin; empty when there is nothing to say."""

from __future__ import annotations

from ming_omni.speech import english, mandarin
from ming_omni.speech.plain import has_chinese, has_words, plain


def spoken(text: str, is_chinese: bool = False) -> str:
    """One Chinese character makes a sentence Mandarin; its English words stay English.

    is_chinese: what the text around it is; it decides how a sentence without letters, such as "110", is read.
    """
    chinese = has_chinese(text) or (is_chinese and not any(c.isalpha() for c in text))
    text = plain(text, chinese)
    if not has_words(text):
        return ""
    return mandarin.spoken(text) if chinese else english.spoken(text)
