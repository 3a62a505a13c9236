"""Risk and coverage: by hand, against brute force, with ties, and with rows that are never accepted."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from treetune.core.errors import DataError
from treetune.metrics.selective import (
    area_under_risk_coverage,
    areas_of_draws,
    auroc,
    prediction_rejection_ratio,
    risk_coverage,
)

rows = st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=1, max_size=30)


def test_the_curve_by_hand() -> None:
    curve = risk_coverage(np.array([0.9, 0.5, 0.9, -np.inf, 0.1]), np.array([False, True, False, True, False]))
    assert curve.thresholds.tolist() == [0.9, 0.5, 0.1]
    assert curve.num_accepted.tolist() == [2, 3, 4]
    assert curve.num_wrong.tolist() == [0, 1, 1]
    assert curve.coverage.tolist() == [0.4, 0.6, 0.8]
    assert curve.risk.tolist() == pytest.approx([0, 1 / 3, 1 / 4])


def test_areas_by_hand() -> None:
    wrong = np.array([False, False, True, True])
    assert area_under_risk_coverage(np.array([4.0, 3, 2, 1]), wrong) == pytest.approx((1 / 3 + 1 / 2) / 4)
    assert area_under_risk_coverage(np.zeros(4), wrong) == pytest.approx(0.5)
    assert prediction_rejection_ratio(np.array([4.0, 3, 2, 1]), wrong) == pytest.approx(1)
    assert prediction_rejection_ratio(np.zeros(4), wrong) == pytest.approx(0)
    assert prediction_rejection_ratio(np.array([1.0, 2, 3, 4]), wrong) < 0


@given(rows, st.integers(0, 5))
def test_areas_of_draws_are_those_of_the_rows_drawn(pairs: list[tuple[int, bool]], seed: int) -> None:
    scores, wrong = np.array([float(score) for score, _ in pairs]), np.array([bad for _, bad in pairs])
    draws = np.random.default_rng(seed).integers(0, len(pairs), size=(4, len(pairs)))
    expected = [area_under_risk_coverage(scores[draw], wrong[draw]) for draw in draws]
    assert areas_of_draws(scores, wrong, draws) == pytest.approx(expected)


@given(rows)
def test_auroc_is_the_share_of_pairs_in_order(pairs: list[tuple[int, bool]]) -> None:
    scores, wrong = np.array([float(s) for s, _ in pairs]), np.array([w for _, w in pairs])
    found = auroc(scores, wrong)
    counted = [float(good > bad) + 0.5 * float(good == bad) for good in scores[~wrong] for bad in scores[wrong]]
    assert math.isnan(found) if not counted else found == pytest.approx(np.mean(counted))


@given(rows)
def test_the_area_is_between_the_best_order_and_the_worst(pairs: list[tuple[int, bool]]) -> None:
    scores, wrong = np.array([float(s) for s, _ in pairs]), np.array([w for _, w in pairs])
    best, worst = (area_under_risk_coverage(sign * wrong.astype(float), wrong) for sign in (-1, 1))
    assert best - 1e-12 <= area_under_risk_coverage(scores, wrong) <= worst + 1e-12


@given(rows)
def test_a_rising_map_of_the_scores_changes_nothing(pairs: list[tuple[int, bool]]) -> None:
    scores, wrong = np.array([float(s) for s, _ in pairs]), np.array([w for _, w in pairs])
    assert area_under_risk_coverage(scores**3 - 5, wrong) == area_under_risk_coverage(scores, wrong)
    assert risk_coverage(scores**3, wrong).num_wrong.tolist() == risk_coverage(scores, wrong).num_wrong.tolist()


def test_no_rows_are_an_error() -> None:
    with pytest.raises(DataError, match="E1402"):
        risk_coverage(np.zeros(0), np.zeros(0, dtype=bool))
