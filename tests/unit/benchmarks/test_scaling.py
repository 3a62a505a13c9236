"""The rows whose cost is plotted, and the plot."""

from pathlib import Path

import pytest

pytestmark = pytest.mark.usefixtures("benchmark_module")  # the scripts can be imported


def test_rows_on_one_passage_share_it_and_have_the_length_asked_for() -> None:
    from scaling import made_rows

    parts = ([[1, 2, 3], [4, 5]], [[6, 7], [8, 9]], [[10], [11]])
    rows = made_rows(parts, 4, 2, 3)
    assert [len(row.prompt_ids) for row in rows] == [5, 5, 5, 5]
    assert rows[0].prompt_ids[:3].tolist() == rows[1].prompt_ids[:3].tolist()
    assert rows[0].prompt_ids[:3].tolist() != rows[2].prompt_ids[:3].tolist()


def test_the_plot_names_every_system(tmp_path: Path) -> None:
    from scaling import PANELS, draw, section_to_markdown

    points = [{"panel": panel, "x": x, "system": system, "tokens_per_second": 10.0 * x, "seconds": 1.0}
              for panel in PANELS for x in (1, 2) for system in ("treetune-tree", "trainer-sorted-8")]
    points.append({"panel": PANELS[0], "x": 5, "system": "treetune-tree", "error": "no room"})
    section = {"shape": "tiny", "points": points, "rows_per_step": 30,
               "conditions": {"date": "", "processor": "", "machine": "", "threads": 1, "cores": 1, "load": 0.0,
                              "versions": {}}}
    draw(section, tmp_path / "scaling-tiny.svg")
    assert (tmp_path / "scaling-tiny.svg").read_text("utf-8").startswith("<?xml")
    assert "trainer-sorted-8" in section_to_markdown("tiny", section)
