"""Text -> speech: the talker's loop for many speakers, and the sound files that come out."""
