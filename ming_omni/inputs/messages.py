"""What people write -> messages in one vocabulary: Message(role, [Text, Image, Video, Audio]).

Three forms are understood: our own objects, the published dictionaries (roles HUMAN and ASSISTANT, parts named by
their type), and OpenAI chat messages. The last may come from strangers, so it never names a local file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

from ming_omni.errors import InputError

Role = Literal["system", "user", "assistant"]
ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "SYSTEM": "system",
    "HUMAN": "user",
    "ASSISTANT": "assistant",
}


UNHEARD = "..."
"""What stands for a spoken turn in which nobody was heard to say anything: it gets an answer, as a silence does."""


@dataclass(frozen=True)
class Text:
    text: str

    def __post_init__(self):
        if not isinstance(self.text, str):
            raise InputError(f"Text holds a string, not {type(self.text).__name__}")


@dataclass(frozen=True)
class Image:
    """A picture, or several that belong together: path, bytes, PIL, array, data: URL, or a list of these."""

    source: Any
    min_pixels: int | None = None
    max_pixels: int | None = None
    resized_height: int | None = None
    resized_width: int | None = None

    def __post_init__(self):
        for field in fields(self):
            value = getattr(self, field.name)
            is_count = isinstance(value, int) and not isinstance(value, bool) and value > 0
            if field.name != "source" and value is not None and not is_count:
                raise InputError(f"{field.name} is a whole number of pixels, not {value!r}")


@dataclass(frozen=True)
class Video:
    """A file, bytes, a folder or list of frames, an array (T, H, W, 3); the options are those of `FrameOptions`."""

    source: Any
    nframes: int | None = None
    min_frames: int | None = None
    max_frames: int | None = None
    max_video_fps: float | None = None
    sample: str | None = None
    min_pixels: int | None = None
    max_pixels: int | None = None
    resized_height: int | None = None
    resized_width: int | None = None


@dataclass(frozen=True)
class Audio:
    """A sound, or several: path, bytes, data: URL, (samples, sample_rate_hz), or a list of these."""

    source: Any


Part = Text | Image | Video | Audio


@dataclass(frozen=True)
class Message:
    """One turn; plain text may stand for its content."""

    role: Role
    content: Sequence[Part]

    def __post_init__(self):
        if not isinstance(self.role, str) or self.role not in ROLES:
            raise InputError(f"a message's role is system, user or assistant, not {self.role!r}")
        object.__setattr__(self, "role", ROLES[self.role])
        parts = self.content
        if isinstance(parts, str):
            parts = (Text(parts),)
        elif isinstance(parts, Part):
            parts = (parts,)
        if not isinstance(parts, list | tuple):
            raise InputError(f"a message's content is text or a list of parts, not {type(parts).__name__}")
        parts = tuple(Text(part) if isinstance(part, str) else part for part in parts)
        for part in parts:
            if not isinstance(part, Part):
                raise InputError(f"a message holds Text, Image, Video and Audio, not {type(part).__name__}")
        object.__setattr__(self, "content", parts)

    @property
    def text(self) -> str:
        return "".join(part.text for part in self.content if isinstance(part, Text))

    @property
    def is_spoken(self) -> bool:
        """All that a user says here is said in sounds: nothing is written that asks about them."""
        return self.role == "user" and bool(self.parts(Audio)) and not self.text.strip()

    def parts(self, kind: type) -> list:
        return [part for part in self.content if isinstance(part, kind)]


def sources(part: Image | Audio) -> list:
    """The single media of a part that may hold a list."""
    return list(part.source) if isinstance(part.source, list) else [part.source]


def conversation(value: Any) -> list[Message]:
    """Text, a Message, a dictionary, or a list of them, trusted to name local files -> messages."""
    if isinstance(value, str | Part):
        return [Message("user", (value,))]
    if isinstance(value, Message | Mapping):
        value = [value]
    if not isinstance(value, Iterable):
        raise InputError(f"a conversation is text or a list of messages, not {type(value).__name__}")
    return [
        item if isinstance(item, Message) else _message(item, f"messages[{i}]", trusted=True)
        for i, item in enumerate(value)
    ]


Read = Callable[[str, type], Any]
"""An address and the kind of medium it stands for (Image, Video or Audio) -> the medium's source."""


