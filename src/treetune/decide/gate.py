"""The gate: which answers may be used without a person, set on labelled rows that the model has never seen.

Rows are split by group (rows that share a source) into a tune side, which chooses the score, its calibrator and the
order of the thresholds, and a calibration side, which alone decides how far that order is walked.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from treetune.core.errors import DataError
from treetune.core.files import value_digest
from treetune.core.records import FloatArray
from treetune.decide.by_group import fit_groups
from treetune.decide.calibrate import Calibrator, choose_calibrator, is_probability
from treetune.decide.judged import Judged, one_per_group
from treetune.decide.scores import PLAIN, ScoreChoice, choose_score
from treetune.decide.sequence import Promise, Walk, rows_needed, thresholds_to_test, walk
from treetune.metrics.calibration import expected_calibration_error, reliability
from treetune.metrics.conformal import class_limits
from treetune.metrics.interval import wilson
from treetune.metrics.selective import (
    area_under_risk_coverage,
    auroc,
    prediction_rejection_ratio,
    risk_coverage,
)
from treetune.metrics.statistics import nothing_to_score

FORMAT = 2
MAX_POINTS = 100
MIN_FIRED = 20  # tune rows a check must have fired on before it may be found useless there


def useless_checks(tune: Judged, flag_only: Iterable[str] = ()) -> tuple[str, ...]:
    """Checks that the tune rows show to be of no use: they fire on ``MIN_FIRED`` rows or more, and these are not
    oftener wrong than the others. They become flags.
    """
    found = []
    for name in sorted({each.code for own in tune.findings for each in own} - set(flag_only)):
        fired = tune.stopped([name])
        if fired.sum() >= MIN_FIRED and (fired.all() or tune.wrong[fired].mean() <= tune.wrong[~fired].mean()):
            found.append(name)
    return tuple(found)


def scores_under(score: ScoreChoice, judged: Judged, checks: Iterable[str]) -> FloatArray:
    """(N,) scores; minus infinity, so never accepted, for an answer with a fault or stopped by a check."""
    return np.where(judged.stopped(checks), -np.inf, score.values(judged.predictions))


def fit_gate(
    tune: Judged, calibration: Judged, promise: Promise, *, every_row: bool = False,
    checks: Sequence[str] = (), flag_only: Sequence[str] = (), by: str = "",
) -> dict[str, Any]:
    """Set the gate; what it returns goes into ``gate.json`` and comes back as `Gate`.

    Args:
        every_row: count every calibration row by itself, also where several share a source. Only right when their
            errors are independent.
        checks: all that were run. flag_only: those of them that never change a verdict. by: name of the column in
            ``parts``; with it the bound holds within every group by itself, all of them together.

    Raises:
        DataError: E1502 a source stands on both sides. E1402 a side without rows.
    """
    refuse_shared(tune, calibration)
    if not len(tune) or not len(calibration):
        raise nothing_to_score()
    used = calibration if every_row else one_per_group(calibration)
    score, candidates = choose_score(tune.predictions, tune.wrong, tune.groups)
    stopping = tuple(name for name in checks if name not in {*flag_only, *useless_checks(tune, flag_only)})
    tuned, scores = scores_under(score, tune, stopping), scores_under(score, used, stopping)
    order = thresholds_to_test(tuned, tune.wrong, len(used), promise)
    walked = walk(order, scores, used.wrong, promise)
    sound = np.isfinite(tuned)
    calibrator, briers = choose_calibrator(
        tuned[sound], tune.wrong[sound], [group for group, good in zip(tune.groups, sound, strict=True) if good],
        is_probability(score.name),
    ) if sound.any() else (Calibrator("plain", is_probability=True), {})
    groups = fit_groups(by, (tuned, tune), (scores, used), promise) if by else None
    return {
        "threshold": walked.threshold if groups is None else groups["lowest"],
        "max_error": promise.max_error, "confidence": promise.confidence,
        "score": score.as_dict(), "candidates": [asdict(each) for each in candidates],
        "calibrator": calibrator.as_dict(), "brier": briers,
        "rows": {"tune": len(tune), "calibration": len(calibration), "tested": len(used), "every_row": every_row},
        "checks": {"stop": list(stopping), "flag": [name for name in checks if name not in stopping],
                   "fired": _fired(tune, used, checks)},
        "by": groups, "test": _test_record(walked),
        "accepted": _accepted(walked, len(used)) if groups is None else _accepted_by(groups, len(used)),
        "needed": _needed(tuned, scores, tune, used, promise, len(tune) + len(calibration)),
        "sets": _sets(used, promise), "measured": _measured(scores, used, calibrator),
    }


def refuse_shared(tune: Judged, calibration: Judged) -> None:
    """A row that chose the thresholds may not test them.

    Raises:
        DataError: E1502.
    """
    both = set(tune.groups) & set(calibration.groups)
    if both:
        raise DataError("E1502", "the same rows may not both tune and calibrate a gate",
                        where=sorted(both)[0][:80], found=f"{len(both)} sources on both sides", allowed="0",
                        do="take them out of one of the two")


def _fired(tune: Judged, used: Judged, checks: Iterable[str]) -> dict[str, Any]:
    """Of each check: rows of both sides that it fired on, and how many of them were wrong."""
    both = [(side.stopped([name]), side.wrong, name) for name in checks for side in (tune, used)]
    found: dict[str, dict[str, int]] = {name: {"rows": 0, "wrong": 0} for name in checks}
    for fired, wrong, name in both:
        found[name]["rows"] += int(fired.sum())
        found[name]["wrong"] += int((fired & wrong).sum())
    return found


def _test_record(walked: Walk) -> dict[str, Any]:
    finite = [float(value) if np.isfinite(value) else None for value in walked.thresholds]
    return {"thresholds": finite, "accepted": walked.num_accepted.tolist(), "wrong": walked.num_wrong.tolist(),
            "p_values": walked.p_values.tolist()}


def _accepted(walked: Walk, num_rows: int) -> dict[str, Any]:
    """What the gate accepts of the calibration rows; nothing when no threshold passed."""
    passed = walked.threshold is not None
    count = int(walked.num_accepted[walked.place]) if passed else 0
    wrong = int(walked.num_wrong[walked.place]) if passed else 0
    return {"rows": count, "wrong": wrong, "share": asdict(wilson(count / num_rows, num_rows))}


def _accepted_by(groups: Mapping[str, Any], num_rows: int) -> dict[str, Any]:
    """The same over all groups."""
    count, wrong = (sum(each[name] for each in groups["groups"].values()) for name in ("accepted", "wrong"))
    return {"rows": count, "wrong": wrong, "share": asdict(wilson(count / num_rows, num_rows))}


def _needed(
    tuned: Any, scores: Any, tune: Judged, used: Judged, promise: Promise, num_rows: int
) -> dict[str, Any]:
    """Rows of a file like this one that would do, over both sides; advice, without a guarantee."""
    needed = rows_needed(np.concatenate([tuned, scores]), np.concatenate([tune.wrong, used.wrong]), promise)
    total = None if needed.calibration is None else int(np.ceil(needed.calibration * num_rows / len(used)))
    return {**asdict(needed), "total": total, "have": num_rows}


def _sets(used: Judged, promise: Promise) -> dict[str, Any] | None:
    """Prediction sets for label tasks: the smallest probability at which each label stays possible."""
    labels = sorted(name.partition(":")[2] for name in used.predictions[0].scores if name.startswith(f"{PLAIN}:"))
    if not all(used.truths) or not set(used.truths) <= set(labels):
        return None
    probability = np.array([[each.scores[f"{PLAIN}:{label}"] for label in labels] for each in used.predictions])
    truth = np.array([labels.index(name) for name in used.truths])
    limits = class_limits(probability, truth, promise.max_error)
    return {"miss_rate": promise.max_error, "limits": dict(zip(labels, limits.tolist(), strict=True)),
            "rows": {label: int((truth == place).sum()) for place, label in enumerate(labels)}}


def _measured(scores: Any, used: Judged, calibrator: Calibrator) -> dict[str, Any]:
    """On the calibration rows, for the report: curve, ranking, reliability."""
    sound = np.isfinite(scores)
    record: dict[str, Any] = {"error": float(used.wrong.mean()), "faults": int((~sound).sum())}
    if not sound.any():
        return record
    curve = risk_coverage(scores, used.wrong)
    places = np.unique(np.linspace(0, len(curve.thresholds) - 1, MAX_POINTS).round().astype(int))
    kept, right = scores[sound], ~used.wrong[sound]
    confidence = calibrator.confidence(kept)
    bins = reliability(confidence, right)
    ranking = {"auroc": auroc(kept, ~right), "rejection_ratio": prediction_rejection_ratio(kept, ~right),
               "area": area_under_risk_coverage(kept, ~right)}
    return {
        **record, **{name: value if np.isfinite(value) else None for name, value in ranking.items()},
        "curve": {"coverage": curve.coverage[places].tolist(), "risk": curve.risk[places].tolist()},
        "reliability": {"confidence": bins.confidence.tolist(), "right": bins.right.tolist(),
                        "rows": bins.num_rows.tolist()},
        "expected_calibration_error": asdict(expected_calibration_error(confidence, right, seed=0)),
    }


@dataclass(frozen=True, slots=True)
class Gate:
    """A gate as read from its file. ``scope``: digest by name of all that it is bound to."""

    threshold: float | None
    promise: Promise
    score: ScoreChoice
    calibrator: Calibrator
    limits: Mapping[str, float]
    scope: Mapping[str, str]
    record: Mapping[str, Any]

    @property
    def stopping(self) -> tuple[str, ...]:
        """Checks that keep an answer from being accepted."""
        return tuple((self.record.get("checks") or {}).get("stop", ()))

    @property
    def groups(self) -> Mapping[str, Any] | None:
        """By value of ``record["by"]["column"]`` what stands of each group; None without such a column."""
        by = self.record.get("by")
        return None if by is None else by["groups"]

    def threshold_of(self, part: str) -> float | None:
        """The threshold for a row of that group; None where nothing of it is accepted."""
        if self.groups is None:
            return self.threshold
        threshold: float | None = self.groups.get(part, {}).get("threshold")
        return threshold

    @staticmethod
    def score_of(record: Mapping[str, Any]) -> ScoreChoice:
        """The score of a gate's record."""
        return ScoreChoice.from_dict(record["score"])

    @staticmethod
    def from_record(record: Mapping[str, Any]) -> Gate:
        """Read what `sealed` closed.

        Raises:
            ValueError: when it was changed since, or is of another format.
        """
        body = {name: value for name, value in record.items() if name != "digest"}
        if record.get("format") != FORMAT or record.get("digest") != value_digest(body):
            raise ValueError("not the gate that was written")
        return Gate(record["threshold"], Promise(record["max_error"], record["confidence"]),
                    ScoreChoice.from_dict(record["score"]), Calibrator.from_dict(record["calibrator"]),
                    (record["sets"] or {}).get("limits", {}), record["scope"], record)


def sealed(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record with its format and a digest of itself."""
    body = {**record, "format": FORMAT}
    return {**body, "digest": value_digest(body)}
