"""Exact binomial statements: the published table, their inversion, and that they hold as often as they say."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from treetune.metrics.risk import accepted_rows_needed, risk_p_values, upper_bounds

# fewest accepted rows for k wrong ones at 95 % confidence: (max error, k) -> n
TABLE = {(0.01, 0): 299, (0.01, 1): 473, (0.02, 0): 149, (0.02, 5): 523, (0.05, 0): 59, (0.05, 1): 93, (0.05, 2): 124,
         (0.05, 10): 336, (0.05, 20): 577, (0.10, 0): 29, (0.10, 5): 103}


@pytest.mark.parametrize(("case", "fewest"), TABLE.items())
def test_the_fewest_rows_are_those_of_the_binomial_table(case: tuple[float, int], fewest: int) -> None:
    max_error, wrong = case
    assert risk_p_values(wrong, fewest, max_error) <= 0.05 < risk_p_values(wrong, fewest - 1, max_error)


def test_the_p_value_is_the_sum_of_the_binomial_terms() -> None:
    from math import comb

    expected = sum(comb(40, k) * 0.1**k * 0.9 ** (40 - k) for k in range(4))
    assert risk_p_values(3, 40, 0.1) == pytest.approx(expected, rel=1e-12)


def test_nothing_accepted_or_everything_wrong_proves_nothing() -> None:
    assert risk_p_values([0, 7], [0, 7], 0.05).tolist() == [1.0, 1.0]
    assert upper_bounds([0, 7], [0, 7], 0.95).tolist() == [1.0, 1.0]


@given(st.integers(1, 400), st.floats(0, 1), st.floats(0.005, 0.5), st.floats(0.5, 0.995))
def test_the_bound_and_the_p_value_say_the_same(count: int, share: float, max_error: float, confidence: float) -> None:
    wrong = round(share * count)
    bound, p_value = upper_bounds(wrong, count, confidence), risk_p_values(wrong, count, max_error)
    assert wrong / count <= bound <= 1
    if abs(float(bound) - max_error) > 1e-9:
        assert (bound <= max_error) == (p_value <= 1 - confidence)


@given(st.integers(1, 200), st.integers(0, 200), st.floats(0.01, 0.4))
def test_more_errors_never_prove_more_and_more_right_rows_never_less(count: int, wrong: int, max_error: float) -> None:
    wrong = min(wrong, count)
    here = risk_p_values(wrong, count, max_error)
    assert risk_p_values(wrong + 1, count + 1, max_error) >= here - 1e-12
    assert risk_p_values(wrong, count + 1, max_error) <= here + 1e-12


@pytest.mark.parametrize("rate", [0.05, 0.02, 0.5])
def test_p_values_are_small_no_more_often_than_they_say(rate: float) -> None:
    draws = np.random.default_rng(4).binomial(150, max(rate, 0.05), size=20_000)
    p_values = risk_p_values(draws, np.full(len(draws), 150), 0.05)
    for level in (0.01, 0.05, 0.2):
        assert (p_values <= level).mean() <= level + 3 * np.sqrt(level * (1 - level) / len(draws))


@settings(max_examples=40, deadline=None)
@given(st.sampled_from([0.01, 0.05, 0.1, 0.3]), st.floats(0, 0.9), st.sampled_from([0.8, 0.95, 0.99]))
def test_the_rows_needed_pass_and_one_less_does_not(max_error: float, part: float, confidence: float) -> None:
    rate = part * max_error
    needed = accepted_rows_needed(max_error, confidence, rate)
    assert needed is not None

    def passes(count: int) -> bool:
        return bool(risk_p_values(np.ceil(count * rate - 1e-9), count, max_error) <= 1 - confidence)

    assert passes(needed)
    assert not any(passes(count) for count in range(max(1, needed - 30), needed))


def test_no_number_of_rows_proves_what_is_not_so() -> None:
    assert accepted_rows_needed(0.05, 0.95, 0.05) is None
    assert accepted_rows_needed(0.05, 0.95, 0.2) is None
    assert accepted_rows_needed(0.05, 0.95, 0.04999) is None  # more rows than anybody has
    assert accepted_rows_needed(0.05, 0.95) == 59
