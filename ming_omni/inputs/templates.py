"""Messages -> the text of a prompt, media as upper-case placeholders: the published format, or ChatML (spec 5.2)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ming_omni.errors import InputError
from ming_omni.inputs.behaviour import OURS, Behaviour
from ming_omni.inputs.messages import Audio, Image, Message, Text, Video, sources

PLACEHOLDERS = {Image: "<IMAGE>", Video: "<VIDEO>", Audio: "<AUDIO>"}
INLINE_MARKERS = {Image: "<image>", Video: "<video>", Audio: "<audio>"}


@dataclass(frozen=True)
class Template:
    """How one family of models writes a conversation; every piece is put around text as it stands."""

    system: str
    """With {system} and {thinking}."""
    user: str
    assistant: str
    answer: str
    """What an answer follows."""
    end: str
    """The token that ends a turn, and so an answer."""
    default_system: str
    thinking: tuple[str, str] | None = None
    """What asks the model not to think aloud, and to do so; None: the model has no such mode."""


TEMPLATES = {
    "ming": Template(
        system="<role>SYSTEM</role>{system}\n\n{thinking}<|role_end|>",
        user="<role>HUMAN</role>{content}<|role_end|>",
        assistant="<role>ASSISTANT</role>{content}<|role_end|>",
        answer="<role>ASSISTANT</role>",
        end="<|role_end|>",
        default_system="你是一个友好的AI助手。",
        thinking=("detailed thinking off", "detailed thinking on"),
    ),
    "chatml": Template(
        system="<|im_start|>system\n{system}<|im_end|>\n",
        user="<|im_start|>user\n{content}<|im_end|>\n",
        assistant="<|im_start|>assistant\n{content}<|im_end|>\n",
        answer="<|im_start|>assistant\n",
        end="<|im_end|>",
        default_system="You are a helpful AI assistant named SmolLM, trained by Hugging Face",
    ),
}


def render(
    template: Template,
    messages: Sequence[Message],
    *,
    system: str | None = None,
    thinking: bool = False,
    behaviour: Behaviour = OURS,
    escape: Callable[[str], str] = str,
) -> str:
    """The whole prompt up to where the answer begins.

    system  replaces the text of system messages, which replaces the template's own
    escape  makes text that looks like a special token harmless
    """
    if behaviour.markers == "published":
        escape = str
    told = [message for message in messages if message.role == "system"]
    turns = [message for message in messages if message.role != "system"]
    if not turns or turns[-1].role != "user":
        raise InputError("the last message must be the user's")
    if any(not isinstance(part, Text) for message in told for part in message.content):
        raise InputError("a system message holds text only")
    if thinking and template.thinking is None:
        raise InputError("this model has no thinking mode")
    if system is None:
        system = "\n\n".join(message.text for message in told) if told else template.default_system
    mode = template.thinking[bool(thinking)] if template.thinking else ""
    parts = [template.system.format(system=escape(system), thinking=mode)]
    for message in turns:
        around = template.user if message.role == "user" else template.assistant
        parts.append(around.format(content=content(message, behaviour, escape)))
    return "".join(parts) + template.answer


def content(message: Message, behaviour: Behaviour, escape: Callable[[str], str]) -> str:
    """What a message holds, without the marks of its role."""
    pieces: list[str] = []
    text = ""
    videos = message.parts(Video)
    if len(videos) > 1 and behaviour.videos == "published":
        raise InputError("a message holds at most one video")
    for part in message.content:
        if isinstance(part, Text):
            text += part.text  # neighbours are joined first, so that no token can be spelled across them
            continue
        pieces += [escape(text), _placeholders(part, message, behaviour)]
        text = ""
    return "".join([*pieces, escape(text)])


def _placeholders(part: Image | Video | Audio, message: Message, behaviour: Behaviour) -> str:
    count = 1 if isinstance(part, Video) else len(sources(part))
    if behaviour.markers == "published":  # markers in the text take the place of placeholders (spec Q22)
        count = max(0, count - message.text.count(INLINE_MARKERS[type(part)]))
    return "\n".join([PLACEHOLDERS[type(part)]] * count)
