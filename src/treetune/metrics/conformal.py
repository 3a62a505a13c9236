"""Sets of labels that hold the true one with a chosen probability, whichever label that is.

Split conformal prediction, class-conditional: Vovk 2012, "Conditional validity of inductive conformal
predictors"; the score 1 - p(label) is that of Sadinle, Lei & Wasserman 2019, "Least Ambiguous Set-Valued
Classifiers with Bounded Error Levels".
"""

from __future__ import annotations

import math

import numpy as np

from treetune.core.records import FloatArray, IntArray

ROUNDING = 1e-9


def class_limits(probability: FloatArray, truth: IntArray, miss_rate: float) -> FloatArray:
    """(L,) smallest probability at which a label still belongs to the set.

    A new row whose true label is y has y in its set with probability at least ``1 - miss_rate``, over the
    draw of the calibration rows and of the row.

    Args:
        probability: (N, L) of calibration rows. truth: (N,) their labels. miss_rate: above 0 and below 1.

    Returns:
        0 for a label with too few rows to leave it out of any set (fewer than about 1 / miss_rate).
    """
    limits = np.zeros(probability.shape[1])
    for label in range(len(limits)):
        own = np.sort(probability[truth == label, label])
        below = math.floor((len(own) + 1) * miss_rate + ROUNDING)
        if below >= 1:
            limits[label] = own[below - 1]
    return limits


def label_sets(probability: FloatArray, limits: FloatArray) -> list[list[int]]:
    """The labels in the set of each row of (N, L), the likeliest first."""
    inside = probability >= limits
    return [[int(label) for label in np.argsort(-row, kind="stable") if kept[label]]
            for row, kept in zip(probability, inside, strict=True)]
