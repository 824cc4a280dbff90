"""The settings of one session: what clients change in them, whether this model can do it, what follows from them."""

from __future__ import annotations

import time
from typing import Any

from ming_omni.converse.ears import Manners
from ming_omni.converse.memory import Bounds
from ming_omni.converse.wires import Wire
from ming_omni.ming import Ming
from ming_omni.serve.capabilities import require
from ming_omni.serve.chat import check_length
from ming_omni.serve.door import Refused, check_model
from ming_omni.serve.realtime import schema
from ming_omni.serve.realtime.response import Settings
from ming_omni.serve.schema import OWN_VOICE
from ming_omni.transcribe import dialects


class Setup:
    """Everything here may be called in a thread: the talker is loaded when a voice is asked for."""

    def __init__(self, ming: Ming, able: list[str]):
        """able  of what the model can do, see `capabilities`"""
        self.ming, self.able = ming, able
        self.session = schema.Session(
            type="realtime",
            model=ming.name,
            output_modalities=["audio" if "speech_out" in able else "text"],
            audio={"input": {"turn_detection": {"type": "server_vad"}}},
        )

    def change(self, changes: dict[str, Any]) -> None:
        """All of it, or nothing if something is wrong."""
        if changes.get("type", "realtime") != "realtime":
            raise Refused(400, "this server has realtime sessions only", "session.type")
        session = schema.Session.model_validate(schema.updated(self.session.model_dump(), changes))
        check_model(self.ming, session.model)
        self._check_instructions(session.instructions)
        self._check_output(session.output_modalities, session.audio.output.voice)
        if session.audio.input.transcription is not None:
            self._check_transcription(session.audio.input.transcription)
        if isinstance(session.truncation, schema.Retention):
            limits = session.truncation.token_limits
            if limits and limits.post_instructions > self.most_tokens:
                message = f"a conversation holds at most {self.most_tokens} tokens after its instructions"
                raise Refused(400, message, "session.truncation")
        self.session = session

    def require(self, capability: str) -> None:
        require(self.able, capability, self.ming.name)

    def _check_instructions(self, instructions: str | None) -> None:
        """Refuse here, in a thread, what would take the event loop seconds to cut into tokens at every answer."""
        if instructions is None:
            return
        most, tokenizer = self.ming.engine.longest, self.ming.processor.tokenizer
        check_length(len(instructions), most)
        num_tokens = len(tokenizer.encode(tokenizer.escape(instructions)))
        if num_tokens >= most:
            message = f"the instructions have {num_tokens} tokens; this model reads fewer than {most}"
            raise Refused(400, message, "instructions")

    def _check_output(self, modalities: list[str], voice: str | None) -> None:
        if "audio" in modalities:
            self.require("speech_out")
        if voice is not None:
            self.require("speech_out")
            if voice not in self.ming.speaker.voices:
                raise Refused(404, f"there is no voice {voice!r} here", "voice", "voice_not_found")

    def _check_transcription(self, transcription: schema.Transcription) -> None:
        check_model(self.ming, transcription.model)
        self.require("audio_in")
        dialects.written(transcription.language, None)
        _ = transcription.context

    @property
    def wire(self) -> Wire:
        """How the user's sound arrives."""
        return self.session.audio.input.format.wire

    @property
    def turns(self) -> schema.TurnDetection | None:
        return self.session.audio.input.turn_detection

    @property
    def manners(self) -> Manners | None:
        if (turns := self.turns) is None:
            return None
        idle_ms = turns.idle_timeout_ms or 0
        milliseconds = turns.prefix_padding_ms, turns.silence_duration_ms, idle_ms
        return Manners(turns.threshold, *(ms / 1000 for ms in milliseconds))

    @property
    def most_tokens(self) -> int:
        """Of a conversation after its instructions: half of what the model reads."""
        return self.ming.engine.longest // 2

    @property
    def bounds(self) -> Bounds:
        truncation = self.session.truncation
        if not isinstance(truncation, schema.Retention):
            return Bounds(self.most_tokens, may_forget=truncation == "auto")
        limits = truncation.token_limits
        most = limits.post_instructions if limits else self.most_tokens
        return Bounds(most, retention=truncation.retention_ratio)

    def response(self, body: schema.ResponseBody, user: str) -> Settings:
        """What holds for one response."""
        ours, theirs = self.session.audio.output, body.audio.output
        modalities = body.output_modalities or self.session.output_modalities
        voice = ours.voice if theirs.voice is None else theirs.voice
        self._check_output(modalities, voice)
        self._check_instructions(body.instructions)
        return Settings(
            modalities == ["audio"],
            self.session.instructions if body.instructions is None else body.instructions,
            body.max_output_tokens or self.session.max_output_tokens,
            theirs.format or ours.format,
            voice,
            ours.speed,
            body.metadata,
            user,
        )

    def view(self, id_: str, seconds_left: float) -> dict[str, Any]:
        """As clients are told."""
        view = self.session.model_dump()
        for way in view["audio"].values():
            way["format"] = {name: value for name, value in way["format"].items() if value is not None}
        view["audio"]["output"]["voice"] = self.session.audio.output.voice or OWN_VOICE
        if view["instructions"] is None:
            view["instructions"] = self.ming.processor.template.default_system
        own = {"id": id_, "object": "realtime.session", "expires_at": int(time.time() + seconds_left)}
        return view | own | {"tools": [], "tool_choice": "auto", "tracing": None, "prompt": None, "include": None}
