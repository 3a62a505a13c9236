"""The walk over thresholds: valid as often as it says, strong where the score is good, silent where it is not."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from treetune.decide.sequence import Promise, Walk, rows_needed, thresholds_to_test, walk

DRAWS = 400
Rows = tuple[np.ndarray, np.ndarray]


def draw(random: np.random.Generator, count: int, slope: float, base: float, digits: int = 9) -> Rows:
    """Scores uniform on (0, 1); an answer of score s is wrong with chance base * (1 - s) ** slope (slope 0: random)."""
    scores = np.round(random.uniform(size=count), digits)
    return scores, random.uniform(size=count) < base * (1 - scores) ** slope


def true_risk(threshold: float, slope: float, base: float) -> float:
    """Mean of base * (1 - s) ** slope over s in [threshold, 1]."""
    return base * (1 - threshold) ** slope / (slope + 1)


def gate(random: np.random.Generator, slope: float, base: float, promise: Promise, count: int = 400) -> Walk:
    tune, calibration = draw(random, count * 2 // 3, slope, base), draw(random, count, slope, base)
    return walk(thresholds_to_test(*tune, count, promise), *calibration, promise)


@pytest.mark.parametrize(("slope", "base", "max_error", "confidence"), [
    (0.0, 0.0505, 0.05, 0.95),  # random score, just not allowed: accepting anything at all is a violation
    (0.0, 0.30, 0.05, 0.95), (1.0, 0.30, 0.05, 0.95), (1.0, 0.60, 0.10, 0.90), (3.0, 0.90, 0.05, 0.80),
    (3.0, 0.50, 0.02, 0.95),
])
def test_the_bound_is_broken_no_more_often_than_promised(
    slope: float, base: float, max_error: float, confidence: float
) -> None:
    random, promise = np.random.default_rng(7), Promise(max_error, confidence)
    broken = 0
    for _ in range(DRAWS):
        threshold = gate(random, slope, base, promise).threshold
        broken += threshold is not None and true_risk(threshold, slope, base) > max_error
    delta = promise.failure_chance
    assert broken / DRAWS <= delta + 3 * np.sqrt(delta * (1 - delta) / DRAWS)


def test_choosing_and_testing_on_the_same_rows_would_be_caught() -> None:
    """The check above can fail: the best-looking threshold of the calibration rows themselves breaks the bound."""
    random, promise, broken = np.random.default_rng(8), Promise(0.05, 0.95), 0
    for _ in range(300):
        scores, wrong = draw(random, 400, 0.0, 0.055)
        order = np.sort(scores)[::-1]
        tests = [walk(order[place:place + 1], scores, wrong, promise).threshold for place in range(30, 400, 10)]
        broken += any(found is not None for found in tests)
    assert broken / 300 > 0.08


def test_a_good_score_is_accepted_nearly_as_far_as_the_truth_allows() -> None:
    random, promise = np.random.default_rng(9), Promise(0.05, 0.95)
    slope, base = 3.0, 0.5
    best = (0.05 * (slope + 1) / base) ** (1 / slope)  # share accepted by who knows the truth
    shares = []
    for _ in range(200):
        threshold = gate(random, slope, base, promise, 1000).threshold
        shares.append(0.0 if threshold is None else 1 - threshold)
    assert 0.8 * best <= np.mean(shares) <= best


def test_a_random_score_accepts_all_or_nothing() -> None:
    random, promise = np.random.default_rng(10), Promise(0.05, 0.95)
    assert sum(gate(random, 0.0, 0.2, promise).threshold is not None for _ in range(300)) == 0
    shares = [1 - (gate(random, 0.0, 0.005, promise).threshold or 0.0) for _ in range(50)]
    assert np.mean(shares) > 0.9


def test_ties_are_accepted_together() -> None:
    random, promise = np.random.default_rng(11), Promise(0.1, 0.9)
    tune, calibration = draw(random, 300, 1.0, 0.3, digits=1), draw(random, 300, 1.0, 0.3, digits=1)
    found = walk(thresholds_to_test(*tune, 300, promise), *calibration, promise)
    assert set(found.thresholds) <= set(np.round(np.arange(11) / 10, 1))
    for threshold, accepted, wrong in zip(found.thresholds, found.num_accepted, found.num_wrong, strict=True):
        inside = calibration[0] >= threshold
        assert (accepted, wrong) == (inside.sum(), (inside & calibration[1]).sum())


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 80), st.integers(1, 80), st.sampled_from([0.0, 0.1, 0.5, 1.0]))
def test_the_walk_ends_at_the_first_failure(seed: int, num_tune: int, count: int, base: float) -> None:
    random, promise = np.random.default_rng(seed), Promise(0.2, 0.8)
    order = thresholds_to_test(*draw(random, num_tune, 1.0, base), count, promise)
    assert np.all(np.diff(order) < 0)
    found = walk(order, *draw(random, count, 1.0, base), promise)
    passed = found.p_values <= promise.failure_chance
    assert passed[:-1].all()
    assert passed[-1] == (len(found.thresholds) == len(order) and found.threshold is not None) or not passed[-1]
    if found.threshold is None:
        assert len(found.thresholds) == 1
        assert found.place == 0
    else:
        assert found.threshold == found.thresholds[found.place]
        assert passed[found.place]


def test_rows_without_a_usable_score_are_never_accepted() -> None:
    promise = Promise(0.05, 0.95)
    nothing = np.full(100, -np.inf)
    order = thresholds_to_test(nothing, np.zeros(100, dtype=bool), 100, promise)
    found = walk(order, nothing, np.zeros(100, dtype=bool), promise)
    assert found.threshold is None
    assert found.num_accepted.tolist() == [0]
    assert rows_needed(nothing, np.zeros(100, dtype=bool), promise).calibration is None


def test_the_rows_said_to_be_needed_are_about_what_it_takes() -> None:
    random, promise = np.random.default_rng(12), Promise(0.05, 0.95)
    few = draw(random, 60, 3.0, 0.5)
    assert walk(thresholds_to_test(*few, 40, promise), *draw(random, 40, 3.0, 0.5), promise).threshold is None
    needed = rows_needed(*draw(random, 2000, 3.0, 0.5), promise)
    assert needed.accepted_if_flawless == 59
    assert needed.calibration is not None
    worked = sum(gate(random, 3.0, 0.5, promise, 2 * needed.calibration).threshold is not None for _ in range(100))
    hopeless = sum(gate(random, 3.0, 0.5, promise, needed.calibration // 2).threshold is not None for _ in range(100))
    assert worked > 80
    assert hopeless < 50


def test_where_no_number_of_rows_would_do_none_is_named() -> None:
    needed = rows_needed(*draw(np.random.default_rng(13), 2000, 0.0, 0.3), Promise(0.05, 0.95))
    assert (needed.calibration, needed.accepted, needed.accepted_if_flawless) == (None, None, 59)
