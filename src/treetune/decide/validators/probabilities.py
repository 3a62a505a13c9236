"""The answer is one of the labels, and its probabilities are such: in 0-1, adding up to one, the answer's the largest.

A wrong head, a broken export or rounding to few bits shows here first.
"""

from __future__ import annotations

import math

from treetune.core.language import say
from treetune.core.records import Example, Prediction, Reason

NAME = "probabilities"
TASKS: tuple[str, ...] = ()
FLAG_ONLY = False
LIMIT = 1e-3
PLAIN = "probability"


def find(prediction: Prediction, example: Example) -> Reason | None:
    own = prediction.scores.get(PLAIN, math.nan)
    if not -LIMIT <= own <= 1 + LIMIT:
        return _reason(say("a probability is not between 0 and 1"), own)
    if not example.candidates:
        return None
    if prediction.answer not in example.candidates:
        return _reason(say("the answer is none of the labels"), 1.0, prediction.answer)
    given = {label: prediction.scores.get(f"{PLAIN}:{label}", math.nan) for label in example.candidates}
    off = abs(sum(given.values()) - 1)
    if not off <= LIMIT:
        return _reason(say("the labels' probabilities do not add up to one"), off)
    behind = max(given.values()) - given[prediction.answer]
    if behind > LIMIT:
        return _reason(say("the answer is not the likeliest label"), behind, prediction.answer)
    return None


def _reason(text: str, value: float, evidence: str = "") -> Reason:
    return Reason(NAME, text, value if math.isfinite(value) else None, LIMIT, evidence,
                  (0, len(evidence)) if evidence else None)
