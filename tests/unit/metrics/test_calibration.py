"""Reliability: bins by hand, error by hand, intervals that hold the truth."""

import numpy as np
import pytest

from treetune.core.errors import DataError
from treetune.metrics.calibration import expected_calibration_error, reliability, squared_errors


def test_bins_hold_equal_numbers_of_rows_and_the_error_is_their_mean_gap() -> None:
    confidence = np.repeat([0.6, 0.9], 20)
    right = np.array([True] * 10 + [False] * 10 + [True] * 20)
    bins = reliability(confidence, right, num_bins=2)
    assert bins.num_rows.tolist() == [20, 20]
    assert bins.confidence.tolist() == pytest.approx([0.6, 0.9])
    assert bins.right.tolist() == [0.5, 1.0]
    assert bins.expected_error == pytest.approx(0.1)


def test_few_rows_make_few_bins() -> None:
    assert len(reliability(np.full(3, 0.5), np.ones(3, dtype=bool)).right) == 1
    assert len(reliability(np.linspace(0, 1, 45), np.ones(45, dtype=bool)).right) == 4
    with pytest.raises(DataError, match="E1402"):
        reliability(np.zeros(0), np.zeros(0, dtype=bool))


def test_a_shifted_confidence_is_seen_with_an_interval_and_a_true_one_is_near_zero() -> None:
    random = np.random.default_rng(0)
    confidence = random.uniform(0.5, 1, size=4000)
    right = random.uniform(size=4000) < confidence
    honest = expected_calibration_error(confidence, right, seed=0, num_resamples=100)
    assert honest.value < 0.03
    assert honest.low < 0.012
    boasting = expected_calibration_error(np.minimum(confidence + 0.1, 1), right, seed=0, num_resamples=100)
    assert boasting.low <= boasting.value <= boasting.high
    assert boasting.low > 0.05


def test_brier_by_hand() -> None:
    assert squared_errors(np.array([0.8, 0.3]), np.array([True, False])).tolist() == pytest.approx([0.04, 0.09])
