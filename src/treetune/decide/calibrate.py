"""From a score to a confidence: the share of answers with such a score that are right.

The gate does not need it (its threshold is on the score), people do. Temperature: Guo et al. 2017, "On Calibration
of Modern Neural Networks", here on the answer's log-odds. Logistic: Platt 1999. Isotonic: Zadrozny & Elkan 2002.
Inductive Venn-Abers: Vovk, Petej & Fedorova 2015, "Large-scale probabilistic predictors with and without guarantees
of validity".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from treetune.core.records import FloatArray
from treetune.decide.logistic import Logistic, fit_logistic, log_odds, sigmoid
from treetune.decide.scores import PLAIN, folds
from treetune.metrics.calibration import squared_errors
from treetune.metrics.interval import paired_bootstrap
from treetune.metrics.selective import BoolArray
from treetune.metrics.statistics import mean_statistics, ratio

TEMPERATURES = np.geomspace(0.05, 20, 241)
ISOTONIC_ROWS = 200
VENN_ABERS_ROWS = 400
VENN_ABERS_PLACES = 128


@dataclass(frozen=True, slots=True)
class Calibrator:
    """A monotone map from a score to a confidence.

    Attributes:
        kind: ``plain`` (the score is a probability already), ``temperature``, ``logistic``, ``isotonic`` or
            ``venn_abers``.
        temperature: divides the log-odds. logistic: on the score, or on its log-odds where it is a probability.
        knots: (K, 2) score and confidence, rising; straight lines between.
    """

    kind: str
    is_probability: bool
    temperature: float = 1.0
    logistic: Logistic | None = None
    knots: tuple[tuple[float, float], ...] = ()

    def confidence(self, scores: FloatArray) -> FloatArray:
        """(N,) finite scores -> (N,) between 0 and 1."""
        if self.kind == "plain":
            return np.asarray(np.clip(scores, 0, 1))
        if self.kind == "temperature":
            return sigmoid(log_odds(scores) / self.temperature)
        if self.logistic is not None:
            return self.logistic.probability(_column(scores, self.is_probability))
        places, values = np.array(self.knots).T
        return np.asarray(np.interp(scores, places, values))

    def as_dict(self) -> dict[str, Any]:
        return {"kind": self.kind, "is_probability": self.is_probability, "temperature": self.temperature,
                "logistic": self.logistic.as_dict() if self.logistic else None, "knots": [list(k) for k in self.knots]}

    @staticmethod
    def from_dict(record: Mapping[str, Any]) -> Calibrator:
        fitted = Logistic.from_dict(record["logistic"]) if record["logistic"] else None
        knots = tuple((float(score), float(value)) for score, value in record["knots"])
        return Calibrator(record["kind"], record["is_probability"], record["temperature"], fitted, knots)


def fit_calibrator(kind: str, scores: FloatArray, wrong: BoolArray, is_probability: bool) -> Calibrator:
    """Fit one kind on finite (N,) scores."""
    if kind == "temperature":
        losses = [_log_loss(sigmoid(log_odds(scores) / each), ~wrong) for each in TEMPERATURES]
        return Calibrator(kind, is_probability, temperature=float(TEMPERATURES[int(np.argmin(losses))]))
    if kind == "logistic":
        fitted = fit_logistic(_column(scores, is_probability), ~wrong)
        return Calibrator(kind, is_probability, logistic=fitted)
    if kind == "isotonic":
        return Calibrator(kind, is_probability, knots=isotonic_knots(scores, ~wrong))
    if kind == "venn_abers":
        return Calibrator(kind, is_probability, knots=venn_abers_knots(scores, ~wrong))
    return Calibrator("plain", is_probability)


def choose_calibrator(
    scores: FloatArray, wrong: BoolArray, groups: Sequence[str], is_probability: bool
) -> tuple[Calibrator, dict[str, float]]:
    """The calibrator to use, and each one's Brier score on the tune split, by rows that it was not fitted on.

    The plain probability stays (for a score that is none: the logistic map) unless another one's Brier score is lower
    and the 95 % interval of the paired difference leaves 0 out.
    """
    first = "plain" if is_probability else "logistic"
    kinds = [first, *(["temperature"] if is_probability else []), "logistic"]
    kinds = list(dict.fromkeys(kinds + (["isotonic"] if len(scores) >= ISOTONIC_ROWS else [])
                              + (["venn_abers"] if len(scores) >= VENN_ABERS_ROWS else [])))
    losses = {kind: _held_out_losses(kind, scores, wrong, groups, is_probability) for kind in kinds}
    best, lowest = first, float(losses[first].mean())
    base = mean_statistics(losses[first].tolist(), "brier").rows
    for kind in kinds[1:]:
        rows = mean_statistics(losses[kind].tolist(), "brier").rows
        difference = paired_bootstrap(rows, base, ratio, seed=0, num_resamples=500, cluster=groups).interval
        if difference.high < 0 and losses[kind].mean() < lowest:
            best, lowest = kind, float(losses[kind].mean())
    return (fit_calibrator(best, scores, wrong, is_probability),
            {kind: float(values.mean()) for kind, values in losses.items()})


def is_probability(name: str) -> bool:
    """Whether a score of this name is a probability as it stands."""
    return name == PLAIN


def isotonic_knots(scores: FloatArray, right: BoolArray) -> tuple[tuple[float, float], ...]:
    """Ends of the blocks of the best rising step function, by pooling neighbours that fall (Ayer et al. 1955).

    Confidences stay one row's worth away from 0 and 1.
    """
    places, owner = np.unique(scores, return_inverse=True)
    blocks: list[tuple[float, float, float, float]] = []  # first score, last score, rows, right ones
    for place, rows, good in zip(places, np.bincount(owner), np.bincount(owner, weights=right), strict=True):
        blocks.append((float(place), float(place), float(rows), float(good)))
        while len(blocks) > 1 and blocks[-2][3] * blocks[-1][2] >= blocks[-1][3] * blocks[-2][2]:
            (start, _, rows_a, good_a), (_, end, rows_b, good_b) = blocks[-2:]
            blocks[-2:] = [(start, end, rows_a + rows_b, good_a + good_b)]
    doubt = 1 / (len(scores) + 2)
    knots = []
    for start, end, rows, good in blocks:
        value = float(np.clip(good / rows, doubt, 1 - doubt))
        knots += [(start, value), (end, value)]
    return tuple(dict.fromkeys(knots))


def venn_abers_knots(scores: FloatArray, right: BoolArray) -> tuple[tuple[float, float], ...]:
    """Score and confidence at ``VENN_ABERS_PLACES`` scores: isotonic fits with the new row taken as wrong (p0) and as
    right (p1) bracket its chance; p1 / (1 - p0 + p1) is the one number that loses least whichever holds.
    """
    from scipy.optimize import isotonic_regression

    places, owner = np.unique(scores, return_inverse=True)
    rows, good = np.bincount(owner).astype(float), np.bincount(owner, weights=right)
    looked_at = np.unique(np.linspace(0, len(places) - 1, VENN_ABERS_PLACES).round().astype(int))
    knots = []
    for place in looked_at:
        added = rows.copy()
        added[place] += 1
        low, high = (isotonic_regression((good + (np.arange(len(places)) == place) * outcome) / added,
                                         weights=added).x[place] for outcome in (0, 1))
        knots.append((float(places[place]), float(high / (1 - low + high))))
    return tuple(knots)


def _held_out_losses(
    kind: str, scores: FloatArray, wrong: BoolArray, groups: Sequence[str], is_probability: bool
) -> FloatArray:
    fold = folds(groups)
    values = np.zeros(len(scores))
    for number in np.unique(fold):
        held = fold == number
        fitted = fit_calibrator(kind, scores[~held], wrong[~held], is_probability) if not held.all() else \
            fit_calibrator(kind, scores, wrong, is_probability)
        values[held] = squared_errors(fitted.confidence(scores[held]), ~wrong[held])
    return values


def _column(scores: FloatArray, is_probability: bool) -> FloatArray:
    return (log_odds(scores) if is_probability else scores)[:, None]


def _log_loss(probability: FloatArray, right: BoolArray) -> float:
    held = np.clip(probability, 1e-12, 1 - 1e-12)
    return float(-np.where(right, np.log(held), np.log1p(-held)).mean())
