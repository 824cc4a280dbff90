"""Who may come in, from where, how often and with how much: the settings of a server, checked."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from ming_omni.errors import InputError

REQUESTS_PER_MINUTE = 600
"""Where others can come and nothing else was said."""
LOCAL = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class Rules:
    """The defaults suit a server that only its own machine can reach."""

    api_keys: tuple[str, ...] = ()
    """Any of them opens `/v1` and `/metrics`; none: no key is asked for."""
    origins: tuple[str, ...] = ()
    """Other sites whose pages may send requests, such as https://example.com."""
    requests_per_minute: int | None = None
    """Of each key, or of each address where there are no keys."""
    max_body_bytes: int = 64_000_000
    max_arriving_bytes: int = 256_000_000
    """Of all bodies that are held at a time."""
    body_seconds: float = 120.0
    """In which a body has to arrive."""
    request_seconds: float = 1800.0
    """In which an answer has to be complete; talks over /v1/realtime have their own limit."""
    is_local: bool = False
    """Only this machine can reach the server: whoever comes under another name is a page that plays a trick."""
    http_media: bool = False
    """Media are fetched from http addresses too."""

    def __post_init__(self):
        for key in self.api_keys:
            if not key.isascii() or not key.isprintable() or len(key) < 8 or " " in key:
                raise InputError("an API key is 8 or more ASCII characters without spaces")
        for origin in self.origins:
            parts = urlsplit(origin)
            if parts.scheme not in ("http", "https") or not parts.netloc or parts.path or parts.query:
                raise InputError(f"an origin is a scheme and a host, such as https://example.com, not {origin!r}")
        for name in ("requests_per_minute", "max_body_bytes", "max_arriving_bytes", "body_seconds", "request_seconds"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise InputError(f"{name} is more than 0, not {value}")


OPEN = Rules()


def rules_for(host: str, api_keys: tuple[str, ...], *, no_api_key: bool = False, **settings) -> Rules:
    """The rules of a server on this address: without a key only where nobody else can come, or when told so."""
    is_local = host in LOCAL
    if no_api_key and api_keys:
        raise InputError("give an API key or --no-api-key, not both")
    if not (is_local or api_keys or no_api_key):
        raise InputError(
            f"others can reach {host}: give an API key (--api-key or MING_API_KEY), or let everybody in (--no-api-key)"
        )
    if settings.get("requests_per_minute") is None and not is_local:
        settings["requests_per_minute"] = REQUESTS_PER_MINUTE
    return Rules(api_keys=api_keys, is_local=is_local, **settings)
