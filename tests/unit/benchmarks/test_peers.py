"""How peers get the rows."""

import numpy as np
import pytest

from treetune.core.records import TokenizedExample

pytestmark = pytest.mark.usefixtures("benchmark_module")  # the scripts can be imported


def row(length: int) -> TokenizedExample:
    return TokenizedExample(0, 0, np.arange(length - 2), np.array([7, 8]), 0)


def test_sorted_keeps_the_rows_of_each_step_and_grouped_those_of_the_first_two() -> None:
    from peers import order_of

    rows = [row(length) for length in (4, 9, 5, 12, 3, 7)]
    assert order_of("padded", rows, 2) == [0, 1, 2, 3, 4, 5]
    assert order_of("sorted", rows, 2) == [1, 0, 3, 2, 5, 4]
    assert order_of("grouped", rows, 1) == [0, 1, 3, 5, 2, 4]


def test_the_prompt_carries_no_loss() -> None:
    from peers import record_of

    assert record_of(row(5)) == {"input_ids": [0, 1, 2, 7, 8], "labels": [-100, -100, -100, 7, 8]}
