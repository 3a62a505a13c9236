"""The loosest threshold whose accepted answers provably hold the error bound: tests in an order fixed beforehand.

Fixed-sequence testing inside Learn then Test: Angelopoulos, Bates, Candès, Jordan & Lei 2021, "Learn then Test:
Calibrating Predictive Algorithms to Achieve Risk Control", section 3. Because the order comes from other rows
(the tune split) and the walk ends at the first failure, every test may use the whole of 1 - confidence.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from treetune.core.records import FloatArray, IntArray
from treetune.metrics.risk import accepted_rows_needed, risk_p_values
from treetune.metrics.selective import BoolArray, risk_coverage

MAX_STEPS = 60


@dataclass(frozen=True, slots=True)
class Promise:
    """Among accepted answers at most ``max_error`` are wrong; a gate breaks this with chance 1 - ``confidence``."""

    max_error: float
    confidence: float

    @property
    def failure_chance(self) -> float:
        return 1 - self.confidence


@dataclass(frozen=True, slots=True)
class Walk:
    """The thresholds that were tested, strict to loose; the last one failed unless all passed.

    Attributes:
        thresholds, p_values: (T,). num_accepted, num_wrong: (T,) of the calibration rows.
        threshold: the last that passed, None when the first failed.
    """

    thresholds: FloatArray
    num_accepted: IntArray
    num_wrong: IntArray
    p_values: FloatArray
    threshold: float | None

    @property
    def place(self) -> int:
        """Where the threshold in force stands, or the failed first one."""
        return max(0, len(self.thresholds) - 1 - int(self.threshold != self.thresholds[-1]))


def thresholds_to_test(
    scores: FloatArray, wrong: BoolArray, num_calibration: int, promise: Promise, *, max_steps: int = MAX_STEPS
) -> FloatArray:
    """The thresholds to test and their order, from the tune split alone, (T,) falling.

    The walk starts where the tune split foresees the smallest p-value on ``num_calibration`` rows: a stricter
    start accepts too few rows to prove anything and would end the walk at once, and rows above the start are
    accepted with it anyway. From there to the loosest in steps of equal numbers of rows.
    """
    curve = risk_coverage(scores, wrong)
    if not len(curve.thresholds):
        return np.array([np.inf])
    rate = (curve.num_wrong + promise.max_error) / (curve.num_accepted + 1)  # one row's worth of doubt
    accepted = curve.coverage * num_calibration
    start = int(np.argmin(risk_p_values(rate * accepted, accepted, promise.max_error)))
    wanted = np.linspace(curve.num_accepted[start], curve.num_accepted[-1], max_steps)
    places = np.unique(np.searchsorted(curve.num_accepted, wanted))
    return np.asarray(curve.thresholds[places])


def walk(thresholds: FloatArray, scores: FloatArray, wrong: BoolArray, promise: Promise) -> Walk:
    """Test one threshold after the other on calibration rows that had no part in choosing them."""
    inside = scores[None, :] >= thresholds[:, None]
    accepted, bad = inside.sum(1), (inside & wrong).sum(1)
    p_values = risk_p_values(bad, accepted, promise.max_error)
    failed = np.flatnonzero(p_values > promise.failure_chance)
    passed = int(failed[0]) if len(failed) else len(thresholds)
    shown = slice(0, passed + 1)
    return Walk(thresholds[shown], accepted[shown], bad[shown], p_values[shown],
                float(thresholds[passed - 1]) if passed else None)


@dataclass(frozen=True, slots=True)
class RowsNeeded:
    """How many labelled rows would do.

    Attributes:
        accepted_if_flawless: accepted calibration rows that prove the bound when none of them is wrong.
        accepted, calibration: accepted and all calibration rows that prove it at the error rate seen; None when the
            score does not separate right from wrong well enough for any number.
        error_rate, accept_share: seen at the threshold this is computed for.
    """

    accepted_if_flawless: int
    accepted: int | None
    calibration: int | None
    error_rate: float | None
    accept_share: float | None


def rows_needed(scores: FloatArray, wrong: BoolArray, promise: Promise) -> RowsNeeded:
    """The cheapest threshold of those seen, by the rows it would take; advice, without a guarantee.

    Thresholds that accept fewer rows than a flawless proof needs say nothing of an error rate, except that they
    are all there is in a small file; the loosest is looked at in any case.
    """
    flawless = accepted_rows_needed(promise.max_error, promise.confidence)
    assert flawless is not None
    curve = risk_coverage(scores, wrong)
    best = RowsNeeded(flawless, None, None, None, None)
    last = len(curve.thresholds) - 1
    for place in np.unique(np.linspace(0, last, MAX_STEPS).round().astype(int)) if last >= 0 else ():
        if curve.num_accepted[place] < flawless and place != last:
            continue
        rate, share = float(curve.risk[place]), float(curve.coverage[place])
        accepted = accepted_rows_needed(promise.max_error, promise.confidence, rate)
        if accepted is None:
            continue
        total = int(np.ceil(accepted / share))
        if best.calibration is None or total < best.calibration:
            best = RowsNeeded(flawless, accepted, total, rate, share)
    return best
