"""Charts as SVG text by hand: lines over steps, and values with their intervals.

Colours are Okabe and Ito's (told apart by colour-blind readers); series differ in shape as well. Every text is
escaped here, because the page puts charts in as they are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

BLUE, VERMILLION, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#555555"
WIDTH, HEIGHT = 480, 260
LEFT, RIGHT, TOP, BOTTOM = 62, 14, 34, 46
MAX_POINTS = 400
ROW_HEIGHT = 40
Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Series:
    """One line, or with ``marks`` one row of diamonds joined by dashes. Points are finite (x, y)."""

    name: str
    points: Sequence[Point]
    color: str = BLUE
    marks: bool = False


@dataclass(frozen=True, slots=True)
class Measured:
    """One value with its interval; ``strong`` stands out."""

    name: str
    text: str
    value: float
    low: float
    high: float
    strong: bool = False


@dataclass(frozen=True, slots=True)
class Axis:
    """Maps values of [low, high] onto pixels of [start, end]."""

    low: float
    high: float
    start: float
    end: float

    def place(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def line_chart(title: str, x_label: str, series: Sequence[Series]) -> str:
    """Several series over one x axis; "" when there is no point at all."""
    points = [point for one in series for point in one.points]
    if not points:
        return ""
    across = axis_of([x for x, _ in points], LEFT, WIDTH - RIGHT)
    up = axis_of([y for _, y in points], HEIGHT - BOTTOM, TOP)
    parts = [
        *(_grid_line(up, tick) for tick in ticks(up.low, up.high)),
        *(_x_tick(across, tick) for tick in ticks(across.low, across.high)),
        _text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, x_label, "middle"),
        *(_line(one, across, up) for one in series),
        *_legend([one for one in series if one.points]),
    ]
    return _svg(title, HEIGHT, parts)


def interval_chart(title: str, rows: Sequence[Measured]) -> str:
    """One line a system: a dot at the value, a bar over the interval; "" without rows."""
    if not rows:
        return ""
    height = ROW_HEIGHT * len(rows) + 30
    ends = [end for row in rows for end in (row.low, row.high, row.value)]
    across = axis_of(ends, 14, WIDTH - 14)
    parts = [_vertical(across, tick, height - 24) for tick in ticks(across.low, across.high)]
    for place, row in enumerate(rows):
        parts += _interval(row, across, ROW_HEIGHT * place)
    return _svg(title, height, parts)


def axis_of(values: Sequence[float], start: float, end: float) -> Axis:
    """An axis over all values, a little wider; of width 1 where they are all the same."""
    low, high = min(values), max(values)
    margin = (high - low) * 0.04 if high > low else max(abs(high) * 0.1, 0.5)
    return Axis(low - margin, high + margin, start, end)


def ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """About ``wanted`` round numbers in [low, high], steps of 1, 2 or 5 times a power of ten."""
    rough = (high - low) / wanted
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    first = math.ceil(low / step)
    return [place * step for place in range(first, math.floor(high / step) + 1)]


def thin(points: Sequence[Point], most: int = MAX_POINTS) -> list[Point]:
    """At most ``most`` points, evenly spread, first and last included."""
    if len(points) <= most:
        return list(points)
    return [points[round(place * (len(points) - 1) / (most - 1))] for place in range(most)]


def _svg(title: str, height: float, parts: Sequence[str]) -> str:
    name = escape(title)
    return (
        f'<svg viewBox="0 0 {WIDTH} {height:g}" role="img" aria-label="{name}" font-size="13" '
        f'font-family="sans-serif"><title>{name}</title>{"".join(parts)}</svg>'
    )


def _text(x: float, y: float, text: str, anchor: str = "start", color: str = "#333333") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{color}">{escape(text)}</text>'


def _stroke(x1: float, y1: float, x2: float, y2: float, color: str = "#DDDDDD", width: float = 1) -> str:
    return (f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" '
            f'stroke="{color}" stroke-width="{width:g}"/>')


def _short(value: float) -> str:
    return f"{value:.6g}".replace("e-0", "e-").replace("e+0", "e")


def _grid_line(up: Axis, value: float) -> str:
    y = up.place(value)
    return _stroke(LEFT, y, WIDTH - RIGHT, y) + _text(LEFT - 6, y + 4, _short(value), "end")


def _x_tick(across: Axis, value: float) -> str:
    x = across.place(value)
    bottom = HEIGHT - BOTTOM
    return _stroke(x, bottom, x, bottom + 5, GREY) + _text(x, bottom + 19, _short(value), "middle")


def _vertical(across: Axis, value: float, bottom: float) -> str:
    x = across.place(value)
    return _stroke(x, 4, x, bottom) + _text(x, bottom + 16, _short(value), "middle")


def _line(series: Series, across: Axis, up: Axis) -> str:
    places = [(across.place(x), up.place(y)) for x, y in thin(series.points)]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    dashes = ' stroke-dasharray="5 4"' if series.marks else ""
    line = (f'<polyline points="{path}" fill="none" stroke="{series.color}" stroke-width="2" '
            f'stroke-linejoin="round"{dashes}/>')
    if series.marks or len(places) == 1:
        line += "".join(_diamond(x, y, series.color) for x, y in places)
    return line


def _diamond(x: float, y: float, color: str) -> str:
    corners = f"{x:.1f},{y - 6:.1f} {x + 6:.1f},{y:.1f} {x:.1f},{y + 6:.1f} {x - 6:.1f},{y:.1f}"
    return f'<polygon points="{corners}" fill="{color}" stroke="#FFFFFF"/>'


def _legend(series: Sequence[Series]) -> list[str]:
    parts = []
    room = (WIDTH - LEFT - RIGHT) / len(series)
    needed = [40 + sum(13 if ord(character) > 0x2E80 else 7 for character in one.name) for one in series]
    starts = [LEFT + place * room for place in range(len(series))]
    if max(needed, default=0) > room:  # a long name takes some of its neighbours' room
        starts = [LEFT + sum(needed[:place]) for place in range(len(series))]
    for x, one in zip(starts, series, strict=True):
        parts.append(_stroke(x, 15, x + 22, 15, one.color, 3))
        if one.marks:
            parts.append(_diamond(x + 11, 15, one.color))
        parts.append(_text(x + 28, 19, one.name))
    return parts


def _interval(row: Measured, across: Axis, top: float) -> list[str]:
    color = BLUE if row.strong else GREY
    y = top + 29
    low, high = across.place(row.low), across.place(row.high)
    return [
        _text(14, top + 17, row.name, color="#111111"),
        _text(WIDTH - 14, top + 17, row.text, "end", color="#111111"),
        _stroke(low, y, high, y, color, 3),
        _stroke(low, y - 5, low, y + 5, color, 2),
        _stroke(high, y - 5, high, y + 5, color, 2),
        f'<circle cx="{across.place(row.value):.1f}" cy="{y:.1f}" r="5" fill="{color}" stroke="#FFFFFF"/>',
    ]
