"""Splitting by group, duplicates and leakage."""

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from treetune.core.errors import DataError, UsageError
from treetune.core.records import Row
from treetune.data import Overlap, duplicates, group_by, leakage, split_off


def rows_of(*texts: object, split: str = "train") -> list[Row]:
    return [Row({"text": text}, "a.csv", n + 2, n, split) for n, text in enumerate(texts)]


group_of: Callable[[Row], str] = group_by(["text"])


SOME_GROUPS = st.lists(st.integers(0, 12), min_size=2, max_size=60).filter(lambda keys: len(set(keys)) > 1)


@given(groups=SOME_GROUPS, share=st.floats(0.01, 0.99), seed=st.integers(0, 3))
@settings(max_examples=150, deadline=None)
def test_groups_stay_together_and_both_sides_get_rows(groups: list[int], share: float, seed: int) -> None:
    rows = rows_of(*groups)
    kept, off = split_off(rows, share, seed, group_of)
    assert kept
    assert off
    assert sorted(row.number for row in kept + off) == list(range(len(rows)))
    assert not {row.values["text"] for row in kept} & {row.values["text"] for row in off}
    for side, name in ((kept, "train"), (off, "validation")):
        assert [row.number for row in side] == sorted(row.number for row in side)
        assert {row.split for row in side} == {name}


@given(order=st.permutations(range(30)))
@settings(max_examples=30, deadline=None)
def test_the_order_of_the_rows_does_not_matter(order: list[int]) -> None:
    texts = [f"text {n % 17}" for n in range(30)]
    off = split_off(rows_of(*texts), 0.2, 0, group_of)[1]
    shuffled = split_off(rows_of(*[texts[n] for n in order]), 0.2, 0, group_of)[1]
    assert {row.values["text"] for row in shuffled} == {row.values["text"] for row in off}


def test_the_share_is_met_where_groups_are_small() -> None:
    assert len(split_off(rows_of(*range(1000)), 0.1, 0, group_of)[1]) == 100
    assert len(split_off(rows_of(*range(3)), 0.01, 0, group_of)[1]) == 1
    assert len(split_off(rows_of(*range(3)), 0.99, 0, group_of)[0]) == 1


def test_a_large_group_stays_with_training() -> None:
    kept, off = split_off(rows_of(*["passage"] * 90, *["short"] * 2), 0.01, 0, group_of)
    assert (len(kept), len(off)) == (90, 2)


def test_adding_rows_moves_few_others() -> None:
    before = {row.number for row in split_off(rows_of(*range(1000)), 0.1, 0, group_of)[1]}
    after = {row.number for row in split_off(rows_of(*range(1100)), 0.1, 0, group_of)[1]}
    assert len(before - after) < 20


def test_another_seed_splits_differently() -> None:
    rows = rows_of(*range(100))
    assert split_off(rows, 0.1, 0, group_of) == split_off(rows, 0.1, 0, group_of)
    assert split_off(rows, 0.1, 0, group_of) != split_off(rows, 0.1, 1, group_of)


def test_the_split_off_rows_carry_the_name_they_are_given() -> None:
    assert split_off(rows_of(1, 2), 0.5, 0, group_of, name="calibration")[1][0].split == "calibration"


@pytest.mark.parametrize("texts", [[], ["a"], ["a", "A "]])
def test_one_group_cannot_be_split(texts: list[str]) -> None:
    with pytest.raises(DataError, match="E1130"):
        split_off(rows_of(*texts), 0.5, 0, group_of)


@pytest.mark.parametrize("share", [0, 1, -0.1, float("nan")])
def test_a_share_out_of_bounds_is_a_mistake_of_usage(share: float) -> None:
    with pytest.raises(UsageError, match="E1131"):
        split_off(rows_of(1, 2), share, 0, group_of)


def test_duplicates_are_seen_through_width_case_and_white_space() -> None:
    texts = ["Good  film", "good film", "ＧＯＯＤ\tfilm ", "bad", "", None, ""]
    rows = rows_of(*texts, ["a", "B"], ["A", "b "], ["ab"])
    assert duplicates(rows, ["text"]) == Overlap(
        3, (("train:0", "train:1"), ("train:0", "train:2"), ("train:7", "train:8"))
    )


def test_only_three_examples_are_kept() -> None:
    overlap = duplicates(rows_of(*["a"] * 9), ["text"])
    assert (overlap.count, len(overlap.examples)) == (8, 3)


def test_leakage_counts_rows_of_the_second_set() -> None:
    train, test = rows_of("a", "A", "b", ""), rows_of("a ", "c", "a", "", split="test")
    assert leakage(train, test, ["text"]) == Overlap(2, (("train:0", "test:0"), ("train:0", "test:2")))
    assert leakage(test, train, ["text"]).count == 2
    assert leakage(train, [], ["text"]) == Overlap(0, ())


def test_all_columns_count() -> None:
    rows = [Row({"a": "x", "b": text}, "f", 1, n, "train") for n, text in enumerate(["1", "2", "1"])]
    assert duplicates(rows, ["a", "b"]).count == 1
    assert duplicates(rows, ["a"]).count == 2
