"""A model -> what can be asked of it, so that a page or a client offers nothing that would be refused."""

from __future__ import annotations

from ming_omni.checkpoint import detect, painter, talker
from ming_omni.ming import Ming


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
