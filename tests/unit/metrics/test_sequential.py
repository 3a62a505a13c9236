"""Tests that may be looked at after every row: fair bets, few false alarms, quick true ones, bounds that hold."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from treetune.metrics.sequential import (
    NUM_BETS,
    ChangeMartingale,
    bets,
    confidence_sequence,
    first_alarm,
    risk_evidence,
)


def test_every_bet_is_fair() -> None:
    from scipy.integrate import quad

    for place in range(NUM_BETS):
        low, high = (quad(lambda p, own=place: bets(p)[own], *ends)[0] for ends in ((0, 0.5), (0.5, 1)))
        assert low + high == pytest.approx(1, abs=1e-3)


@given(st.floats(1e-6, 1))
def test_no_bet_loses_more_than_it_has(p_value: float) -> None:
    assert min(bets(p_value)) > 0


def capital_of(p_values: np.ndarray) -> float:
    own, highest = ChangeMartingale(), 0.0
    for p_value in p_values:
        highest = max(highest, own.update(float(p_value)))
    return highest


def test_quiet_streams_rarely_alarm_and_changes_are_seen_early_and_late() -> None:
    random = np.random.default_rng(0)
    false = sum(capital_of(random.uniform(size=200)) >= 20 for _ in range(200))
    assert false <= 200 * 0.05 + 3 * np.sqrt(200 * 0.05 * 0.95)
    for quiet in (0, 300):
        assert capital_of(np.concatenate([random.uniform(size=quiet), random.beta(0.4, 1.5, size=80)])) >= 100


def test_capital_starts_at_one_and_survives_extremes() -> None:
    own = ChangeMartingale()
    assert own.capital == 1
    for _ in range(5000):
        own.update(1e-12)
    assert np.isfinite(own.capital)


def test_risk_evidence_is_small_within_the_bound_and_large_beyond() -> None:
    random = np.random.default_rng(1)
    within = [risk_evidence(random.uniform(size=300) < 0.05, 0.05).max() >= 20 for _ in range(300)]
    assert np.mean(within) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 300)
    assert first_alarm(risk_evidence(random.uniform(size=300) < 0.3, 0.05), 0.01) is not None
    assert first_alarm(risk_evidence(np.zeros(300, dtype=bool), 0.05), 0.01) is None


def test_the_confidence_sequence_holds_at_every_time_together() -> None:
    random, missed = np.random.default_rng(2), 0
    for _ in range(100):
        wrong = np.cumsum(random.uniform(size=120) < 0.2)
        missed += any(not low <= 0.2 <= high for low, high in (
            confidence_sequence(int(wrong[n - 1]), n, 0.9) for n in range(1, 121, 7)))
    assert missed <= 10 + 3 * 3
    assert confidence_sequence(0, 0, 0.95) == (0.0, 1.0)
    low, high = confidence_sequence(0, 100, 0.95)
    assert low == 0
    assert 0.03 < high < 0.1


@given(st.integers(1, 300).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.floats(0.5, 0.99))
def test_the_share_seen_is_always_inside(counts: tuple[int, int], confidence: float) -> None:
    low, high = confidence_sequence(*counts, confidence)
    assert low <= counts[0] / counts[1] <= high


def test_mapie_agrees_that_harm_is_seen_and_quiet_is_quiet() -> None:
    """A second opinion with a looser bound: where MAPIE sees a harmful shift, we saw it no later."""
    monitoring = pytest.importorskip("mapie.exchangeability_testing").RiskMonitoring
    random = np.random.default_rng(3)
    for rate, harmful in ((0.02, False), (0.5, True)):
        wrong = random.uniform(size=400) < rate
        monitor = monitoring(risk="accuracy", threshold=0.05, test_level=0.02, warn=False)
        monitor.update(np.ones(400, dtype=int), (~wrong).astype(int))
        theirs = first_alarm(monitor.online_risk_lower_bound_sequence_history > 0.05, 1.0)
        ours = first_alarm(risk_evidence(wrong, 0.05), 0.01)
        assert (theirs is not None) == harmful
        assert (ours is not None) == harmful
        if theirs is not None and ours is not None:
            assert ours <= theirs
