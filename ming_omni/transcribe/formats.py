"""A transcript -> plain text, JSON, or subtitles (srt, vtt)."""

from __future__ import annotations

import json

from ming_omni.errors import InputError
from ming_omni.transcribe.result import Segment, Transcript

FORMATS = ("txt", "json", "srt", "vtt")
SUBTITLE_FORMATS = ("srt", "vtt")
"""These need the times of short segments."""


def render(transcript: Transcript, format: str) -> str:
    """The whole file, which ends in a new line unless it is empty."""
    if format not in FORMATS:
        raise InputError(f"the format is one of {', '.join(FORMATS)}, not {format!r}")
    if format == "json":
        return json.dumps(transcript.to_dict(), ensure_ascii=False, indent=2) + "\n"
    if format == "txt":
        return transcript.text + "\n" if transcript.text else ""
    spoken = [segment for segment in transcript.segments if segment.text]
    if format == "srt":
        return "\n".join(f"{i}\n{_times(s, ',')}\n{_line(s.text)}\n" for i, s in enumerate(spoken, 1))
    return "\n".join(["WEBVTT\n", *(f"{_times(s, '.')}\n{_vtt(s.text)}\n" for s in spoken)])


def _times(segment: Segment, point: str) -> str:
    return f"{_time(segment.start, point)} --> {_time(segment.end, point)}"


def _time(seconds: float, point: str) -> str:
    milliseconds = round(seconds * 1000)
    minutes, milliseconds = divmod(milliseconds, 60_000)
    return f"{minutes // 60:02}:{minutes % 60:02}:{milliseconds // 1000:02}{point}{milliseconds % 1000:03}"


def _line(text: str) -> str:
    """An empty line would end a subtitle."""
    return " ".join(text.split())


def _vtt(text: str) -> str:
    """`-->` would begin a new subtitle, and `<` a tag."""
    return _line(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
