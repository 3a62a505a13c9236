"""Explanations on a page: whole, escaped, readable without colour, honest about methods that do not beat chance."""

from html.parser import HTMLParser
from typing import Any

import pytest

from treetune.core.language import choose_language
from treetune.report.card import model_card
from treetune.report.explanation import explanation_sections, faithfulness_blocks
from treetune.report.page import render_page, render_report

ATTACK = "<script>alert(1)</script>"
VOID = {"meta", "link", "img", "br", "hr", "input"}


class Page(HTMLParser):
    """Tags, text, and whether every element is closed in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text, self.open = "", list[str]()
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def interval(value: float) -> dict[str, float]:
    return {"value": value, "low": value - 0.05, "high": value + 0.05, "level": 0.95}


def measured(name: str, value: float) -> dict[str, Any]:
    one = {metric: {"metric": metric, "interval": interval(value), "p_value": 0.01, "count": 20}
           for metric in ("comprehensiveness", "sufficiency", "deletion")}
    return {"comprehensiveness": interval(0.2), "sufficiency": interval(0.1), "deletion": interval(0.5), "seconds": 0.3,
            "curve": [0.9 - 0.05 * n for n in range(11)], "against": {"random": one, "rare_words_first": one},
            "beats_random": value + 0.05 < 0, "name": name}


@pytest.fixture
def faithfulness() -> dict[str, Any]:
    plain = {key: value for key, value in measured("random", 0.0).items() if key not in ("against", "beats_random")}
    return {"rows": 20, "removal": "deleted", "methods": {
        "occlusion": measured("occlusion", -0.2), "shapley": measured("shapley", 0.0), "random": plain,
        "rare_words_first": plain}}


@pytest.fixture
def found(faithfulness: dict[str, Any]) -> dict[str, Any]:
    words = [("Review", "instruction", None), ("a", "source", 0.01), (ATTACK, "source", -1.2), ("great", "source", 2.0),
             ("片", "source", -0.4)]
    return {
        "id": "7", "answer": "positive", "rival": "negative", "method": "occlusion", "score": 1.5, "without": 0.1,
        "gap": 0.001, "note": "", "seconds": 0.4,
        "words": [{"text": text, "part": part, "start": 10 * n, "end": 10 * n + 5, "value": value}
                  for n, (text, part, value) in enumerate(words)],
        "reliance": {"with_source": -3.0, "without": -2.0, "pieces": [-1.0]},
        "tokens": [{"text": "Ein", "rival": "Der", "values": [0.1, -0.2]}], "varied_words": ["a", "film"],
        "lens": {"answer": "a", "rival": "b", "layers": [
            {"answer": 0.1, "rival": 0.3, "best": "x", "best_probability": 0.4},
            {"answer": 0.7, "rival": 0.2, "best": "a", "best_probability": 0.7}]},
        "attention": {"words": ["a", "b"], "rollout": [0.4, 0.5], "layers": [[0.2, 0.8]], "heads": [[[0.2, 0.8]]]},
        "training_rows": {"nearest": [{"id": "t1", "likeness": 0.9, "answer": "positive", "text": ATTACK}]},
        "coverage": {"density": 0.01, "known": 0.9, "pairs": 0.4, "longest": 9, "row": 3, "span": "a b",
                     "copied": None},
        "faithfulness": faithfulness,
    }


@pytest.mark.parametrize("language", ["en", "zh"])
def test_a_page_is_whole_and_nothing_of_a_row_becomes_markup(found: dict[str, Any], language: str) -> None:
    choose_language(language)
    html = render_page("why", explanation_sections(found), "0")
    page = Page(html)
    assert not page.open
    assert not [tag for tag, _ in page.tags if tag in ("script", "img", "link", "iframe")]
    assert not [1 for _, attributes in page.tags for name in attributes if name in ("src", "srcset", "action")]
    assert all(str(attributes.get("href")).startswith("#") for tag, attributes in page.tags if tag == "a")
    assert "url(" not in html
    assert ATTACK in page.text
    assert [attributes["id"] for tag, attributes in page.tags if tag == "section"] == [
        "answer", "words", "tokens", "source", "layers", "attention", "rows", "coverage", "true"]


def test_words_are_told_apart_without_colour(found: dict[str, Any]) -> None:
    page = Page(render_page("why", explanation_sections(found), "0"))
    marks = {attributes["class"] for tag, attributes in page.tags if tag == "mark"}
    assert marks == {"for", "against"}
    assert "For the answer: great (+2.000)" in page.text
    assert f"Against it: {ATTACK} (-1.200), 片 (-0.400)" in page.text
    aside = [attributes for tag, attributes in page.tags if tag == "span" and attributes.get("class") == "aside"]
    assert len(aside) == 1


def test_what_does_not_hold_is_said(found: dict[str, Any], faithfulness: dict[str, Any]) -> None:
    page = Page(render_page("why", explanation_sections(found), "0"))
    assert "Shapley values, sampled: not better than chance" in page.text
    assert "leaving one word out: not better than chance" not in page.text
    assert "no likelier with the source than without it" in page.text
    assert "Hardly any training row lies this far out" in page.text
    [block] = faithfulness_blocks({})
    assert "Not measured yet" in str(block)


def test_the_report_holds_explanations_where_there_are_some(record: dict[str, Any], found: dict[str, Any]) -> None:
    assert 'id="explanations"' not in render_report(record)
    record["explanations"] = {"faithfulness": found["faithfulness"], "rows": [found]}
    page = Page(render_report(record))
    assert not page.open
    assert "Row 7: why 'positive' rather than 'negative'" in page.text


def test_the_card_says_which_methods_beat_chance(record: dict[str, Any], faithfulness: dict[str, Any]) -> None:
    assert "Are the explanations true" not in model_card(record)
    card = model_card({**record, "explanations": {"faithfulness": faithfulness}})
    assert "- leaving one word out: better than chance" in card
    assert "- Shapley values, sampled: not better than chance" in card


def test_throughput_is_drawn_and_memory_where_it_was_logged(record: dict[str, Any]) -> None:
    text = render_report(record)
    assert "Throughput of each step" in text
    assert "Peak memory of each step" not in text
    for event in record["events"]:
        if event["event"] == "step":
            event["peak_bytes"] = 2_000_000_000
    assert "Peak memory of each step" in render_report(record)
