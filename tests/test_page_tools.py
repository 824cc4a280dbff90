"""Draw, edit, segment, speak and transcribe on the page: what it shows is what Python would have made."""

import io
import itertools
import re

import numpy as np
import pytest
from PIL import Image

from tests.browsing import expect, finished, give, needs_chromium, opened, saved
from tests.media import board, movie, picture_file, wav
from tests.serving import serving, until
from tests.talks import RATE_HZ, WORDS, silence, talk
from tests.taught import Lesson, taught
from tests.test_transcribe import TALK, stretches

pytestmark = needs_chromium
BOARD = board(60, 90)
BOARD_FILE = ("board.png", "image/png", picture_file(BOARD))
SPEECH_FILE = ("ada.wav", "audio/wav", wav(talk(list(WORDS), 0.2)[0], RATE_HZ))


def on(tab: str):
    return pytest.mark.parametrize("page", [tab], indirect=True, ids=[""])


def ask(page, tab: str, **fields) -> None:
    """Fill in the form of a tab and send it off."""
    form = page.locator(f"#{tab} form").first
    for name, value in fields.items():
        form.locator(f"[name={name}]").fill(str(value))
    form.locator(".go").click()


def done(page, tab: str):
    """The newest result."""
    finished(page, f"#{tab} form >> nth=0")
    expect(page.locator(f"#{tab} form .act ~ .problem").first).to_be_empty()
    return page.locator(f"#{tab} .results figure").first


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


@on("draw")
def test_the_picture_is_the_one_that_python_paints(page, served):
    page.get_by_label("Shape").select_option("Wide")
    ask(page, "draw", prompt="a fox in the snow", steps=2, seed=7)
    result = done(page, "draw")
    [expected] = served.ming.paint("a fox in the snow", aspect="3:2", steps=2, seed=7)
    assert np.array_equal(pixels(saved(page, result.get_by_role("link", name="Save"))), np.asarray(expected.image))
    size = "x".join(map(str, expected.size))
    assert re.fullmatch(rf"\d+\.\d s · {size} · seed 7", result.locator(".note").inner_text())
    assert not page.complaints


@on("draw")
def test_a_seed_is_chosen_and_shown_so_that_the_picture_can_be_had_again(page, served):
    ask(page, "draw", prompt="a fox", steps=1)
    result = done(page, "draw")
    seed = int(result.locator(".note").inner_text().rsplit(" ", 1)[1])
    [expected] = served.ming.paint("a fox", aspect="1:1", steps=1, seed=seed)
    assert np.array_equal(pixels(saved(page, result.get_by_role("link", name="Save"))), np.asarray(expected.image))


@on("draw")
@pytest.mark.parametrize("way", ["button", "Escape"])
def test_a_picture_that_is_stopped_is_painted_no_further(page, served, way):
    ask(page, "draw", prompt="a fox", steps=1000)
    until(lambda: served.app.state.inside)
    page.wait_for_timeout(300)
    if way == "button":
        page.locator("#draw").get_by_role("button", name="Stop").click()
    else:
        page.keyboard.press("Escape")
    expect(page.locator("#draw .note")).to_have_text("stopped")
    until(lambda: not served.app.state.inside, 5)
    expect(page.locator("#draw figure")).to_have_count(0)


@on("draw")
def test_a_picture_goes_on_to_be_edited(page):
    ask(page, "draw", prompt="a fox", steps=1, seed=1)
    done(page, "draw").get_by_role("button", name="Edit").click()
    expect(page.get_by_role("tab", name="Edit")).to_have_attribute("aria-selected", "true")
    expect(page.locator("#edit .picker img")).to_be_visible()


