"""Media by address: only public ones, resolved once, checked at every redirect, within size and time."""

import http.server
import shutil
import socket
import ssl
import subprocess
import threading
import time

import httpx
import pytest

from ming_omni.errors import InputError
from ming_omni.serve import api
from ming_omni.serve.door import Refused
from ming_omni.serve.fetch import MOST_LOOKUPS, Web, is_public
from tests.media import board, data_url, picture_file
from tests.serving import serving, tiny_ming

PUBLIC = "93.184.215.14"


class Site(http.server.BaseHTTPRequestHandler):
    """What a stranger's server may do, by path."""

    seen: list[tuple[str, str]] = []

    def do_GET(self):
        self.seen.append((self.headers["host"], self.path))
        getattr(self, "at_" + self.path.strip("/").split("?")[0].replace("/", "_"))()

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in ({"content_length": str(len(body))} | headers).items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def at_file(self):
        self.answer(200, b"bytes", content_type="image/png; charset=x")

    def at_large(self):
        self.answer(200, b"", content_length="99000000")

    def at_endless(self):
        self.send_response(200)
        self.end_headers()
        try:
            while True:
                self.wfile.write(b"x" * 10_000)
        except OSError:
            pass

    def at_short(self):
        self.answer(200, b"abc", content_length="10")

    def at_zipped(self):
        self.answer(200, b"abc", content_encoding="gzip")

    def at_missing(self):
        self.answer(404)

    def at_inside(self):
        self.answer(302, location="http://intranet.example/file")

    def at_loopback(self):
        self.answer(302, location="http://127.0.0.1/file")

    def at_local(self):
        self.answer(302, location="file:///etc/passwd")

    def at_moved(self):
        self.answer(301, location="/file")

    def at_round(self):
        self.answer(307, location="/round")

    def at_slow(self):
        self.send_response(200)
        self.end_headers()
        try:
            for _ in range(100):
                self.wfile.write(b"x")
                time.sleep(0.05)
        except OSError:
            pass

    def at_silent(self):
        time.sleep(1.5)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def port():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Site)
    server.handle_error = lambda *_: None
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1]
    server.shutdown()


@pytest.fixture
def web(port):
    """A web where every public address is the site above, and names are what this test says."""
    names = {"site.example": [PUBLIC], "intranet.example": ["10.0.0.7"], "both.example": [PUBLIC, "192.168.1.1"]}
    Site.seen = []
    asked = []

    def resolve(host: str, port: int) -> list[str]:
        asked.append(host)
        return names.get(host, [host])

    def connect(address: tuple[str, int], timeout: float) -> socket.socket:
        assert address[0] == PUBLIC
        return socket.create_connection(("127.0.0.1", port), timeout)

    web = Web(allows_http=True, max_bytes=100_000, max_seconds=1.0, resolve=resolve, connect=connect)
    web.asked = asked
    return web


@pytest.mark.parametrize("path", ["file", "moved"])
def test_a_file_and_its_type_are_fetched_under_the_sites_name(web, path):
    assert web.fetch(f"http://site.example/{path}") == (b"bytes", "image/png")
    assert {host for host, _ in Site.seen} == {"site.example"}


def test_a_name_is_resolved_once_for_each_request(web):
    web.fetch("http://site.example/file")
    assert web.asked == ["site.example"]


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://intranet.example/file", "public internet"),
        ("http://both.example/file", "public internet"),
        ("http://site.example/inside", "public internet"),
        ("http://site.example/loopback", "public internet"),
        ("http://site.example/local", "https and http addresses only"),
        ("http://site.example/round", "redirects more than 3 times"),
        ("http://site.example/missing", "status 404"),
        ("http://site.example/zipped", "compressed"),
        ("http://site.example/short", "cannot be fetched: IncompleteRead"),
        ("http://me:secret@site.example/file", "without a user"),
        ("http:///file", "a host and a path"),
        ("http://site.example:99999/file", "cannot be fetched"),
        ("http://[::1/file", "cannot be fetched"),
        ("ftp://site.example/file", "https and http addresses only"),
        ("gopher://site.example", "https and http addresses only"),
        ("/etc/passwd", "https and http addresses only"),
    ],
)
def test_what_must_not_be_fetched_is_refused_in_a_sentence(web, url, message):
    with pytest.raises(InputError, match=message):
        web.fetch(url)


@pytest.mark.parametrize(("path", "status"), [("large", 413), ("endless", 413), ("slow", 408), ("silent", 408)])
def test_files_too_large_or_too_slow_are_given_up(web, path, status):
    started = time.monotonic()
    with pytest.raises(Refused) as caught:
        web.fetch(f"http://site.example/{path}")
    assert caught.value.status == status
    assert time.monotonic() - started < 5


