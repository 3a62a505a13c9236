"""Holm's correction, its families, and the detectable gap."""

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
    found = findings([measured("gap", 0.02), measured("gap", 0.5), measured("flip", 0.02), measured("flip", None)])
    assert [each.get("p_adjusted") for each in found] == [0.04, 0.5, 0.02, None]
    assert [each.get("found") for each in found] == [True, False, True, None]
    assert found[0]["detectable"] > found[2]["detectable"]  # two tests against one


def test_the_detectable_gap_of_one_test_is_the_textbooks() -> None:
    """z(0.975) + z(0.8) = 2.8016 standard errors."""
    assert measured("gap", 0.5).detectable(1) == pytest.approx(0.28016, abs=1e-4)
