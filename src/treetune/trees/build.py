"""From tokenized examples to one `TokenTree`, in time linear in tokens after one sort of the rows.

A row enters as its prompt and completion without the last token (nothing follows it, so nothing needs its
output). Sorted rows that share a prefix are neighbours; the tokens behind the common prefix become new nodes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from treetune.core.records import IntArray, TokenizedExample, TokenTree


def input_ids_of(example: TokenizedExample) -> IntArray:
    """(L,) what the model reads of a row: prompt and completion, without the completion's last token."""
    if len(example.completion_ids) == 0:
        return example.prompt_ids
    return np.concatenate([example.prompt_ids, example.completion_ids[:-1]])


def sorted_order(sequences: Sequence[IntArray]) -> list[int]:
    """Indices of ``sequences`` in lexicographic order, so that shared prefixes stand side by side."""
    keys = [sequence.astype(">u4").tobytes() for sequence in sequences]
    return sorted(range(len(keys)), key=keys.__getitem__)


def common_prefix(left: IntArray, right: IntArray) -> int:
    """How many leading tokens two sequences share."""
    length = min(len(left), len(right))
    different = np.flatnonzero(left[:length] != right[:length])
    return int(different[0]) if len(different) else length


def build_tree(
    examples: Sequence[TokenizedExample], order: Sequence[int] | None = None, *, share: bool = True
) -> TokenTree:
    """One forest of ``examples``.

    Args:
        examples: rows, each with at least one prompt token.
        order: which of them, lexicographically sorted (as `sorted_order` gives); default all.
        share: False keeps every row a path of its own (padding-free packing).

    Returns:
        The tree; ``label_example`` holds indices into ``examples``.
    """
    chosen = range(len(examples)) if order is None else order
    sequences = {index: input_ids_of(examples[index]) for index in chosen}
    if order is None and share:
        order = sorted_order(list(sequences.values()))
    ids: list[IntArray] = []
    depth: list[IntArray] = []
    parent: list[IntArray] = []
    labels: list[tuple[IntArray, IntArray, int]] = []
    ends = np.zeros(sum(map(len, sequences.values())), dtype=np.int64)
    path = np.zeros(0, dtype=np.int64)  # node of each depth on the way to the last row's end
    last: IntArray = path
    size = 0
    for index in order if order is not None else range(len(examples)):
        sequence = sequences[index]
        shared = common_prefix(last, sequence) if share else 0
        fresh = np.arange(size, size + len(sequence) - shared, dtype=np.int64)
        ends[path[shared:]] = size
        path = np.concatenate([path[:shared], fresh])
        ids.append(sequence[shared:])
        depth.append(np.arange(shared, len(sequence), dtype=np.int64))
        parent.append(np.concatenate([path[shared - 1 : shared] if shared else [-1], fresh[:-1]])[: len(fresh)])
        example = examples[index]
        first = len(example.prompt_ids) - 1
        labels.append((path[first : first + len(example.completion_ids)], example.completion_ids, index))
        size += len(fresh)
        last = sequence
    ends[path] = size
    num_row_tokens = len(ends)
    return TokenTree(
        input_ids=_joined(ids), depth=_joined(depth), parent=_joined(parent), branch_end=ends[:size],
        label_index=_joined([where for where, _, _ in labels]),
        label_ids=_joined([what for _, what, _ in labels]),
        label_weight=np.ones(sum(len(what) for _, what, _ in labels)),
        label_example=_joined([np.full(len(what), index) for _, what, index in labels]),
        num_row_tokens=num_row_tokens,
    )


def _joined(arrays: Sequence[IntArray]) -> IntArray:
    return np.concatenate(arrays).astype(np.int64) if arrays else np.zeros(0, dtype=np.int64)
