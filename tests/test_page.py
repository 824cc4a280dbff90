"""The chat of the page in a headless Chromium, against a real server."""

import base64
import re

import pytest

from tests.browsing import expect, finished, give, limit, needs_chromium, ready
from tests.media import movie
from tests.serving import until
from tests.test_openai_client import checkerboard, tone

pytestmark = needs_chromium


def picture() -> tuple[str, str, bytes]:
    return ("board.png", "image/png", base64.b64decode(checkerboard().split(",")[1]))


def test_an_answer_streams_in_and_shows_its_speed(page):
    limit(page, 30)
    page.get_by_label("Message").fill("hello")
    page.keyboard.press("Enter")
    expect(page.locator("article.user")).to_have_text("hello")
    finished(page)
    footer = page.locator("article.assistant footer").inner_text()
    assert re.fullmatch(r"\d+\.\d tokens/s · 30 tokens · first after \d+\.\d\d s · cut at the limit", footer)
    assert page.locator("article.assistant .text").inner_text()
    assert not page.complaints


def test_the_stop_button_stops_the_work_and_keeps_what_was_said(page, served):
    limit(page, 6000)
    page.get_by_label("Message").fill("go on for long")
    page.get_by_role("button", name="Send").click()
    expect(page.locator("article.assistant .text")).not_to_be_empty()
    page.get_by_role("button", name="Stop").click()
    until(lambda: served.is_idle)
    finished(page)
    assert page.locator("article.assistant footer").inner_text().endswith("stopped")
    assert page.locator("article.assistant .text").inner_text()


def test_escape_stops_too(page, served):
    limit(page, 6000)
    page.get_by_label("Message").fill("go on")
    page.keyboard.press("Enter")
    expect(page.locator("article.assistant .text")).not_to_be_empty()
    page.keyboard.press("Escape")
    until(lambda: served.is_idle)


def test_closing_the_page_stops_the_work(page, served):
    limit(page, 6000)
    page.get_by_label("Message").fill("go on")
    page.keyboard.press("Enter")
    expect(page.locator("article.assistant .text")).not_to_be_empty()
    page.close()
    until(lambda: served.is_idle)


@pytest.mark.parametrize("event", ["paste", "drop"])
def test_pictures_and_sounds_travel_with_the_message(page, event):
    bodies = []
    page.on("request", lambda request: request.method == "POST" and bodies.append(request.post_data_json))
    limit(page, 4)
    give(page, event, picture(), ("tone.wav", "audio/wav", base64.b64decode(tone())))
    expect(page.locator("#attached figure")).to_have_count(2)
    page.get_by_label("Message", exact=True).fill("what are these?")
    page.keyboard.press("Enter")
    finished(page)
    first, second, third = bodies[0]["messages"][-1]["content"]
    assert first == {"type": "image_url", "image_url": {"url": checkerboard()}}
    assert second == {"type": "input_audio", "input_audio": {"data": tone(), "format": "wav"}}
    assert third == {"type": "text", "text": "what are these?"}
    expect(page.locator("article.user img")).to_be_visible()
    expect(page.locator("article.user audio")).to_be_visible()
    expect(page.locator("#attached figure")).to_have_count(0)
    assert not page.locator("article.error").count() and not page.complaints


def test_a_large_picture_is_scaled_down_before_it_travels(page):
    large = page.evaluate(
        """() => { const c = document.createElement("canvas"); c.width = 5000; c.height = 2500;
        c.getContext("2d").fillRect(0, 0, 9, 9); return c.toDataURL("image/png").split(",")[1]; }"""
    )
    give(page, "paste", ("large.png", "image/png", base64.b64decode(large)))
    image = page.locator("#attached img")
    expect(image).to_be_visible()
    assert image.evaluate("(i) => [i.naturalWidth, i.naturalHeight]") == [2048, 1024]


def test_a_file_of_another_kind_is_refused_in_a_sentence(page):
    give(page, "paste", ("notes.txt", "text/plain", b"hi"))
    expect(page.get_by_role("alert")).to_have_text("notes.txt is no picture, sound or film.")


