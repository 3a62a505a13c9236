"""docs/export.md tells the truth: flags, forms and codes are there."""

import re
from pathlib import Path

from treetune.workflow.export import FORMS, MIN_EQUAL, MOST_DIFFERENCE, MOST_ROWS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "export.md").read_text("utf-8")


def test_forms_limits_and_codes_are_those_of_the_source() -> None:
    assert set(re.findall(r"^\| `(\w+)` \|", PAGE, flags=re.MULTILINE)) == set(FORMS)
    assert f"Up to {MOST_ROWS} labelled" in PAGE
    assert f"{MIN_EQUAL['float32']:.0%}, int8 {MIN_EQUAL['int8']:.0%}" == "98%, int8 90%"
    assert "98 %, int8 90 %" in PAGE
    assert f"{MOST_DIFFERENCE['float32']} nats" in PAGE
    source = "".join(path.read_text("utf-8") for path in (ROOT / "src").rglob("*.py"))
    assert all(f'"{code}"' in source for code in re.findall(r"E\d{4}", PAGE))
