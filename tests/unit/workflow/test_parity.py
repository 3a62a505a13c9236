"""The comparison of two forms, and what counts as a miss."""

import math
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest

from treetune.core.errors import RunError
from treetune.core.records import Example, Prediction
from treetune.tasks import sentiment
from treetune.tasks.contract import TaskOptions
from treetune.workflow.export import refuse_miss
from treetune.workflow.parity import Said, parity_of

LABELS = ("positive", "negative")
RUN = cast(Any, SimpleNamespace(task=sentiment, options=TaskOptions(LABELS)))


def example(row: int, label: str) -> Example:
    return Example(row, str(row), "test", (), label, (label,), {name: name for name in LABELS}, "text", "en")


def prediction(row: int, positive: float, cut: int = 0) -> Prediction:
    answer = LABELS[positive < 0.5]
    scores = {"probability": max(positive, 1 - positive), "probability:positive": positive,
              "probability:negative": 1 - positive}
    return Prediction(row, str(row), "test", answer, answer, scores, (), True, cut, 0.0)


def said(values: Sequence[float], logs: Sequence[float]) -> Said:
    return Said([prediction(row, value) for row, value in enumerate(values)], [[each] for each in logs])


def test_the_numbers_are_those_of_the_rows() -> None:
    examples = [example(0, "positive"), example(1, "positive"), example(2, "negative"), example(3, "negative")]
    found = parity_of(RUN, examples, said([0.9, 0.8, 0.1, 0.6], [-0.1, -0.2, -0.3, -0.4]),
                      said([0.9, 0.4, 0.1, 0.6], [-0.1, -0.9, -0.3, -0.4]))
    assert (found["rows"], found["equal_answers"]) == (4, 0.75)
    assert found["log_prob_difference"] == pytest.approx(0.7)
    assert found["probability_difference"] == pytest.approx(0.4)
    assert found["metrics"]["accuracy"] == pytest.approx({"original": 0.75, "exported": 0.5, "change": -0.25})


@pytest.mark.parametrize(("equal", "difference", "passes"), [
    (1.0, 1e-6, True), (0.98, 1e-3, True), (0.97, 1e-6, False), (1.0, 2e-3, False), (1.0, math.nan, False)])
def test_a_miss_is_an_error(equal: float, difference: float, passes: bool) -> None:
    parity = {"rows": 50, "equal_answers": equal, "log_prob_difference": difference}
    limits = {"equal_answers": 0.98, "log_prob_difference": 1e-3}
    if passes:
        refuse_miss(parity, limits, "gguf")
        return
    with pytest.raises(RunError, match="E2804"):
        refuse_miss(parity, limits, "gguf")
    refuse_miss({**parity, "equal_answers": 1.0}, {**limits, "log_prob_difference": None}, "gguf")
