"""Logistic regression on a few columns, by Newton's method with a weak ridge; written and read as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from treetune.core.records import FloatArray
from treetune.metrics.selective import BoolArray

RIDGE = 1.0
MAX_STEPS = 50
CLOSE = 1e-8
CLIP = 1e-9


def log_odds(probability: FloatArray) -> FloatArray:
    """log(p / (1 - p)), p held away from 0 and 1 by ``CLIP``."""
    held = np.clip(probability, CLIP, 1 - CLIP)
    return np.asarray(np.log(held) - np.log1p(-held))


def sigmoid(value: FloatArray) -> FloatArray:
    """1 / (1 + exp(-value)), without overflow."""
    return np.asarray(0.5 * (1 + np.tanh(0.5 * value)))


@dataclass(frozen=True, slots=True)
class Logistic:
    """Columns are standardised by ``mean`` and ``scale`` (F,), then weighed by ``weights`` (F,) and ``bias``."""

    mean: FloatArray
    scale: FloatArray
    weights: FloatArray
    bias: float

    def log_odds(self, columns: FloatArray) -> FloatArray:
        """(N, F) -> (N,)."""
        return np.asarray((columns - self.mean) / self.scale @ self.weights + self.bias)

    def probability(self, columns: FloatArray) -> FloatArray:
        """(N, F) -> (N,) of the true class."""
        return sigmoid(self.log_odds(columns))

    def as_dict(self) -> dict[str, Any]:
        return {"mean": self.mean.tolist(), "scale": self.scale.tolist(), "weights": self.weights.tolist(),
                "bias": self.bias}

    @staticmethod
    def from_dict(record: Mapping[str, Any]) -> Logistic:
        mean, scale, weights = (np.array(record[name], dtype=np.float64) for name in ("mean", "scale", "weights"))
        return Logistic(mean, scale, weights, float(record["bias"]))


def fit_logistic(columns: FloatArray, positive: BoolArray, ridge: float = RIDGE) -> Logistic:
    """Fit on (N, F) columns and (N,) outcomes; the ridge is on the weights only, so the mean outcome is kept."""
    mean, scale = columns.mean(0), columns.std(0)
    scale = np.where(scale > 0, scale, 1.0)
    design = np.concatenate([(columns - mean) / scale, np.ones((len(columns), 1))], axis=1)
    penalty = np.full(design.shape[1], ridge)
    penalty[-1] = CLOSE
    target = (positive * len(positive) + 0.5) / (len(positive) + 1)  # finite also when all outcomes are the same
    weights = np.zeros(design.shape[1])
    for _ in range(MAX_STEPS):
        probability = sigmoid(design @ weights)
        slope = design.T @ (target - probability) - penalty * weights
        bend = (design * (probability * (1 - probability))[:, None]).T @ design + np.diag(penalty)
        step = np.linalg.solve(bend, slope)
        length = float(np.abs(step).max())
        weights = weights + step * min(1.0, 4.0 / max(length, CLOSE))  # a longer step may overshoot
        if length < CLOSE:
            break
    return Logistic(mean, scale, weights[:-1], float(weights[-1]))
