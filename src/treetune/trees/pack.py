"""Fill forward passes with trees up to a budget of unique tokens."""

from __future__ import annotations

from collections.abc import Sequence

from treetune.core.records import TokenizedExample, TokenTree
from treetune.trees.build import build_tree, common_prefix, input_ids_of, sorted_order


def pack(
    examples: Sequence[TokenizedExample], max_tokens: int, *, share: bool = True
) -> list[TokenTree]:
    """Trees that together hold every example once.

    Args:
        examples: the rows of one step (or of one evaluation).
        max_tokens: unique tokens a tree may have; a single longer row still gets a tree of its own.
        share: compute shared prefixes once; False packs rows side by side.

    Returns:
        Trees in lexicographic order of their rows; ``label_example`` counts in ``examples``.
    """
    sequences = [input_ids_of(example) for example in examples]
    order = sorted_order(sequences) if share else list(range(len(examples)))
    groups: list[list[int]] = []
    size = 0
    for place, index in enumerate(order):
        new = len(sequences[index])
        if groups and share:
            new -= common_prefix(sequences[order[place - 1]], sequences[index])
        if not groups or size + new > max_tokens:
            groups.append([])
            size, new = 0, len(sequences[index])
        groups[-1].append(index)
        size += new
    return [build_tree(examples, group, share=share) for group in groups]
