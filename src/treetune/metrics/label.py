"""Accuracy, macro-F1 and the confusion matrix of label answers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from treetune.core.errors import DataError
from treetune.core.records import FloatArray, IntArray
from treetune.metrics.statistics import RowStatistics, mean_statistics, ratio, require_rows

References = Sequence[Sequence[str]]


def accuracy_statistics(answers: Sequence[str], references: References) -> RowStatistics:
    """Share of rows whose answer is one of its references, 0-1."""
    require_rows(answers, references)
    values = [float(answer in row) for answer, row in zip(answers, references, strict=True)]
    return mean_statistics(values, "accuracy|exact label")


def macro_f1_statistics(
    answers: Sequence[str], references: References, labels: Sequence[str] = ()
) -> RowStatistics:
    """Unweighted mean of the labels' F1, 0-1 (sklearn's ``f1_score(average="macro")``).

    Labels that occur neither as reference nor as answer are left out of the mean, as sklearn does; so a
    resample that misses a rare label is not punished for it. When ``labels`` are given, an answer that is
    none of them counts as missed, not as a class of its own.

    Args:
        labels: names in a fixed order; (): all that occur.

    Returns:
        rows (N, 3 L): per label matched, answered, expected: the confusion matrix's diagonal and margins.

    Raises:
        DataError: E1403 when a reference is not one of ``labels``.
    """
    names = tuple(labels) or labels_in(answers, references)
    expected, answered = _places(answers, references, names)
    unit = np.eye(len(names) + 1, len(names))  # the last line: an answer that is no label
    rows = np.concatenate([unit[answered] * unit[expected], unit[answered], unit[expected]], axis=1)
    return RowStatistics(rows, macro_f1_of_sums, f"macro_f1|labels:{len(names)}")


def macro_f1_of_sums(sums: FloatArray) -> FloatArray:
    """(..., 3 L) sums of matched, answered, expected -> (...); F1 = 2 matched / (answered + expected)."""
    matched, answered, expected = np.split(sums, 3, axis=-1)
    margins = answered + expected
    per_label = np.divide(2 * matched, margins, out=np.zeros_like(margins), where=margins > 0)
    return ratio(np.stack([per_label.sum(axis=-1), (margins > 0).sum(axis=-1)], axis=-1))


def confusion_matrix(answers: Sequence[str], references: References, labels: Sequence[str]) -> IntArray:
    """Counts (L, L + 1): line = expected label, column = answered label, last column = no known label.

    A row with several references stands on the line of the one answered, else of the first.

    Raises:
        DataError: E1403 when a reference is not one of ``labels``.
    """
    expected, answered = _places(answers, references, labels)
    counts = np.zeros((len(labels), len(labels) + 1), dtype=np.int64)
    np.add.at(counts, (expected, answered), 1)
    return counts


def labels_in(answers: Sequence[str], references: References) -> tuple[str, ...]:
    """All labels that occur, sorted."""
    return tuple(sorted({*answers, *(name for row in references for name in row)}))


def _places(
    answers: Sequence[str], references: References, labels: Sequence[str]
) -> tuple[IntArray, IntArray]:
    """Place of the expected and of the answered label of each row, (N,) each; ``len(labels)``: no label."""
    require_rows(answers, references)
    place = {name: index for index, name in enumerate(labels)}
    answered = np.array([place.get(answer, len(place)) for answer in answers], dtype=np.int64)
    expected = np.empty_like(answered)
    for index, (answer, row) in enumerate(zip(answers, references, strict=True)):
        name = answer if answer in row else row[0]
        if name not in place:
            raise DataError("E1403", "the reference {name!r} is not one of the labels", name=name,
                            where=f"row {index + 1} of those scored", found=name, allowed=", ".join(labels),
                            do="correct the row, or tune with rows that have this label")
        expected[index] = place[name]
    return expected, answered
