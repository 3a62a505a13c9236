"""Numbers that say how sure an answer is, from the model's own probabilities; a higher one is surer.

The plain score is the probability of the answer: what any tool shows. Another one takes its place only where it
ranks right above wrong better on the tune split, by more than chance explains.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from treetune.core.records import FloatArray, IntArray, Prediction
from treetune.core.seeds import generator, seed_of
from treetune.decide.evidence import EVIDENCE, used_by
from treetune.decide.logistic import Logistic, fit_logistic, log_odds
from treetune.decide.support import TEXT_SCORES
from treetune.metrics.interval import cluster_ids
from treetune.metrics.selective import (
    BoolArray,
    area_under_risk_coverage,
    areas_of_draws,
    auroc,
    prediction_rejection_ratio,
)

PLAIN = "probability"
COMBINED = "combined"
WIDE = "combined_with_evidence"  # beside the other, which costs nothing: only what wins by it is paid for later
NUM_FOLDS = 5
NUM_RESAMPLES = 200
LEVEL = 0.95
FEW_ROWS = 100  # below this many tune rows, or with fewer wrong ones than below, nothing but the plain score is tried
FEW_WRONG = 10

Features = Mapping[str, FloatArray]


def features_of(prediction: Prediction) -> dict[str, float]:
    """Every score of one prediction: ``probability`` always; ``margin`` to the runner-up and ``negative_entropy`` in
    nats over the labels, ``mean_log_prob`` and ``min_log_prob`` of the answer's tokens in nats, and the scores of
    `treetune.decide.support` and `treetune.decide.evidence`, where there are such.
    """
    found = {PLAIN: float(prediction.scores[PLAIN])}
    if "margin" in prediction.scores:
        found["margin"] = float(prediction.scores["margin"])
    by_label = [value for name, value in prediction.scores.items() if name.startswith(f"{PLAIN}:")]
    if len(by_label) > 1:
        found["negative_entropy"] = sum(value * math.log(value) for value in by_label if value > 0)
    if prediction.token_log_probs:
        found["mean_log_prob"] = sum(prediction.token_log_probs) / len(prediction.token_log_probs)
        found["min_log_prob"] = min(prediction.token_log_probs)
    found |= {name: float(prediction.scores[name]) for name in (*TEXT_SCORES, *EVIDENCE) if name in prediction.scores}
    return found


def feature_table(predictions: Sequence[Prediction]) -> dict[str, FloatArray]:
    """Name -> (N,) of the scores that all predictions have."""
    rows = [features_of(each) for each in predictions]
    shared = [name for name in rows[0] if all(name in row for row in rows)] if rows else [PLAIN]
    return {name: np.array([row[name] for row in rows], dtype=np.float64) for name in shared}


def fault_of(prediction: Prediction) -> str:
    """Why no score can speak for the answer: ``not_finite``, ``unfinished``, or "" when nothing is wrong with it.

    Such answers are never accepted, neither when the gate is set nor afterwards.
    """
    if not all(math.isfinite(value) for value in features_of(prediction).values()):
        return "not_finite"
    return "" if prediction.finished else "unfinished"


@dataclass(frozen=True, slots=True)
class ScoreChoice:
    """The score in use: one feature by ``name``, or ``combined…`` by logistic regression on several."""

    name: str
    features: tuple[str, ...] = ()
    logistic: Logistic | None = None

    @property
    def evidence(self) -> tuple[str, ...]:
        """What it needs of `treetune.decide.evidence`."""
        return used_by((self.name, *self.features))

    def values(self, predictions: Sequence[Prediction]) -> FloatArray:
        """(N,) scores; minus infinity for an answer with a fault."""
        if not predictions:
            return np.zeros(0)
        sound = np.array([not fault_of(each) for each in predictions])
        values = np.full(len(predictions), -np.inf)
        if sound.any():
            kept = [each for each, good in zip(predictions, sound, strict=True) if good]
            values[sound] = self.of_features(feature_table(kept))
        return values

    def of_features(self, table: Features) -> FloatArray:
        """(N,) scores from features by name."""
        if self.logistic is None:
            return np.asarray(table[self.name])
        return self.logistic.log_odds(columns(table, self.features))

    def as_dict(self) -> dict[str, Any]:
        fitted = self.logistic.as_dict() if self.logistic else None
        return {"name": self.name, "features": list(self.features), "logistic": fitted}

    @staticmethod
    def from_dict(record: Mapping[str, Any]) -> ScoreChoice:
        fitted = Logistic.from_dict(record["logistic"]) if record["logistic"] else None
        return ScoreChoice(record["name"], tuple(record["features"]), fitted)


@dataclass(frozen=True, slots=True)
class Candidate:
    """How well one score ranks on the tune split.

    Attributes:
        area: under the risk-coverage curve, lower is better. gain: by how much it is below the plain score's, with its
            95 % interval. auroc, rejection_ratio: None when all answers are right, or all wrong.
    """

    name: str
    area: float
    auroc: float | None
    rejection_ratio: float | None
    gain: float = 0.0
    low: float = 0.0
    high: float = 0.0


def choose_score(
    predictions: Sequence[Prediction], wrong: BoolArray, groups: Sequence[str]
) -> tuple[ScoreChoice, list[Candidate]]:
    """The score to use and how all of them did; rows with a fault are left out here, because no score ranks them."""
    sound = [place for place, each in enumerate(predictions) if not fault_of(each)]
    table = feature_table([predictions[place] for place in sound])
    wrong, groups = wrong[sound], [groups[place] for place in sound]
    enough = len(sound) >= FEW_ROWS and FEW_WRONG <= int(wrong.sum()) <= len(sound) - FEW_WRONG
    if not enough:
        return ScoreChoice(PLAIN), [_candidate(PLAIN, table[PLAIN], wrong)] if sound else []
    choices = {name: ScoreChoice(name) for name in table}
    values: dict[str, FloatArray] = dict(table)
    for combined, names in combinations(table).items():
        values[combined] = cross_fitted(columns(table, names), wrong, groups)
        choices[combined] = ScoreChoice(combined, names, fit_logistic(columns(table, names), ~wrong))
    gains = _gains(values, wrong, groups)
    found = [_candidate(name, own, wrong, gains.get(name)) for name, own in values.items()]
    best = max(found, key=lambda each: each.gain if each.low > 0 else 0.0)
    return choices[best.name if best.low > 0 else PLAIN], found


def combinations(table: Features) -> dict[str, tuple[str, ...]]:
    """Name -> features of what is tried together: those that cost nothing, and all of them."""
    cheap = tuple(name for name in table if name not in EVIDENCE)
    found = {COMBINED: cheap} if len(cheap) > 1 else {}
    return found if len(cheap) == len(table) else {**found, WIDE: tuple(table)}


def columns(table: Features, names: Sequence[str]) -> FloatArray:
    """(N, F) of the features; probabilities as log-odds."""
    return np.stack([log_odds(table[name]) if name == PLAIN else table[name] for name in names], axis=1)


def folds(groups: Sequence[str], count: int = NUM_FOLDS) -> IntArray:
    """(N,) number of the fold each row belongs to; rows of one group share it."""
    return np.array([seed_of(0, "fold", group) % count for group in groups], dtype=np.int64)


def cross_fitted(features: FloatArray, wrong: BoolArray, groups: Sequence[str]) -> FloatArray:
    """(N,) chance of being right, each row's by a logistic regression on the other folds: not flattered by fitting."""
    fold = folds(groups)
    values = np.zeros(len(wrong))
    for number in np.unique(fold):
        held = fold == number
        values[held] = fit_logistic(features[~held], ~wrong[~held]).probability(features[held])
    return values


