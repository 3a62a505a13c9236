"""Passes hold every row once, keep to both limits, and stand rows of one source together."""

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from treetune.core.records import TokenizedExample
from treetune.trees.passes import packed_passes, passes, source_passes, source_tokens

LENGTHS = st.lists(st.integers(1, 40), max_size=30)


@given(LENGTHS, st.integers(1, 7), st.integers(1, 120))
def test_rows_come_once_and_neighbours_are_of_like_length(lengths: list[int], rows: int, tokens: int) -> None:
    for cut, size in ((passes, lambda run: len(run) * max(lengths[place] for place in run)),
                      (packed_passes, lambda run: sum(lengths[place] for place in run))):
        runs = list(cut(lengths, rows, tokens))
        order = [place for run in runs for place in run]
        assert sorted(order) == list(range(len(lengths)))
        assert [lengths[place] for place in order] == sorted(lengths)
        assert all(len(run) == 1 or (len(run) <= rows and size(run) <= tokens) for run in runs)
        for run, after in pairwise(runs):  # a pass is closed only when it is full
            assert len(run) == rows or size([*run, after[0]]) > tokens


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(1, 6)), max_size=20), st.integers(1, 5), st.integers(4, 60))
def test_rows_of_one_source_stand_together(rows: list[tuple[int, int]], per_pass: int, tokens: int) -> None:
    made = [TokenizedExample(number, 0, np.arange(source + 1), np.arange(answer), 0)
            for number, (source, answer) in enumerate(rows)]
    runs = list(source_passes(made, per_pass, tokens))
    order = [place for run in runs for place in run]
    assert sorted(order) == list(range(len(rows)))
    assert [rows[place][0] for place in order] == sorted(source for source, _ in rows)
    for run in runs:
        assert len(run) == 1 or (len(run) <= per_pass and sum(source_tokens([made[place] for place in run])) <= tokens)


def test_a_source_counts_once_in_a_pass() -> None:
    row = TokenizedExample(0, 0, np.arange(5), np.arange(2), 0)
    assert source_tokens([row, row, row]) == (5, 6)
