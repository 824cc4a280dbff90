"""A headless Chromium on the page of a real server -> the page, with what it complained about and what it asked for."""

from __future__ import annotations

import base64
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.serving import Served, until

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
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
expect = playwright.expect


@contextmanager
def chromium(*flags: str) -> Iterator:
    with playwright.sync_playwright() as tools:
        browser = tools.chromium.launch(executable_path=CHROMIUM, args=[*FLAGS, *flags])
        yield browser
        browser.close()


def devices(sound: Path, film: Path) -> list[str]:
    """Flags that play files, over and over, as the microphone and the camera, and allow the page to use them."""
    return [
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-audio-capture={sound}",
        f"--use-file-for-fake-video-capture={film}",
    ]


@contextmanager
def opened(browser, served: Served, tab: str = "chat", **options) -> Iterator:
    """The page, ready. When it is left, nothing may have gone anywhere else, and no work may be left over."""
    context = browser.new_context(**{"viewport": {"width": 1000, "height": 700}} | options)
    page = context.new_page()
    page.complaints, page.requested = [], []
    page.on("console", lambda message: message.type == "error" and page.complaints.append(message.text))
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    page.on("request", lambda request: page.requested.append(request.url))
    page.on("websocket", lambda socket: page.requested.append(socket.url))
    page.goto(f"{served.url}/#{tab}")
    ready(page)
    yield page
    context.close()
    here = (served.url, served.url.replace("http", "ws"), "blob:", "data:")
    assert page.requested and all(url.startswith(here) for url in page.requested)
    until(lambda: served.is_idle)


def ready(page) -> None:
    expect(page.locator("html")).to_have_attribute("data-ready", "", timeout=20_000)


def limit(page, num_tokens: int) -> None:
    """Set the length of answers the way a person does."""
    page.locator("#settings-open").click()
    page.locator("#max-tokens").fill(str(num_tokens))
    page.locator("#settings .primary").click()


def finished(page, where: str = "#log") -> None:
    expect(page.locator(where)).to_have_attribute("aria-busy", "false", timeout=60_000)


def give(page, event: str, *files: tuple[str, str, bytes]) -> None:
    """Paste or drop files: (name, MIME type, content)."""
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
        [event, [[name, kind, base64.b64encode(data).decode()] for name, kind, data in files]],
    )


def saved(page, link) -> bytes:
    """The file behind a link that saves."""
    with page.expect_download() as download:
        link.click()
    return Path(download.value.path()).read_bytes()
