"""Fill forward passes with trees up to a budget of unique tokens."""

from __future__ import annotations

from collections.abc import Sequence

from treetune.core.records import IntArray, TokenizedExample, TokenTree
from treetune.trees.build import build_tree, common_prefix, input_ids_of, sorted_order


def pack(
    examples: Sequence[TokenizedExample], max_tokens: int, *, share: bool = True
) -> list[TokenTree]:
    """Trees that together hold every example once.

    Args:
        examples: the rows of one step (or of one evaluation).
        max_tokens: unique tokens a tree may have beside the instruction, which its rows share whatever their number;
            a single longer row still gets a tree of its own.
        share: compute shared prefixes once; False packs rows side by side, each with its own instruction.

    Returns:
        Trees in lexicographic order of their rows; ``label_example`` counts in ``examples``.
    """
    sequences = [input_ids_of(example) for example in examples]
    order = sorted_order(sequences) if share else list(range(len(examples)))
    most = max_tokens + (shared_instruction(examples, sequences, order) if share else 0)
    groups: list[list[int]] = []
    size = 0
    for place, index in enumerate(order):
        new = len(sequences[index])
        if groups and share:
            new -= common_prefix(sequences[order[place - 1]], sequences[index])
        if not groups or size + new > most:
            groups.append([])
            size, new = 0, len(sequences[index])
        groups[-1].append(index)
        size += new
    return [build_tree(examples, group, share=share) for group in groups]


def shared_instruction(
    examples: Sequence[TokenizedExample], sequences: Sequence[IntArray], order: Sequence[int]
) -> int:
    """Tokens of the instruction that all rows begin with; ``order`` is that of their ``sequences``."""
    said = min((example.num_instruction for example in examples), default=0)
    return min(said, common_prefix(sequences[order[0]], sequences[order[-1]])) if said else 0
