"""A number that is not known exactly: what is expected, and between which bounds it is likely to lie."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Range:
    """low <= expected <= high, in one unit."""

    low: float
    expected: float
    high: float

    def __add__(self, other: Range) -> Range:
        return Range(self.low + other.low, self.expected + other.expected, self.high + other.high)

    def __mul__(self, factor: float) -> Range:
        return Range(self.low * factor, self.expected * factor, self.high * factor)

    def times(self, other: Range) -> Range:
        """The product of two of them, both positive."""
        return Range(self.low * other.low, self.expected * other.expected, self.high * other.high)

    def as_dict(self) -> dict[str, float]:
        """For records."""
        return {"low": self.low, "expected": self.expected, "high": self.high}


def exactly(value: float) -> Range:
    """A number without doubt."""
    return Range(value, value, value)


def about(value: float, below: float, above: float) -> Range:
    """``value`` times ``below`` (<= 1) to ``value`` times ``above`` (>= 1)."""
    return Range(value * below, value, value * above)
