"""Answers for machines: one JSON object a row."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from treetune.core.records import Decision, Prediction


def to_lines(predictions: Sequence[Prediction]) -> str:
    """JSON lines of predictions."""
    return "".join(json.dumps(as_dict(each), ensure_ascii=False) + "\n" for each in predictions)


def as_dict(prediction: Prediction) -> dict[str, Any]:
    """One prediction for machines, numbers rounded to 6 places, null where one is not finite; ``decision`` where one
    was made.
    """
    decided = {} if prediction.decision is None else {"decision": decision_as_dict(prediction.decision)}
    return finite({
        "row": prediction.row, "id": prediction.row_id, "answer": prediction.answer, "text": prediction.text,
        "scores": {name: round(value, 6) for name, value in prediction.scores.items()},
        "token_log_probs": [round(value, 6) for value in prediction.token_log_probs],
        "finished": prediction.finished, "num_cut": prediction.num_cut, "seconds": round(prediction.seconds, 6),
        **decided,
    })


def decision_as_dict(decision: Decision) -> dict[str, Any]:
    """One decision for machines. Score and limit keep all their digits, so that they can be compared."""
    confidence = decision.confidence
    return {**asdict(decision), "confidence": None if confidence is None else round(confidence, 6)}


def finite(values: Mapping[str, Any]) -> dict[str, Any]:
    """JSON has no infinity: what is not a finite number becomes null."""
    return {name: _finite(value) for name, value in values.items()}


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return finite(value)
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return value
