"""Fill forward passes with trees up to a budget of unique tokens, as evenly as they can be."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

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
    lengths = [len(sequences[index]) for index in order]
    fresh = lengths[:1] + [
        length - (common_prefix(sequences[left], sequences[right]) if share else 0)
        for length, (left, right) in zip(lengths[1:], pairwise(order), strict=True)
    ]
    most = max_tokens + (shared_instruction(examples, sequences, order) if share else 0)
    bounds = _filled(lengths, fresh, _evened(lengths, fresh, most))
    return [build_tree(examples, order[start:stop], share=share) for start, stop in bounds]


def shared_instruction(
    examples: Sequence[TokenizedExample], sequences: Sequence[IntArray], order: Sequence[int]
) -> int:
    """Tokens of the instruction that all rows begin with; ``order`` is that of their ``sequences``."""
    said = min((example.num_instruction for example in examples), default=0)
    return min(said, common_prefix(sequences[order[0]], sequences[order[-1]])) if said else 0


def _filled(lengths: Sequence[int], fresh: Sequence[int], max_tokens: int) -> list[tuple[int, int]]:
    """Half-open runs of rows, each as long as ``max_tokens`` allows.

    Args:
        lengths: tokens of the rows. fresh: those of them that the row before does not have.
    """
    starts: list[int] = []
    size = 0
    for place, (length, new) in enumerate(zip(lengths, fresh, strict=True)):
        if not starts or size + new > max_tokens:
            starts.append(place)
            size, new = 0, length
        size += new
    return list(pairwise([*starts, len(lengths)]))


def _evened(lengths: Sequence[int], fresh: Sequence[int], max_tokens: int) -> int:
    """The smallest budget that needs no more trees than ``max_tokens`` does: a full tree and a small one take more
    memory, and more time, than two of one size."""
    count = len(_filled(lengths, fresh, max_tokens))
    low, high = 0, max_tokens
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if len(_filled(lengths, fresh, middle)) <= count else (middle, high)
    return high
