"""Which training rows may carry a wrong label, and which ones stand behind an answer.

Ways to rank: the row's loss; how many of its neighbours in the model's own representation carry another label; how
far its gradient points against those of the rows most like it (after Pruthi et al. 2020, arXiv 2002.08484, and
Charpiat et al. 2019); how unlikely its label is to a classifier that was fitted without it (Northcutt et al. 2021,
arXiv 1911.00068). Which of them finds planted errors best is measured in benchmarks/mislabeled.py.
Letters: N rows, M rows asked about, D width, K sketch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from treetune.explain.traces import Floats, Traces

NEIGHBOURS = 10
FOLDS = 5
ROWS_AT_ONCE = 512
BEST = "loss"  # nothing beat it: see benchmarks/results/mislabeled.md


@dataclass(frozen=True, slots=True)
class Rows:
    """The training rows as a ranking sees them. labels: (N,) names. states: (N, D). traces: None: not computed."""

    labels: Sequence[str]
    states: Floats
    traces: Traces | None = None
    seed: int = 0


def by_loss(rows: Rows) -> Floats:
    """(N,) the model's own loss: what it found hard."""
    assert rows.traces is not None
    return rows.traces.losses


def by_neighbours(rows: Rows) -> Floats:
    """(N,) share of the nearest rows that carry another label, the nearer ones counted more."""
    names = np.array(rows.labels)
    unit = unit_rows(rows.states - rows.states.mean(0))
    result = np.zeros(len(names), dtype=np.float32)
    for start in range(0, len(names), ROWS_AT_ONCE):
        near = unit[start : start + ROWS_AT_ONCE] @ unit.T
        near[np.arange(len(near)), np.arange(start, start + len(near))] = -np.inf
        places = np.argpartition(-near, NEIGHBOURS, axis=1)[:, :NEIGHBOURS]
        weights = np.maximum(np.take_along_axis(near, places, axis=1), 1e-6)
        differs = names[places] != names[start : start + len(near), None]
        result[start : start + len(near)] = (weights * differs).sum(1) / weights.sum(1)
    return result


def by_gradient(rows: Rows) -> Floats:
    """(N,) how far the rows whose gradients are most along or against a row's own pull the model the other way."""
    assert rows.traces is not None
    unit = unit_rows(rows.traces.gradients)
    result = np.zeros(len(unit), dtype=np.float32)
    for start in range(0, len(unit), ROWS_AT_ONCE):
        alike = unit[start : start + ROWS_AT_ONCE] @ unit.T
        alike[np.arange(len(alike)), np.arange(start, start + len(alike))] = 0
        places = np.argpartition(-np.abs(alike), NEIGHBOURS, axis=1)[:, :NEIGHBOURS]
        result[start : start + len(alike)] = -np.take_along_axis(alike, places, axis=1).sum(1)
    return result


def by_self_influence(rows: Rows) -> Floats:
    """(N,) squared length of the row's gradient: what one step on the row would change of its own loss."""
    assert rows.traces is not None
    squares: Floats = np.square(rows.traces.gradients).sum(1)
    return squares


def cross_validated(rows: Rows) -> Floats:
    """(N,) negative log-probability of the label to a linear classifier fitted on the other folds' states."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    names = np.array(rows.labels)
    result = np.zeros(len(names), dtype=np.float32)
    smallest = min(int((names == name).sum()) for name in set(names.tolist()))
    folds = StratifiedKFold(max(2, min(FOLDS, smallest)), shuffle=True, random_state=rows.seed)
    for fitted, held in folds.split(rows.states, names):
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=200))
        model.fit(rows.states[fitted], names[fitted])
        chance = model.predict_proba(rows.states[held])
        column = {name: place for place, name in enumerate(model.classes_)}
        own = [chance[number, column[name]] if name in column else 0.0 for number, name in enumerate(names[held])]
        result[held] = -np.log(np.maximum(own, 1e-9))
    return result


def both(rows: Rows) -> Floats:
    """(N,) mean of the row's ranks by its loss and by a classifier that was fitted without it."""
    scores = (by_loss(rows), cross_validated(rows))
    first, second = (np.argsort(np.argsort(values, kind="stable"), kind="stable") for values in scores)
    mean: Floats = ((first + second) / (2 * max(1, len(rows.labels) - 1))).astype(np.float32)
    return mean


RANKINGS: Mapping[str, Callable[[Rows], Floats]] = {
    "both": both,
    "cross_validated": cross_validated,
    "loss": by_loss,
    "neighbours": by_neighbours,
    "gradient": by_gradient,
    "self_influence": by_self_influence,
}
NEED_TRACES = ("both", "loss", "gradient", "self_influence")
NEED_STATES = ("both", "cross_validated", "neighbours")  # and labels


def suspects(rows: Rows, method: str, count: int) -> list[tuple[int, float]]:
    """(place, score) of the ``count`` most suspicious rows, the worst first."""
    scores = RANKINGS[method](rows)
    return [(int(place), float(scores[place])) for place in np.argsort(-scores, kind="stable")[:count]]


def nearest(states: Floats, asked: Floats, count: int) -> tuple[NDArray[np.int64], Floats]:
    """(M, count) places of the training rows nearest to each row asked about, and their cosines, nearest first.

    States are centred on the training rows' mean, as all states of a language model point much the same way.
    """
    centre = states.mean(0)
    alike = unit_rows(asked - centre) @ unit_rows(states - centre).T
    places = np.argsort(-alike, axis=1, kind="stable")[:, :count]
    return places, np.take_along_axis(alike, places, axis=1)


def supporting(training: Traces, asked: Traces, count: int) -> tuple[NDArray[np.int64], Floats]:
    """(M, count) training rows whose gradient is most along that of the answer, and the cosines, highest first."""
    alike = unit_rows(asked.gradients) @ unit_rows(training.gradients).T
    places = np.argsort(-alike, axis=1, kind="stable")[:, :count]
    return places, np.take_along_axis(alike, places, axis=1)


def unit_rows(values: Floats) -> Floats:
    """Every row at length 1; rows of zeros stay."""
    length = np.linalg.norm(values, axis=1, keepdims=True)
    return np.asarray(values / np.maximum(length, 1e-12), dtype=np.float32)
