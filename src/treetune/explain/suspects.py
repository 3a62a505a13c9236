"""Which training rows may carry a wrong label, and which ones stand behind an answer.

Ways to rank: the row's loss; how many of its neighbours in the model's own representation carry another label; how
far its gradient points against those of the rows most like it (after Pruthi et al. 2020, arXiv 2002.08484, and
Charpiat et al. 2019); how unlikely its label is to a classifier that was fitted without it (Northcutt et al. 2021,
arXiv 1911.00068), on the model's representation or on the row's words; by how much its label trails another one while a
classifier learns (Pleiss et al. 2020, "Identifying Mislabeled Data using the Area Under the Margin Ranking"). Which of
them finds planted errors best is measured in benchmarks/mislabeled.py.
Letters: N rows, M rows asked about, D width, K sketch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from treetune.core.seeds import generator
from treetune.decide.validators.words import units_of
from treetune.explain.traces import Floats, Traces

NEIGHBOURS = 10
FOLDS = 5
LEAST = 1e-9  # a probability below counts as this
MARGIN_STEPS, MARGIN_RATE = 200, 10.0
ROWS_AT_ONCE = 512
BEST, BEST_OF_TEXTS = "words", "loss"  # of labels, of written answers: see benchmarks/results/mislabeled.md


@dataclass(frozen=True, slots=True)
class Rows:
    """The training rows as a ranking sees them. labels, texts: (N,). states: (N, D). traces: None: not computed."""

    labels: Sequence[str]
    states: Floats
    traces: Traces | None = None
    seed: int = 0
    texts: Sequence[str] = ()


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
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return _held_out(rows, rows.states, make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=200)))


def by_words(rows: Rows) -> Floats:
    """(N,) the same of a classifier that sees words and pairs of words alone."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    seen = TfidfVectorizer(analyzer=_words_and_pairs, sublinear_tf=True).fit_transform(rows.texts)
    return _held_out(rows, seen, LogisticRegression(C=10.0, max_iter=200))


def _words_and_pairs(text: str) -> list[str]:
    units = units_of(text)
    return [*units, *map(" ".join, pairwise(units))]


def _held_out(rows: Rows, seen: Any, model: Any) -> Floats:
    """(N,) negative log-probability of each label to the model fitted on the other folds of ``seen`` (N, ·)."""
    names = np.array(rows.labels)
    result = np.full(len(names), -np.log(LEAST), dtype=np.float32)
    fold = _folds(names, rows.seed)
    for number in range(FOLDS):
        fitted, held = np.flatnonzero(fold != number), np.flatnonzero(fold == number)
        if not len(held) or len(set(names[fitted].tolist())) < 2:
            continue  # nothing to learn from
        model.fit(seen[fitted], names[fitted])
        chance = model.predict_proba(seen[held])
        column = {name: place for place, name in enumerate(model.classes_)}
        own = [chance[place, column[name]] if name in column else 0.0 for place, name in enumerate(names[held])]
        result[held] = -np.log(np.maximum(own, LEAST))
    return result


def _folds(names: NDArray[np.str_], seed: int) -> NDArray[np.int64]:
    """(N,) a fold each; every label is dealt out evenly."""
    fold = np.zeros(len(names), dtype=np.int64)
    for name in sorted(set(names.tolist())):
        own = np.flatnonzero(names == name)
        fold[generator(seed, "folds", name).permutation(own)] = np.arange(len(own)) % FOLDS
    return fold


def by_margin(rows: Rows) -> Floats:
    """(N,) minus the area under the margin: by how much the label's logit led the best other one, on the mean over the
    steps of a linear classifier that learns on the states.
    """
    names, codes = np.unique(np.array(rows.labels), return_inverse=True)
    if len(names) < 2:
        return np.zeros(len(codes), dtype=np.float32)
    states = (rows.states - rows.states.mean(0)) / np.maximum(rows.states.std(0), 1e-6) / np.sqrt(rows.states.shape[1])
    own = np.eye(len(names))[codes]
    weights = np.zeros((states.shape[1], len(names)))
    total = np.zeros(len(codes))
    for _ in range(MARGIN_STEPS):
        logits = states @ weights
        chance = np.exp(logits - logits.max(1, keepdims=True))
        chance /= chance.sum(1, keepdims=True)
        weights += MARGIN_RATE * states.T @ (own - chance) / len(codes)
        logits = states @ weights
        total += np.where(own > 0, -np.inf, logits).max(1) - logits[np.arange(len(codes)), codes]
    return np.asarray(total / MARGIN_STEPS, dtype=np.float32)


def mean_rank(*rankings: Callable[[Rows], Floats]) -> Callable[[Rows], Floats]:
    """A ranking by the mean of a row's ranks in several, 0-1."""
    def ranked(rows: Rows) -> Floats:
        ranks = [np.argsort(np.argsort(each(rows), kind="stable"), kind="stable") for each in rankings]
        return np.asarray(np.mean(ranks, axis=0) / max(1, len(rows.labels) - 1), dtype=np.float32)

    return ranked


RANKINGS: Mapping[str, Callable[[Rows], Floats]] = {
    "both": mean_rank(by_loss, cross_validated),
    "several": mean_rank(by_loss, cross_validated, by_words),
    "cross_validated": cross_validated,
    "words": by_words,
    "margin": by_margin,
    "loss": by_loss,
    "neighbours": by_neighbours,
    "gradient": by_gradient,
    "self_influence": by_self_influence,
}
NEED_TRACES = ("both", "several", "loss", "gradient", "self_influence")
NEED_STATES = ("both", "several", "cross_validated", "margin", "neighbours")
NEED_LABELS = (*NEED_STATES, "words")


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
