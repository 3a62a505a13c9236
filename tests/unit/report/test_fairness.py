"""The audit on the page: what was found, what could not be, nothing that sounds like a verdict."""

from collections.abc import Iterator
from typing import Any

import pytest

from treetune.audit.wording import in_words, of_note
from treetune.core.language import choose_language, speaking
from treetune.report.blocks import Bullets, Chart, Paragraph, Table
from treetune.report.fairness import fairness
from treetune.report.page import render_report


@pytest.fixture(autouse=True)
def english() -> Iterator[None]:
    choose_language("en")
    yield
    choose_language("")


def finding(kind: str, measure: str, **more: Any) -> dict[str, Any]:
    return {"kind": kind, "measure": measure, "attribute": "region", "group": "north", "against": "others",
            "language": "", "value": -0.123, "low": -0.2, "high": -0.05, "level": 0.95, "counts": [40, 90], "parts": {},
            **more}


def with_test(found: bool) -> dict[str, Any]:
    return {"p_value": 0.0001, "p_adjusted": 0.004 if found else 0.7, "found": found, "detectable": 0.11}


@pytest.fixture
def audit() -> dict[str, Any]:
    return {
        "rows": 130, "alpha": 0.05, "power": 0.8, "least_rows": 30, "against": "runs/before",
        "findings": [
            finding("gap", "quality", **with_test(True)), finding("gap", "recall:positive", **with_test(False)),
            finding("flip", "changed", attribute="pronoun", group="she", language="en", parts={"within": 0.02}),
            finding("flip", "tone", attribute="pronoun", group="she", language="en", **with_test(True)),
            finding("swap", "changed", attribute="gender", group="women", against="men", language="zh"),
            finding("pairs", "preferred", attribute="crows_pairs", group="age", against="", **with_test(False)),
            finding("questions", "abstained", attribute="bbq_age", group="ambiguous", against=""),
            finding("translation", "right", attribute="gender", group="women", against="men", **with_test(True)),
        ],
        "groups": [{"column": "region", "missing": 3,
                    "levels": [{"group": "north", "measure": "quality", "rows": 40, "value": 0.7, "low": 0.6,
                                "high": 0.8}],
                    "too_small": [{"group": "<east>", "measure": "quality", "rows": 4}]}],
        "changes": [{**finding("gap", "quality"), "before": -0.2, "after": -0.1, "change": -0.1, "low": -0.15,
                     "high": -0.02, "by_size": True}],
        "notes": [{"code": "no_gate"}, {"code": "of another version"},
                  {"code": "few_swaps", "rows": 4, "left_out": 1, "language": "en", "attribute": "region",
                   "group": "Mexico", "against": "United States"}],
    }


def text_of(audit: dict[str, Any]) -> str:
    return str(fairness({"fairness": in_words(audit)}).blocks)


def test_every_kind_of_number_has_its_table_with_interval_and_detectable_gap(audit: dict[str, Any]) -> None:
    blocks = fairness({"fairness": in_words(audit)}).blocks
    tables = [block for block in blocks if isinstance(block, Table)]
    assert len(tables) == 8
    gaps = tables[1]
    assert tuple(gaps.rows[0]) == ("region: north against others", "quality", "-0.123 [-0.200, -0.050]", "0.004",
                                   "0.110", "difference found")
    assert gaps.rows[1][-1] == "none found"
    assert sum(isinstance(block, Chart) for block in blocks) == 1
    shown = text_of(audit)
    for part in ("3 of 5 tests", "at most 5 %", "<east> (quality: 4)", "3 rows have no value",
                 "Change since before", "'-0.200', '-0.100'",
                 "has no gate", "region (en): Mexico / United States", "2.0 %"):
        assert part in shown


def test_pairs_carry_their_warning_and_nothing_else_does(audit: dict[str, Any]) -> None:
    assert any(isinstance(block, Paragraph) and block.tone == "warning" and "Blodgett" in block.text
               for block in fairness({"fairness": in_words(audit)}).blocks)
    audit["findings"] = [each for each in audit["findings"] if each["kind"] != "pairs"]
    assert "Blodgett" not in text_of(audit)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_no_verdict_is_spoken(audit: dict[str, Any], language: str) -> None:
    with speaking(language):
        shown = text_of(audit).lower()
    for word in ("fair ", "fair.", "unfair", "unbiased", "no bias", "公平", "公正", "无偏见"):
        assert word not in shown


def test_the_users_own_groups_keep_their_names_in_chinese(audit: dict[str, Any]) -> None:
    with speaking("zh"):
        shown = text_of({**audit, "findings": [finding("gap", "quality", group="south", **with_test(True))]})
    assert "south" in shown
    assert "华南" not in shown


def test_without_an_audit_the_section_says_how_to_make_one() -> None:
    [block] = fairness({}).blocks
    assert isinstance(block, Paragraph)
    assert block.tone == "absent"


def test_the_page_escapes_what_comes_from_the_file(audit: dict[str, Any], record: dict[str, Any]) -> None:
    page = render_report({**record, "fairness": in_words(audit)})
    assert 'id="fairness"' in page
    assert "&lt;east&gt;" in page
    assert "<east>" not in page


def test_a_terminal_sees_what_was_found_and_how_much_was_not(audit: dict[str, Any]) -> None:
    tables = [of_note(table) for table in in_words(audit)["tables"]]
    assert [(len(table["rows"]), table["others"]) for table in tables[1:3]] == [(1, 1), (1, 0)]
    assert not any(isinstance(block, Bullets) for block in tables)
