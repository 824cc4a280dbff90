"""JSON that clients send -> checked settings; whatever we do not do is named in one sentence and never ignored."""

from __future__ import annotations

import difflib
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from ming_omni.errors import InputError
from ming_omni.model.sampling import Sampling

MAX_CHOICES = 16
MAX_LIKELIEST = 20
MAX_MESSAGES, MAX_PARTS = 4096, 1024
OWN_VOICE = "default"
"""Names the talker's own voice."""


class Body(BaseModel):
    """Unknown fields are refused. A field we know but do not support may hold a value that asks for nothing."""

    model_config = ConfigDict(extra="forbid")
    without: ClassVar[dict[str, tuple]] = {}
    """fields we do not support, with values that ask for nothing; null, [] and {} always do"""

    @model_validator(mode="before")
    @classmethod
    def drop_what_asks_for_nothing(cls, data: Any) -> Any:
        if isinstance(data, bytes):
            raise InputError("the body is JSON only if its Content-Type is application/json")
        if not isinstance(data, dict):
            raise InputError("the body is a JSON object")
        kept = {}
        for name, value in data.items():
            if name in cls.model_fields:
                if value is not None:
                    kept[name] = value
            elif name in cls.without:
                if value not in (None, [], {}, *cls.without[name]):
                    raise InputError(f"{name} is not supported by this server")
            elif value is not None:
                close = difflib.get_close_matches(name, cls.model_fields, 1)
                shown = name.encode(errors="backslashreplace").decode()  # half a character cannot be sent back
                raise InputError(f"there is no parameter {shown}" + (f"; did you mean {close[0]}?" if close else ""))
        return kept


class StreamOptions(Body):
    without = {"include_obfuscation": (False,)}
    include_usage: bool = False


class SamplingBody(Body):
    """What chat and plain completions have in common."""

    model: str
    stream: bool = False
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(None, ge=0)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=0)
    min_p: float | None = Field(None, ge=0, le=1)
    repetition_penalty: float | None = Field(None, gt=0)
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    stop: Annotated[
        list[Annotated[str, Field(min_length=1)]],
        BeforeValidator(lambda value: [value] if isinstance(value, str) else value),
    ] = Field([], max_length=16)
    n: int = Field(1, ge=1, le=MAX_CHOICES)
    user: str = ""

    @model_validator(mode="after")
    def check(self):
        if self.stream_options and not self.stream:
            raise InputError("stream_options go with stream=true")
        return self

    @property
    def has_usage(self) -> bool:
        """Whether a stream ends with the counts of tokens."""
        return bool(self.stream_options and self.stream_options.include_usage)

    def sampling(self, default: Sampling, choice: int) -> Sampling:
        """Settings of one of n choices: with a seed, each has its own."""
        names = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
        given = {name: value for name in names if (value := getattr(self, name)) is not None}
        seed = default.seed if self.seed is None else self.seed + choice
        return replace(default, **given, seed=seed)


UNSUPPORTED = {
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "logit_bias": (),
    "service_tier": ("auto", "default"),
    "store": (False,),
    "metadata": (),
    "safety_identifier": (),
    "prompt_cache_key": (),
}


def _voice(value: Any) -> Any:
    """A name, or `{"id": name}`."""
    value = value["id"] if isinstance(value, dict) and list(value) == ["id"] else value
    return None if value == OWN_VOICE else value


VoiceName = Annotated[str | None, BeforeValidator(_voice)]


class ChatAudio(Body):
    """How a spoken answer sounds."""

    voice: VoiceName = None
    format: Literal["wav", "mp3", "flac", "opus", "aac", "pcm16"]


class AudioId(Body):
    """A spoken answer of before."""

    without = {"data": (), "expires_at": (), "transcript": ()}
    id: str


class ChatMessage(Body):
    """Parts are read by `inputs.messages.from_openai`."""

    without = {
        "name": (),
        "refusal": (),
        "annotations": (),
        "tool_calls": (),
        "tool_call_id": (),
        "function_call": (),
    }
    role: str
    content: str | Annotated[list[dict[str, Any]], Field(max_length=MAX_PARTS, fail_fast=True)] = ""
    audio: AudioId | None = None

    @model_validator(mode="after")
    def check(self):
        for part in self.content if isinstance(self.content, list) else []:
            picture = part.get("image_url")
            detail = picture.get("detail") if isinstance(picture, dict) else None
            if detail not in (None, "auto"):
                raise InputError(f"detail of a picture is auto here, not {detail!r}")
        return self


