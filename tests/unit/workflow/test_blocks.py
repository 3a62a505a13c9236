"""Blocks of rows: every row once and in order, neighbours on one source together, and no more than a few in memory."""

import threading
import time
from collections.abc import Iterator
from itertools import groupby, islice
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from treetune.core.errors import DataError
from treetune.core.records import Example, Row
from treetune.data.refusals import Refusal
from treetune.workflow.blocks import blocks_of, count_rows, cut, in_order, stop_at_too_many

Keys = st.lists(st.integers(0, 3), max_size=60)


@given(Keys, st.integers(1, 9))
def test_every_item_comes_once_and_in_order_and_no_list_is_too_long_or_too_short(keys: list[int], size: int) -> None:
    items = list(enumerate(keys))
    parts = list(cut(items, lambda item: item[1], size))
    assert [item for part in parts for item in part] == items
    assert all(size <= len(part) < 2 * size for part in parts[:-1])
    assert all(0 < len(part) < 2 * size for part in parts)


@given(Keys, st.integers(1, 9))
def test_a_run_of_equal_keys_that_is_no_longer_than_a_block_is_not_cut_in_two(keys: list[int], size: int) -> None:
    items = list(enumerate(keys))
    runs = [[number for number, _ in run] for _, run in groupby(items, key=lambda item: item[1])]
    places = {number: place for place, part in enumerate(cut(items, lambda item: item[1], size)) for number, _ in part}
    for run in runs:
        if len(run) <= size:
            assert len({places[number] for number in run}) == 1


@given(Keys, st.integers(1, 9), st.integers(0, 60))
def test_where_it_is_cut_depends_on_what_came_before_alone(keys: list[int], size: int, length: int) -> None:
    whole = list(cut(keys, lambda key: key, size))
    begun = list(cut(keys[:length], lambda key: key, size))
    assert begun[:-1] == whole[: max(0, len(begun) - 1)]


@given(st.lists(st.integers(), max_size=30), st.integers(0, 4), st.integers(1, 6))
def test_answers_come_in_the_order_of_the_items_however_many_are_asked(
    items: list[int], num_askers: int, ahead: int
) -> None:
    assert list(in_order(items, lambda item: item * 2, num_askers, ahead)) == [(item, item * 2) for item in items]


def test_the_first_to_be_ready_waits_for_those_before_it() -> None:
    go = threading.Event()

    def ask(item: int) -> int:
        if item == 0:
            assert go.wait(10)
        else:
            go.set()
        return item

    assert [item for item, _ in in_order(range(4), ask, 2, 4)] == [0, 1, 2, 3]


def test_what_an_asker_raises_comes_out_and_later_items_are_not_asked() -> None:
    asked: list[int] = []

    def ask(item: int) -> int:
        asked.append(item)
        if item == 1:
            raise DataError("E1301", "too long")
        time.sleep(0.001)
        return item

    with pytest.raises(DataError):
        list(in_order(range(1000), ask, 2, 4))
    assert len(asked) < 10


def example(number: int, source: str) -> tuple[Row, Example]:
    row = Row({"text": source}, "rows.jsonl", number + 1, number, "test")
    return row, Example(number, str(number), "test", (), "", (), {}, source, "en")


@pytest.mark.parametrize("num_askers", [0, 2])
def test_rows_in_memory_do_not_grow_with_the_file(num_askers: int) -> None:
    """A counter of rows that were read and are not yet handed out: the same for ten times as many rows."""
    size, ahead = 5, 4

    def most_alive(num_rows: int) -> int:
        read, most, written = 0, 0, 0

        def rows() -> Iterator[tuple[Row, Example]]:
            nonlocal read, most
            for number in range(num_rows):
                read += 1
                most = max(most, read - written)
                yield example(number, f"text {number}")

        for block, count in in_order(blocks_of(rows(), size), lambda block: len(block.rows), num_askers, ahead):
            assert count == len(block.rows)
            written += count
        assert written == num_rows
        return most

    assert most_alive(200) == most_alive(2000) <= (ahead + 1) * (2 * size - 1) + 1


def refusal(number: int) -> Refusal:
    return Refusal("rows.jsonl", number, "", "E1110", "this is not valid JSON", "{")


def test_refused_rows_are_counted_and_listed_and_leave_no_gap_in_the_blocks(tmp_path: Path) -> None:
    found = [example(0, "a"), refusal(2), example(1, "b"), refusal(4), example(2, "c")]
    quarantine = tmp_path / "q.jsonl"
    counted = count_rows(found, quarantine)
    assert (counted.rows, counted.refused) == (3, 2)
    assert len(quarantine.read_text("utf-8").splitlines()) == 2
    assert [[row.number for row in block.rows] for block in blocks_of(found, 2)] == [[0, 1], [2]]
    stop_at_too_many(counted, ("rows.jsonl",), 0.4, quarantine)
    with pytest.raises(DataError, match="2 of 5 rows cannot be used"):
        stop_at_too_many(counted, ("rows.jsonl",), 0.3, quarantine)
    count_rows(found[:1], quarantine)
    assert not quarantine.exists(), "an older list would mislead"


def test_of_many_refusals_a_few_are_kept() -> None:
    counted = count_rows((refusal(number) for number in range(1000)), None)
    assert counted.refused == 1000
    assert len(counted.first) == 10
    with pytest.raises(DataError, match=r"1000 of 1000[\s\S]*\+990"):
        stop_at_too_many(counted, ("rows.jsonl",), 1.0, None)


def test_blocks_are_numbered_so_that_some_can_be_passed_over() -> None:
    rows = [example(number, "same" if number < 3 else str(number)) for number in range(7)]
    blocks = list(blocks_of(rows, 2))
    assert [len(block.rows) for block in blocks] == [3, 2, 2]
    assert [block.number for block in islice(blocks_of(rows, 2), 1, None)] == [1, 2]
