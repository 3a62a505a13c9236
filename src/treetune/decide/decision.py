"""One prediction under a gate: accept, review or refuse, with reasons and the guarantee it stands under."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from treetune.core.language import say
from treetune.core.records import Decision, Prediction, Reason
from treetune.decide.gate import Gate
from treetune.decide.scores import PLAIN, fault_of
from treetune.decide.wording import guarantee, void_guarantee
from treetune.metrics.conformal import label_sets


def decide(gate: Gate, predictions: Sequence[Prediction], changed: Sequence[str] = ()) -> list[Decision]:
    """One decision a prediction.

    Args:
        changed: what of the gate's scope is not as it was; anything there makes the gate void, and nothing is accepted.
    """
    if not predictions:
        return []
    scores = gate.score.values(predictions)
    text = void_guarantee(changed) if changed else guarantee(gate.record)
    sound = np.isfinite(scores)
    confidence = np.full(len(scores), np.nan)
    confidence[sound] = gate.calibrator.confidence(scores[sound])
    return [
        _decision(gate, prediction, float(score), float(chance), changed, text)
        for prediction, score, chance in zip(predictions, scores, confidence, strict=True)
    ]


def void_decisions(predictions: Sequence[Prediction], changed: Sequence[str]) -> list[Decision]:
    """Review for everything, where the gate itself cannot be read."""
    reason = _void(changed)
    return [Decision("review", None, None, (reason,), (), void_guarantee(changed), False) for _ in predictions]


def _decision(
    gate: Gate, prediction: Prediction, score: float, confidence: float, changed: Sequence[str], text: str
) -> Decision:
    labels = _possible_labels(gate, prediction)
    fault = fault_of(prediction)
    if fault == "not_finite":
        reason = Reason("not_finite", say("the model's scores are not numbers"))
        return Decision("refuse", None, None, (reason,), labels, text, not changed)
    reasons = [_void(changed)] if changed else []
    if fault == "unfinished":
        reasons.append(Reason("unfinished", say("the answer did not end by itself")))
    elif gate.threshold is None:
        reasons.append(Reason("nothing_accepted", say("this gate accepts nothing: too little is proved"), score))
    elif score < gate.threshold:
        reasons.append(Reason("below_threshold", say("the score is below the gate's threshold"), score,
                              gate.threshold))
    if reasons and len(labels) > 1:
        reasons.append(Reason("several_labels", say("{count} labels are possible", count=len(labels)),
                              float(len(labels)), 1.0))
    known = not fault and not changed
    return Decision("review" if reasons else "accept", confidence if known else None,
                    None if fault else score, tuple(reasons), labels, text, not changed)


def _void(changed: Sequence[str]) -> Reason:
    return Reason("void", say("the gate is void: changed since it was set: {what}", what=", ".join(changed)))


def _possible_labels(gate: Gate, prediction: Prediction) -> tuple[str, ...]:
    """The prediction set; () where there is none."""
    names = [name for name in gate.limits if f"{PLAIN}:{name}" in prediction.scores]
    if not names or len(names) < len(gate.limits):
        return ()
    probability = np.array([[prediction.scores[f"{PLAIN}:{name}"] for name in names]])
    limits = np.array([gate.limits[name] for name in names])
    return tuple(names[place] for place in label_sets(probability, limits)[0])
