"""Accuracy, macro-F1 and confusion equal scikit-learn."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sklearn_metrics

from treetune.core.errors import DataError
from treetune.metrics.label import accuracy_statistics, confusion_matrix, labels_in, macro_f1_statistics

LABELS = ("negative", "neutral", "positive")
PAIRS = st.lists(st.tuples(st.sampled_from(LABELS), st.sampled_from(LABELS)), min_size=1, max_size=30)


@given(PAIRS)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_equal_to_sklearn(pairs: list[tuple[str, str]]) -> None:
    answers, expected = [a for a, _ in pairs], [e for _, e in pairs]
    references = [[name] for name in expected]
    f1 = sklearn_metrics.f1_score(expected, answers, average="macro", zero_division=0)
    assert accuracy_statistics(answers, references).value() == pytest.approx(
        sklearn_metrics.accuracy_score(expected, answers)
    )
    assert macro_f1_statistics(answers, references, LABELS).value() == pytest.approx(f1)
    assert macro_f1_statistics(answers, references).value() == pytest.approx(f1)
    counts = confusion_matrix(answers, references, LABELS)
    of_sklearn = sklearn_metrics.confusion_matrix(expected, answers, labels=LABELS)
    assert counts[:, :3].tolist() == of_sklearn.tolist()
    assert counts[:, 3].sum() == 0


def test_by_hand() -> None:
    # expected a a b; answered a b b: F1(a) = 2/3, F1(b) = 2/3.
    answers, references = ["a", "b", "b"], [["a"], ["a"], ["b"]]
    assert accuracy_statistics(answers, references).value() == pytest.approx(2 / 3)
    assert macro_f1_statistics(answers, references, ("a", "b", "c")).value() == pytest.approx(2 / 3)
    assert confusion_matrix(answers, references, ("a", "b")).tolist() == [[1, 1, 0], [0, 1, 0]]
    sums = macro_f1_statistics(answers, references, ("a", "b")).rows.sum(axis=0)
    assert sums.tolist() == [1, 1, 1, 2, 2, 1]


def test_an_answer_that_is_no_label_is_a_miss_in_its_own_column() -> None:
    answers, references = ["a", "banana"], [["a"], ["b"]]
    assert confusion_matrix(answers, references, ("a", "b")).tolist() == [[1, 0, 0], [0, 0, 1]]
    assert macro_f1_statistics(answers, references, ("a", "b")).value() == 0.5
    assert labels_in(answers, references) == ("a", "b", "banana")


def test_any_of_several_references_is_right() -> None:
    references = [["a", "b"]]
    assert accuracy_statistics(["b"], references).value() == 1
    assert confusion_matrix(["b"], references, ("a", "b")).tolist() == [[0, 0, 0], [0, 1, 0]]


def test_a_reference_outside_the_labels_is_refused() -> None:
    with pytest.raises(DataError, match=r"E1403.*'c'"):
        macro_f1_statistics(["a"], [["c"]], ("a", "b"))


def test_rows_are_sums_so_order_does_not_matter() -> None:
    answers, references = list("aabbc"), [[name] for name in "abbca"]
    order = np.random.default_rng(0).permutation(5)
    shuffled = macro_f1_statistics([answers[i] for i in order], [references[i] for i in order], "abc")
    assert shuffled.value() == macro_f1_statistics(answers, references, "abc").value()
