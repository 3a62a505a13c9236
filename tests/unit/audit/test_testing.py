"""Tests and intervals: against scipy, against known answers, and right as often as they say."""

import itertools
import operator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, fisher_exact, ttest_ind

from treetune.audit.testing import (
    against_half,
    compare_groups,
    fisher,
    mean_interval,
    newcombe,
    permutation,
    robust_t,
    sign_test,
    two_sample_rows,
    welch_freedom,
)


def sample(seed: int, count: int = 80, shift: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    inside = np.arange(count) < count // 3
    return random.normal(size=count) + shift * inside, inside


def test_fisher_is_that_of_scipy() -> None:
    values = np.array([1, 1, 1, 0, 0, 0, 0, 1, 0, 0], dtype=float)
    inside = np.arange(10) < 4
    assert fisher(values, inside) == pytest.approx(fisher_exact([[3, 1], [1, 5]])[1])


def test_newcombe_gives_the_published_example() -> None:
    """Newcombe 1998, table II, method 10: 56/70 against 48/80 is 0.2 [0.0524, 0.3339]."""
    interval = newcombe(56 / 70, 70, 48 / 80, 80)
    assert (interval.low, interval.high) == (pytest.approx(0.0524, abs=1e-4), pytest.approx(0.3339, abs=1e-4))


@given(st.integers(0, 30), st.integers(0, 40))
@settings(deadline=None)
def test_newcombe_holds_the_difference_and_turns_with_it(right: int, other: int) -> None:
    one = newcombe(right / 30, 30, other / 40, 40)
    turned = newcombe(other / 40, 40, right / 30, 30)
    assert -1 <= one.low <= one.value <= one.high <= 1
    assert (turned.low, turned.high) == (pytest.approx(-one.high), pytest.approx(-one.low))


def test_robust_t_without_clusters_is_close_to_welch() -> None:
    values, inside = sample(1, 400, 0.2)
    welch = ttest_ind(values[inside], values[~inside], equal_var=False).pvalue
    assert robust_t(values, inside, None) == pytest.approx(welch, rel=0.1)


def test_a_cluster_of_equal_rows_counts_once() -> None:
    values, inside = sample(2, 60, 0.8)
    twice, mixed = np.repeat(values, 5), np.repeat(inside, 5)
    cluster = np.repeat(np.arange(60), 5).tolist()
    alone = compare_groups(values, inside, None, 0)
    together = compare_groups(twice, mixed, cluster, 0)
    assert together.error == pytest.approx(alone.error, rel=1e-9)
    assert together.p_value == pytest.approx(alone.p_value, abs=0.01)
    assert compare_groups(twice, mixed, None, 0).error < together.error / 2


def test_clusters_that_stand_in_both_groups_are_compared_inside() -> None:
    random = np.random.default_rng(0)
    passage = np.repeat(random.normal(scale=5, size=50), 4)
    inside = np.tile([True, True, False, False], 50)
    values = passage + 0.5 * inside + random.normal(scale=0.5, size=200)
    cluster = np.repeat(np.arange(50), 4).tolist()
    assert compare_groups(values, inside, cluster, 0).p_value < 0.001
    assert compare_groups(values, inside, None, 0).p_value > 0.05


def test_p_values_without_a_difference_are_not_too_often_small() -> None:
    small = [permutation(two_sample_rows(*sample(seed, 45)), seed) < 0.05 for seed in range(300)]
    assert sum(small) <= binomtest(15, 300).proportion_ci(0.999).high * 300
    assert sum(small) >= 3


def test_a_hopeless_permutation_test_ends_early_and_a_clear_one_does_not() -> None:
    values, inside = sample(3)
    assert (permutation(two_sample_rows(values, inside), 0) * 1000) % 1 == pytest.approx(0, abs=1e-9)
    assert permutation(two_sample_rows(values + 5 * inside, inside), 0) == pytest.approx(1 / 10_000)


def test_few_units_are_dealt_in_every_way() -> None:
    values, inside = np.array([3.0, 4.0, 5.0, 0.0, 1.0, 2.0]), np.arange(6) < 3
    rows = two_sample_rows(values, inside)
    assert permutation(rows, 0) == permutation(rows, 1) == pytest.approx(2 / 20)
    observed = ttest_ind(values[:3], values[3:], equal_var=False).statistic
    ways = [np.isin(np.arange(6), chosen) for chosen in itertools.combinations(range(6), 3)]
    as_far = [abs(ttest_ind(values[way], values[~way], equal_var=False).statistic) >= observed - 1e-9 for way in ways]
    assert sum(as_far) == 2


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=9))
@settings(deadline=None)
def test_all_signs_are_turned(differences: list[int]) -> None:
    sums = [abs(sum(map(operator.mul, signs, differences)))
            for signs in itertools.product((1, -1), repeat=len(differences))]
    expected = np.mean([each >= abs(sum(differences)) for each in sums])
    assert sign_test(np.array(differences, dtype=float), 0) == pytest.approx(expected)


def test_degrees_of_freedom_are_welchs() -> None:
    assert welch_freedom(8, 8) == pytest.approx(14)
    assert 5 < welch_freedom(6, 30) < 8


def test_signs_and_halves() -> None:
    assert sign_test(np.ones(14), 0) == 2 / 2**14
    assert sign_test(np.ones(40), 0) == pytest.approx(1e-4)
    assert sign_test(np.array([1.0, -1.0] * 10), 0) > 0.9
    interval, p_value = against_half(60, 100)
    assert p_value == pytest.approx(binomtest(60, 100).pvalue)
    assert (interval.low, interval.high) == (pytest.approx(0.4972, abs=1e-4), pytest.approx(0.6967, abs=1e-4))


def test_an_interval_of_all_right_is_not_certain() -> None:
    assert mean_interval(np.ones(40), 0).low < 0.95
    result = compare_groups(np.ones(80), np.arange(80) < 40, None, 0)
    assert result.interval.low < 0 < result.interval.high
    assert result.error > 0
    assert result.p_value == 1
