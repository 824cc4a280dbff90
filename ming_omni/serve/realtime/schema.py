"""Events that clients send -> checked settings; what we do not do is named in one sentence."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from ming_omni.converse.memory import FRAMES_PER_TURN
from ming_omni.converse.wires import WIRES, Wire
from ming_omni.errors import InputError
from ming_omni.serve.schema import Body, VoiceName
from ming_omni.transcribe.context import Context

MOST_TOKENS = 4096
"""Of one answer, as in OpenAI's API."""
Name = Annotated[str, Field(min_length=1, max_length=512)]
Modalities = Annotated[list[Literal["text", "audio"]], Field(min_length=1, max_length=1)]
Tokens = Annotated[int, Field(ge=1, le=MOST_TOKENS)] | Literal["inf"]

NO_TOOLS = {
    "tools": (),
    "tool_choice": ("none", "auto"),
    "parallel_tool_calls": (True, False),
    "prompt": (),
    "reasoning": (),
}


class AudioFormat(Body):
    type: Literal["audio/pcm", "audio/pcmu", "audio/pcma"] = "audio/pcm"
    rate: int | None = None

    @model_validator(mode="after")
    def check_rate(self):
        if self.rate not in (None, self.wire.rate_hz):
            raise InputError(f"{self.type} has {self.wire.rate_hz} Hz here, not {self.rate}")
        self.rate = self.wire.rate_hz if self.type == "audio/pcm" else None
        return self

    @property
    def wire(self) -> Wire:
        return WIRES[self.type]


class TurnDetection(Body):
    without: ClassVar[dict[str, tuple]] = {"eagerness": ()}
    type: Literal["server_vad"] = "server_vad"
    threshold: float = Field(0.5, gt=0, le=1)
    prefix_padding_ms: int = Field(300, ge=0, le=5_000)
    silence_duration_ms: int = Field(500, ge=32, le=10_000)
    idle_timeout_ms: int | None = Field(None, ge=5_000, le=30_000)
    create_response: bool = True
    interrupt_response: bool = True


class Transcription(Body):
    without: ClassVar[dict[str, tuple]] = {"delay": (), "languages": ()}
    model: str | None = None
    language: str | None = None
    prompt: str = ""
    keywords: list[str] = Field(default_factory=list)

    @property
    def context(self) -> Context:
        """All that the settings say about what will be said."""
        return Context("", self.keywords, self.prompt)


class AudioInput(Body):
    without: ClassVar[dict[str, tuple]] = {"noise_reduction": ()}
    format: AudioFormat = Field(default_factory=AudioFormat)
    transcription: Transcription | None = None
    turn_detection: TurnDetection | None = None


class AudioOutput(Body):
    format: AudioFormat = Field(default_factory=AudioFormat)
    voice: VoiceName = None
    speed: float = Field(1.0, ge=0.25, le=1.5)


class SessionAudio(Body):
    input: AudioInput = Field(default_factory=AudioInput)
    output: AudioOutput = Field(default_factory=AudioOutput)


class TokenLimits(Body):
    post_instructions: int = Field(ge=1)


class Retention(Body):
    type: Literal["retention_ratio"]
    retention_ratio: float = Field(ge=0, le=1)
    token_limits: TokenLimits | None = None


class Session(Body):
    """The settings of a session, complete."""

    without: ClassVar[dict[str, tuple]] = NO_TOOLS | {"include": (), "tracing": ("auto",), "id": (), "object": ()}
    type: Literal["realtime"]
    model: str
    output_modalities: Modalities
    instructions: str | None = None
    max_output_tokens: Tokens = "inf"
    truncation: Literal["auto", "disabled"] | Retention = "auto"
    audio: SessionAudio = Field(default_factory=SessionAudio)


class ContentBody(Body):
    type: Literal["input_text", "input_audio", "input_image", "output_text", "output_audio"]
    text: str | None = None
    audio: str | None = None
    image_url: str | None = None
    detail: Literal["auto", "low", "high"] = "auto"
    transcript: str | None = None