class ChatBody(SamplingBody):
    """POST /v1/chat/completions"""

    without = UNSUPPORTED | {
        "function_call": ("none", "auto"),
        "functions": (),
        "tools": (),
        "tool_choice": ("none", "auto"),
        "parallel_tool_calls": (True, False),
        "response_format": ({"type": "text"},),
        "prediction": (),
        "reasoning_effort": (),
        "verbosity": (),
        "web_search_options": (),
        "prompt_cache_retention": (),
        "moderation": (),
    }
    messages: list[ChatMessage] = Field(min_length=1, max_length=MAX_MESSAGES, fail_fast=True)
    modalities: list[Literal["text", "audio"]] = ["text"]
    audio: ChatAudio | None = None
    max_completion_tokens: int | None = Field(None, ge=1)
    logprobs: bool = False
    top_logprobs: int = Field(0, ge=0, le=MAX_LIKELIEST)

    @model_validator(mode="after")
    def check_chat(self):
        if "text" not in self.modalities:
            raise InputError('modalities is ["text"] or ["text", "audio"]: what is spoken is also written')
        if ("audio" in self.modalities) != (self.audio is not None):
            raise InputError('audio (voice and format) goes with modalities ["text", "audio"]')
        if self.audio and self.stream and self.audio.format != "pcm16":
            raise InputError("a stream carries audio as pcm16")
        if self.audio and (self.n > 1 or self.logprobs):
            raise InputError("a spoken answer has one choice and no logprobs")
        if self.top_logprobs and not self.logprobs:
            raise InputError("top_logprobs goes with logprobs=true")
        if self.max_tokens == 0:
            raise InputError("max_tokens is 1 or more")
        if self.max_tokens and self.max_completion_tokens:
            raise InputError("give max_tokens or max_completion_tokens, not both")
        return self

    @property
    def limit(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens


T = TypeVar("T")
Quick = Annotated[list[T], Field(fail_fast=True)]
"""A list that is refused at its first wrong item, instead of collecting an error for each."""


class CompletionBody(SamplingBody):
    """POST /v1/completions"""

    without = UNSUPPORTED | {"best_of": (1,), "suffix": ("",)}
    prompt: str | Quick[int] | Quick[str] | Quick[Quick[int]]
    max_tokens: int = Field(16, ge=0)
    echo: bool = False
    logprobs: int | None = Field(None, ge=0, le=MAX_LIKELIEST)

    @property
    def prompts(self) -> list[str | list[int]]:
        if isinstance(self.prompt, str) or (self.prompt and isinstance(self.prompt[0], int)):
            return [self.prompt]
        return self.prompt

    @model_validator(mode="after")
    def check_completion(self):
        if not 1 <= len(self.prompts) * self.n <= 8 * MAX_CHOICES:
            raise InputError(f"prompt holds 1 to {8 * MAX_CHOICES // self.n} prompts for n={self.n}")
        for ids in self.prompts:
            if not isinstance(ids, str) and not all(0 <= id_ < 2**31 for id_ in ids):
                raise InputError("token ids are whole numbers of 31 bits, 0 or more")
        return self


def sentence(error: dict[str, Any]) -> tuple[str, str | None]:
    """The first of pydantic's findings -> what is wrong in one sentence, and the parameter it is about."""
    where = [part for part in error["loc"] if part != "body"]
    if error["type"] == "json_invalid":
        return "the body is not valid JSON", None
    # Alternatives of a field (text or list) follow its name in pydantic's location; they mean nothing to a client.
    names = [
        p for p in where if isinstance(p, int) or (isinstance(p, str) and p.isidentifier() and p not in ("str", "int"))
    ]
    param = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in names).lstrip(".") or None
    if error["type"] == "value_error":
        return str(error["ctx"]["error"]), param
    if error["type"] == "missing":
        return f"{param or 'the body'} is missing", param
    if error["type"].startswith(("model_", "dict_")):
        return f"{param or 'the body'} is a JSON object", param
    text = error["msg"][0].lower() + error["msg"][1:]
    return f"{param}: {text}", param
