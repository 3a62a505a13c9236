"""Which rows a step takes: a pure function of (seed, step), so that a resumed run needs no state for it."""

from __future__ import annotations

import math

import numpy as np

from treetune.core.records import IntArray
from treetune.core.seeds import generator


def steps_per_epoch(num_rows: int, rows_per_step: int) -> int:
    """Steps that show every row once; the last may be smaller."""
    return math.ceil(num_rows / rows_per_step)


def total_steps(num_rows: int, rows_per_step: int, epochs: float, max_steps: int) -> int:
    """Steps of the whole run: ``epochs`` passes (rounded up to a step), or ``max_steps`` where that is set."""
    return max_steps or max(1, math.ceil(epochs * steps_per_epoch(num_rows, rows_per_step) - 1e-9))


def rows_of_step(num_rows: int, rows_per_step: int, seed: int, step: int) -> IntArray:
    """Row numbers of 0-based ``step``; each epoch is a permutation seeded by (seed, epoch)."""
    per_epoch = steps_per_epoch(num_rows, rows_per_step)
    epoch, place = divmod(step, per_epoch)
    order: IntArray = generator(seed, "order", epoch).permutation(num_rows)
    return np.asarray(order[place * rows_per_step : (place + 1) * rows_per_step], dtype=np.int64)
