"""The chat page in a headless Chromium, against a real server."""

import base64
import re
import shutil

import pytest

from tests.serving import serving, tiny_ming, until
from tests.test_openai_client import checkerboard, tone

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as tools:
        browser = tools.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def served():
    with serving(tiny_ming()) as served:
        yield served


@pytest.fixture
def page(browser, served):
    context = browser.new_context(viewport={"width": 1000, "height": 700})
    page = context.new_page()
    page.complaints = []
    page.on("console", lambda message: message.type == "error" and page.complaints.append(message.text))
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    page.requested = []
    page.on("request", lambda request: page.requested.append(request.url))
    page.goto(served.url)
    playwright.expect(page.locator("#model")).to_have_text("tiny")
    yield page
    context.close()
    until(lambda: served.is_idle)


def limit(page, num_tokens: int) -> None:
    """Set the length of answers the way a person does."""
    page.get_by_role("button", name="Settings").click()
    page.get_by_label("Most tokens").fill(str(num_tokens))
    page.get_by_role("button", name="Done").click()


def finished(page) -> None:
    playwright.expect(page.locator("#log")).to_have_attribute("aria-busy", "false", timeout=30_000)


def give(page, event: str, *files: tuple[str, str, str]) -> None:
    """Paste or drop files: (name, MIME type, base64)."""
    page.evaluate(
        """([event, files]) => {
          const data = new DataTransfer();
          for (const [name, type, text] of files) {
            const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
            data.items.add(new File([bytes], name, { type }));
          }
          const carried = event === "paste" ? { clipboardData: data } : { dataTransfer: data };
          const Kind = event === "paste" ? ClipboardEvent : DragEvent;
          document.body.dispatchEvent(new Kind(event, { ...carried, bubbles: true, cancelable: true }));
        }""",
        [event, [list(file) for file in files]],
    )


def picture() -> tuple[str, str, str]:
    return ("board.png", "image/png", checkerboard().split(",")[1])


def test_an_answer_streams_in_and_shows_its_speed(page):
    limit(page, 30)
    page.get_by_label("Message").fill("hello")
    page.keyboard.press("Enter")
    playwright.expect(page.locator("article.user")).to_have_text("hello")
    finished(page)
    footer = page.locator("article.assistant footer").inner_text()
    assert re.fullmatch(r"\d+\.\d tokens/s · 30 tokens · first after \d+\.\d\d s · cut at the limit", footer)
    assert page.locator("article.assistant .text").inner_text()
    assert not page.complaints


def test_nothing_is_loaded_from_elsewhere(page, served):
    assert page.requested
    assert all(url.startswith(served.url) for url in page.requested)


def test_the_stop_button_stops_the_work_and_keeps_what_was_said(page, served):
    limit(page, 6000)
    page.get_by_label("Message").fill("go on for long")
    page.get_by_role("button", name="Send").click()
    playwright.expect(page.locator("article.assistant .text")).not_to_be_empty()
    page.get_by_role("button", name="Stop").click()
    until(lambda: served.is_idle)
    finished(page)
    assert page.locator("article.assistant footer").inner_text().endswith("stopped")
    assert page.locator("article.assistant .text").inner_text()


def test_escape_stops_too(page, served):
    limit(page, 6000)
    page.get_by_label("Message").fill("go on")
    page.keyboard.press("Enter")
    playwright.expect(page.locator("article.assistant .text")).not_to_be_empty()
    page.keyboard.press("Escape")
    until(lambda: served.is_idle)


def test_closing_the_page_stops_the_work(page, served):
    limit(page, 6000)
    page.get_by_label("Message").fill("go on")
    page.keyboard.press("Enter")
    playwright.expect(page.locator("article.assistant .text")).not_to_be_empty()
    page.close()
    until(lambda: served.is_idle)


@pytest.mark.parametrize("event", ["paste", "drop"])
def test_pictures_and_sounds_travel_with_the_message(page, event):
    bodies = []
    page.on("request", lambda request: request.method == "POST" and bodies.append(request.post_data_json))
    limit(page, 4)
    give(page, event, picture(), ("tone.wav", "audio/wav", tone()))
    playwright.expect(page.locator("#attached figure")).to_have_count(2)
    page.get_by_label("Message", exact=True).fill("what are these?")
    page.keyboard.press("Enter")
    finished(page)
    first, second, third = bodies[0]["messages"][-1]["content"]
    assert first == {"type": "image_url", "image_url": {"url": checkerboard()}}
    assert second == {"type": "input_audio", "input_audio": {"data": tone(), "format": "wav"}}
    assert third == {"type": "text", "text": "what are these?"}
    playwright.expect(page.locator("article.user img")).to_be_visible()
    playwright.expect(page.locator("article.user audio")).to_be_visible()
    playwright.expect(page.locator("#attached figure")).to_have_count(0)
    assert not page.locator("article.error").count() and not page.complaints


