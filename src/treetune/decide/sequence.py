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
MAX_STARTS = 60
NUM_QUANTILES = 16


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

    The walk starts where the tune split foresees the best chance to pass on ``num_calibration`` rows: a stricter
    start accepts too few rows to prove anything, a looser one too many wrong ones, and either would end the walk at
    once. From there to the loosest in steps of equal numbers of rows.
    """
    curve = risk_coverage(scores, wrong)
    if not len(curve.thresholds):
        return np.array([np.inf])
    looked_at = np.unique(np.linspace(0, len(curve.thresholds) - 1, MAX_STARTS).round().astype(int))
    accepted = np.round(curve.coverage[looked_at] * num_calibration)
    chances = chances_to_pass(curve.num_accepted[looked_at], curve.num_wrong[looked_at], accepted, promise)
    start = looked_at[int(np.argmax(chances))]
    wanted = np.linspace(curve.num_accepted[start], curve.num_accepted[-1], max_steps)
    places = np.unique(np.searchsorted(curve.num_accepted, wanted))
    return np.asarray(curve.thresholds[places])


def chances_to_pass(num_seen: IntArray, num_wrong: IntArray, accepted: FloatArray, promise: Promise) -> FloatArray:
    """Chance that ``accepted`` new rows pass the test, after ``num_wrong`` of ``num_seen`` rows were wrong, (T,) each.

    The unknown share of wrong ones follows Jeffreys' posterior Beta(k + 1/2, n - k + 1/2), of which ``NUM_QUANTILES``
    equally likely values stand for all.
    """
    from scipy.special import betaincinv

    allowed = most_wrong_allowed(accepted, promise)
    levels = (np.arange(NUM_QUANTILES) + 0.5) / NUM_QUANTILES
    rates = betaincinv(num_wrong[:, None] + 0.5, (num_seen - num_wrong)[:, None] + 0.5, levels)
    possible = np.broadcast_to(np.maximum(allowed, 0)[:, None], rates.shape)
    chances = risk_p_values(possible, np.broadcast_to(accepted[:, None], rates.shape), rates).mean(1)
    return np.asarray(np.where(allowed >= 0, chances, accepted / (accepted.max() + 1) - 1))  # else: the most rows


def most_wrong_allowed(accepted: FloatArray, promise: Promise) -> FloatArray:
    """(T,) the largest number of wrong ones among ``accepted`` rows that still passes; -1 where none does."""
    low, high = np.full(len(accepted), -1.0), np.array(accepted, dtype=np.float64)
    while np.any(high - low > 1):
        middle = np.floor((low + high) / 2)
        passed = risk_p_values(np.maximum(middle, 0), accepted, promise.max_error) <= promise.failure_chance
        passed &= middle >= 0
        open_ = high - low > 1
        low, high = np.where(open_ & passed, middle, low), np.where(open_ & ~passed, middle, high)
    return low


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

    Of a few accepted rows no error rate can be told, so only thresholds are looked at that accept as many as a
    flawless proof needs, or a third of a small file. Half a row is added as wrong: none seen is not none.
    """
    flawless = accepted_rows_needed(promise.max_error, promise.confidence)
    assert flawless is not None
    curve = risk_coverage(scores, wrong)
    best = RowsNeeded(flawless, None, None, None, None)
    places = np.flatnonzero(curve.num_accepted >= min(flawless, curve.num_rows / 3))
    for place in places[:: max(1, len(places) // MAX_STEPS)]:
        rate = float((curve.num_wrong[place] + 0.5) / (curve.num_accepted[place] + 1))
        share = float(curve.coverage[place])
        accepted = accepted_rows_needed(promise.max_error, promise.confidence, rate)
        if accepted is None:
            continue
        total = int(np.ceil(accepted / share))
        if best.calibration is None or total < best.calibration:
            best = RowsNeeded(flawless, accepted, total, rate, share)
    return best
