"""Which rows a step takes is a function of (seed, step)."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from treetune.train.order import groups_of, row_chooser, steps_per_epoch, total_steps


def rows_of_step(
    num_rows: int, rows_per_step: int, seed: int, step: int, groups: np.ndarray | None = None
) -> np.ndarray:
    """By a chooser that was never asked for another step."""
    return row_chooser(num_rows, rows_per_step, seed, groups)(step)


@given(st.integers(1, 60), st.integers(1, 20), st.integers(0, 5), st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_every_epoch_shows_every_row_once_and_the_last_step_may_be_smaller(
    num_rows: int, rows_per_step: int, seed: int, epoch: int
) -> None:
    per_epoch = steps_per_epoch(num_rows, rows_per_step)
    steps = [rows_of_step(num_rows, rows_per_step, seed, epoch * per_epoch + place) for place in range(per_epoch)]
    assert sorted(np.concatenate(steps).tolist()) == list(range(num_rows))
    assert [len(step) for step in steps[:-1]] == [rows_per_step] * (per_epoch - 1)
    assert len(steps[-1]) == num_rows - rows_per_step * (per_epoch - 1)


def test_order_depends_on_seed_and_epoch_and_on_nothing_else() -> None:
    first = rows_of_step(40, 40, 0, 0)
    np.random.seed(5)
    assert np.array_equal(first, rows_of_step(40, 40, 0, 0))
    assert not np.array_equal(first, rows_of_step(40, 40, 1, 0))
    assert not np.array_equal(first, rows_of_step(40, 40, 0, 1))


def test_the_number_of_steps_follows_epochs_unless_it_is_given() -> None:
    assert total_steps(10, 4, 3.0, 0) == 9
    assert total_steps(10, 4, 0.5, 0) == 2
    assert total_steps(10, 4, 0.01, 0) == 1
    assert total_steps(10, 4, 3.0, 7) == 7
    assert total_steps(1000, 1, 0.3, 0) == 300


@given(st.lists(st.integers(0, 5), min_size=2, max_size=40), st.integers(1, 9), st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_rows_of_a_group_follow_one_another_and_all_are_shown(
    sources: list[int], rows_per_step: int, epoch: int
) -> None:
    groups = groups_of([str(source) for source in sources])
    if groups is None:
        assert len(set(sources)) == len(sources)
        return
    per_epoch = steps_per_epoch(len(sources), rows_per_step)
    order = np.concatenate([rows_of_step(len(sources), rows_per_step, 0, epoch * per_epoch + place, groups)
                            for place in range(per_epoch)])
    assert sorted(order.tolist()) == list(range(len(sources)))
    shown = [sources[row] for row in order]
    changes = sum(left != right for left, right in pairwise(shown))
    assert changes == len(set(sources)) - 1


def test_groups_and_rows_within_them_are_shuffled() -> None:
    groups = np.repeat(np.arange(20), 5)
    first, second = (rows_of_step(100, 100, seed, 0, groups) for seed in (0, 1))
    assert not np.array_equal(groups[first], groups[second])
    assert not np.array_equal(first, np.sort(first))
    inside = first[groups[first] == 3]
    assert len(inside) == 5
    assert any(not np.array_equal(first[groups[first] == group], np.sort(first[groups[first] == group]))
               for group in range(20))


@pytest.mark.parametrize("groups", [None, np.repeat(np.arange(5), 4)])
def test_a_chooser_gives_the_rows_of_any_step_and_makes_an_epoch_s_order_once(
    groups: np.ndarray | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from treetune.train import order as module

    expected = [rows_of_step(20, 3, 0, step, groups).tolist() for step in range(14)]
    made: list[int] = []
    plain = module.generator
    monkeypatch.setattr(module, "generator", lambda seed, what, epoch: made.append(epoch) or plain(seed, what, epoch))
    rows_of = row_chooser(20, 3, 0, groups)
    assert [rows_of(step).tolist() for step in range(14)] == expected
    assert made == [0, 1]
    assert rows_of(2).tolist() == expected[2], "a step back, as after a rollback"
