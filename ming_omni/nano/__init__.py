"""Public parts -> nano's folders: the untrained base, the start of training with eyes and ears, the shipped files."""
