"""The one place that divides."""

import numpy as np
import pytest

from treetune.core.errors import DataError
from treetune.metrics.statistics import mean_statistics, ratio, require_rows


def test_the_value_is_the_sum_over_the_count() -> None:
    statistics = mean_statistics([1.0, 0.0, 0.5], "x")
    assert statistics.value() == 0.5
    assert statistics.count == 3
    assert statistics.rows.tolist() == [[1, 1], [0, 1], [0.5, 1]]


def test_ratio_takes_one_line_or_many() -> None:
    assert ratio(np.array([3.0, 4.0])) == 0.75
    assert ratio(np.array([[3.0, 4.0], [1.0, 2.0]])).tolist() == [0.75, 0.5]


def test_nothing_is_not_a_number() -> None:
    for act in (lambda: mean_statistics([], "x"), lambda: ratio(np.zeros(2)), lambda: require_rows([], [])):
        with pytest.raises(DataError, match="E1402"):
            act()


def test_one_list_of_references_an_answer() -> None:
    with pytest.raises(ValueError, match="2 answers for 1"):
        require_rows(["a", "b"], [["a"]])
