"""The gate on the page: its sentence, its limits, both charts; a gate that accepts nothing is a warning."""

from collections.abc import Iterator
from typing import Any

import pytest

from treetune.core.language import choose_language
from treetune.report.blocks import Bullets, Chart, Paragraph, Table
from treetune.report.trust import trust


@pytest.fixture(autouse=True)
def english() -> Iterator[None]:
    choose_language("en")
    yield
    choose_language("")


@pytest.fixture
def gate() -> dict[str, Any]:
    share = {"value": 0.6, "low": 0.5, "high": 0.7, "level": 0.95}
    return {
        "sentence": "At most <5> %.", "outcome": ["accepts 60 %"], "limits": ["many", "alike"], "threshold": 0.8,
        "max_error": 0.05, "confidence": 0.95, "accepted": {"rows": 60, "wrong": 1, "share": share},
        "rows": {"tune": 66, "calibration": 120, "tested": 100, "every_row": False},
        "score": {"name": "margin"}, "calibrator": {"kind": "logistic"},
        "candidates": [{"name": "probability", "area": 0.1, "auroc": 0.8, "rejection_ratio": 0.6, "gain": 0.0,
                        "low": 0.0, "high": 0.0},
                       {"name": "margin", "area": 0.08, "auroc": None, "rejection_ratio": None, "gain": 0.02,
                        "low": 0.01, "high": 0.03}],
        "sets": {"miss_rate": 0.05, "limits": {"negative": 0.2, "positive": 0.0}, "rows": {"negative": 90,
                                                                                       "positive": 10}},
        "measured": {"error": 0.2, "faults": 0, "curve": {"coverage": [0.2, 0.6, 1.0], "risk": [0.0, 0.02, 0.2]},
                     "reliability": {"confidence": [0.5, 0.9], "right": [0.6, 0.95], "rows": [50, 50]},
                     "expected_calibration_error": {"value": 0.07, "low": 0.03, "high": 0.12, "level": 0.95}},
    }


def test_the_section_shows_promise_limits_charts_and_scores(gate: dict[str, Any]) -> None:
    blocks = trust({"gate": gate}).blocks
    assert blocks[0] == Paragraph("At most <5> %.")
    assert Bullets(["many", "alike"]) in blocks
    charts = [block for block in blocks if isinstance(block, Chart)]
    assert len(charts) == 2
    assert "this gate" in charts[0].svg
    tables = [block for block in blocks if isinstance(block, Table)]
    text = str([table.rows for table in tables])
    for shown in ("20.0 %", "100 / 120", "margin", "0.020 [0.010, 0.030]", "0.070 [0.030, 0.120]", "negative"):
        assert shown in text


def test_a_gate_that_accepts_nothing_is_a_warning_and_has_no_mark(gate: dict[str, Any]) -> None:
    blocks = trust({"gate": {**gate, "threshold": None, "sets": None, "candidates": []}}).blocks
    assert blocks[0] == Paragraph("At most <5> %.", "warning")
    assert "this gate" not in next(block for block in blocks if isinstance(block, Chart)).svg
    assert sum(isinstance(block, Table) for block in blocks) == 1


def test_without_a_usable_score_there_is_no_chart(gate: dict[str, Any]) -> None:
    blocks = trust({"gate": {**gate, "threshold": None, "measured": {"error": 1.0, "faults": 100}}}).blocks
    assert not [block for block in blocks if isinstance(block, Chart)]


def test_without_a_gate_the_page_says_how_to_get_one() -> None:
    [block] = trust({}).blocks
    assert isinstance(block, Paragraph)
    assert block.tone == "absent"
    assert "treetune gate" in block.text


def test_the_section_is_there_in_chinese(gate: dict[str, Any]) -> None:
    choose_language("zh")
    section = trust({"gate": gate})
    assert section.title == "何时可以相信回答"
    assert "期望校准误差" in str(section.blocks)


def test_checks_groups_and_drift_are_shown(gate: dict[str, Any]) -> None:
    rate = {"value": 0.9, "low": 0.8, "high": 0.95, "level": 0.95}
    more = {
        "checks": {"stop": ["numbers"], "flag": ["personal"],
                   "fired": {"numbers": {"rows": 8, "wrong": 6}, "personal": {"rows": 0, "wrong": 0}}},
        "planted": {"numbers": {"precision": rate, "recall": rate}}, "drift": {"alarm": True},
        "drift_lines": ["Alarm!"],
        "by": {"column": "region", "confidence_each": 0.975, "rows_each": 72, "groups": {
            "north": {"threshold": 0.7, "tested": True, "rows": 90, "accepted": 60, "wrong": 1,
                      "share": {"value": 2 / 3}},
            "<south>": {"threshold": None, "tested": False, "rows": 9, "accepted": 0, "wrong": 0,
                        "share": {"value": 0.0}}}},
        "void": True,
    }
    blocks = trust({"gate": {**gate, **more}}).blocks
    assert blocks[0] == Paragraph("At most <5> %.", "warning")
    assert Paragraph("Alarm!", "warning") in blocks
    text = str([(block.caption, block.rows) for block in blocks if isinstance(block, Table)])
    for shown in ("region, each at 97.5 %", "60 (66.7 %)", "holds", "72 without an error", "stops the answer",
                  "flags it only", "75.0 %", "0.900 [0.800, 0.950]"):
        assert shown in text
    choose_language("zh")
    assert "每一组的界限" in str([block.caption for block in trust({"gate": {**gate, **more}}).blocks
                             if isinstance(block, Table)])
