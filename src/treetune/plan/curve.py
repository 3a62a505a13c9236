"""A learning curve: score against rows, extrapolated by a power law with its doubt.

The error is c + a n^-b (Hestness et al. 2017, arXiv 1712.00409; Rosenfeld et al. 2020, arXiv 1909.12673). Few points
cannot settle three numbers, so none is picked: every curve of a grid is weighted by how well it explains the points,
and the prediction is the mixture of all of them, each with the noise of one measured point.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from treetune.core.errors import UsageError
from treetune.core.records import FloatArray
from treetune.plan.quantity import Range

LEVEL = 0.9
LEAST_POINTS = 3
EXPONENTS = np.array([0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.65, 0.8, 1.0, 1.3, 1.7])
FLOORS = np.array([0.0, 0.15, 0.3, 0.45, 0.6, 0.7, 0.8, 0.88, 0.94, 0.98, 1.0])
"""What can never be learnt, as a share of the error at the last point."""
NOISES = np.array([0.7, 1.0, 1.5, 2.2, 3.2])
"""Standard deviation of a point in units of its binomial one: order, seed and choice of the rows come on top of it."""
LAST = np.linspace(-3.0, 3.0, 41)
"""The true error at the last point, in binomial standard deviations around the measured one."""


@dataclass(frozen=True, slots=True)
class Point:
    """A measured score in 0-1, higher is better: rows of training, rows it was measured on."""

    rows: int
    score: float
    measured_on: int


@dataclass(frozen=True, slots=True)
class Ahead:
    """What is expected with more rows: of a measured score, and of the gain over the last point's true one."""

    rows: int
    score: Range
    gain: Range


@dataclass(frozen=True, slots=True)
class Curves:
    """All curves of the grid: (G,) floor, slope, exponent, noise, weight; slope is that of rows over the last ones."""

    floor: FloatArray
    slope: FloatArray
    exponent: FloatArray
    noise: FloatArray
    weight: FloatArray
    last: Point


def fit(points: Sequence[Point]) -> Curves:
    """Weigh the curves by the points.

    Raises:
        UsageError: E2064 fewer than three points.
    """
    if len(points) < LEAST_POINTS:
        raise UsageError("E2064", "a learning curve needs at least {least} points", least=LEAST_POINTS,
                         found=str(len(points)), allowed=f"{LEAST_POINTS}", do="give more rows or smaller shares")
    ordered = sorted(points, key=lambda point: point.rows)
    last = ordered[-1]
    spreads = np.array([_binomial(point) for point in ordered])
    end, share, exponent, noise = (axis.ravel() for axis in np.meshgrid(
        1 - last.score + LAST * spreads[-1], FLOORS, EXPONENTS, NOISES, indexing="ij"))
    end = np.clip(end, 1e-6, 1.0)
    floor, slope = end * share, end * (1 - share)
    logs = np.zeros(len(end))
    for point, spread in zip(ordered, spreads, strict=True):
        error = floor + slope * (point.rows / last.rows) ** -exponent
        scale = noise * spread
        logs -= 0.5 * ((1 - point.score - error) / scale) ** 2 + np.log(scale)
        logs[error > 1.0] = -np.inf
    weight = np.exp(logs - logs.max())
    return Curves(floor, slope, exponent, noise, weight / weight.sum(), last)


def ahead(curves: Curves, rows: int, level: float = LEVEL) -> Ahead:
    """The score to expect with ``rows`` rows, measured on as many rows as the last point."""
    error = curves.floor + curves.slope * (rows / curves.last.rows) ** -curves.exponent
    at_end = curves.floor + curves.slope
    noise = curves.noise * _binomial(curves.last)
    nodes, shares = np.polynomial.hermite_e.hermegauss(9)  # each curve's own noise, as nine points of a normal
    scores = np.clip(1 - error[:, None] + noise[:, None] * nodes, 0.0, 1.0)
    weights = curves.weight[:, None] * (shares / shares.sum())
    return Ahead(rows, _bounds(scores.ravel(), weights.ravel(), level), _bounds(at_end - error, curves.weight, level))


def _binomial(point: Point) -> float:
    """Standard deviation of a share measured on so many rows, of one more right and one more wrong row."""
    rate = (point.score * point.measured_on + 1) / (point.measured_on + 2)
    return float(np.sqrt(rate * (1 - rate) / point.measured_on))


def _bounds(values: FloatArray, weights: FloatArray, level: float) -> Range:
    order = np.argsort(values)
    cumulated = np.cumsum(weights[order])
    low, high = (float(values[order][np.searchsorted(cumulated, share)])
                 for share in ((1 - level) / 2, (1 + level) / 2 - 1e-12))
    mean = float(values @ weights)
    return Range(min(low, mean), mean, max(high, mean))


def worth_going_on(curves: Curves, rows: int, least_gain: float, level: float = LEVEL) -> bool:
    """Whether a gain of ``least_gain`` by going to ``rows`` rows is still within the bounds."""
    return ahead(curves, rows, level).gain.high >= least_gain
