"""Before and after: paired, gaps by their size."""

import numpy as np
import pytest

from treetune.audit.change import changes
from treetune.audit.gaps import RowValues, measure_gaps


def test_a_gap_that_closes_is_a_change_below_zero_and_its_interval_is_paired() -> None:
    random = np.random.default_rng(0)
    groups = np.where(np.arange(600) < 300, "a", "b")
    hard = random.random(600)
    before = (hard < np.where(groups == "b", 0.5, 0.8)).astype(float)
    after = (hard < 0.8).astype(float)
    everywhere = np.ones(600, dtype=bool)
    one, other = (measure_gaps("x", groups.tolist(), [RowValues("quality", values, everywhere)], None).tests
                  for values in (before, after))
    [change] = changes(one, other)
    assert change["by_size"]
    assert change["change"] == pytest.approx(abs(change["after"]) - abs(change["before"]))
    assert change["change"] < -0.15
    assert change["low"] < change["change"] < change["high"] < 0
    [same] = changes(one, one)
    assert (same["change"], same["low"], same["high"]) == (0, 0, 0)
    assert changes([], other) == []


def test_a_gap_that_turns_round_has_shrunk_by_the_difference_of_sizes() -> None:
    groups = ["a"] * 50 + ["b"] * 50
    before = np.r_[np.ones(40), np.zeros(10), np.ones(30), np.zeros(20)]
    after = np.r_[np.ones(30), np.zeros(20), np.ones(35), np.zeros(15)]
    tests = [measure_gaps("x", groups, [RowValues("quality", values, np.ones(100, dtype=bool))], None).tests
             for values in (before, after)]
    [change] = changes(*tests)
    assert (change["before"], change["after"]) == (pytest.approx(0.2), pytest.approx(-0.1))
    assert change["change"] == pytest.approx(-0.1)
