"""Attention of a tree cut into blocks of queries, so that its cost does not grow with the square of the pack.

In depth-first order the keys a block of queries [a, b) may see are the ancestors of token a and the block itself:
an ancestor of a later query that stands before a has a subtree that covers a too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from treetune.core.records import IntArray

BLOCK, SHORT_BLOCK = 128, 64
SHORT = 256
"""Keys a query, masked ones included, up to which a block is short (see `treetune.models.short_attention`)."""


@dataclass(frozen=True, slots=True)
class Block:
    """Some queries and every key that one of them sees.

    Attributes:
        start, stop: place of the queries among all queries asked for.
        ranges: half-open runs of token numbers, ascending: the keys.
        allowed: (stop - start, number of keys) bool.
    """

    start: int
    stop: int
    ranges: tuple[tuple[int, int], ...]
    allowed: NDArray[np.bool_]


def sized_blocks(
    depth: IntArray, branch_end: IntArray, *, window: int | None = None, queries: IntArray | None = None
) -> list[Block]:
    """`attention_blocks` of the size that suits them: small where few keys are seen."""
    found = attention_blocks(depth, branch_end, window=window, queries=queries, size=SHORT_BLOCK)
    return found if are_short(found) else attention_blocks(depth, branch_end, window=window, queries=queries)


def are_short(blocks: Sequence[Block]) -> bool:
    """Whether the blocks' queries see few keys each, in the mean."""
    return sum(block.allowed.size for block in blocks) <= SHORT * sum(block.stop - block.start for block in blocks)


def attention_blocks(
    depth: IntArray, branch_end: IntArray, *, window: int | None = None, queries: IntArray | None = None,
    size: int = BLOCK,
) -> list[Block]:
    """Blocks that cover every query once.

    Args:
        depth, branch_end: (T,) of a `TokenTree`.
        window: tokens a query sees along its branch, itself included; None for all.
        queries: ascending token numbers whose output is wanted; None for all.
        size: queries of a block, about; blocks begin where the path to the root is short.
    """
    wanted = np.arange(len(depth)) if queries is None else queries
    found: list[Block] = []
    place = 0
    for start, stop in block_bounds(depth, size):
        end = int(np.searchsorted(wanted, stop))
        asked = wanted[place:end, None]
        if len(asked):
            keys = np.concatenate([np.flatnonzero(branch_end[:start] > start), np.arange(start, stop)])
            allowed = (keys <= asked) & (asked < branch_end[keys])
            if window is not None:
                allowed &= depth[asked] - depth[keys] < window
            used = allowed.any(axis=0)
            found.append(Block(place, end, runs(keys[used]), allowed[:, used]))
        place = end
    return found


def block_bounds(depth: IntArray, size: int) -> list[tuple[int, int]]:
    """Half-open stretches of about ``size`` tokens that end, where there is a choice, before a token near a root."""
    bounds: list[tuple[int, int]] = []
    start, total = 0, len(depth)
    while start < total:
        first, last = start + max(1, size // 2), start + size + size // 2
        stop = total if last >= total else first + int(np.argmin(depth[first : last + 1]))
        bounds.append((start, stop))
        start = stop
    return bounds


def runs(numbers: IntArray) -> tuple[tuple[int, int], ...]:
    """Ascending numbers as half-open runs without gaps."""
    if len(numbers) == 0:
        return ()
    breaks = np.flatnonzero(np.diff(numbers) != 1) + 1
    edges = [0, *breaks.tolist(), len(numbers)]
    return tuple((int(numbers[a]), int(numbers[b - 1]) + 1) for a, b in pairwise(edges))
