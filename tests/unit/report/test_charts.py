"""Charts: right places, round ticks, well-formed whatever the values."""

import math
import xml.etree.ElementTree as ElementTree

import pytest

from treetune.report.charts import (
    HEIGHT,
    MAX_POINTS,
    WIDTH,
    Measured,
    Series,
    axis_of,
    interval_chart,
    line_chart,
    thin,
    ticks,
)


def drawn(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg)


def places(root: ElementTree.Element) -> list[list[tuple[float, float]]]:
    return [[(float(x), float(y)) for x, y in (pair.split(",") for pair in line.attrib["points"].split())]
            for line in root.iter("polyline")]


def test_a_falling_series_falls_on_the_page() -> None:
    (line,) = places(drawn(line_chart("loss", "step", [Series("a", [(0, 4.0), (1, 2.0), (2, 1.0)])])))
    assert [x for x, _ in line] == sorted(x for x, _ in line)
    assert [y for _, y in line] == sorted(y for _, y in line)
    assert all(0 <= x <= WIDTH and 0 <= y <= HEIGHT for x, y in line)


def test_marks_differ_in_shape_and_not_only_in_colour() -> None:
    root = drawn(line_chart("t", "x", [Series("a", [(0, 1), (1, 2)]), Series("b", [(0, 1), (1, 3)], marks=True)]))
    assert len(list(root.iter("polygon"))) == 3  # two marks and one in the legend
    assert "stroke-dasharray" in list(root.iter("polyline"))[1].attrib


@pytest.mark.parametrize("points", [[(5.0, 2.0)], [(1, 0.0), (2, 0.0)], [(0, -1e9), (1, 1e9)], [(0, 1e-9), (1, 2e-9)]])
def test_single_constant_huge_and_tiny_values_are_drawn(points: list[tuple[float, float]]) -> None:
    (line,) = places(drawn(line_chart("t", "x", [Series("a", points)])))
    assert all(math.isfinite(x) and 0 <= y <= HEIGHT for x, y in line)


def test_nothing_to_draw_is_no_chart() -> None:
    assert line_chart("t", "x", [Series("a", [])]) == ""
    assert interval_chart("t", []) == ""


def test_texts_are_escaped() -> None:
    attack = '"<script>&'
    for svg in (line_chart(attack, attack, [Series(attack, [(0, 1)])]),
                interval_chart(attack, [Measured(attack, attack, 1, 0, 2)])):
        root = drawn(svg)
        assert root.attrib["aria-label"] == attack
        assert not list(root.iter("script"))
        assert attack in [node.text for node in root.iter("text")]


def test_an_interval_reaches_from_low_to_high_around_its_value() -> None:
    root = drawn(interval_chart("t", [Measured("a", "0.5", 0.5, 0.4, 0.7), Measured("b", "0.1", 0.1, 0.0, 0.2)]))
    bars = [line for line in root.iter("line") if line.attrib["stroke-width"] == "3"]
    dots = [float(dot.attrib["cx"]) for dot in root.iter("circle")]
    assert len(bars) == len(dots) == 2
    for bar, dot in zip(bars, dots, strict=True):
        assert float(bar.attrib["x1"]) < dot < float(bar.attrib["x2"])
    assert dots[0] > dots[1]


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0.31, 0.87), (-3, 17), (1e-5, 9e-4), (100, 1269), (0, 5e12)])
def test_ticks_are_few_round_and_inside(low: float, high: float) -> None:
    found = ticks(low, high)
    assert 2 <= len(found) <= 7
    assert all(low - 1e-9 * abs(high) <= tick <= high + 1e-9 * abs(high) for tick in found)


def test_an_axis_of_equal_values_has_a_width() -> None:
    for value in (0.0, 3.0, -7.0):
        assert axis_of([value, value], 0, 100).place(value) == pytest.approx(50)


def test_thinning_keeps_the_ends() -> None:
    points = [(float(x), float(x)) for x in range(5000)]
    few = thin(points)
    assert len(few) == MAX_POINTS
    assert few[0] == points[0]
    assert few[-1] == points[-1]
    assert thin(points[:3]) == points[:3]
