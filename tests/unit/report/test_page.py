"""The report: whole, self-contained, safe against what stands in rows, honest about what is missing."""

from html.parser import HTMLParser
from typing import Any

import pytest

from treetune.core import language as language_module
from treetune.core.language import choose_language
from treetune.report.page import render_report

ATTACK = "<script>alert(1)</script>"
VOID = {"meta", "link", "img", "br", "hr", "input"}
SECTIONS = ["about", "data", "training", "quality", "confusion", "gate", "fairness", "examples", "compute", "reproduce",
            "limits"]


class Page(HTMLParser):
    """Tags with attributes, all text, and whether every element is closed in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def page_of(record: dict[str, Any]) -> Page:
    return Page(render_report(record))


def test_every_element_is_closed_and_every_section_is_there_in_order(record: dict[str, Any]) -> None:
    page = page_of(record)
    assert not page.open
    assert [attributes["id"] for attributes in page.named("section")] == SECTIONS
    assert [attributes["href"] for attributes in page.named("a")] == [f"#{name}" for name in SECTIONS]


def test_a_script_in_a_row_is_shown_as_text(record: dict[str, Any]) -> None:
    page = page_of(record)
    assert not page.named("script")
    assert ATTACK in page.text


@pytest.mark.parametrize("attack", [ATTACK, '"><img src=x onerror=alert(1)>', "'--><svg onload=alert(1)>"])
def test_no_text_of_the_record_becomes_markup(record: dict[str, Any], attack: str) -> None:
    plain = {tag for tag, _ in page_of(record).tags}
    evaluation = record["evaluation"]
    evaluation["scores"][attack] = [{**evaluation["scores"]["tuned"][0], "metric": attack}]
    evaluation["labels"][0] = attack
    splits = record["data"]["splits"]
    splits["train"]["labels"][attack] = 3
    splits[attack] = splits.pop("validation")
    record |= {"model": attack, "command": attack, "machine": attack, "created": attack,
               "settings": {attack: attack}}
    page = page_of(record)
    assert {tag for tag, _ in page.tags} == plain
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    assert not page.open


def test_nothing_is_loaded_from_outside(record: dict[str, Any]) -> None:
    page = page_of(record)
    html = render_report(record)
    assert "http://" not in html
    assert "https://" not in html
    assert "url(" not in html
    assert "@import" not in html
    links = [value or "" for _, attributes in page.tags for key, value in attributes.items()
             if key in ("src", "href", "xlink:href", "srcset", "action", "data")]
    assert all(link.startswith("#") for link in links)
    assert not {tag for tag, _ in page.tags} & {"script", "link", "img", "iframe", "object", "embed"}
    policy = [meta["content"] for meta in page.named("meta") if meta.get("http-equiv")]
    assert "default-src 'none'" in (policy[0] or "")


def test_the_numbers_of_the_record_stand_on_the_page(record: dict[str, Any]) -> None:
    text = page_of(record).text
    for expected in ["0.840 [0.790, 0.880]", "tuned model", "most frequent label", "< 0.001", "+0.430", "2025-01-31",
                     "2 (E1103: 2)", "500 (55.6 %)", "1,800,000 (60.0 %)", "12.6 min", "4,300,000",
                     "treetune tune runs/a/config.yaml", "Only 120 rows", "31 tokens cut off",
                     "3 rows stand in two splits", "1.600 [1.400, 1.800]"]:
        assert expected in text, expected


def test_at_most_five_examples_of_each_kind_are_shown(record: dict[str, Any]) -> None:
    classes = [attributes["class"] or "" for attributes in page_of(record).named("div")]
    assert classes.count("sample correct") == 5
    assert classes.count("sample") == 5


def test_a_long_text_is_cut_and_says_so(record: dict[str, Any]) -> None:
    record["examples"][0]["input"] = "x" * 5000
    assert "3,800 more characters" in page_of(record).text


def test_tables_have_captions_or_labels_and_charts_have_names(record: dict[str, Any]) -> None:
    page = page_of(record)
    assert len(page.named("svg")) == 5
    assert all(svg.get("aria-label") for svg in page.named("svg"))
    assert all(div.get("aria-label") for div in page.named("div") if div.get("role") == "region")
    assert all(cell.get("scope") for cell in page.named("th"))


def test_a_record_of_task_and_model_alone_says_what_is_not_there_yet() -> None:
    page = page_of({"task": "sentiment", "model": "gpt3"})
    assert not page.open
    assert [attributes["id"] for attributes in page.named("section")] == [
        name for name in SECTIONS if name != "confusion"]
    assert page.text.count("not there yet") == 6
    assert "not measured" in page.text


def test_an_empty_record_works() -> None:
    assert "not there yet" in page_of({}).text


def test_losses_that_are_no_numbers_are_left_out_of_the_charts(record: dict[str, Any]) -> None:
    for event, loss in zip(record["events"][2:6], [float("nan"), None, "nan", float("inf")], strict=True):
        event["loss"] = loss
    html = render_report(record)
    assert "nan" not in html
    assert "inf," not in html


def test_text_that_utf8_cannot_hold_or_that_turns_direction_is_replaced(record: dict[str, Any]) -> None:
    record["examples"][0]["input"] = "a\ud800b\u202ec\x00d\x1be"
    html = render_report(record)
    html.encode("utf-8")
    assert "a\ufffdb\ufffdc\ufffdd\ufffde" in html


def test_the_same_record_gives_the_same_bytes(record: dict[str, Any]) -> None:
    assert render_report(record) == render_report(record)


def test_the_language_is_declared_and_spoken(record: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    assert page_of(record).named("html") == [{"lang": "en"}]
    spoken = {"Quality": "质量", "{task} with {model}": "{task}：{model}", "sentiment": "情感"}
    monkeypatch.setattr(language_module, "catalog", lambda name: spoken if name == "zh" else {})
    choose_language("zh")
    page = page_of(record)
    assert page.named("html") == [{"lang": "zh-Hans"}]
    assert "质量" in page.text
    assert "情感：gpt3" in page.text


def test_the_page_reads_on_a_phone_and_prints(record: dict[str, Any]) -> None:
    page = page_of(record)
    assert "width=device-width" in str(page.named("meta"))
    assert "@media print" in page.text
