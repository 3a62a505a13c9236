"""Calibrators: each mends what it is for, none is taken without gain, all are monotone and survive JSON."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from treetune.decide.calibrate import Calibrator, choose_calibrator, fit_calibrator, isotonic_knots, venn_abers_knots
from treetune.decide.logistic import fit_logistic, log_odds, sigmoid

KINDS = ("plain", "temperature", "logistic", "isotonic")


def overconfident(count: int, factor: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Probabilities whose log-odds are ``factor`` times what they should be."""
    random = np.random.default_rng(seed)
    truth = random.uniform(0.5, 0.98, size=count)
    return sigmoid(log_odds(truth) * factor), random.uniform(size=count) >= truth, [str(n) for n in range(count)]


def test_a_boasting_probability_is_brought_down_by_its_temperature() -> None:
    scores, wrong, groups = overconfident(2000, 3.0)
    fitted = fit_calibrator("temperature", scores, wrong, True)
    assert fitted.temperature == pytest.approx(3.0, rel=0.2)
    chosen, briers = choose_calibrator(scores, wrong, groups, True)
    assert chosen.kind != "plain"
    assert briers[chosen.kind] < briers["plain"]


def test_an_honest_probability_stays_as_it_is() -> None:
    kept = [choose_calibrator(*overconfident(400, 1.0, seed), True)[0].kind == "plain" for seed in range(5)]
    assert sum(kept) >= 4


def test_a_score_that_is_no_probability_is_always_mapped() -> None:
    scores, wrong, groups = overconfident(300, 1.0)
    chosen, briers = choose_calibrator(np.log(scores), wrong, groups, False)
    assert chosen.kind in ("logistic", "isotonic")
    assert set(briers) == {"logistic", "isotonic"}


@pytest.mark.parametrize("kind", KINDS)
def test_confidence_rises_with_the_score_and_survives_json(kind: str) -> None:
    scores, wrong, _ = overconfident(300, 2.0)
    fitted = fit_calibrator(kind, scores, wrong, True)
    grid = np.linspace(0, 1, 201)
    values = fitted.confidence(grid)
    assert np.all(np.diff(values) >= -1e-12)
    assert np.all((values >= 0) & (values <= 1))
    again = Calibrator.from_dict(json.loads(json.dumps(fitted.as_dict())))
    assert again.confidence(grid).tolist() == values.tolist()


@given(st.lists(st.tuples(st.integers(0, 8), st.booleans()), min_size=1, max_size=40))
def test_isotonic_is_the_best_rising_step_function(pairs: list[tuple[int, bool]]) -> None:
    scores, right = np.array([float(s) for s, _ in pairs]), np.array([r for _, r in pairs])
    expected = IsotonicRegression().fit(scores, right.astype(float)).predict(scores)
    doubt = 1 / (len(pairs) + 2)
    fitted = Calibrator("isotonic", True, knots=isotonic_knots(scores, right))
    assert fitted.confidence(scores) == pytest.approx(np.clip(expected, doubt, 1 - doubt), abs=1e-9)


def test_logistic_regression_is_that_of_scikit_learn() -> None:
    random = np.random.default_rng(1)
    columns = random.normal(size=(500, 3)) * [1, 10, 0.1] + [5, 0, -3]
    positive = random.uniform(size=500) < sigmoid(columns[:, 0] - 5 + 0.2 * columns[:, 1])
    fitted = fit_logistic(columns, positive)
    standard = (columns - columns.mean(0)) / columns.std(0)
    other = LogisticRegression(C=1.0, tol=1e-10).fit(standard, positive)
    assert fitted.probability(columns) == pytest.approx(other.predict_proba(standard)[:, 1], abs=2e-3)


@pytest.mark.parametrize("outcome", [True, False])
def test_one_kind_of_outcome_and_constant_columns_do_not_break_the_fit(outcome: bool) -> None:
    fitted = fit_logistic(np.ones((20, 2)), np.full(20, outcome))
    assert fitted.probability(np.ones((1, 2)))[0] == pytest.approx((20 * outcome + 0.5) / 21, abs=1e-6)


def test_venn_abers_lies_between_its_two_isotonic_fits_and_rises() -> None:
    random = np.random.default_rng(0)
    scores = random.uniform(size=300).round(2)
    right = random.uniform(size=300) < scores
    places, values = np.array(venn_abers_knots(scores, right)).T
    assert (np.diff(places) > 0).all()
    assert (np.diff(values) >= -0.02).all()
    for place in (5, 50, 90):  # the definition, by scikit-learn with the new row added
        low, high = (IsotonicRegression().fit(np.append(scores, places[place]), np.append(right, outcome)).predict(
            [places[place]])[0] for outcome in (0, 1))
        assert low <= high
        assert values[place] == pytest.approx(high / (1 - low + high), abs=1e-9)
    assert np.abs(values - places).mean() < 0.1
