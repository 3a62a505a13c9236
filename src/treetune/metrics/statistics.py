"""What every metric returns: one line of statistics a row, and what turns their sum into a score.

No metric averages over rows: rows are summed (over a data set, a resample, a group) and only then divided. So
the score of any part of the data, and of any bootstrap resample, costs one matrix product.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from treetune.core.errors import DataError
from treetune.core.records import FloatArray

ScoreOfSums = Callable[[FloatArray], FloatArray]


@dataclass(frozen=True, slots=True)
class RowStatistics:
    """Sufficient statistics of one metric.

    Attributes:
        rows: (N, S) one line of statistics a row.
        score: sums (S,) or (B, S) -> value () or (B,), in the metric's own unit.
        signature: what exactly was computed (tokenizer, version).
    """

    rows: FloatArray
    score: ScoreOfSums
    signature: str

    @property
    def count(self) -> int:
        """Rows the score stands on."""
        return len(self.rows)

    def value(self) -> float:
        """The score of all rows together."""
        return float(self.score(self.rows.sum(axis=0)))


def ratio(sums: FloatArray) -> FloatArray:
    """The one division: (..., 2) holding [sum, count] -> (...) sum / count.

    Raises:
        DataError: E1402 when a count is zero.
    """
    if np.any(sums[..., 1] <= 0):
        raise nothing_to_score()
    return np.asarray(sums[..., 0] / sums[..., 1], dtype=np.float64)


def mean_statistics(values: Sequence[float], signature: str) -> RowStatistics:
    """A metric that is the mean of one number a row.

    Args:
        values: one number a row, in the metric's unit (0-1 for accuracy, exact match, F1 and ROUGE).
        signature: what exactly was computed.

    Raises:
        DataError: E1402 when there is no row.
    """
    if not len(values):
        raise nothing_to_score()
    column = np.asarray(values, dtype=np.float64)
    return RowStatistics(np.stack([column, np.ones_like(column)], axis=1), ratio, signature)


def require_rows(answers: Sequence[str], references: Sequence[Sequence[str]]) -> None:
    """At least one row, and one list of references an answer.

    Raises:
        DataError: E1402 when there is no row. ValueError: when the lengths differ.
    """
    if len(answers) != len(references):
        raise ValueError(f"{len(answers)} answers for {len(references)} lists of references")
    if not answers:
        raise nothing_to_score()


def nothing_to_score() -> DataError:
    """The error for a score that would stand on nothing."""
    return DataError("E1402", "there is nothing to score", found="0 rows", allowed="at least 1",
                     do="give rows with a reference answer")
