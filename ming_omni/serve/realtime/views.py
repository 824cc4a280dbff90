"""Items, responses and settings -> the JSON that OpenAI's clients know."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import numpy as np

from ming_omni.converse.memory import Content, Item
from ming_omni.converse.wires import Wire
from ming_omni.engine.request import Sequence
from ming_omni.inputs.mel import SAMPLE_RATE_HZ
from ming_omni.model.omni import AUDIO, IMAGE, TEXT

if TYPE_CHECKING:
    from ming_omni.serve.realtime.response import Response


def item_view(item: Item, wire: Wire | None = None, is_in_progress: bool = False) -> dict[str, Any]:
    """wire  in which sounds that came in are told again; None: they are left out"""
    status = "in_progress" if is_in_progress else "completed" if item.is_complete else "incomplete"
    contents = [_content(item, content, wire) for content in item.contents]
    return {
        "id": item.id,
        "object": "realtime.item",
        "type": "message",
        "status": status,
        "role": item.role,
        "content": contents,
    }


def _content(item: Item, content: Content, wire: Wire | None) -> dict[str, Any]:
    if item.role == "assistant":
        if item.said is None:
            return {"type": "output_text", "text": content.text}
        return {"type": "output_audio", "transcript": content.text}
    if content.kind == "picture":
        return {"type": "input_image"}
    if content.kind == "sound":
        view = {"type": "input_audio", "transcript": content.text}
        return view if wire is None else view | {"audio": base64.b64encode(_sound(content.samples, wire)).decode()}
    return {"type": "input_text", "text": content.text}


def _sound(samples: np.ndarray, wire: Wire) -> bytes:
    import soxr

    return wire.encode(soxr.resample(samples.astype(np.float32) / 32_767, SAMPLE_RATE_HZ, wire.rate_hz))


def response_view(response: Response) -> dict[str, Any]:
    settings, status = response.settings, response.status
    details = None
    if status not in ("in_progress", "completed"):
        details = {"type": status, "reason": response.reason, "error": response.error}
    return {
        "id": response.id,
        "object": "realtime.response",
        "status": status,
        "status_details": details,
        "output": [] if status == "in_progress" else [item_view(response.item)],
        "conversation_id": response.conversation_id,
        "output_modalities": ["audio" if response.is_spoken else "text"],
        "max_output_tokens": settings.max_output_tokens,
        "audio": {"output": {"format": settings.format.model_dump(exclude_none=True), "voice": settings.voice}},
        "metadata": settings.metadata,
        "usage": None if status == "in_progress" else usage_view(response),
    }


def usage_view(response: Response) -> dict[str, Any]:
    """Tokens read, how many of them were in the cache, and tokens written."""
    sequence: Sequence = response.answering.stream.sequence
    prompt, num_cached, num_written = sequence.prompt, sequence.num_reused, len(response.answering.ids)
    read, cached = (
        {
            f"{name}_tokens": int((modality == kind).sum())
            for name, kind in (("text", TEXT), ("audio", AUDIO), ("image", IMAGE))
        }
        for modality in (prompt.modality, prompt.modality[:num_cached])
    )
    return {
        "total_tokens": len(prompt) + num_written,
        "input_tokens": len(prompt),
        "output_tokens": num_written,
        "input_token_details": read | {"cached_tokens": num_cached, "cached_tokens_details": cached},
        "output_token_details": {"text_tokens": num_written, "audio_tokens": 0},
    }