def only_data(address: str, _: type) -> str:
    if not address[:5].lower() == "data:":
        raise InputError("only data: URLs are read; send the file's content as base64")
    return address


def from_openai(messages: Any, read: Read = only_data) -> list[Message]:
    """Chat messages as an OpenAI client sends them; media as addresses that `read` opens, never as a path."""
    if not isinstance(messages, list | tuple) or not messages:
        raise InputError("messages is a list with at least one message")
    return [_message(item, f"messages[{i}]", trusted=False, read=read) for i, item in enumerate(messages)]


def _message(item: Any, where: str, *, trusted: bool, read: Read = only_data) -> Message:
    if not isinstance(item, Mapping):
        raise InputError(f"{where} is an object with role and content, not {type(item).__name__}")
    role = item.get("role")
    if not isinstance(role, str) or role not in ROLES:
        raise InputError(f"{where}.role is system, user or assistant, not {role!r}")
    content = item.get("content")
    if content is None:
        content = ""
    if isinstance(content, str):
        return Message(role, (Text(content),))
    if not isinstance(content, list | tuple):
        raise InputError(f"{where}.content is text or a list of parts, not {type(content).__name__}")
    return Message(role, tuple(_part(part, f"{where}.content[{i}]", trusted, read) for i, part in enumerate(content)))


def _part(part: Any, where: str, trusted: bool, read: Read) -> Part:
    """Only trusted parts name files or choose sizes: a stranger's could read this machine, or fill its memory."""
    if isinstance(part, Part) and trusted:
        return part
    if isinstance(part, str):
        return Text(part)
    if not isinstance(part, Mapping):
        raise InputError(f"{where} is an object with a type, not {type(part).__name__}")
    kind = part.get("type")
    if kind in ("text", "input_text", "output_text"):
        return Text(_field(part, "text", str, where))
    if kind in ("image_url", "video_url", "audio_url"):
        medium = {"image_url": Image, "video_url": Video, "audio_url": Audio}[kind]
        return _opened(_address(part.get(kind), f"{where}.{kind}"), medium, f"{where}.{kind}", read)
    if kind == "input_audio":
        sound = _field(part, "input_audio", Mapping, where)
        address = _base64(_field(sound, "data", str, f"{where}.input_audio"), f"{where}.input_audio.data")
        return _opened(address, Audio, f"{where}.input_audio", read)
    if kind in ("image", "video", "audio") and trusted:
        if part.get(kind) is None:
            raise InputError(f"{where} lacks its {kind}")
        medium = {"image": Image, "video": Video, "audio": Audio}[kind]
        names = {field.name for field in fields(medium)} - {"source"}
        return medium(part[kind], **{name: part[name] for name in names if part.get(name) is not None})
    known = "text, image_url, video_url, audio_url, input_audio" + (", image, video, audio" if trusted else "")
    raise InputError(f"{where}.type is one of {known}, not {kind!r}")


def _address(value: Any, where: str) -> str:
    """`"https://..."` or `{"url": "https://..."}`."""
    url = value.get("url") if isinstance(value, Mapping) else value
    if not isinstance(url, str):
        raise InputError(f"{where}.url is missing")
    return url


def _opened(address: str, medium: type, where: str, read: Read) -> Part:
    try:
        return medium(read(address, medium))
    except InputError as error:
        raise InputError(f"{where}: {error}") from error


def _base64(text: str, where: str) -> str:
    if text[:5].lower() == "data:":
        return text
    if not text:
        raise InputError(f"{where} is empty")
    return "data:;base64," + text


def _field(part: Mapping, name: str, kind: type, where: str) -> Any:
    if not isinstance(part.get(name), kind):
        raise InputError(f"{where}.{name} is missing or not {'an object' if kind is Mapping else 'text'}")
    return part[name]
