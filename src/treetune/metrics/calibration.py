"""Whether a confidence of 80 % is right 80 times in 100: reliability bins, expected calibration error, Brier.

Bins of equal mass: Nguyen & O'Connor 2015, "Posterior calibration and exploratory analysis for NLP models".
Expected calibration error: Naeini et al. 2015; Guo et al. 2017, "On Calibration of Modern Neural Networks".
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from treetune.core.records import FloatArray, Interval
from treetune.core.seeds import generator
from treetune.metrics.selective import BoolArray
from treetune.metrics.statistics import nothing_to_score

NUM_BINS = 15
ROWS_PER_BIN = 10


@dataclass(frozen=True, slots=True)
class Reliability:
    """Bins of about as many rows each, by rising confidence: (B,) mean confidence, share right, number of rows."""

    confidence: FloatArray
    right: FloatArray
    num_rows: FloatArray

    @property
    def expected_error(self) -> float:
        """Expected calibration error: |share right - mean confidence|, weighted by rows, 0-1."""
        gaps = np.abs(self.right - self.confidence)
        return float((gaps * self.num_rows).sum() / self.num_rows.sum())


def reliability(confidence: FloatArray, right: BoolArray, num_bins: int = NUM_BINS) -> Reliability:
    """Bins of (N,) confidences; fewer bins where there are less than ``ROWS_PER_BIN`` rows for each.

    Raises:
        DataError: E1402 for no rows.
    """
    if not len(confidence):
        raise nothing_to_score()
    order = np.argsort(confidence, kind="stable")
    parts = np.array_split(order, max(1, min(num_bins, len(order) // ROWS_PER_BIN)))
    return Reliability(
        np.array([confidence[part].mean() for part in parts]), np.array([right[part].mean() for part in parts]),
        np.array([len(part) for part in parts], dtype=np.float64),
    )


def expected_calibration_error(
    confidence: FloatArray, right: BoolArray, *, seed: int, num_resamples: int = 200, level: float = 0.95
) -> Interval:
    """With a percentile bootstrap interval.

    The value is biased upwards on few rows: noise in a bin counts as error. The resamples carry that noise
    twice, so the interval is moved down by their mean excess over the value, and cut at 0.
    """
    value = reliability(confidence, right).expected_error
    random = generator(seed, "expected calibration error")
    draws = random.integers(0, len(right), size=(num_resamples, len(right)))
    values = np.array([reliability(confidence[draw], right[draw]).expected_error for draw in draws])
    moved = values - (values.mean() - value)
    low, high = np.quantile(moved, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, max(0.0, min(value, float(low))), max(value, float(high)), level)


def squared_errors(confidence: FloatArray, right: BoolArray) -> FloatArray:
    """(N,) squared distance of each confidence to what happened; their mean is Brier's score (1950)."""
    return np.asarray((confidence - right) ** 2)
