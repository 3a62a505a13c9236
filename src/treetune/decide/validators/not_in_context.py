"""The answer to a question about a passage stands in that passage, word for word."""

from __future__ import annotations

from functools import lru_cache

from treetune.core.language import say
from treetune.core.records import Example, Prediction, Reason
from treetune.decide.validators.words import units_of

NAME = "not_in_context"
TASKS = ("question_answering",)
FLAG_ONLY = False


def find(prediction: Prediction, example: Example) -> Reason | None:
    answer = prediction.answer
    if not answer or answer in example.source:
        return None
    units, passage = units_of(answer), _line(example.source)
    if units and f" {' '.join(units)} " in passage:
        return None
    missing = [unit for unit in units if f" {unit} " not in passage]
    share = 1 - len(missing) / len(units) if units else 0.0
    evidence = missing[0] if missing else answer
    place = answer.lower().find(evidence.lower())
    text = say("not in the passage") if missing else say("its words stand in the passage, but not in this order")
    return Reason(NAME, text, share, 1.0, evidence, (place, place + len(evidence)) if place >= 0 else None)


@lru_cache(maxsize=64)
def _line(text: str) -> str:
    return f" {' '.join(units_of(text))} "
