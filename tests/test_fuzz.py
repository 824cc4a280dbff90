"""Requests and files that nobody would think of: no answer is a 5xx, and no decoder fails in its own words.

The short form runs always; `pytest -m slow tests/test_fuzz.py` is the long one.
"""

import httpx
import numpy as np
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ming_omni.errors import InputError
from ming_omni.inputs.video import load_video
from ming_omni.serve import media
from ming_omni.serve.rules import Rules
from tests.media import board, movie, picture_file, tone, track, wav
from tests.serving import serving, whole_ming

FEW, MANY = 6, 400
QUIET = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large, HealthCheck.large_base_example]


def effort(max_examples: int) -> settings:
    return settings(
        max_examples=max_examples,
        deadline=None,
        database=None,
        derandomize=max_examples == FEW,
        suppress_health_check=QUIET,
    )


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    with serving(whole_ming(tmp_path_factory.mktemp("voices")), rules=Rules(request_seconds=20)) as served:
        yield served


def tame(case) -> None:
    """Leave what is wrong wrong, and make what is right short: this is about strange requests, not about long ones."""
    body = case.body
    if not isinstance(body, dict):
        return
    for name, most in (("steps", 1), ("n", 2), ("max_tokens", 2), ("max_completion_tokens", 2)):
        if type(body.get(name)) is int:
            body[name] = min(body[name], most)
    if case.path == "/v1/chat/completions" and not {"max_tokens", "max_completion_tokens"} & body.keys():
        body["max_tokens"] = 2
    if case.path.startswith("/v1/images") and "steps" not in body:
        body["steps"] = 1
    if isinstance(body.get("input"), str):
        body["input"] = body["input"][:30]


def fuzz(served, max_examples: int) -> int:
    """Requests sent to every operation of the schema; the first answer that is a 5xx fails."""
    schema = schemathesis.openapi.from_url(f"{served.url}/openapi.json")
    num_sent = 0
    for found in schema.get_all_operations():
        operation = found.ok()
        for mode in (schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE):

            @effort(max_examples)
            @given(case=operation.as_strategy(generation_mode=mode))
            def send(case) -> None:
                nonlocal num_sent
                tame(case)
                answer = case.call(timeout=60)
                num_sent += 1
                assert answer.status_code < 500, f"{case.method} {case.path} {case.body!r}: {answer.text}"
                if answer.status_code >= 400 and case.path.startswith("/v1/"):
                    assert answer.json()["error"]["message"]

            try:
                send()
            except schemathesis.errors.InvalidSchema:
                raise
            except Exception as cause:
                if "Impossible to generate negative" not in str(cause) and type(cause).__name__ != "Unsatisfiable":
                    raise
    assert httpx.get(f"{served.url}/health").json() == {"status": "ok"}
    return num_sent


def test_no_request_is_the_servers_fault(served):
    assert fuzz(served, FEW) > 100


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_none_of_many_requests_is_the_servers_fault(served):
    assert fuzz(served, MANY // 4) > 1000


SOUND = tone(0.3)
FILES = {
    "png": lambda: picture_file(board()),
    "jpeg": lambda: picture_file(board(), "JPEG"),
    "gif": lambda: picture_file(board(), "GIF"),
    "webp": lambda: picture_file(board(), "WEBP"),
    "tiff": lambda: picture_file(board(), "TIFF", compression="tiff_lzw"),
    "bmp": lambda: picture_file(board(), "BMP"),
    "ico": lambda: picture_file(board(32, 32), "ICO"),
    "jpeg2000": lambda: picture_file(board(), "JPEG2000"),
    "wav": lambda: wav(SOUND),
    "flac": lambda: wav(SOUND, file_format="FLAC"),
    "ogg": lambda: wav(SOUND, file_format="OGG"),
    "aiff": lambda: wav(SOUND, file_format="AIFF"),
    "mp3": lambda: track(SOUND, 16_000, "mp3", "libmp3lame"),
    "m4a": lambda: track(SOUND, 16_000, "mp4", "aac"),
    "mp4": lambda: movie(6),
    "webm": lambda: movie(6, container="webm", codec="vp9"),
    "avi": lambda: movie(6, container="avi"),
}
SOUNDS, FILMS = ("wav", "flac", "ogg", "aiff", "mp3", "m4a"), ("mp4", "webm", "avi")


@st.composite
def damage(draw, size: int):
    """Bytes changed, cut out, doubled or put in at random places."""
    places = st.integers(0, size)
    kinds = st.sampled_from(("set", "cut", "end", "double", "fill"))
    return draw(
        st.lists(
            st.tuples(kinds, places, st.integers(1, 64), st.binary(min_size=1, max_size=8)), min_size=1, max_size=8
        )
    )


def damaged(data: bytes, changes) -> bytes:
    for kind, place, count, new in changes:
        before, after = data[:place], data[place:]
        data = {
            "set": before + new + after[len(new) :],
            "cut": before + after[count:],
            "end": before or data,
            "double": before + after[:count] * 2 + after[count:],
            "fill": before + b"\xff" * count + after[count:],
        }[kind]
    return data


def read(name: str, data: bytes) -> None:
    """As the server reads it."""
    if name in SOUNDS:
        samples, rate_hz = media.sound(data, 60)
        assert samples.dtype.is_floating_point and rate_hz > 0
    elif name in FILMS:
        frames = load_video(media.film(data))
        assert frames.shape[1] == 3
    else:
        assert np.asarray(media.picture(data)).shape[2] == 3


def fuzz_decoder(name: str, max_examples: int) -> None:
    sound = FILES[name]()
    read(name, sound)

    @effort(max_examples)
    @given(changes=damage(len(sound)))
    def open_damaged(changes) -> None:
        try:
            read(name, damaged(sound, changes))
        except InputError as refusal:
            assert str(refusal)

    open_damaged()


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_is_read_or_refused(name):
    fuzz_decoder(name, FEW)


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_many_damaged_files_are_read_or_refused(name):
    fuzz_decoder(name, MANY * 2)
