"""A model -> what can be asked of it, so that a page or a client offers nothing that would be refused."""

from __future__ import annotations

from ming_omni.checkpoint import detect, painter, talker
from ming_omni.ming import Ming
from ming_omni.serve.door import Refused

LACKING = {
    "image_in": "cannot see: this model has no vision encoder",
    "audio_in": "cannot hear: this model has no audio encoder",
    "video_in": "cannot watch films: this model has no vision encoder",
    "image_out": "cannot paint: this model has no painter",
    "speech_out": "cannot speak: this model has no talker",
}


def capabilities(ming: Ming) -> list[str]:
    """Of text, image_in, audio_in, video_in, image_out and speech_out; parts that load on demand count."""
    model = ming.model
    found = ["text"]
    if model.vision is not None:
        found += ["image_in", "video_in"]
    if model.audio is not None:
        found += ["audio_in"]
    source = model.config.name_or_path
    folder = detect.locate(source) if source and source != "tiny" else None
    has_painter = folder is not None and ((folder / "painter").is_dir() or painter.has_painter(folder))
    if model.painter is not None or source == "tiny" or has_painter:
        found += ["image_out"]
    has_talker = folder is not None and talker.find(folder) is not None
    if model.talker is not None or ming.name == "tiny" or has_talker:
        found += ["speech_out"]
    return found


def require(able: list[str], capability: str, name: str) -> None:
    """Refuse what the model of this name is not able to do, before any work is put into it."""
    if capability not in able:
        raise Refused(400, f"{name} {LACKING[capability]}", "model", "unsupported_by_model")
