"""Contrast by computation: WCAG 2.1 asks 4.5 to 1 of text and 3 to 1 of lines that carry meaning."""

import re
from importlib import resources

import pytest

from treetune.report.charts import BLUE, GREEN, GREY, VERMILLION
from treetune.report.explanation import MAX_SHADE
from treetune.report.quality import MAX_SHADE as CONFUSION_SHADE

STYLE = resources.files("treetune.report").joinpath("templates", "report.html").read_text(encoding="utf-8")
Color = tuple[float, float, float]
WHITE: Color = (255.0, 255.0, 255.0)


def color(text: str) -> Color:
    digits = text.lstrip("#")
    digits = "".join(2 * digit for digit in digits) if len(digits) == 3 else digits
    red, green, blue = (float(int(digits[place : place + 2], 16)) for place in (0, 2, 4))
    return red, green, blue


def over(top: Color, alpha: float, ground: Color = WHITE) -> Color:
    red, green, blue = (alpha * a + (1 - alpha) * b for a, b in zip(top, ground, strict=True))
    return red, green, blue


def luminance(value: Color) -> float:
    parts = [channel / 255 for channel in value]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: Color, other: Color) -> float:
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def variable(name: str) -> Color:
    found = re.search(rf"--{name}: (#[0-9a-fA-F]+)", STYLE)
    assert found
    return color(found[1])


def grounds() -> dict[str, Color]:
    """Every background that text stands on."""
    solid = {name: color(name) for name in re.findall(r"background: (#[0-9a-fA-F]+)", STYLE)}
    marks = re.search(r"\(0\.4 \* piece\.shade\)", STYLE)
    assert marks, "the shade of a marked word changed: compute with the new one"
    return {**solid, "for": over(color(BLUE), 0.4), "against": over(color(VERMILLION), 0.4),
            "attention": over(color(BLUE), MAX_SHADE), "confusion": over(color(BLUE), CONFUSION_SHADE)}


def test_the_measure_is_right() -> None:
    assert contrast((0.0, 0.0, 0.0), WHITE) == pytest.approx(21)
    assert contrast(color("#777777"), WHITE) == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("ground", sorted(grounds()))
def test_ink_can_be_read_on_every_ground(ground: str) -> None:
    assert contrast(variable("ink"), grounds()[ground]) >= 4.5


@pytest.mark.parametrize("name", ["quiet", "ink"])
def test_text_can_be_read_on_white(name: str) -> None:
    assert contrast(variable(name), WHITE) >= 4.5
    link = re.search(r"\na \{ color: (#[0-9a-fA-F]+)", STYLE)
    assert link
    assert contrast(color(link[1]), WHITE) >= 4.5


@pytest.mark.parametrize("line", [BLUE, VERMILLION, GREEN, GREY])
def test_lines_can_be_seen(line: str) -> None:
    assert contrast(color(line), WHITE) >= 3


def test_the_two_marks_differ_for_colour_blind_readers_too() -> None:
    """Solid against dashed, whatever the colours."""
    assert "mark.for { border-bottom: 3px solid" in STYLE
    assert "mark.against { border-bottom: 3px dashed" in STYLE
