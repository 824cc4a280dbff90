"""An open media file -> a PyAV container that reads only the file itself; decoder failures become InputError."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from ming_omni.errors import InputError

# Self-contained formats only. Playlists (HLS, DASH, concat) name other files and addresses, so a stranger's
# "video" could make this machine read or fetch them.
FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,flv,asf,ogg,gif,"
    "wav,w64,mp3,aac,flac,aiff,au,caf,amr,ac3,eac3"
)


@contextmanager
def decoding(kind: str) -> Iterator[None]:
    """Decoders fed with damaged bytes raise almost anything; to the caller all of it means: this file is bad."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise InputError(f"the {kind} cannot be read: {reason}") from error


@contextmanager
def open_container(file: BinaryIO, kind: str) -> Iterator:
    """A demuxer over `file`; no other file or address is ever opened on its behalf."""
    import av

    with decoding(kind), av.open(file, options={"format_whitelist": FORMATS}, metadata_errors="replace") as container:
        yield container
