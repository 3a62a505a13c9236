"""What changed between two runs measured on the same rows and cases: each number before, after, and their difference.

The difference has a paired interval: rows (or templates, or pairs) are drawn anew for both runs at once. Gaps are
compared by size, because a gap of -8 points that becomes +2 has shrunk by 6.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from treetune.audit.measured import Measured
from treetune.core.records import FloatArray
from treetune.core.seeds import seed_of
from treetune.metrics.interval import LEVEL, resampled_sums, unit_sums

NUM_RESAMPLES = 1000
ABOUT_ZERO = ("gap", "flip", "swap", "translation")  # kinds whose differences are smaller when nearer to 0


def changes(before: Sequence[Measured], after: Sequence[Measured], seed: int = 0) -> list[dict[str, Any]]:
    """One record a number that both runs have, in the order of ``after``."""
    known = {each.what: each for each in before}
    return [_change(known[each.what], each, seed) for each in after
            if each.what in known and len(known[each.what].rows) == len(each.rows)]


def is_gap(measured: Measured) -> bool:
    """Whether the number is a difference between groups (best at 0) and not a share."""
    return measured.p_value is not None and measured.what.kind in ABOUT_ZERO


def _change(before: Measured, after: Measured, seed: int) -> dict[str, Any]:
    centre = 0.5 if after.what.kind in ("pairs", "questions") and after.p_value is not None else 0.0
    by_size = is_gap(after) or centre > 0
    width = before.rows.shape[1]
    units = unit_sums(np.concatenate([before.rows, after.rows], axis=1), after.cluster)
    stream = seed_of(seed, *map(str, asdict(after.what).values()))

    def size(sums: FloatArray, measured: Measured) -> FloatArray:
        values = measured.score(sums)
        return np.abs(values - centre) if by_size else values

    drawn = np.concatenate([size(sums[:, width:], after) - size(sums[:, :width], before)
                            for sums in resampled_sums(units, stream, NUM_RESAMPLES)])
    kept = drawn[np.isfinite(drawn)]
    low, high = np.quantile(kept, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]) if len(kept) else (float("-inf"), float("inf"))
    total = units.sum(axis=0)
    value = float(size(total[width:], after) - size(total[:width], before))
    return {**asdict(after.what), "before": before.interval.value, "after": after.interval.value, "by_size": by_size,
            "change": value, "low": float(low), "high": float(high), "level": LEVEL}
