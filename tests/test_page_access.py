"""The page for everybody: by keyboard alone, in both languages, light and dark, on a phone, with any model."""

import re
from functools import cache

import pytest

from ming_omni.config import tiny
from ming_omni.inputs.processor import MingProcessor
from ming_omni.inputs.tiny import tiny_tokenizer
from ming_omni.ming import Ming
from ming_omni.model.omni import MingForConditionalGeneration
from ming_omni.serve.api import PAGE, PAGE_HEADERS
from ming_omni.serve.rules import Rules
from tests.browsing import expect, finished, give, limit, needs_chromium, opened, ready
from tests.media import board, picture_file
from tests.serving import serving, until, whole_ming

pytestmark = needs_chromium
TABS = ("chat", "talk", "draw", "edit", "segment", "speak", "transcribe")


# By keyboard.


def press(page, *keys: str) -> None:
    for key in keys:
        page.keyboard.press(key)


def focused(page) -> str:
    return page.evaluate("document.activeElement.id || document.activeElement.name || document.activeElement.className")


def test_a_picture_is_drawn_stopped_and_handed_on_without_a_mouse(page, served):
    page.locator("#settings-open").focus()
    press(page, "Tab", "ArrowDown", "ArrowDown")
    expect(page.get_by_role("tab", name="Draw")).to_be_focused()
    press(page, "Tab")
    page.keyboard.type("a fox")
    press(page, "Tab", "Tab")
    page.keyboard.type("1000")
    press(page, "Tab", "Tab", "Enter")
    expect(page.locator("#draw .stop")).to_be_focused()
    until(lambda: served.app.state.inside)
    press(page, "Escape")
    expect(page.locator("#draw .note")).to_have_text("stopped")
    expect(page.locator("#draw .go")).to_be_focused()
    press(page, "Shift+Tab", "Shift+Tab")
    page.keyboard.type("1")
    press(page, "Shift+Tab", "Shift+Tab", "Enter")
    expect(page.locator("#draw figure img")).to_be_visible(timeout=20_000)
    for _ in range(8):
        press(page, "Tab")
        if page.evaluate("document.activeElement.textContent") == "Edit":
            break
    press(page, "Enter")
    expect(page.locator("#edit .picker img")).to_be_visible()


def test_arrows_home_and_end_move_between_tabs_and_the_address_follows(page):
    page.locator("#tab-chat").focus()
    for key, name in (("ArrowRight", "talk"), ("End", "transcribe"), ("ArrowDown", "chat"), ("ArrowUp", "transcribe")):
        press(page, key)
        expect(page.locator(f"#{name}")).to_be_visible()
        assert page.url.endswith(f"#{name}") and focused(page) == f"tab-{name}"
        assert page.locator("[role=tabpanel]:visible").count() == 1
    press(page, "Home")
    assert focused(page) == "tab-chat"


CONTROLS = """(tab) => [...document.querySelectorAll(`#${tab} :is(button, input, select, textarea, summary)`)]
  .filter((e) => e.checkVisibility() && !e.disabled)"""
NAMES = f"""(tab) => ({CONTROLS})(tab)
  .map((e) => (e.ariaLabel || e.labels?.[0]?.textContent || e.textContent).trim())"""
FOCUS = f"""(tab) => {{
  const e = document.activeElement;
  const around = [e, e.closest("label"), e.closest(".line")].filter(Boolean);
  return [({CONTROLS})(tab).indexOf(e), around.some((a) => getComputedStyle(a).outlineStyle !== "none")];
}}"""


def test_every_control_has_a_name_a_place_in_the_order_and_a_ring_when_it_has_the_focus(page):
    for tab in TABS:
        page.locator(f"#tab-{tab}").click()
        if tab == "speak":
            page.get_by_text("Clone a voice").click()
        if tab == "chat":
            page.locator("#text").fill("so that it can be sent")
        names = page.evaluate(NAMES, tab)
        assert names and all(names)
        page.locator(f"#tab-{tab}").focus()
        order = []
        while len(order) < len(names):
            press(page, "Tab")
            place, has_ring = page.evaluate(FOCUS, tab)
            if place != -1:
                assert has_ring, names[place]
                order.append(place)
        assert order == list(range(len(names))), names


