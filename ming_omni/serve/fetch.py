"""An address on the web -> the bytes behind it, if it is a public one.

A name is resolved once, every address it has is checked, and the connection goes to one of those: a name that points
elsewhere a moment later, or a redirection into a private network, reaches nothing.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import closing, suppress
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from urllib.parse import quote, urljoin, urlsplit

from ming_omni.errors import InputError
from ming_omni.serve.door import Refused

MAX_REDIRECTS = 3
CHUNK = 1 << 16
REDIRECTS = (301, 302, 303, 307, 308)
EMBEDDED_IPV4 = ip_network("64:ff9b::/96")
"""NAT64: the last 32 bits are an IPv4 address (RFC 6052)."""
AGENT = "ming-omni"
MOST_LOOKUPS = 32
"""Names looked up at a time, those included that nobody waits for any more."""
QUOTED = "/%:@!$&'()*+,;=~-._?"


def is_public(text: str) -> bool:
    """Whether an address lies in the open internet, also the IPv4 address that an IPv6 one may hold."""
    address = ip_address(text.partition("%")[0])
    if isinstance(address, IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo or (None, None))[1]
        if address in EMBEDDED_IPV4:
            inner = IPv4Address(int(address) & 0xFFFF_FFFF)
        if address.is_site_local or (inner is not None and not is_public(str(inner))):
            return False
    return address.is_global and not (address.is_multicast or address.is_reserved or address.is_unspecified)


def resolve(host: str, port: int) -> list[str]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(entry[4][0] for entry in found))


class Web:
    """Fetches files of limited size in limited time. Proxies of the environment are not used."""

    def __init__(
        self,
        *,
        allows_http: bool = False,
        max_bytes: int = 32_000_000,
        max_seconds: float = 20.0,
        resolve: Callable[[str, int], Sequence[str]] = resolve,
        connect: Callable[..., socket.socket] = socket.create_connection,
        tls: ssl.SSLContext | None = None,
    ):
        self.schemes = ("https", "http") if allows_http else ("https",)
        self.max_bytes, self.max_seconds = max_bytes, max_seconds
        self.resolve, self.connect = resolve, connect
        self.tls = tls or ssl.create_default_context()
        self._lookups = threading.BoundedSemaphore(MOST_LOOKUPS)

    def fetch(self, url: str) -> tuple[bytes, str]:
        """The bytes, and their media type or ""."""
        deadline = time.monotonic() + self.max_seconds
        try:
            for _ in range(MAX_REDIRECTS + 1):
                with closing(self._connection(url, deadline)) as connection:
                    connection.connect()
                    # A server may send a letter a second for ever; no timeout of a socket ends that.
                    clock = threading.Timer(max(0.0, deadline - time.monotonic()), _cut, [connection.sock])
                    clock.daemon = True
                    clock.start()
                    try:
                        response = self._ask(connection, url)
                        if response.status not in REDIRECTS:
                            return self._read(response, deadline), response.headers.get_content_type()
                        url = urljoin(url, response.getheader("location") or "")
                    finally:
                        clock.cancel()
        except (OSError, http.client.HTTPException, ValueError) as error:
            if isinstance(error, InputError):
                raise
            if time.monotonic() >= deadline or isinstance(error, TimeoutError):
                raise Refused(408, f"the address did not answer within {self.max_seconds:g} seconds") from error
            raise InputError(f"the address cannot be fetched: {type(error).__name__}") from error
        raise InputError(f"the address redirects more than {MAX_REDIRECTS} times")

    def _connection(self, url: str, deadline: float) -> Pinned:
        parts = urlsplit(url)
        if parts.scheme not in self.schemes:
            raise InputError(f"media are fetched from {' and '.join(self.schemes)} addresses only")
        if not parts.hostname or parts.username is not None or parts.password is not None:
            raise InputError("an address is a host and a path, without a user")
        host = parts.hostname.encode("idna").decode()
        port = parts.port or (443 if parts.scheme == "https" else 80)
        addresses = self._look_up(host, port, deadline)
        if not addresses or not all(map(is_public, addresses)):
            raise InputError("the address does not lead to the public internet")
        tls = self.tls if parts.scheme == "https" else None
        return Pinned(host, port, addresses[0], tls, self.connect, max(0.1, deadline - time.monotonic()))

    def _look_up(self, host: str, port: int, deadline: float) -> Sequence[str]:
        """In a thread of its own: the system's lookup has no limit, and one that takes too long ends by itself."""
        found: Future[Sequence[str]] = Future()

        def look() -> None:
            try:
                found.set_result(self.resolve(host, port))
            except Exception as error:
                found.set_exception(error)
            finally:
                self._lookups.release()

        if not self._lookups.acquire(timeout=max(0.0, deadline - time.monotonic())):
            raise TimeoutError
        threading.Thread(target=look, name="lookup", daemon=True).start()
        return found.result(max(0.0, deadline - time.monotonic()))

    def _ask(self, connection: Pinned, url: str) -> http.client.HTTPResponse:
        parts = urlsplit(url)
        # What is quoted already stays so; only letters that no address may hold are quoted.
        path = quote(parts.path or "/", safe=QUOTED) + (f"?{quote(parts.query, safe=QUOTED)}" if parts.query else "")
        connection.request("GET", path, headers={"User-Agent": AGENT, "Accept": "*/*", "Connection": "close"})
        return connection.getresponse()

    def _read(self, response: http.client.HTTPResponse, deadline: float) -> bytes:
        if response.status != 200:
            raise InputError(f"the address answers with status {response.status}")
        if response.getheader("content-encoding", "identity") != "identity":
            raise InputError("the address answers with a compressed body, which was not asked for")
        length = response.getheader("content-length", "")
        data = bytearray()
        while not (length.isdigit() and int(length) > self.max_bytes):
            chunk = response.read(CHUNK)
            data += chunk
            if not chunk:
                if time.monotonic() >= deadline:  # the end is the clock's doing
                    raise TimeoutError
                if length.isdigit() and len(data) < int(length):
                    raise http.client.IncompleteRead(b"", int(length) - len(data))
                return bytes(data)
            if len(data) > self.max_bytes:
                break
        raise Refused(413, f"the file at the address is larger than {self.max_bytes / 1e6:g} MB")


class Pinned(http.client.HTTPConnection):
    """A connection to a chosen address, under the name that the certificate and the Host header bear."""

    def __init__(self, host: str, port: int, address: str, tls: ssl.SSLContext | None, connect, timeout: float):
        super().__init__(host, port, timeout=timeout)
        self.address, self.tls, self.connect_to = address, tls, connect
        self.default_port = 443 if tls else 80

    def connect(self) -> None:
        self.sock = self.connect_to((self.address, self.port), self.timeout)
        if self.tls:
            self.sock = self.tls.wrap_socket(self.sock, server_hostname=self.host)


def _cut(connection: socket.socket) -> None:
    with suppress(OSError):  # it may have ended meanwhile
        connection.shutdown(socket.SHUT_RDWR)
