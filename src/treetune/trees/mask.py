"""Who may see whom in a tree, as index arithmetic on depth-first order."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from treetune.core.records import IntArray


def allowed_pairs(branch_end: IntArray) -> NDArray[np.bool_]:
    """(T, T) bool: query q may see key k exactly when k is q or an ancestor of q: ``k <= q < branch_end[k]``."""
    index = np.arange(len(branch_end))
    allowed: NDArray[np.bool_] = (index[None, :] <= index[:, None]) & (index[:, None] < branch_end[None, :])
    return allowed
