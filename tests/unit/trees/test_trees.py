"""Token trees against a plain walk over parents."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from treetune.core.records import TokenizedExample, TokenTree
from treetune.trees import allowed_pairs, build_tree, pack
from treetune.trees.build import common_prefix, input_ids_of, sorted_order

TOKEN = st.one_of(st.integers(0, 2), st.sampled_from([255, 256, 65535, 65536, 150_000]))


def example(prompt: list[int], completion: list[int], row: int = 0) -> TokenizedExample:
    return TokenizedExample(row, 0, np.array(prompt, dtype=np.int64), np.array(completion, dtype=np.int64), 0)


ROW = st.builds(example, st.lists(TOKEN, min_size=1, max_size=6), st.lists(TOKEN, max_size=4))
ROWS = st.lists(ROW, min_size=1, max_size=12)


def way(tree: TokenTree, node: int) -> list[int]:
    """Nodes from the root to ``node``."""
    nodes = []
    while node != -1:
        nodes.append(node)
        node = int(tree.parent[node])
    return nodes[::-1]


def check_tree(tree: TokenTree, rows: list[TokenizedExample], members: list[int]) -> None:
    size = len(tree.input_ids)
    ways = [way(tree, node) for node in range(size)]
    assert np.array_equal(tree.depth, [len(each) - 1 for each in ways])
    assert (tree.parent < np.arange(size)).all()
    ancestor = np.zeros((size, size), dtype=bool)
    for node, nodes in enumerate(ways):
        ancestor[node, nodes] = True
    index = np.arange(size)
    assert np.array_equal((index <= index[:, None]) & (index[:, None] < tree.branch_end), ancestor)
    assert np.array_equal(allowed_pairs(tree.branch_end), ancestor)
    assert tree.num_row_tokens == sum(len(input_ids_of(rows[member])) for member in members)
    assert tree.label_weight.tolist() == [1.0] * len(tree.label_ids)
    assert sorted(set(tree.label_example.tolist())) == sorted(m for m in members if len(rows[m].completion_ids))
    for member in members:
        row = rows[member]
        places = np.flatnonzero(tree.label_example == member)
        assert tree.label_ids[places].tolist() == row.completion_ids.tolist()
        for step, place in enumerate(places):
            read = tree.input_ids[ways[tree.label_index[place]]].tolist()
            assert read == [*row.prompt_ids.tolist(), *row.completion_ids.tolist()[:step]]


def num_prefixes(rows: list[TokenizedExample]) -> int:
    return len({tuple(ids[:end]) for ids in (input_ids_of(r).tolist() for r in rows) for end in range(1, len(ids) + 1)})


@given(ROWS)
@settings(max_examples=200, deadline=None)
def test_every_row_can_be_read_back_from_its_labels(rows: list[TokenizedExample]) -> None:
    tree = build_tree(rows)
    check_tree(tree, rows, list(range(len(rows))))
    assert len(tree.input_ids) == num_prefixes(rows)


@given(ROWS)
@settings(max_examples=100, deadline=None)
def test_without_sharing_every_row_is_a_path_of_its_own(rows: list[TokenizedExample]) -> None:
    tree = build_tree(rows, share=False)
    check_tree(tree, rows, list(range(len(rows))))
    assert tree.input_ids.tolist() == [token for row in rows for token in input_ids_of(row).tolist()]
    assert (tree.parent == -1).sum() == len(rows)
    assert len(tree.input_ids) == tree.num_row_tokens


@given(ROWS, st.integers(1, 40), st.booleans())
@settings(max_examples=200, deadline=None)
def test_packing_holds_every_example_once_within_the_budget(
    rows: list[TokenizedExample], budget: int, share: bool
) -> None:
    trees = pack(rows, budget, share=share)
    assert sum(tree.num_row_tokens for tree in trees) == sum(len(input_ids_of(row)) for row in rows)
    assert sum(len(tree.label_ids) for tree in trees) == sum(len(row.completion_ids) for row in rows)
    owners = [set(tree.label_example.tolist()) for tree in trees]
    assert sum(map(len, owners)) == sum(len(row.completion_ids) > 0 for row in rows)
    longest = max(len(input_ids_of(row)) for row in rows)
    for tree, members in zip(trees, owners, strict=True):
        assert len(tree.input_ids) <= max(budget, longest)
        if len(tree.input_ids) > budget:
            assert tree.depth.max() + 1 == len(tree.input_ids), "only a single long row may pass the budget"
        if all(len(row.completion_ids) for row in rows):
            check_tree(tree, rows, sorted(members))


@given(ROWS, st.randoms())
@settings(max_examples=50, deadline=None)
def test_the_order_of_the_rows_changes_nothing_but_their_numbers(rows: list[TokenizedExample], random: object) -> None:
    mixed = list(range(len(rows)))
    random.shuffle(mixed)  # type: ignore[attr-defined]
    tree, other = build_tree(rows), build_tree([rows[place] for place in mixed])
    assert np.array_equal(tree.input_ids, other.input_ids)
    assert np.array_equal(tree.parent, other.parent)
    assert sorted(zip(tree.label_index.tolist(), tree.label_ids.tolist(), strict=True)) == sorted(
        zip(other.label_index.tolist(), other.label_ids.tolist(), strict=True)
    )


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize(
    "rows",
    [
        [example([7], [])],
        [example([7], [1])],
        [example([1, 2], [3, 4])] * 4,
        [example([1, 2, 3], [4]), example([1, 2], [3, 4]), example([1], [2, 3, 4])],
        [example([1], []), example([1, 2], []), example([1, 2, 3], [9, 9])],
        [example([1, 2, 3], [9]), example([1], [])],
        [example([1], [2]), example([2], [1]), example([3], [3])],
    ],
    ids=["prompt only", "one label", "all equal", "same text, other border", "prefixes", "shorter last",
         "no root shared"],
)
def test_edge_cases_read_back(rows: list[TokenizedExample], share: bool) -> None:
    check_tree(build_tree(rows, share=share), rows, list(range(len(rows))))


def test_a_tree_of_some_rows_names_them_by_their_own_number() -> None:
    rows = [example([5], [1]), example([1, 2], [3]), example([1, 4], [3])]
    tree = build_tree(rows, order=[1, 2])
    check_tree(tree, rows, [1, 2])
    assert set(tree.label_example.tolist()) == {1, 2}


def test_no_rows_make_no_trees() -> None:
    assert pack([], 10) == []
    assert len(build_tree([]).input_ids) == 0


def test_an_empty_choice_of_rows_makes_an_empty_tree() -> None:
    assert len(build_tree([example([1], [2])], order=[]).input_ids) == 0


def test_a_tree_as_large_as_the_budget_is_not_split() -> None:
    rows = [example([1, 2, 3], [4]), example([1, 2, 5], [4])]
    assert [len(tree.input_ids) for tree in pack(rows, 4)] == [4]
    assert [len(tree.input_ids) for tree in pack(rows, 3)] == [3, 3]


@given(ROWS, st.integers(1, 40), st.booleans())
@settings(max_examples=200, deadline=None)
def test_packing_needs_no_more_trees_than_filling_one_after_the_other_and_evens_them_out(
    rows: list[TokenizedExample], budget: int, share: bool
) -> None:
    sequences = [input_ids_of(row) for row in rows]
    order = sorted_order(sequences) if share else list(range(len(rows)))

    def filled(limit: int) -> list[int]:
        sizes: list[int] = []
        for place, index in enumerate(order):
            before = sequences[order[place - 1]] if share and place else np.zeros(0, dtype=np.int64)
            new = len(sequences[index]) - common_prefix(before, sequences[index])
            if sizes and sizes[-1] + new <= limit:
                sizes[-1] += new
            else:
                sizes.append(len(sequences[index]))
        return sizes

    found = [len(tree.input_ids) for tree in pack(rows, budget, share=share)]
    plain = filled(budget)
    assert len(found) == len(plain)
    assert max(found) <= max(plain)
    if max(found) > 1:
        assert len(filled(max(found) - 1)) > len(found) or max(found) == max(map(len, sequences))


def test_two_trees_of_one_size_rather_than_a_full_one_and_a_small_one() -> None:
    rows = [example([number] * 4, [9]) for number in range(3, 9)]
    assert [len(tree.input_ids) for tree in pack(rows, 21)] == [12, 12]


def test_rows_sort_by_token_number_not_by_byte_order() -> None:
    assert sorted_order([np.array([256]), np.array([1, 9]), np.array([1]), np.array([70_000])]) == [2, 1, 0, 3]


def test_the_common_prefix_ends_at_the_first_difference() -> None:
    assert common_prefix(np.array([1, 2, 3]), np.array([1, 2, 4, 5])) == 2
    assert common_prefix(np.array([1, 2]), np.array([1, 2, 4])) == 2
    assert common_prefix(np.array([], dtype=np.int64), np.array([1])) == 0


def test_an_instruction_is_room_beside_the_budget_only_as_far_as_all_rows_share_it() -> None:
    rows = [TokenizedExample(row, 0, np.array([1, 2, 3, 4 + row]), np.array([9]), 0, 3) for row in range(4)]
    assert [len(tree.input_ids) for tree in pack(rows, 4)] == [7]
    assert [len(tree.input_ids) for tree in pack(rows, 3)] == [5, 5]
    other = TokenizedExample(4, 0, np.array([1, 5, 3, 4]), np.array([9]), 0, 3)
    assert [len(tree.input_ids) for tree in pack([*rows, other], 4)] == [5, 5, 4]
