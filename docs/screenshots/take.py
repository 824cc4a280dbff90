"""The page, with nano and with tiny -> the pictures beside this file: `python docs/screenshots/take.py`."""

import io
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(ROOT))

from ming_omni.ming import Ming  # noqa: E402
from tests.browsing import chromium, devices, expect, finished, give, opened  # noqa: E402
from tests.media import wav  # noqa: E402
from tests.serving import serving, whole_ming  # noqa: E402
from tests.talks import RATE_HZ, WORDS, silence, talk  # noqa: E402

PICTURE = ROOT / "examples" / "understand" / "sailboat.png"
SAILBOAT = ("sailboat.png", "image/png", PICTURE.read_bytes())
COLOURS = 128


def keep(page, name: str) -> None:
    image = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    image.quantize(COLOURS, dither=Image.Dither.NONE).save(HERE / f"{name}.png", optimize=True)
    print(name, (HERE / f"{name}.png").stat().st_size)


def nano(browser) -> None:
    with serving(Ming.load("nano")) as served:
        with opened(browser, served) as page:
            give(page, "drop", SAILBOAT)
            page.locator("#text").fill("What colour is the sailboat?")
            page.keyboard.press("Enter")
            finished(page)
            keep(page, "chat")
            page.locator("#tab-draw").click()
            keep(page, "lacking")
        phone = {"width": 390, "height": 760}
        with opened(browser, served, viewport=phone, color_scheme="dark", locale="zh-CN") as page:
            page.locator("#text").fill("What is the capital of France?")
            page.keyboard.press("Enter")
            finished(page)
            keep(page, "phone")


def tiny(browser, voices: Path) -> None:
    with serving(whole_ming(voices)) as served:
        for tab, field in (("edit", "prompt"), ("segment", "what")):
            with opened(browser, served, tab, viewport={"width": 1000, "height": 800}) as page:
                give(page, "drop", SAILBOAT)
                form = page.locator(f"#{tab} form")
                form.locator(f"[name={field}]").fill("make it winter" if tab == "edit" else "boat, tree")
                form.locator("[name=steps]").fill("8")
                form.locator("[name=seed]").fill("7")
                form.locator(".go").click()
                finished(page, f"#{tab} form")
                page.wait_for_timeout(500)
                keep(page, tab)
        with opened(browser, served, "talk") as page:
            page.locator("#settings-open").click()
            page.locator("#max-tokens").fill("12")
            page.locator("#settings .primary").click()
            page.get_by_role("button", name="Camera").click()
            page.get_by_role("button", name="Start talking").click()
            expect(page.locator("#talk article.assistant footer").first).not_to_be_empty(timeout=60_000)
            expect(page.locator("#talk article.user .text").first).not_to_be_empty(timeout=60_000)
            keep(page, "talk")


def film() -> bytes:
    """The picture, as a camera sees it."""
    import av

    file = io.BytesIO()
    with av.open(file, "w", format="mjpeg") as output:
        stream = output.add_stream("mjpeg", rate=10)
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuvj420p"
        picture = Image.open(PICTURE).convert("RGB").resize((320, 240))
        for _ in range(5):
            output.mux(stream.encode(av.VideoFrame.from_image(picture)))
        output.mux(stream.encode(None))
    return file.getvalue()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        said = np.concatenate([silence(1.0), talk(list(WORDS)[:3], 0.2)[0], silence(6.0)])
        (folder / "said.wav").write_bytes(wav(said, RATE_HZ, subtype="PCM_16"))
        (folder / "seen.mjpeg").write_bytes(film())
        with chromium(*devices(folder / "said.wav", folder / "seen.mjpeg")) as browser:
            nano(browser)
            tiny(browser, folder / "voices")
