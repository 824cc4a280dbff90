"""A path, file:// or data: address, bytes or an open file -> an open binary file, whatever the medium."""

from __future__ import annotations

import base64
import binascii
import io
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote, unquote_to_bytes, urlsplit

from ming_omni.errors import InputError

Source = str | Path | bytes | bytearray | memoryview | BinaryIO


def local_path(source: object) -> Path | None:
    """The path a source names, or None when it is not a path; an address on the web is refused."""
    if isinstance(source, Path):
        return source.expanduser()
    if not isinstance(source, str) or source[:5].lower() == "data:":
        return None
    scheme = source.split("://", 1)[0].lower() if "://" in source else ""
    if scheme == "file":
        return Path(unquote(urlsplit(source).path))
    if scheme:
        raise InputError(f"{scheme} addresses are not fetched; download the file, or send it as a data: URL")
    return Path(source).expanduser()


def open_source(source: Source, kind: str) -> BinaryIO:
    """Open what a user sent; `kind` ("picture", "sound", "video") words the errors. The caller closes it."""
    path = local_path(source)
    if path is not None:
        try:
            if not path.is_file():
                raise InputError(f"there is no {kind} file {path}")
            return path.open("rb")
        except (OSError, ValueError) as error:  # no permission, a name too long, a NUL in the name
            if isinstance(error, InputError):
                raise
            raise InputError(f"the {kind} file cannot be opened: {error}") from error
    if isinstance(source, str):
        return io.BytesIO(data_url(source))
    if isinstance(source, bytes | bytearray | memoryview):
        return io.BytesIO(source)
    if hasattr(source, "read"):
        data = source.read()
        if isinstance(data, bytes):
            return io.BytesIO(data)
    raise InputError(f"a {kind} cannot be read from {type(source).__name__}")


def data_url(url: str) -> bytes:
    """The bytes inside `data:[type][;base64],...`."""
    head, comma, body = url.partition(",")
    if not comma:
        raise InputError("a data: URL needs a comma between its type and its content")
    if not head.lower().rstrip().endswith(";base64"):
        return unquote_to_bytes(body)
    try:
        return base64.b64decode("".join(unquote(body).split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise InputError("the content of the data: URL is not valid base64") from error