def test_a_name_that_is_not_found_in_time_is_given_up_and_few_are_looked_up_at_once():
    wait, asked = threading.Event(), []

    def resolve(host: str, port: int) -> list[str]:
        asked.append(host)
        wait.wait(20)
        raise socket.gaierror("nobody knows")

    web = Web(max_seconds=0.5, resolve=resolve)
    refusals = []

    def fetch() -> None:
        with pytest.raises(Refused, match=r"did not answer within 0\.5 seconds") as caught:
            web.fetch("https://slow.example/file")
        refusals.append(caught.value.status)

    started = time.monotonic()
    callers = [threading.Thread(target=fetch) for _ in range(MOST_LOOKUPS + 8)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert time.monotonic() - started < 5
    assert refusals == [408] * len(callers) and len(asked) == MOST_LOOKUPS
    wait.set()  # those that nobody waited for make room again
    with pytest.raises(InputError, match="cannot be fetched: gaierror"):
        web.fetch("https://slow.example/file")


def test_only_https_is_fetched_unless_told_otherwise():
    with pytest.raises(InputError, match="media are fetched from https addresses only"):
        Web().fetch("http://site.example/file")


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.9.9.9", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.0.1", "169.254.169.254", "100.64.0.1",
        "192.0.2.1", "198.18.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255", "::", "::1", "fe80::1", "fe80::1%eth0",
        "fc00::1", "fd12::1", "ff02::1", "2001:db8::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1",
        "fec0::1", "64:ff9b::a00:1", "2002:7f00:1::", "2002:c0a8:1::", "2001:0:5ef5:79fb::f5ff:fffe",
    ],
)  # fmt: skip
def test_addresses_that_are_not_public(address):
    assert not is_public(address)


@pytest.mark.parametrize("address", [PUBLIC, "8.8.8.8", "2606:4700:4700::1111"])
def test_addresses_that_are_public(address):
    assert is_public(address)


@pytest.mark.skipif(not shutil.which("openssl"), reason="needs the openssl command to make a certificate")
def test_a_certificate_has_to_bear_the_name_and_not_the_address(tmp_path):
    key, certificate = tmp_path / "key", tmp_path / "certificate"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=site.example"]
    command += ["-addext", "subjectAltName=DNS:site.example", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Site)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.handle_error = lambda *_: None
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def connect(address: tuple[str, int], timeout: float) -> socket.socket:
        assert address == (PUBLIC, 443)
        return socket.create_connection(server.server_address, timeout)

    trusting = ssl.create_default_context(cafile=certificate)
    web = Web(resolve=lambda *_: [PUBLIC], connect=connect, tls=trusting)
    assert web.fetch("https://site.example/file")[0] == b"bytes"
    with pytest.raises(InputError, match="cannot be fetched: SSLCertVerificationError"):
        web.fetch("https://other.example/file")
    with pytest.raises(InputError, match="cannot be fetched: SSLCertVerificationError"):
        Web(resolve=lambda *_: [PUBLIC], connect=connect).fetch("https://site.example/file")
    server.shutdown()


def test_a_chat_reads_a_picture_by_its_address_as_if_it_had_been_sent(web, port, monkeypatch):
    picture = picture_file(board())
    monkeypatch.setattr(
        Site, "at_board", lambda self: self.answer(200, picture, content_type="image/png"), raising=False
    )
    monkeypatch.setattr(api, "Web", lambda **_: web)

    def ask(url: str, kind: str = "image_url") -> httpx.Response:
        content = [{"type": kind, kind: {"url": url}}, {"type": "text", "text": "?"}]
        body = {"model": "tiny", "max_tokens": 5, "messages": [{"role": "user", "content": content}]}
        return httpx.post(f"{served.url}/v1/chat/completions", json=body, timeout=60)

    with serving(tiny_ming()) as served:
        by_address, sent = ask("http://site.example/board"), ask(data_url(picture))
        assert by_address.json()["choices"] == sent.json()["choices"]
        wrong = ask("http://site.example/board", "audio_url")
        assert wrong.status_code == 415 and "a sound is wanted" in wrong.json()["error"]["message"]
        assert ask("http://site.example/large").status_code == 413
        assert ask("http://site.example/slow").status_code == 408
        inside = ask("http://intranet.example/board")
        assert inside.status_code == 400 and "public internet" in inside.json()["error"]["message"]
