"""The account on the page: in both languages, with what is not known shown as such."""

from typing import Any

import pytest

from treetune.core.language import speaking
from treetune.report.amounts import bytes_text, energy_text, mass_text, seconds_text
from treetune.report.blocks import Paragraph, Table
from treetune.report.compute import account

BOUNDS = {"low": 50.0, "expected": 100.0, "high": 200.0}
ENERGY = {"kwh": BOUNDS, "source": "estimate", "watts": 8.0, "measured": False}
ACTUAL: dict[str, Any] = {"seconds": 80.0, "peak_bytes": 5e8, "energy": ENERGY, "energy_kwh": 0.001, "co2_g": BOUNDS,
                          "cost": None, "tokens": 600, "row_tokens": 1000, "steps": 24}
RECORD: dict[str, Any] = {"account": {
    "actual": ACTUAL, "grid": "de", "attempts": 2, "probe": {},
    "planned": {"seconds": BOUNDS, "peak_bytes": {"low": 4e8, "expected": 5e8, "high": 6e8}, "energy_kwh": BOUNDS,
                "co2_g": BOUNDS, "cost": None, "parts": {"start": 6.0, "training": 94.0},
                "memory_parts": {"weights": 1e8, "logits": 0.0}}}}


def test_plan_and_actual_stand_side_by_side() -> None:
    with speaking("en"):
        section = account(RECORD)
    assert section is not None
    table = section.blocks[0]
    assert isinstance(table, Table)
    assert list(table.rows[0]) == ["time", "1.67 min (50 s – 3.33 min)", "–", "80 s", "+25 %"]
    assert list(table.rows[1])[-1] == "+0 %"
    text = " ".join(block.text for block in section.blocks if isinstance(block, Paragraph))
    assert "not measured: 8 W" in text
    assert "saved 40.0 %" in text
    assert "taken up 1 times" in text


def test_chinese_and_no_plan() -> None:
    with speaking("zh"):
        section = account({"account": {**RECORD["account"], "planned": {}}})
    assert section is not None
    assert section.title == "计划与记账"
    assert account({}) is None
    assert account({"account": {}}) is None


@pytest.mark.parametrize(("seconds", "text"), [(5, "5 s"), (300, "5 min"), (7200, "2 h"), (3 * 86400, "3 days"),
                                               (355 * 365 * 86400, "355 years")])
def test_seconds_in_the_unit_a_person_would_take(seconds: float, text: str) -> None:
    with speaking("en"):
        assert seconds_text(seconds) == text


def test_other_amounts() -> None:
    assert (bytes_text(1.5e9), bytes_text(3e7)) == ("1.50 GB", "30.0 MB")
    assert (energy_text(0.0002), energy_text(12.0), energy_text(3e6)) == ("0.2 Wh", "12 kWh", "3 GWh")
    assert (mass_text(12.0), mass_text(3400), mass_text(5e6)) == ("12 g", "3.4 kg", "5 t")
