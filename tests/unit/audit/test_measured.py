"""Holm's correction, its families, and the detectable gap."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from treetune.audit.measured import Measured, What, findings, holm, mean_or_nan
from treetune.core.records import Interval


def measured(kind: str, p_value: float | None, error: float = 0.1) -> Measured:
    return Measured(What(kind, "quality"), Interval(0.1, 0.0, 0.2), (10,), p_value, error, np.ones((3, 2)), mean_or_nan)


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_never_lowers_keeps_order_and_is_no_stricter_than_bonferroni(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    for raw, corrected in zip(p_values, adjusted, strict=True):
        assert raw <= corrected <= min(1, raw * len(p_values)) + 1e-12
    assert sorted(adjusted) == [adjusted[place] for place in np.argsort(p_values, kind="stable")]


def test_families_are_corrected_apart_and_described_numbers_are_not_tested() -> None:
    found = findings([measured("gap", 0.01), measured("gap", 0.5), measured("flip", 0.02), measured("flip", None)])
    assert [each.get("p_adjusted") for each in found] == [
        pytest.approx(0.02 / 0.7), pytest.approx(0.5 / 0.7), pytest.approx(0.02 / 0.7), None]
    assert [each.get("found") for each in found] == [True, False, True, None]
    assert found[0]["detectable"] > found[2]["detectable"]  # two tests against one


def test_the_detectable_gap_of_one_test_is_the_textbooks() -> None:
    """z(0.9825) + z(0.8) = 2.1084 + 0.8416 standard errors: of 5 % the tests use 3.5."""
    assert measured("gap", 0.5).detectable(1) == pytest.approx(0.29500, abs=1e-4)


def test_few_units_see_larger_gaps_only() -> None:
    few = replace(measured("gap", 0.5), freedom=14.0)
    assert few.detectable(20) == pytest.approx((3.856 + 0.868) * few.error, rel=1e-3)
    assert few.detectable(20) > measured("gap", 0.5).detectable(20)
