"""What people send -> pixels and samples: one door for pictures, videos and sound, whatever form they come in."""

from ming_omni.inputs.audio import load_audio, read_audio
from ming_omni.inputs.image import load_image
from ming_omni.inputs.mel import log_mel
from ming_omni.inputs.video import load_video

__all__ = ["load_audio", "load_image", "load_video", "log_mel", "read_audio"]
