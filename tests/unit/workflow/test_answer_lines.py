"""Answers for machines: JSON as its standard has it, whatever an engine gave."""

import json

import pytest

from treetune.core.records import Decision, Prediction
from treetune.workflow.answer_lines import to_lines

NAN = float("nan")


def refuse_constant(name: str) -> None:
    pytest.fail(f"{name} is no JSON")


def test_what_is_not_finite_is_null() -> None:
    decision = Decision("refuse", None, NAN, (), (), "", False, ())
    found = Prediction(row=0, row_id="r0", split="test", answer="Ein Film", text="Ein Film",
                       scores={"probability": NAN, "mean_log_prob": -float("inf"), "margin": 0.1234567},
                       token_log_probs=(NAN, -0.5), finished=True, num_cut=0, seconds=0.25, decision=decision)
    said = json.loads(to_lines([found]), parse_constant=refuse_constant)
    assert said["scores"] == {"probability": None, "mean_log_prob": None, "margin": 0.123457}
    assert said["token_log_probs"] == [None, -0.5]
    assert said["decision"]["score"] is None
    assert said["seconds"] == 0.25
