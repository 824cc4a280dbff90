"""The one error a caller can fix: a single sentence in the terminal, status 400 over HTTP."""


class InputError(ValueError):
    """Bad input, found before any work is lost."""