KINDS = {
    "user": {"input_text": "text", "input_audio": "audio", "input_image": "image_url"},
    "assistant": {"output_text": "text"},
    "system": {"input_text": "text"},
}
"""What an item of each role may hold, and the field that carries it."""


class ItemBody(Body):
    without: ClassVar[dict[str, tuple]] = {"object": ("realtime.item",), "status": ("completed", "incomplete")}
    type: Literal["message"] = "message"
    id: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    role: Literal["user", "assistant", "system"]
    content: list[ContentBody] = Field(min_length=1, max_length=64)

    @model_validator(mode="before")
    @classmethod
    def refuse_tools(cls, data: Any) -> Any:
        if isinstance(data, dict) and str(data.get("type")).startswith(("function_call", "mcp_")):
            raise InputError("function tools are not supported by this server: an item is a message")
        return data

    @model_validator(mode="after")
    def check_content(self):
        kinds = KINDS[self.role]
        for part in self.content:
            if part.type not in kinds:
                raise InputError(f"a message of the {self.role} holds {' or '.join(kinds)}, not {part.type}")
            if getattr(part, kinds[part.type]) is None:
                raise InputError(f"{part.type} lacks its {kinds[part.type]}")
        if sum(part.type == "input_image" for part in self.content) > FRAMES_PER_TURN:
            raise InputError(f"a turn keeps {FRAMES_PER_TURN} pictures")
        return self


class Reference(Body):
    type: Literal["item_reference"]
    id: str


class ResponseOutput(Body):
    format: AudioFormat | None = None
    voice: VoiceName = None


class ResponseAudio(Body):
    output: ResponseOutput = Field(default_factory=ResponseOutput)


class ResponseBody(Body):
    """What one response does differently from its session."""

    without: ClassVar[dict[str, tuple]] = NO_TOOLS
    output_modalities: Modalities | None = None
    instructions: str | None = None
    max_output_tokens: Tokens | None = None
    audio: ResponseAudio = Field(default_factory=ResponseAudio)
    conversation: Literal["auto", "none"] = "auto"
    input: list[Reference | ItemBody] | None = Field(None, max_length=256)
    metadata: dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]] | None = Field(
        None, max_length=16
    )

    @model_validator(mode="after")
    def check_input(self):
        if self.input is not None and self.conversation == "auto":
            raise InputError('input goes with conversation="none": the conversation has its own items')
        return self


class Event(Body):
    type: str
    event_id: Name | None = None


class SessionUpdate(Event):
    session: dict[str, Any]


class BufferAppend(Event):
    audio: str


class BufferCommit(Event):
    pass


class BufferClear(Event):
    pass


class ItemCreate(Event):
    previous_item_id: str | None = None
    item: ItemBody


class ItemDelete(Event):
    item_id: str


class ItemRetrieve(Event):
    item_id: str


class ItemTruncate(Event):
    item_id: str
    content_index: Literal[0]
    audio_end_ms: int = Field(ge=0)


class ResponseCreate(Event):
    response: ResponseBody = Field(default_factory=ResponseBody)


class ResponseCancel(Event):
    response_id: str | None = None


EVENTS: dict[str, type[Event]] = {
    "session.update": SessionUpdate,
    "input_audio_buffer.append": BufferAppend,
    "input_audio_buffer.commit": BufferCommit,
    "input_audio_buffer.clear": BufferClear,
    "conversation.item.create": ItemCreate,
    "conversation.item.delete": ItemDelete,
    "conversation.item.retrieve": ItemRetrieve,
    "conversation.item.truncate": ItemTruncate,
    "response.create": ResponseCreate,
    "response.cancel": ResponseCancel,
}
MERGED = ("audio", "input", "output", "turn_detection")
"""Settings that an update changes field by field; others it replaces."""


def updated(settings: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Settings after an update; null turns off, or back to what is usual."""
    merged = dict(settings)
    for name, value in changes.items():
        old = settings.get(name)
        merged[name] = (
            updated(old, value) if name in MERGED and isinstance(old, dict) and isinstance(value, dict) else value
        )
    return merged
