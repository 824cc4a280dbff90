"""ming-omni: one model takes text, pictures, video and sound, and answers in text, pictures and speech."""

__version__ = "0.1.0"
