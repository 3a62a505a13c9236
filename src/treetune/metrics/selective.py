"""How well a score ranks right answers above wrong ones: risk-coverage curve, its area, AUROC.

Risk and coverage: Geifman & El-Yaniv 2017, "Selective Classification for Deep Neural Networks". Ratio of
prediction and rejection: Malinin et al. 2017; written out in Malinin & Gales 2021, "Uncertainty Estimation in
Autoregressive Structured Prediction". Scores are sure when high. Rows of one score cannot be told apart, so
inside a tie the wrong ones count as evenly spread.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from treetune.core.records import FloatArray, IntArray
from treetune.metrics.statistics import nothing_to_score

BoolArray = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class RiskCoverage:
    """What is accepted at each distinct score, strict to loose.

    Attributes:
        thresholds: (T,) falling; accepted are rows with a score of at least that. num_accepted, num_wrong: (T,).
        num_rows: of all.
    """

    thresholds: FloatArray
    num_accepted: IntArray
    num_wrong: IntArray
    num_rows: int

    @property
    def coverage(self) -> FloatArray:
        return np.asarray(self.num_accepted / self.num_rows)

    @property
    def risk(self) -> FloatArray:
        return np.asarray(self.num_wrong / self.num_accepted)


def risk_coverage(scores: FloatArray, wrong: BoolArray) -> RiskCoverage:
    """The curve of (N,) scores. Rows with a score of minus infinity are never accepted and count as rows only.

    Raises:
        DataError: E1402 for no rows.
    """
    if not len(scores):
        raise nothing_to_score()
    usable = scores > -np.inf
    values, place = np.unique(-scores[usable], return_inverse=True)
    accepted = np.cumsum(np.bincount(place, minlength=len(values)))
    counts = np.bincount(place, weights=wrong[usable].astype(np.float64), minlength=len(values))
    return RiskCoverage(-values, accepted, np.cumsum(counts).astype(np.int64), len(scores))


def area_under_risk_coverage(scores: FloatArray, wrong: BoolArray) -> float:
    """Mean of the risk among the m surest rows over m = 1 .. N, 0-1; lower is better."""
    return _area(np.where(scores > -np.inf, scores, np.finfo(np.float64).min), wrong)


def areas_of_draws(scores: FloatArray, wrong: BoolArray, draws: IntArray) -> FloatArray:
    """`area_under_risk_coverage` of each line of (B, N) row numbers drawn with replacement, (B,)."""
    levels, place = np.unique(-scores, return_inverse=True)
    drawn = np.sort(2 * place[draws] + wrong[draws], axis=1)  # surest first; the verdict rides in the last bit
    tie = drawn // 2 + np.arange(len(draws))[:, None] * len(levels)
    counts = np.bincount(tie.ravel())
    share = np.bincount(tie.ravel(), weights=(drawn % 2).ravel()) / np.maximum(counts, 1)
    risk = np.cumsum(share[tie], axis=1) / np.arange(1, draws.shape[1] + 1)
    return np.asarray(risk.mean(axis=1))


def prediction_rejection_ratio(scores: FloatArray, wrong: BoolArray) -> float:
    """Area gained over a random order, as a share of what a perfect order gains: 1 perfect, 0 random, below 0 worse.

    NaN when all rows are right or all are wrong.
    """
    random, perfect = float(wrong.mean()), _area(-wrong.astype(np.float64), wrong)
    if random in (0.0, 1.0):
        return float("nan")
    return (random - area_under_risk_coverage(scores, wrong)) / (random - perfect)


def auroc(scores: FloatArray, wrong: BoolArray) -> float:
    """Chance that a right answer has a higher score than a wrong one, ties half; NaN when there is but one kind."""
    num_wrong = int(wrong.sum())
    num_right = len(wrong) - num_wrong
    if not num_wrong or not num_right:
        return float("nan")
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[place]
    return float((ranks[~wrong].sum() - num_right * (num_right + 1) / 2) / (num_right * num_wrong))


def _area(scores: FloatArray, wrong: BoolArray) -> float:
    curve = risk_coverage(scores, wrong)
    knots_accepted = np.concatenate([[0], curve.num_accepted])
    knots_wrong = np.concatenate([[0], curve.num_wrong])
    ranks = np.arange(1, curve.num_rows + 1)
    return float((np.interp(ranks, knots_accepted, knots_wrong) / ranks).mean())