def test_the_conversation_survives_a_reload_and_a_new_one_forgets_it(page):
    limit(page, 3)
    give(page, "paste", picture())
    expect(page.locator("#attached figure")).to_have_count(1)
    page.get_by_label("Message", exact=True).fill("remember this")
    page.keyboard.press("Enter")
    finished(page)
    answer = page.locator("article.assistant .text").inner_text()
    page.reload()
    expect(page.locator("article.user")).to_have_text("remember this")
    expect(page.locator("article.user img")).to_be_visible()
    assert page.locator("article.assistant .text").inner_text() == answer
    page.get_by_role("button", name="New conversation").click()
    expect(page.locator("#welcome")).to_be_visible()
    page.reload()
    expect(page.locator("article")).to_have_count(0)


def test_a_refused_message_returns_to_where_it_was_written(page):
    page.get_by_label("Message").fill("x" * 9000)
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("this model reads fewer than 8192")
    assert page.get_by_label("Message").input_value() == "x" * 9000


def test_a_film_is_watched_in_the_chat(page):
    bodies = []
    page.on("request", lambda request: request.method == "POST" and bodies.append(request.post_data_json))
    limit(page, 4)
    give(page, "drop", ("film.mp4", "video/mp4", movie()))
    expect(page.locator("#attached video")).to_be_visible()
    page.get_by_label("Message", exact=True).fill("what happens?")
    page.keyboard.press("Enter")
    finished(page)
    assert bodies[0]["messages"][-1]["content"][0]["video_url"]["url"].startswith("data:video/mp4;base64,")
    expect(page.locator("article.user video")).to_be_visible()
    expect(page.locator("article.assistant .text")).not_to_be_empty()
    assert not page.locator("article.error").count() and not page.complaints


def test_answers_are_spoken_when_asked_for_and_can_be_heard_again(page):
    bodies = []
    page.on("request", lambda request: request.method == "POST" and bodies.append(request.post_data_json))
    limit(page, 20)
    page.get_by_role("button", name="Speak the answers").click()
    page.get_by_label("Message").fill("hello")
    page.keyboard.press("Enter")
    finished(page)
    assert bodies[0]["modalities"] == ["text", "audio"] and bodies[0]["audio"]["format"] == "pcm16"
    expect(page.locator("article.assistant .text")).not_to_be_empty()
    sound = page.locator("article.assistant audio")
    expect(sound).to_be_visible()
    page.wait_for_timeout(200)
    assert sound.evaluate("(sound) => sound.duration") > 0.2
    assert re.search(r"\d+\.\d tokens/s · 20 tokens", page.locator("article.assistant footer").inner_text())
    assert not page.complaints
    page.reload()
    ready(page)
    expect(page.get_by_role("button", name="Speak the answers")).to_have_attribute("aria-pressed", "true")


@pytest.mark.parametrize("ending", ["", "data: [DONE]\n\n"], ids=["cut", "closed"])
def test_an_answer_without_an_end_is_not_taken_for_a_whole_one(page, ending):
    event = 'data: {"choices": [{"index": 0, "delta": {"content": "The answer is"}, "finish_reason": null}]}\n\n'
    page.route(
        "**/v1/chat/completions",
        lambda route: route.fulfill(body=event + ending, content_type="text/event-stream"),
    )
    page.get_by_label("Message").fill("what is it?")
    page.keyboard.press("Enter")
    finished(page)
    expect(page.locator("article.assistant .text")).to_have_text("The answer is")
    expect(page.locator("article.assistant footer")).to_contain_text("not complete")
    expect(page.locator("article.error")).to_have_text("The connection broke off: this answer is not complete.")
    page.reload()
    ready(page)
    expect(page.locator("article.assistant footer")).to_contain_text("not complete")


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


def test_the_switch_of_light_and_dark_is_remembered(page):
    ink = page.evaluate("getComputedStyle(document.body).color")
    page.get_by_role("button", name="Light or dark").click()
    page.reload()
    ready(page)
    assert page.evaluate("getComputedStyle(document.body).color") != ink


@pytest.mark.parametrize("width", [320, 390, 1600])
def test_nothing_is_wider_than_the_screen(page, width):
    limit(page, 40)
    page.set_viewport_size({"width": width, "height": 700})
    page.get_by_label("Message").fill("w" * 200)
    page.keyboard.press("Enter")
    finished(page)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.evaluate("document.getElementById('log').scrollWidth <= document.getElementById('log').clientWidth")
