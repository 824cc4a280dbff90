"""Files that are meant to hurt, made on the spot: each is a clear 4xx, and none fills the memory."""

import base64
import io
import json
import os
import socket
import struct
import time
import zlib
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from ming_omni.inputs import messages
from ming_omni.serve import media as limits
from ming_omni.serve.fetch import Web
from ming_omni.serve.rules import Rules
from tests.media import board, data_url, movie, picture_file, tone, wav
from tests.serving import serving, until, whole_ming

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="needs Linux to tell peaks of memory"
)
RULES = Rules(max_body_bytes=12_000_000, body_seconds=1.0)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    with serving(whole_ming(tmp_path_factory.mktemp("voices")), rules=RULES) as served:
        ask(served, part("image_url", picture_file(board())))  # so that lazy imports do not count as growth
        yield served


def part(kind: str, data: bytes, media_type: str = "application/octet-stream") -> dict:
    return {"type": kind, kind: {"url": data_url(data, media_type)}}


def ask(served, *content: dict) -> httpx.Response:
    body = {"model": "tiny", "max_tokens": 1, "messages": [{"role": "user", "content": list(content)}]}
    return httpx.post(f"{served.url}/v1/chat/completions", json=body, timeout=60)


def memory_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def peak_growth_mb() -> float:
    """Since the last call with "5" written to clear_refs."""
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(peak.split()[1]) / 1000 - memory_mb()