def _candidate(
    name: str, values: FloatArray, wrong: BoolArray, gain: tuple[float, float, float] | None = None
) -> Candidate:
    ranked, rejection = auroc(values, wrong), prediction_rejection_ratio(values, wrong)
    return Candidate(name, area_under_risk_coverage(values, wrong), ranked if math.isfinite(ranked) else None,
                     rejection if math.isfinite(rejection) else None, *(gain or (0.0, 0.0, 0.0)))


def _gains(
    values: Features, wrong: BoolArray, groups: Sequence[str]
) -> dict[str, tuple[float, float, float]]:
    """Area of the plain score less that of each other one: value, low and high of a paired bootstrap over groups."""
    others = [name for name in values if name != PLAIN]
    drawn: dict[str, list[FloatArray]] = {name: [] for name in others}
    for rows in _resampled_rows(cluster_ids(groups)):
        base = areas_of_draws(values[PLAIN], wrong, rows)
        for name in others:
            drawn[name].append(base - areas_of_draws(values[name], wrong, rows))
    plain = area_under_risk_coverage(values[PLAIN], wrong)
    result = {}
    for name in others:
        low, high = np.quantile(np.concatenate(drawn[name]), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        result[name] = (plain - area_under_risk_coverage(values[name], wrong), float(low), float(high))
    return result


def _resampled_rows(units: IntArray) -> Iterator[IntArray]:
    """(B, N) row numbers of bootstrap resamples of whole units, those of one length N together where it is easy."""
    order = np.argsort(units, kind="stable")
    members = np.split(order, np.cumsum(np.bincount(units))[:-1])
    random = generator(0, "choice of a score")
    if len(members) == len(units):
        yield random.integers(0, len(members), size=(NUM_RESAMPLES, len(members)))
        return
    for _ in range(NUM_RESAMPLES):
        drawn = random.integers(0, len(members), size=len(members))
        yield np.concatenate([members[unit] for unit in drawn])[None]
