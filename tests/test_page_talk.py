"""Microphone and camera on the page, played from files: transcript, spoken answers and interruption."""

import base64
import io
import re
import wave

import numpy as np
import pytest
from PIL import Image

from tests.browsing import chromium, devices, expect, finished, limit, needs_chromium, opened
from tests.media import wav
from tests.serving import serving, until, whole_ming
from tests.talks import RATE_HZ, WORDS, silence, talk

pytestmark = needs_chromium
SAID = np.concatenate([silence(0.8), talk(list(WORDS)[:2], 0.2)[0], silence(1.7)])
"""Two words; the file plays over and over, and whoever wants an answer mutes the microphone in time."""

LONG_SECONDS = 10.0
"""Every sentence of an answer lasts longer than the file, so that there is time to interrupt it."""


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    folder = tmp_path_factory.mktemp("devices")
    (folder / "said.wav").write_bytes(wav(SAID, RATE_HZ, subtype="PCM_16"))
    (folder / "seen.mjpeg").write_bytes(film())
    with chromium(*devices(folder / "said.wav", folder / "seen.mjpeg")) as browser:
        yield browser


def film() -> bytes:
    """A green wall, as a camera sees it."""
    import av

    file = io.BytesIO()
    with av.open(file, "w", format="mjpeg") as output:
        stream = output.add_stream("mjpeg", rate=10)
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuvj420p"
        for _ in range(5):
            frame = av.VideoFrame.from_ndarray(np.full((240, 320, 3), [20, 180, 40], np.uint8), format="rgb24")
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return file.getvalue()


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    ming = whole_ming(tmp_path_factory.mktemp("voices"))
    talker = ming.speaker.talker.config
    talker.min_patches = round(LONG_SECONDS / talker.patch_seconds)
    with serving(ming) as served:
        yield served


@pytest.fixture
def page(browser, served):
    with opened(browser, served, "talk") as page:
        yield page
    until(lambda: not served.app.state.realtime.sessions)


def items(served) -> list:
    [session] = served.app.state.realtime.sessions
    return session.memory.items


def begin(page, num_tokens: int) -> None:
    limit(page, num_tokens)
    page.get_by_role("button", name="Start talking").click()


def say(page) -> None:
    """Two words, and then nothing."""
    expect(page.locator("#talk .state")).to_have_text("You are speaking", timeout=20_000)
    expect(page.locator("#talk .state")).not_to_have_text("You are speaking", timeout=20_000)
    page.get_by_role("button", name="Mute").click()


def test_what_is_said_is_written_down_and_answered_aloud(page, served):
    begin(page, 12)
    say(page)
    user, answer = page.locator("#talk article.user").first, page.locator("#talk article.assistant").first
    expect(answer.locator("footer")).to_contain_text("first sound after", timeout=20_000)
    expect(user.locator(".text")).not_to_be_empty(timeout=20_000)
    assert float(re.search(r"after (\d+\.\d\d) s", answer.locator("footer").inner_text()).group(1)) > 0
    until(lambda: items(served)[0].text)
    kept = items(served)
    assert [item.role for item in kept[:2]] == ["user", "assistant"] and kept[1].said.seconds > 0
    until(lambda: shows(user, kept[0].text))
    page.get_by_role("button", name="End").click()
    expect(page.get_by_role("button", name="Start talking")).to_be_visible()
    assert not page.complaints and page.locator("#talk .problem").inner_text() == ""


def test_whoever_speaks_while_it_answers_is_listened_to(page, served):
    begin(page, 20)
    say(page)
    expect(page.locator("#talk .state")).to_have_text("Speaking", timeout=40_000)
    page.get_by_role("button", name="Mute").click()
    cut = page.locator("#talk article").filter(has_text="first sound after").filter(has_text="interrupted").first
    expect(cut).to_be_visible(timeout=40_000)
    until(lambda: any(item.heard_seconds for item in items(served)))
    answer = next(item for item in items(served) if item.heard_seconds)
    assert len(answer.text) < len(answer.said.text)
    until(lambda: shows(cut, answer.text))
    assert not page.complaints and page.locator("#talk .problem").inner_text() == ""


def test_escape_interrupts_and_then_ends(page, served):
    begin(page, 4000)
    expect(page.get_by_role("button", name="Interrupt")).to_be_visible(timeout=20_000)
    page.keyboard.press("Escape")
    expect(page.locator("#talk article.assistant footer").first).to_contain_text("interrupted")
    expect(page.get_by_role("button", name="Interrupt")).to_be_hidden()
    expect(page.get_by_role("button", name="End")).to_be_visible()
    until(lambda: served.is_idle)
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="Start talking")).to_be_visible()


def test_the_camera_is_looked_through_while_somebody_speaks(page, served):
    page.get_by_role("button", name="Camera").click()
    expect(page.locator("#talk video")).to_be_visible()
    sent = []
    page.on("websocket", lambda socket: socket.on("framesent", lambda data: sent.append(data)))
    begin(page, 4)
    say(page)
    until(lambda: served.app.state.realtime.sessions)
    until(lambda: any(c.kind == "picture" for item in items(served) for c in item.contents))
    [url, *_] = re.findall(r'"image_url":"data:image/jpeg;base64,([^"]+)"', "".join(map(str, sent)))
    red, green, blue = np.asarray(Image.open(io.BytesIO(base64.b64decode(url))).convert("RGB")).mean((0, 1))
    assert green > 120 > 80 > red and blue < 100
    page.get_by_role("button", name="Camera").click()
    expect(page.locator("#talk video")).to_be_hidden()


def test_closing_the_page_ends_the_conversation(page, served):
    begin(page, 4000)
    expect(page.get_by_role("button", name="Interrupt")).to_be_visible(timeout=20_000)
    page.close()
    until(lambda: not served.app.state.realtime.sessions)
    until(lambda: served.is_idle)


def test_a_recording_is_made_on_the_page(browser, served):
    with opened(browser, served, "transcribe") as page:
        page.get_by_role("button", name="Record", exact=True).click()
        expect(page.locator(".record >> visible=true")).to_contain_text(re.compile(r"\(2\.\d s\)"), timeout=10_000)
        page.locator(".record >> visible=true").click()
        expect(page.locator("#transcribe .picker audio")).to_be_visible()
        posted = []
        page.route(
            "**/v1/audio/transcriptions",
            lambda route: (posted.append(route.request.post_data_buffer), route.continue_()),
        )
        page.locator("#transcribe .go").click()
        finished(page, "#transcribe form")
        start = posted[0].index(b"RIFF")
        with wave.open(io.BytesIO(posted[0][start:])) as sound:
            assert (sound.getframerate(), sound.getnchannels()) == (24_000, 1)
            samples = np.frombuffer(sound.readframes(48_000), "<i2")
        assert len(samples) == 48_000 and np.abs(samples).max() > 1000


def shows(article, text: str) -> bool:
    """Whether an entry shows this text; a tiny model also writes control characters, which nobody sees."""
    return letters(article.locator(".text").inner_text()) == letters(text)


def letters(text: str) -> str:
    return re.sub(r"[\s\x00-\x1f\x7f-\x9f]", "", text)
