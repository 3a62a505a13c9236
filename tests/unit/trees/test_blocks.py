"""Blocks of queries see exactly what single queries see."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from treetune.core.records import TokenizedExample
from treetune.trees import allowed_pairs, build_tree
from treetune.trees.blocks import attention_blocks, block_bounds, runs

ROWS = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=14), min_size=1, max_size=12)


def tree_of(rows: list[list[int]]):  # type: ignore[no-untyped-def]
    return build_tree([TokenizedExample(n, 0, np.array(row), np.array([1, 2]), 0) for n, row in enumerate(rows)])


@given(ROWS, st.integers(1, 9), st.none() | st.integers(1, 6), st.data())
@settings(max_examples=150, deadline=None)
def test_blocks_cover_every_query_once_and_allow_exactly_the_pairs_of_the_tree(
    rows: list[list[int]], size: int, window: int | None, data: st.DataObject
) -> None:
    tree = tree_of(rows)
    expected = allowed_pairs(tree.branch_end)
    if window is not None:
        expected = expected & (tree.depth[:, None] - tree.depth[None, :] < window)
    total = len(tree.depth)
    some = data.draw(st.none() | st.sets(st.integers(0, total - 1)))
    queries = np.arange(total) if some is None else np.array(sorted(some), dtype=np.int64)
    found = np.zeros((len(queries), total), dtype=bool)
    covered: list[int] = []
    for block in attention_blocks(tree.depth, tree.branch_end, window=window, size=size,
                                  queries=None if some is None else queries):
        keys = np.concatenate([np.arange(start, stop) for start, stop in block.ranges])
        found[block.start : block.stop, keys] = block.allowed
        covered += range(block.start, block.stop)
        assert block.allowed.any(axis=0).all(), "a key nobody sees was fetched"
    assert covered == list(range(len(queries)))
    assert np.array_equal(found, expected[queries])


def test_a_block_begins_where_the_path_is_short() -> None:
    depth = np.concatenate([np.arange(30), np.arange(30)])
    assert (0, 30) in block_bounds(depth, 24)


def test_keys_of_a_long_pack_stay_few() -> None:
    rows = [[*range(20), 100 + n, *range(30)] for n in range(200)]
    tree = tree_of(rows)
    blocks = attention_blocks(tree.depth, tree.branch_end)
    assert len(tree.depth) > 6000
    assert max(block.allowed.shape[1] for block in blocks) <= 20 + 2 * 128


def test_runs_are_half_open_and_have_no_gaps() -> None:
    assert runs(np.array([0, 1, 2, 5, 7, 8])) == ((0, 3), (5, 6), (7, 9))
    assert runs(np.zeros(0, dtype=np.int64)) == ()
