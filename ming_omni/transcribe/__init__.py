"""Sound -> what was said in it, with context, dialects and times, by any Ming model."""

from ming_omni.transcribe.context import Context
from ming_omni.transcribe.listening import Listening, Update, transcribe
from ming_omni.transcribe.result import Leak, Segment, Transcript

__all__ = ["Context", "Leak", "Listening", "Segment", "Transcript", "Update", "transcribe"]
