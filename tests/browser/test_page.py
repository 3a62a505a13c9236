"""The page in a real Chromium: asking, deciding, reviewing, in both languages, by keyboard and on a phone. Row 56."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

KEY = "a-key-of-forty-characters-for-the-tests!"
TEXT = "The film was wonderful and warm."
ATTACK = "<img src=x onerror=\"document.title='hacked'\"><script>document.title='hacked'</script>"


@pytest.fixture(scope="module")
def address(chromium: Any, two_runs: dict[str, Path], serve: Callable[..., str]) -> str:
    return serve({"mood": two_runs["sentiment"], "qa": two_runs["question_answering"]})


def picture(page: Any, name: str) -> None:
    """For people to look at, where TREETUNE_SCREENSHOTS names a folder."""
    if folder := os.environ.get("TREETUNE_SCREENSHOTS"):
        page.screenshot(path=str(Path(folder) / f"{name}.png"), full_page=True)


def test_ask_read_the_decision_review_and_see_the_calibration_rows_grow(
    page: Callable[..., Any], address: str, two_runs: dict[str, Path]
) -> None:
    one = page(address)
    one.get_by_label("Text").fill(TEXT)
    one.get_by_role("button", name="Ask").click()
    one.get_by_text("A person has to look at this first.").wait_for()
    assert "The model proposes" in one.locator("#answer").inner_text()
    assert "accepts nothing" in one.locator("#reasons").inner_text()
    assert one.locator("#guarantee").inner_text().startswith("No guarantee")
    assert one.get_by_text("A person will see this row.").is_visible()
    one.get_by_role("button", name="Why this answer?").click()
    one.get_by_text("Green words speak for the answer").wait_for()
    assert one.locator("#words").inner_text().strip() == TEXT
    assert one.locator("#words span[title]").count() >= 2  # coloured, and said in words for who cannot see the colour
    picture(one, "asked-en")
    one.get_by_role("tab", name="Review").click()
    one.locator("#queue").get_by_text(TEXT).wait_for()
    assert "calibration rows: 0" in one.locator("#counts").inner_text()
    picture(one, "review-en")
    one.get_by_label("Right answer").select_option("positive")
    one.get_by_role("button", name="Correct it").click()
    one.get_by_text("calibration rows: 1").wait_for()
    assert one.get_by_text("No rows are waiting.").is_visible()
    [reviewed] = [json.loads(line) for line in
                  (two_runs["sentiment"] / "trust" / "reviews.jsonl").read_text("utf-8").splitlines()]
    assert reviewed["audited"]
    assert reviewed["row"]["text"] == TEXT
    assert reviewed["row"]["label"] == "positive"


def test_questions_stream_and_everything_speaks_chinese(page: Callable[..., Any], address: str) -> None:
    one = page(address, locale="zh-CN")
    one.get_by_role("tab", name="问答").click()
    one.get_by_label("段落").fill("巴黎是法国的首都。")
    one.get_by_label("问题").fill("法国的首都是哪里？")
    one.get_by_role("button", name="提问").click()
    one.get_by_text("没有人为这个回答担保。").wait_for()
    assert "尚未设门" in one.locator("#reasons").inner_text()
    assert one.evaluate("document.documentElement.lang") == "zh-Hans"
    picture(one, "asked-zh")
    for name in ("审核", "负载", "接口"):
        one.get_by_role("tab", name=name).click()
        one.wait_for_timeout(300)
        picture(one, f"{name}-zh")
    left = [text for text in one.locator("[data-words]").all_inner_texts() if text.isascii() and text.strip()]
    assert not left
    one.get_by_label("语言").select_option("en")
    assert one.get_by_role("tab", name="Review").is_visible()


@pytest.mark.parametrize("locale", ["en", "zh-CN"])
def test_it_fits_a_phone(page: Callable[..., Any], address: str, locale: str) -> None:
    one = page(address, width=360, locale=locale)
    one.locator("#field-text").fill(TEXT * 5 + "x" * 200)
    one.locator("#send").click()
    one.locator("#verdict:not(:empty)").wait_for()
    picture(one, f"phone-{locale}")
    for tab in ("sentiment", "question_answering", "review", "load", "api"):
        one.locator(f"#tab-{tab}").click()
        one.wait_for_timeout(200)
        assert one.evaluate("document.documentElement.scrollWidth") <= 360, tab
    one.locator("#tab-review").click()
    one.wait_for_timeout(200)
    picture(one, f"phone-review-{locale}")
    for button in one.locator("button:visible").all():
        assert button.bounding_box()["height"] >= 40  # large enough for a thumb


def test_what_people_and_models_write_stays_text(page: Callable[..., Any], address: str) -> None:
    """Row 37."""
    one = page(address)
    one.get_by_label("Text").fill(ATTACK)
    one.get_by_role("button", name="Ask").click()
    one.locator("#verdict:not(:empty)").wait_for()
    one.get_by_role("tab", name="Review").click()
    one.get_by_text(ATTACK).wait_for()
    assert one.title() == "treetune"
    assert one.locator("#queue img, #queue script").count() == 0


def test_it_works_by_keyboard_and_says_what_is_what(page: Callable[..., Any], address: str) -> None:
    one = page(address)
    one.locator("#tab-sentiment").focus()
    one.keyboard.press("ArrowRight")
    assert one.evaluate("document.activeElement.id") == "tab-question_answering"
    one.keyboard.press("ArrowLeft")
    seen = []
    for _ in range(12):
        one.keyboard.press("Tab")
        seen.append(one.evaluate("document.activeElement.id"))
        if seen[-1] == "send":
            break
    assert seen.index("field-text") < seen.index("send")
    one.locator("#field-text").fill(TEXT)
    one.keyboard.press("Control+Enter")
    one.locator("#verdict:not(:empty)").wait_for()
    nameless = one.evaluate("""() => [...document.querySelectorAll('button, input, select, textarea, meter')]
        .filter((each) => !(each.labels?.length || each.textContent.trim() || each.getAttribute('aria-label')))
        .map((each) => each.id)""")
    assert not nameless
    assert one.locator("#answer").get_attribute("aria-live") == "polite"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_stands_out_from_its_ground(page: Callable[..., Any], address: str, scheme: str) -> None:
    """WCAG AA: 4.5 to 1, measured on what is drawn."""
    one = page(address)
    one.emulate_media(color_scheme=scheme)
    one.get_by_label("Text").fill(TEXT)
    one.get_by_role("button", name="Ask").click()
    one.locator("#verdict:not(:empty)").wait_for()
    weak = one.evaluate(CONTRAST)
    picture(one, f"asked-{scheme}")
    assert not weak


CONTRAST = """() => {
  const parts = (color) => color.match(/[\\d.]+/g).map(Number);
  const light = (color) => {
    const [r, g, b] = parts(color).map((c) => (c /= 255) <= .03928 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4);
    return .2126 * r + .7152 * g + .0722 * b;
  };
  const ground = (node) => {
    for (; node; node = node.parentElement) {
      const color = getComputedStyle(node).backgroundColor;
      if ((parts(color)[3] ?? 1) > 0) return color;
    }
    return 'rgb(255, 255, 255)';
  };
  return [...document.querySelectorAll('body *')].filter((each) => each.offsetParent && [...each.childNodes].some(
    (child) => child.nodeType === 3 && child.textContent.trim())).map((each) => {
      const [a, b] = [light(getComputedStyle(each).color), light(ground(each))].sort((x, y) => y - x);
      return [each.tagName, each.id, each.textContent.slice(0, 30), (a + .05) / (b + .05)];
    }).filter((each) => each[3] < 4.5);
}"""


def test_a_locked_server_asks_for_its_key_and_opens_the_report(
    page: Callable[..., Any], chromium: Any, two_runs: dict[str, Path], serve: Callable[..., str]
) -> None:
    one = page(serve({"mood": two_runs["sentiment"]}, key=KEY))
    one.get_by_label("API key").fill("wrong wrong wrong")
    one.get_by_role("button", name="Open").click()
    one.get_by_role("alert").get_by_text("missing or wrong").wait_for()
    one.get_by_label("API key").fill(KEY)
    one.get_by_role("button", name="Open").click()
    with one.context.expect_page() as opened:
        one.get_by_role("button", name="Report of this run").click()
    opened.value.wait_for_url("**/v1/runs/mood/report?ticket=*")  # an error page would have another address
    assert KEY not in opened.value.url