# In both languages.


@cache
def script(name: str) -> str:
    return (PAGE / name).read_text()


def chinese() -> dict[str, str]:
    return dict(re.findall(r'^  "(.+)": "(.+)",$', script("zh.js"), re.MULTILINE))


def test_every_sentence_of_the_page_has_its_chinese_and_every_chinese_its_english():
    said = set(chinese())
    assert len(said) > 100 and all(re.search("[\u4e00-\u9fff]", text) for text in chinese().values())
    code = "".join(
        script(path.name) for path in PAGE.iterdir() if path.suffix in (".js", ".html") and path.name != "zh.js"
    )
    # Of a question for a file the code makes a reminder, with a full stop.
    assert not {
        text
        for text in said
        if f'"{text}"' not in code
        and f">{text}" not in code
        and f" {text}\n" not in code
        and text.rstrip(".") not in code
    }
    for english, text in chinese().items():
        assert set(re.findall(r"{\w+}", english)) == set(re.findall(r"{\w+}", text)), english


SAID = """() => {
  const found = [];
  const names = ["title", "aria-label", "placeholder", "alt"];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_ELEMENT | NodeFilter.SHOW_TEXT, (node) =>
    node.translate === false ? NodeFilter.FILTER_REJECT : NodeFilter.FILTER_ACCEPT);
  while (walker.nextNode()) {
    const node = walker.currentNode;
    found.push(...(node.data ? [node.data] : names.map((name) => node.getAttribute?.(name) ?? "")));
  }
  return found.filter((text) => text.trim());
}"""


def test_nothing_of_the_page_stays_english_in_chinese(page):
    page.locator("#language").click()
    said = page.evaluate(SAID)
    keys = re.compile(r"\b(Enter|Shift|Esc|API|MB|https)\b")
    assert len(said) > 110
    assert not [text for text in said if re.search("[A-Za-z]{2}", keys.sub("", text))]


def test_the_language_is_remembered_and_what_is_shown_changes_with_it(page):
    limit(page, 6)
    page.locator("#text").fill("hello")
    press(page, "Enter")
    finished(page)
    footer = page.locator("article.assistant footer")
    assert "tokens/s" in footer.inner_text()
    page.locator("#language").click()
    assert re.search(r"每秒 \d+\.\d 个词元 · \d+ 个词元 · \d+\.\d\d 秒后开始", footer.inner_text())
    assert page.locator("html").get_attribute("lang") == "zh-CN"
    page.reload()
    ready(page)
    expect(page.get_by_role("tab", name="聊天")).to_be_visible()
    assert "每秒" in footer.inner_text()
    page.get_by_role("button", name="English").click()
    assert "tokens/s" in footer.inner_text()


def test_a_browser_that_speaks_chinese_is_answered_in_chinese(browser, served):
    with opened(browser, served, locale="zh-CN") as page:
        expect(page.get_by_role("tab", name="聊天")).to_be_visible()


# Light and dark, wide and narrow.


