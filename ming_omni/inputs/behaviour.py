"""Where the release reads inputs in a way nobody would want: our choice by default, its own on request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Behaviour:
    """One field per deviation; the first value is ours, the second what the published processor does."""

    markers: Literal["escape", "published"] = "escape"
    """Special tokens and media markers typed by a user: plain text, or obeyed (spec Q22)."""
    pictures: Literal["upright", "stored"] = "upright"
    """Turned as the camera says and laid on white where transparent, or pixels as stored with transparency dropped."""
    videos: Literal["any", "published"] = "any"
    """Any number of frames from one up, or an error below four and for odd lists of frames (spec Q27, Q28)."""
    channels: Literal["mix", "first"] = "mix"
    """All channels averaged, or the first one only (spec Q26)."""
    resampler: Literal["soxr", "sinc"] = "soxr"
    """soxr's high-quality filter, or the short windowed sinc of the release (spec 4.1)."""
    long_audio: Literal["split", "whole"] = "split"
    """Sound longer than the encoder reads in one go becomes several clips, or is left for the encoder to refuse."""


OURS = Behaviour()
PUBLISHED = Behaviour(
    markers="published",
    pictures="stored",
    videos="published",
    channels="first",
    resampler="sinc",
    long_audio="whole",
)
