"""Relative Mahalanobis distance of hidden states from training rows (Ren et al. 2021, arXiv 2106.09022; 2022,
arXiv 2209.15558): how far a row is from what the model was tuned on, less how far it is from text in general.

Labels: the nearest of the classes' means under their pooled covariance, less the distance from all training rows
together. Other answers: the one mean of the training rows, less the distance from background texts. Distances are
squared; covariances are shrunk towards a multiple of the identity (Ledoit & Wolf 2004). All in float64.
Letters: N rows, C classes, D width of the states.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from treetune.core.records import FloatArray

LEAST_SPREAD = 1e-10  # of the mean variance, added to all: states that never vary have no inverse


@dataclass(frozen=True, slots=True)
class Normal:
    """Normal distributions of one covariance. ``means``: (C, D). ``covariance``: (D, D), shrunk by ``shrinkage``."""

    means: FloatArray
    covariance: FloatArray
    shrinkage: float

    def distances(self, states: FloatArray) -> FloatArray:
        """(N, C) squared Mahalanobis distance of (N, D) states from each mean."""
        factor = cho_factor(self.covariance, lower=True)
        apart = states[:, None, :] - self.means[None]
        solved = cho_solve(factor, apart.reshape(-1, apart.shape[-1]).T).T.reshape(apart.shape)
        return np.asarray((apart * solved).sum(-1))


def fit_normal(states: FloatArray, classes: Sequence[str] = (), shrinkage: float | None = None) -> Normal:
    """Means of the classes (one for all rows without such) and what they share of spread.

    Args:
        states: (N, D), N >= 1. classes: (N,). shrinkage: 0-1; None: Ledoit and Wolf's.
    """
    states = np.asarray(states, dtype=np.float64)
    names, own = np.unique(np.array(list(classes) or [""] * len(states)), return_inverse=True)
    means = np.stack([states[own == place].mean(0) for place in range(len(names))])
    centred = states - means[own]
    sample = centred.T @ centred / len(centred)
    share = shrinkage_of(centred, sample) if shrinkage is None else shrinkage
    level = float(np.trace(sample)) / len(sample)
    covariance = (1 - share) * sample
    covariance[np.diag_indices(len(sample))] += share * level + LEAST_SPREAD * (level or 1.0)
    return Normal(means, covariance, share)


def shrinkage_of(centred: FloatArray, sample: FloatArray) -> float:
    """Ledoit and Wolf's share of the identity, 0-1, for (N, D) centred rows with that covariance."""
    count, width = centred.shape
    level = np.trace(sample) / width
    squares = float((sample**2).sum())
    apart = squares - width * level**2
    noise = (float(((centred**2).sum(1) ** 2).sum()) / count - squares) / count
    return 1.0 if apart <= 0 else float(min(max(noise, 0.0) / apart, 1.0))


@dataclass(frozen=True, slots=True)
class Distances:
    """``near``: of the training rows. ``background``: of all of them together, or of other texts."""

    near: Normal
    background: Normal

    def nearness(self, states: FloatArray) -> FloatArray:
        """(N,) minus the relative distance of (N, D) states: higher is nearer to the training rows."""
        return np.asarray(self.background.distances(states)[:, 0] - self.near.distances(states).min(1))

    def to_bytes(self) -> bytes:
        """As safetensors."""
        from safetensors.numpy import save

        tensors = {f"{name}.{part}": np.ascontiguousarray(getattr(own, part))
                   for name, own in (("near", self.near), ("background", self.background))
                   for part in ("means", "covariance")}
        shrunk = {"near": self.near.shrinkage, "background": self.background.shrinkage}
        found: bytes = save(tensors, {"shrinkage": json.dumps(shrunk)})
        return found

    @staticmethod
    def from_bytes(data: bytes) -> Distances:
        """What `to_bytes` wrote; shrinkage, which no distance needs any more, is left out."""
        from safetensors.numpy import load

        found: dict[str, Any] = load(data)
        near, background = (Normal(found[f"{name}.means"], found[f"{name}.covariance"], float("nan"))
                            for name in ("near", "background"))
        return Distances(near, background)
