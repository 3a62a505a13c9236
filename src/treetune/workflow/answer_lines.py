"""Answers for machines: one JSON object a row."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from treetune.core.records import Decision, Prediction


def to_lines(predictions: Sequence[Prediction]) -> str:
    """JSON lines of predictions."""
    return "".join(json.dumps(as_dict(each), ensure_ascii=False) + "\n" for each in predictions)


def as_dict(prediction: Prediction) -> dict[str, Any]:
    """One prediction for machines, numbers rounded to 6 places; ``decision`` where one was made."""
    decided = {} if prediction.decision is None else {"decision": decision_as_dict(prediction.decision)}
    return {
        "row": prediction.row, "id": prediction.row_id, "answer": prediction.answer, "text": prediction.text,
        "scores": {name: round(value, 6) for name, value in prediction.scores.items()},
        "token_log_probs": [round(value, 6) for value in prediction.token_log_probs],
        "finished": prediction.finished, "num_cut": prediction.num_cut, "seconds": round(prediction.seconds, 6),
        **decided,
    }


def decision_as_dict(decision: Decision) -> dict[str, Any]:
    """One decision for machines. Score and limit keep all their digits, so that they can be compared."""
    confidence = decision.confidence
    return {**asdict(decision), "confidence": None if confidence is None else round(confidence, 6)}
