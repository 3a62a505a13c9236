"""Which rows a step takes: a pure function of (seed, step), so that a resumed run needs no state for it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache, partial

import numpy as np

from treetune.core.records import IntArray
from treetune.core.seeds import generator


def steps_per_epoch(num_rows: int, rows_per_step: int) -> int:
    """Steps that show every row once; the last may be smaller."""
    return math.ceil(num_rows / rows_per_step)


def total_steps(num_rows: int, rows_per_step: int, epochs: float, max_steps: int) -> int:
    """Steps of the whole run: ``epochs`` passes (rounded up to a step), or ``max_steps`` where that is set."""
    return max_steps or max(1, math.ceil(epochs * steps_per_epoch(num_rows, rows_per_step) - 1e-9))


def groups_of(sources: Sequence[str]) -> IntArray | None:
    """(N,) a number for each row, equal where the sources are; None where no two are."""
    numbers: dict[str, int] = {}
    found = [numbers.setdefault(source, len(numbers)) for source in sources]
    return np.array(found, dtype=np.int64) if len(numbers) < len(found) else None


def row_chooser(
    num_rows: int, rows_per_step: int, seed: int, groups: IntArray | None = None
) -> Callable[[int], IntArray]:
    """Gives the row numbers of a 0-based step; each epoch is a permutation seeded by (seed, epoch).

    The order of an epoch, which takes a second for a million rows, is made once for all its steps.

    Args:
        groups: (num_rows,) group of each row. With it, groups come in random order and the rows of one group, in
            random order too, follow one another: a step then holds few groups, each nearly whole. Every row is
            still shown once an epoch; what changes is that the rows of a step are alike.
    """
    per_epoch = steps_per_epoch(num_rows, rows_per_step)
    order_of = lru_cache(maxsize=1)(partial(order_of_epoch, num_rows, seed, groups))

    def rows_of(step: int) -> IntArray:
        epoch, place = divmod(step, per_epoch)
        return order_of(epoch)[place * rows_per_step : (place + 1) * rows_per_step]

    return rows_of


def order_of_epoch(num_rows: int, seed: int, groups: IntArray | None, epoch: int) -> IntArray:
    """(num_rows,) all row numbers, see `row_chooser`."""
    random = generator(seed, "order", epoch)
    order: IntArray = random.permutation(num_rows)
    if groups is not None:
        rank = random.permutation(int(groups.max()) + 1)[groups]
        order = order[np.argsort(rank[order], kind="stable")]
    return np.asarray(order, dtype=np.int64)