@on("edit")
@pytest.mark.parametrize("event", ["paste", "drop"])
def test_a_slider_moves_between_before_and_after(page, served, event):
    give(page, event, BOARD_FILE)
    ask(page, "edit", prompt="make it green", steps=2, seed=3)
    result = done(page, "edit")
    [expected] = served.ming.edit(BOARD, "make it green", steps=2, seed=3)
    assert np.array_equal(pixels(saved(page, result.get_by_role("link", name="Save"))), np.asarray(expected.image))
    slider = result.get_by_role("slider", name="From before to after")
    slider.focus()
    for key, before in (("Home", 0.0), ("End", 1.0)):
        page.keyboard.press(key)
        shown = pixels(result.locator(".compare").screenshot())[20:-20, 20:-20].astype(int)
        red_or_blue = ((shown[..., 1] < 60) & (abs(shown[..., 0] - shown[..., 2]) > 150)).mean()
        assert (red_or_blue > 0.8) == (before == 1.0)
    page.keyboard.press("ArrowLeft")
    assert page.evaluate("getComputedStyle(document.querySelector('.compare')).getPropertyValue('--at')") == "99%"


@on("segment")
def test_a_click_on_a_mask_hides_it_and_its_name_shows_it_again(page, served):
    give(page, "drop", BOARD_FILE)
    ask(page, "segment", what="fox, hat", steps=2, seed=5)
    result = done(page, "segment")
    found = served.ming.segment(BOARD, classes=["fox", "hat"], steps=2, seed=5)
    fox = found.masks[0]
    assert 0 < fox.area < BOARD.width * BOARD.height
    share = f"{100 * fox.area / (BOARD.width * BOARD.height):.1f}"
    assert f"fox: {share}% of the picture · hat: " in result.locator(".note").inner_text()
    assert np.array_equal(pixels(saved(page, result.get_by_role("link", name="Save fox")))[..., 0] > 0, fox.inside)

    button, picture = result.get_by_role("button", name="fox", exact=True), result.locator(".overlay img")
    painted = pixels(picture.screenshot())
    y, x = (int(place[len(place) // 2]) for place in np.nonzero(fox.inside))
    width = picture.evaluate("(image) => image.getBoundingClientRect().width")
    at = {"x": (x + 0.5) * width / BOARD.width, "y": (y + 0.5) * width / BOARD.width}
    result.locator(".overlay").click(position=at)
    expect(button).to_have_attribute("aria-pressed", "false")
    bare = pixels(picture.screenshot())
    assert (painted != bare).any(-1).mean() > 0.1
    button.focus()
    page.keyboard.press("Space")
    expect(button).to_have_attribute("aria-pressed", "true")
    assert (pixels(picture.screenshot()) != painted).any(-1).mean() < 0.05
    assert not page.complaints


@on("edit")
def test_what_is_missing_or_of_another_kind_is_said(page):
    ask(page, "edit", prompt="make it green")
    expect(page.locator("#edit form .act ~ .problem")).to_have_text("Choose, drop or paste a picture.")
    give(page, "drop", SPEECH_FILE)
    expect(page.locator("#edit .picker .problem")).to_have_text("ada.wav is no picture.")


@on("speak")
def test_speech_sounds_while_it_is_made_and_can_be_kept(page, served):
    ask(page, "speak", input="Hello there. How are you?", speed=2)
    result = done(page, "speak")
    note = result.locator(".note").inner_text()
    seconds = re.fullmatch(
        r"(\d+\.\d) s of speech · \d+\.\d\d × real time · first sound after \d+\.\d\d s", note
    ).group(1)
    data = saved(page, result.get_by_role("link", name="Save"))
    assert data[:4] == b"RIFF" and abs((len(data) - 44) / 48_000 - float(seconds)) < 0.06
    assert np.abs(np.frombuffer(data[44:], "<i2")).max() > 100
    assert not page.complaints


@on("speak")
def test_speech_that_is_stopped_is_not_made_any_further(page, served):
    ask(page, "speak", input="Hello there. " * 200)
    expect(page.locator("#speak .note").first).to_contain_text("real time")
    page.keyboard.press("Escape")
    expect(page.locator("#speak .note").first).to_have_text("stopped")
    until(lambda: not served.app.state.inside, 5)


@on("speak")
def test_speech_that_breaks_off_is_not_taken_for_the_whole(page, served, monkeypatch):
    speak = served.ming.speaker.speak

    def dying(*args, **options):
        yield from itertools.islice(speak(*args, **options), 3)
        raise RuntimeError("the talker has died")

    monkeypatch.setattr(served.ming.speaker, "speak", dying)
    ask(page, "speak", input="Hello there. How are you?")
    expect(page.locator("#speak form .act ~ .problem").first).to_have_text("The connection broke off.")
    expect(page.locator("#speak figure")).to_have_count(0)


@on("speak")
def test_a_voice_is_cloned_chosen_used_and_deleted(page, served):
    page.get_by_text("Clone a voice").click()
    give(page, "drop", SPEECH_FILE)
    clone = page.locator("#clone")
    clone.get_by_label("Name").fill("ada")
    clone.get_by_label("What is said").fill("nine seven three")
    clone.get_by_label("Who speaks").fill("Ada agreed on 3 May")
    clone.get_by_role("button", name="Keep this voice").click()
    expect(clone.locator(".note")).to_have_text("kept ada")
    kept = served.ming.speaker.shelf.get("ada")
    assert (kept.consent, kept.transcript) == ("Ada agreed on 3 May", "nine seven three")
    expect(page.locator("#speak [name=voice]")).to_have_value("ada")
    bodies = []
    page.on("request", lambda request: request.url.endswith("speech") and bodies.append(request.post_data_json))
    ask(page, "speak", input="Hello.")
    done(page, "speak")
    assert bodies[0]["voice"] == "ada"
    page.get_by_role("button", name="Delete the voice ada").click()
    expect(page.locator(".shelf li")).to_have_count(0)
    assert "ada" not in served.ming.speaker.shelf.names()
    assert not page.complaints


@pytest.fixture(scope="module")
def listener():
    """Hears 谢谢 and `three`, and 歇歇 for the first when that is on the list."""
    thanks, three = stretches(TALK)
    with serving(
        taught(
            Lesson(thanks, "上海\t谢谢"),
            Lesson(three, "English\tthree"),
            Lesson(thanks, "歇歇", words=("歇歇",), forced="上海\t"),
            Lesson(three, "歇歇", words=("歇歇",), forced="English\t"),
        )
    ) as served:
        yield served


def test_a_list_of_words_helps_the_transcript(browser, listener):
    with opened(browser, listener, "transcribe") as page:
        give(page, "drop", ("talk.wav", "audio/wav", wav(TALK, RATE_HZ, subtype="FLOAT")))
        for words, expected in (("", "谢谢three"), ("歇歇\n", "歇歇three")):
            ask(page, "transcribe", words=words)
            result = done(page, "transcribe")
            expect(result.locator(".transcript")).to_have_text(expected)
            assert re.fullmatch(
                rf"{len(TALK) / RATE_HZ:.1f} s of sound in \d+\.\d s · \d+\.\d times as fast as it is spoken",
                result.locator(".note").inner_text(),
            )
        assert not page.complaints


def test_where_nobody_speaks_the_page_says_so(browser, listener):
    with opened(browser, listener, "transcribe") as page:
        give(page, "paste", ("film.mp4", "video/mp4", movie(sound=True)))
        ask(page, "transcribe")
        expect(done(page, "transcribe").locator(".note")).to_contain_text("Nobody speaks in this recording.")


def test_a_transcript_that_breaks_off_is_not_taken_for_a_whole_one(browser, listener):
    with opened(browser, listener, "transcribe") as page:
        body = 'data: {"type": "transcript.text.delta", "delta": "three"}\n\n'
        page.route(
            "**/v1/audio/transcriptions", lambda route: route.fulfill(body=body, content_type="text/event-stream")
        )
        give(page, "drop", ("silence.wav", "audio/wav", wav(silence(1.0), RATE_HZ)))
        ask(page, "transcribe")
        finished(page, "#transcribe form")
        expect(page.locator("#transcribe form .act ~ .problem")).to_contain_text("this transcript is not complete")
