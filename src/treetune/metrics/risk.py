"""Exact statements about the share of wrong answers among n accepted ones, from the binomial distribution.

Clopper & Pearson 1934, "The use of confidence or fiducial limits illustrated in the case of the binomial".
They hold for rows drawn independently from one source.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from treetune.core.records import FloatArray

MOST_ROWS = 1 << 17  # beyond so many accepted rows "enough" is of no use to anybody
ROUNDING = 1e-9


def risk_p_values(num_wrong: ArrayLike, num_accepted: ArrayLike, max_error: ArrayLike) -> FloatArray:
    """p-values of "the share of wrong answers is above ``max_error``": P(Binomial(n, max_error) <= k).

    Args:
        num_wrong, num_accepted: k and n, whole numbers of one shape, 0 <= k <= n. max_error: between 0 and 1,
            for all or for each.

    Returns:
        the same shape; 1 where nothing was accepted.
    """
    from scipy.special import betainc

    wrong, accepted = np.asarray(num_wrong, np.float64), np.asarray(num_accepted, np.float64)
    right = np.maximum(accepted - wrong, 1)
    return np.asarray(np.where(wrong < accepted, betainc(right, wrong + 1, 1 - np.asarray(max_error)), 1.0))


def upper_bounds(num_wrong: ArrayLike, num_accepted: ArrayLike, confidence: float) -> FloatArray:
    """Clopper-Pearson's one-sided upper bound of the share of wrong answers; 1 where nothing was accepted.

    It is at most ``max_error`` exactly when the p-value is at most ``1 - confidence``. Each bound is for a
    number of rows fixed beforehand, not for one chosen because its bound is low.
    """
    from scipy.special import betaincinv

    wrong, accepted = np.asarray(num_wrong, np.float64), np.asarray(num_accepted, np.float64)
    right = np.maximum(accepted - wrong, 1)
    return np.asarray(np.where(wrong < accepted, betaincinv(wrong + 1, right, confidence), 1.0))


def accepted_rows_needed(max_error: float, confidence: float, error_rate: float = 0.0) -> int | None:
    """The fewest accepted rows that prove the bound when a share ``error_rate`` of them (rounded up) is wrong.

    Returns:
        None when more than ``MOST_ROWS`` would be needed, as when the rate is not below the bound.
    """
    if error_rate >= max_error:
        return None
    low, high = 1, max(2, math.ceil(math.log(1 - confidence) / math.log1p(-max_error)))
    while low < MOST_ROWS:
        counts = np.arange(low, high + 1)
        wrong = np.ceil(counts * error_rate - ROUNDING)
        passed = np.flatnonzero(risk_p_values(wrong, counts, max_error) <= 1 - confidence)
        if len(passed):
            return int(counts[passed[0]])
        low, high = high + 1, 2 * high
    return None