FAINT = """() => {
  const channels = (c) => (c.match(/[\\d.]+/g) ?? []).map(Number);
  const linear = (c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
  const light = ([r, g, b]) => 0.2126 * linear(r / 255) + 0.7152 * linear(g / 255) + 0.0722 * linear(b / 255);
  const ground = (e) => {
    for (; e; e = e.parentElement) {
      const color = channels(getComputedStyle(e).backgroundColor);
      if (color.length === 3 || color[3] === 1) return color;
    }
  };
  const isSeen = (e) => e.checkVisibility() && !e.disabled && !e.closest(".unseen");
  return [...document.querySelectorAll("body *")]
    .filter((e) => isSeen(e) && [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim()))
    .map((e) => {
      const [a, b] = [light(channels(getComputedStyle(e).color)), light(ground(e))].sort((x, y) => y - x);
      return [(a + 0.05) / (b + 0.05), e.textContent.trim().slice(0, 40)];
    })
    .filter(([contrast]) => contrast < 4.5);
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_is_readable_in_light_and_dark(page, scheme):
    page.emulate_media(color_scheme=scheme)
    for tab in TABS:
        page.locator(f"#tab-{tab}").click()
        page.locator("h1").hover()
        assert page.evaluate(FAINT) == []


@pytest.mark.parametrize("width", [320, 390])
def test_no_tab_is_wider_than_a_phone(browser, served, width):
    with opened(browser, served, viewport={"width": width, "height": 700}) as page:
        for tab in TABS:
            page.locator(f"#tab-{tab}").click()
            if tab in ("edit", "segment"):
                give(page, "drop", ("board.png", "image/png", picture_file(board(600, 900))))
                expect(page.locator(f"#{tab} .picker img")).to_be_visible()
            if tab == "speak":
                page.get_by_text("Clone a voice").click()
            panel = page.locator(f"#{tab}")
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
            assert panel.evaluate("(e) => e.scrollWidth <= e.clientWidth")
            assert page.locator("nav").evaluate("(e) => e.scrollWidth <= e.clientWidth")
            assert panel.bounding_box()["height"] > 400


# With any model.


@pytest.fixture(scope="module")
def writer():
    """Reads and writes, and can do nothing else."""
    config = tiny()
    config.vision = config.audio = None
    model = MingForConditionalGeneration(config).eval()
    with serving(Ming(model, MingProcessor.from_config(config, tiny_tokenizer()), name="writer")) as served:
        yield served


REASONS = {
    "talk": "writer cannot hear: it has no audio encoder.",
    "draw": "writer cannot paint: it has no painter.",
    "edit": "writer cannot see: it has no vision encoder.",
    "segment": "writer cannot see: it has no vision encoder.",
    "speak": "writer cannot speak: it has no talker.",
    "transcribe": "writer cannot hear: it has no audio encoder.",
}


def test_what_a_model_lacks_is_said_in_a_sentence_and_cannot_be_asked_for(browser, writer):
    with opened(browser, writer) as page:
        for tab, reason in REASONS.items():
            page.locator(f"#tab-{tab}").click()
            expect(page.locator(f"#{tab} .lack")).to_have_text(reason)
            assert not page.locator(f"#{tab} :is(button, input, select, textarea):enabled").count()
        page.locator("#language").click()
        expect(page.locator("#transcribe .lack")).to_have_text("writer 听不见：它没有音频编码器。")
        assert not page.complaints


def test_a_model_that_only_reads_is_given_text_only(browser, writer):
    with opened(browser, writer) as page:
        assert page.locator("#files").is_disabled() and page.locator("#aloud").is_disabled()
        assert page.locator("#aloud").get_attribute("title") == "writer cannot speak: it has no talker."
        give(page, "drop", ("board.png", "image/png", picture_file(board())))
        expect(page.get_by_role("alert").filter(has_text="writer")).to_have_text(
            "writer cannot see: it has no vision encoder."
        )
        limit(page, 6)
        page.locator("#text").fill("hello")
        press(page, "Enter")
        finished(page)
        expect(page.locator("article.assistant .text")).not_to_be_empty()
        assert not page.complaints


def test_a_server_with_keys_asks_for_one_and_remembers_it(browser, tmp_path):
    with (
        serving(whole_ming(tmp_path), rules=Rules(api_keys=("open-sesame",))) as served,
        opened(browser, served) as page,
    ):
        expect(page.get_by_role("alert").filter(has_text="key")).to_have_text(
            "This server asks for an API key, and yours is missing or wrong."
        )
        expect(page.get_by_label("API key")).to_be_focused()
        page.keyboard.type("open-sesame")
        press(page, "Tab")
        expect(page.locator("#model")).to_have_text("tiny")
        page.reload()
        ready(page)
        limit(page, 3)
        page.locator("#text").fill("hello")
        press(page, "Enter")
        finished(page)
        expect(page.locator("article.assistant footer")).to_contain_text("3 tokens")


def test_scripts_and_styles_come_from_this_server_only():
    policy = PAGE_HEADERS["Content-Security-Policy"]
    assert "default-src 'self'" in policy and "unsafe" not in policy and "http" not in policy and "*" not in policy
    for path in PAGE.iterdir():
        assert not re.findall(r"https?://(?!www\.w3\.org/)", path.read_text()), path.name