def test_a_large_picture_is_scaled_down_before_it_travels(page):
    large = page.evaluate(
        """() => { const c = document.createElement("canvas"); c.width = 5000; c.height = 2500;
        c.getContext("2d").fillRect(0, 0, 9, 9); return c.toDataURL("image/png").split(",")[1]; }"""
    )
    give(page, "paste", ("large.png", "image/png", large))
    image = page.locator("#attached img")
    playwright.expect(image).to_be_visible()
    assert image.evaluate("(i) => [i.naturalWidth, i.naturalHeight]") == [2048, 1024]


def test_a_file_of_another_kind_is_refused_in_a_sentence(page):
    give(page, "paste", ("notes.txt", "text/plain", base64.b64encode(b"hi").decode()))
    playwright.expect(page.get_by_role("alert")).to_have_text("notes.txt is no picture, sound or film.")


def test_the_conversation_survives_a_reload_and_a_new_one_forgets_it(page):
    limit(page, 3)
    give(page, "paste", picture())
    playwright.expect(page.locator("#attached figure")).to_have_count(1)
    page.get_by_label("Message", exact=True).fill("remember this")
    page.keyboard.press("Enter")
    finished(page)
    answer = page.locator("article.assistant .text").inner_text()
    page.reload()
    playwright.expect(page.locator("article.user")).to_have_text("remember this")
    playwright.expect(page.locator("article.user img")).to_be_visible()
    assert page.locator("article.assistant .text").inner_text() == answer
    page.get_by_role("button", name="New conversation").click()
    playwright.expect(page.locator("#welcome")).to_be_visible()
    page.reload()
    playwright.expect(page.locator("article")).to_have_count(0)


def test_a_refused_message_returns_to_where_it_was_written(page):
    page.get_by_label("Message").fill("x" * 9000)
    page.keyboard.press("Enter")
    playwright.expect(page.get_by_role("alert")).to_contain_text("this model reads fewer than 8192")
    assert page.get_by_label("Message").input_value() == "x" * 9000


def test_everything_is_reached_by_keyboard(page):
    page.get_by_label("Message").fill("a")
    page.locator("h1").click()
    reached = set()
    for _ in range(12):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id"))
    assert {"settings-open", "theme", "new", "files", "text", "send"} <= reached


def test_answers_are_text_and_never_markup(page):
    for text, expected in (
        ("<img src=x onerror=alert(1)>", "<p>&lt;img src=x onerror=alert(1)&gt;</p>"),
        ("say `a<b` and **so**", "<p>say <code>a&lt;b</code> and <strong>so</strong></p>"),
        ("one\n\ntwo", "<p>one</p><p>two</p>"),
        ("see\n```python\nx = 1\n```\ndone", "<p>see</p><pre><code>x = 1</code></pre><p>done</p>"),
        ("```\nstill being wri", "<pre><code>still being wri</code></pre>"),
        ("2 ** 3 ** 2", "<p>2 ** 3 ** 2</p>"),
    ):
        html = page.evaluate(
            """async (text) => { const { write } = await import("/page/text.js");
            const element = document.createElement("div"); write(element, text); return element.innerHTML; }""",
            text,
        )
        assert html == expected


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_is_readable_in_light_and_dark(page, scheme):
    page.emulate_media(color_scheme=scheme)
    page.reload()
    background, ink = page.evaluate(
        "() => { const s = getComputedStyle(document.body); return [s.backgroundColor, s.color]; }"
    )
    light, dark = sorted([luminance(background), luminance(ink)], reverse=True)
    assert (light + 0.05) / (dark + 0.05) > 10
    assert (luminance(background) > 0.5) == (scheme == "light")
    page.get_by_role("button", name="Light or dark").click()
    page.reload()
    assert page.evaluate("getComputedStyle(document.body).color") != ink


def luminance(color: str) -> float:
    channels = [int(c) / 255 for c in re.findall(r"\d+", color)[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("width", [320, 390, 1600])
def test_nothing_is_wider_than_the_screen(page, width):
    limit(page, 40)
    page.set_viewport_size({"width": width, "height": 700})
    page.get_by_label("Message").fill("w" * 200)
    page.keyboard.press("Enter")
    finished(page)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.evaluate("document.getElementById('log').scrollWidth <= document.getElementById('log').clientWidth")
