"""One prediction under a gate: accept, review or refuse, with reasons and the guarantee it stands under."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from treetune.core.language import say
from treetune.core.records import Decision, FloatArray, Prediction, Reason
from treetune.decide.gate import Gate
from treetune.decide.scores import PLAIN, fault_of
from treetune.decide.wording import guarantee, void_guarantee
from treetune.metrics.conformal import label_sets

UNGATED = "ungated"
Findings = Sequence[Sequence[Reason]]


@dataclass(frozen=True, slots=True)
class _Seen:
    """What a decision is made from. ``threshold``: that of the row's group, None where nothing is accepted."""

    prediction: Prediction
    score: float
    confidence: float
    findings: Sequence[Reason]
    part: str
    threshold: float | None


def decide(
    gate: Gate, predictions: Sequence[Prediction], changed: Sequence[str] = (), *, findings: Findings = (),
    parts: Sequence[str] = (), scores: FloatArray | None = None,
) -> list[Decision]:
    """One decision a prediction.

    Args:
        changed: what of the gate's scope is not as it was; anything there makes the gate void, and nothing is accepted.
        findings: what the checks found in each answer; the gate says which of them stop an answer.
        parts: the value of each row in the column that the gate gives guarantees by, where it does.
        scores: (N,) those of the gate's score, where they are known already.

    Raises:
        ValueError: the gate stops answers by checks or by groups, and ``findings`` or ``parts`` are not given.
    """
    if not predictions:
        return []
    if (gate.stopping and not findings) or (gate.groups is not None and not parts):
        raise ValueError("this gate needs what the checks found, and the group, of every row")
    scores = gate.score.values(predictions) if scores is None else scores
    text = void_guarantee(changed) if changed else guarantee(gate.record)
    sound = np.isfinite(scores)
    confidence = np.full(len(scores), np.nan)
    confidence[sound] = gate.calibrator.confidence(scores[sound])
    return [
        _decision(gate, _Seen(prediction, float(scores[place]), float(confidence[place]),
                              findings[place] if findings else (), part := parts[place] if parts else "",
                              gate.threshold_of(part)), changed, text)
        for place, prediction in enumerate(predictions)
    ]


def void_decisions(
    predictions: Sequence[Prediction], changed: Sequence[str], findings: Findings = ()
) -> list[Decision]:
    """Review for everything, where the gate itself cannot be read."""
    reason, text = _void(changed), void_guarantee(changed)
    return [Decision("review", None, None, (reason,), (), text, False, tuple(found))
            for found in findings or ((),) * len(predictions)]


def ungated_decisions(predictions: Sequence[Prediction], findings: Findings = ()) -> list[Decision]:
    """Without a gate nobody promises anything; what is no answer at all is still refused, what checks found is said."""
    text = say("No guarantee: no gate was set for this run.")
    return [_ungated(each, found, text)
            for each, found in zip(predictions, findings or ((),) * len(predictions), strict=True)]


def _ungated(prediction: Prediction, found: Sequence[Reason], text: str) -> Decision:
    fault = fault_of(prediction)
    if fault == "not_finite":
        return Decision("refuse", None, None, (_not_finite(),), (), text, False, tuple(found))
    reasons = [Reason("no_gate", say("no gate was set for this run"))]
    if fault == "unfinished":
        reasons.append(_unfinished())
    return Decision(UNGATED, None, None, tuple(reasons), (), text, False, tuple(found))


def _decision(gate: Gate, seen: _Seen, changed: Sequence[str], text: str) -> Decision:
    labels = _possible_labels(gate, seen.prediction)
    fault = fault_of(seen.prediction)
    stopped = [each for each in seen.findings if each.code in gate.stopping]
    flags = tuple(each for each in seen.findings if each.code not in gate.stopping)
    if fault == "not_finite":
        return Decision("refuse", None, None, (_not_finite(),), labels, text, not changed, flags)
    reasons = [*([_void(changed)] if changed else []), *_below(gate, seen, fault), *stopped]
    if reasons and len(labels) > 1:
        reasons.append(Reason("several_labels", say("{count} labels are possible", count=len(labels)),
                              float(len(labels)), 1.0))
    known = not fault and not changed
    return Decision("review" if reasons else "accept", seen.confidence if known else None,
                    None if fault else seen.score, tuple(reasons), labels, text, not changed, flags)


def _below(gate: Gate, seen: _Seen, fault: str) -> list[Reason]:
    """Why the score does not let the answer through; [] when it does."""
    if fault == "unfinished":
        return [_unfinished()]
    if gate.threshold is None:
        return [Reason("nothing_accepted", say("this gate accepts nothing: too little is proved"), seen.score)]
    if seen.threshold is None:
        return [Reason("group_not_proved", say("of the group {group!r} too little is proved", group=seen.part),
                       seen.score)]
    if seen.score < seen.threshold:
        return [Reason("below_threshold", say("the score is below the gate's threshold"), seen.score, seen.threshold)]
    return []


def _not_finite() -> Reason:
    return Reason("not_finite", say("the model's scores are not numbers"))


def _unfinished() -> Reason:
    return Reason("unfinished", say("the answer did not end by itself"))


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