def png_of(width: int, height: int) -> bytes:
    """A PNG whose header promises a size, and whose data is as small as zeros become."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    row = bytes(1 + (width + 7) // 8)
    packer = zlib.compressobj()
    body = b"".join(packer.compress(row) for _ in range(min(height, 2000))) + packer.flush()
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def text_bomb() -> bytes:
    """A small PNG with a comment of 50 MB, which takes 50 KB."""
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_text("comment", "x" * 50_000_000, zip=True)
    return picture_file(board(), pnginfo=info)


def hour() -> bytes:
    """An hour of silence, which takes 100 KB."""
    return wav(np.zeros(3600 * 4000, np.float32), 4000, "FLAC", "PCM_16")


def long_movie(hours: int) -> bytes:
    """A few frames, hours apart."""
    import av

    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as output:
        stream = output.add_stream("mpeg4", rate=1)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        for index in range(8):
            frame = av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")
            frame.pts = index * hours * 3600 // 7
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return file.getvalue()


BAD = {
    "gigapixel png": lambda: part("image_url", png_of(40_000, 40_000)),
    "one line of a billion": lambda: part("image_url", png_of(2**30, 1)),
    "text bomb": lambda: part("image_url", text_bomb()),
    "truncated png": lambda: part("image_url", picture_file(board(400, 600))[:900]),
    "a film as a picture": lambda: part("image_url", movie(), "image/png"),
    "a page as a picture": lambda: part("image_url", b"<html>", "text/html"),
    "a picture as a sound": lambda: part("audio_url", picture_file(board()), "audio/wav"),
    "a picture as a film": lambda: part("video_url", picture_file(board()), "video/mp4"),
    "a sound as a film": lambda: part("video_url", wav(tone())),
    "hour-long sound": lambda: part("audio_url", hour()),
    "4-hour film": lambda: part("video_url", long_movie(4)),
    "truncated film": lambda: part("video_url", movie()[:600]),
    "playlist": lambda: part("video_url", b"#EXTM3U\n#EXTINF:10,\nfile:///etc/passwd\n"),
    "empty": lambda: part("image_url", b""),
    "svg": lambda: part("image_url", b"<svg xmlns='http://www.w3.org/2000/svg'/>", "image/svg+xml"),
    "eps": lambda: part("image_url", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "image/eps"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_a_clear_4xx_in_flat_memory(served, name):
    content = BAD[name]()
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak
    answer = ask(served, content)
    assert 400 <= answer.status_code < 500, answer.text
    assert len(answer.json()["error"]["message"]) < 300
    assert peak_growth_mb() < 300


def test_what_is_meant_well_still_passes(served):
    films = part("video_url", movie(), "video/mp4")
    assert ask(served, films, part("image_url", picture_file(board())), part("audio_url", wav(tone()))).is_success


def test_many_large_pictures_are_held_one_at_a_time(served):
    read = limits.Media(served.ming, Web()).reader({})
    large = data_url(picture_file(Image.new("RGB", (3000, 3000))))
    Path("/proc/self/clear_refs").write_text("5")
    pictures = [read(large, messages.Image) for _ in range(10)]
    assert peak_growth_mb() < 180  # one takes 27 MB, and as much again while it is opened; ten would take 270
    assert all(picture.width * picture.height <= 1024 * 28**2 for picture in pictures)


def test_too_many_media_are_refused(served):
    answer = ask(served, *[part("image_url", b"x")] * (limits.MAX_MEDIA + 1))
    assert answer.status_code == 400 and "at most 64 media" in answer.json()["error"]["message"]


@pytest.mark.parametrize("path", ["edits", "segmentations"])
def test_a_gigapixel_picture_is_not_painted_over(served, path):
    files = {"image": ("a.png", png_of(40_000, 40_000))}
    answer = httpx.post(
        f"{served.url}/v1/images/{path}", files=files, data={"prompt": "x"} if path == "edits" else {"what": "x"}
    )
    assert answer.status_code == 400 and "too large" in answer.json()["error"]["message"]


def test_an_hour_of_sound_is_no_voice(served):
    files = {"audio_sample": ("a.flac", hour())}
    answer = httpx.post(f"{served.url}/v1/audio/voices", files=files, data={"name": "x", "consent": "y"}, timeout=60)
    assert answer.status_code == 400 and "too long" in answer.json()["error"]["message"]


def raw(served, data: bytes, *, then_close: bool = False) -> bytes:
    """What a server answers to bytes."""
    host, port = served.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(data)
        if then_close:
            return b""
        answer = b""
        while more := connection.recv(65_536):
            answer += more
            if b"\r\n\r\n" in answer:
                break
    return answer


@pytest.mark.parametrize("headers", [["application/JSON"], ["application/json", "text/plain"]])
def test_a_json_of_very_many_values_is_refused_however_it_is_announced(served, headers):
    body = b'{"messages": [' + b"[]," * 200_000 + b"[]]}"
    named = [("content-type", value) for value in headers]
    answer = httpx.post(f"{served.url}/v1/chat/completions", content=body, headers=named)
    assert answer.status_code == 413 and "more than 200,000 values" in answer.json()["error"]["message"]


HEAD = (
    b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n"
)


def test_a_body_that_never_ends_is_given_up(served):
    assert b" 408 " in raw(served, HEAD + b'{"model":')
    until(lambda: not served.server.inside)


def test_an_upload_that_breaks_off_leaves_nothing_and_is_no_error(served, caplog):
    raw(served, HEAD + b'{"model":', then_close=True)
    until(lambda: not served.server.inside)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_a_form_that_breaks_off_is_a_4xx(served):
    body = b'--b\r\ncontent-disposition: form-data; name="image"; filename="a.png"\r\n\r\nabc'
    head = {"content-type": "multipart/form-data; boundary=b"}
    answer = httpx.post(f"{served.url}/v1/images/edits", content=body, headers=head)
    assert 400 <= answer.status_code < 500


def test_a_head_that_comes_letter_by_letter_is_given_up(served, monkeypatch):
    monkeypatch.setattr("ming_omni.serve.connection.HEAD_SECONDS", 0.5)
    started = time.monotonic()
    assert b" 408 " in raw(served, b"POST /v1/chat/comple")
    assert b" 408 " in raw(served, b"")
    assert time.monotonic() - started < 10


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 5_000_000 + b"]" * 5_000_000,
        b'{"model": "tiny", "messages": [' + b"1," * 4_900_000 + b"1]}",
        b'{"model": "tiny", "messages": [' + b"{}," * 3_000_000 + b"{}]}",
        b'{"model": "tiny", "messages": [{"role": "user", "content": "' + b"x" * 9_900_000 + b'"}]}',
        b'{"model": "tiny", "messages": [{"role": "user", "content": [' + b"[]," * 3_000_000 + b"[]]}]}",
        b'{"' + b'a":1,"' * 1_500_000 + b'b":1}',
        b"1" * 9_900_000,
    ],
    ids=["nested", "numbers", "objects", "long text", "parts", "keys", "number"],
)
def test_ten_megabytes_of_json_are_a_4xx_soon_and_in_flat_memory(served, body):
    Path("/proc/self/clear_refs").write_text("5")
    started = time.monotonic()
    answer = httpx.post(
        f"{served.url}/v1/chat/completions", content=body, headers={"content-type": "application/json"}, timeout=60
    )
    assert 400 <= answer.status_code < 500 and len(answer.content) < 1000
    assert time.monotonic() - started < 20
    assert peak_growth_mb() < 300


def test_many_bodies_at_once_are_held_only_as_far_as_memory_allows(tmp_path):
    ming = whole_ming(tmp_path)
    with serving(ming, rules=Rules(max_body_bytes=1_000_000, max_arriving_bytes=1_500_000)) as served:
        host, port = served.url.removeprefix("http://").split(":")
        half = HEAD.replace(b"1000", b"900000") + b" " * 800_000
        with socket.create_connection((host, int(port))) as first:
            first.sendall(half)
            time.sleep(0.3)
            assert b" 429 " in raw(served, half)
        until(lambda: not served.server.inside)
        assert httpx.get(f"{served.url}/health").is_success


def test_an_answer_that_takes_too_long_is_ended(tmp_path):
    ming = whole_ming(tmp_path)
    body = {"model": "tiny", "max_tokens": 8000, "messages": [{"role": "user", "content": "x"}]}
    with serving(ming, rules=Rules(request_seconds=0.5)) as served:
        answer = httpx.post(f"{served.url}/v1/chat/completions", json=body, timeout=30)
        assert answer.status_code == 408 and "longer than 0.5 seconds" in answer.json()["error"]["message"]
        lines = httpx.post(f"{served.url}/v1/chat/completions", json=body | {"stream": True}, timeout=30).text
        assert (
            "longer than 0.5 seconds" in json.loads(lines.split("\n\n")[-2].removeprefix("data: "))["error"]["message"]
        )
        until(lambda: served.is_idle)


def test_a_sound_says_what_it_is_only_to_be_believed_if_it_fits(served):
    sound = {"type": "input_audio", "input_audio": {"data": base64.b64encode(wav(tone())).decode(), "format": "mp3"}}
    assert ask(served, sound).is_success
