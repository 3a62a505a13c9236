"""The loss that a size and an amount of text give, fitted to small runs: L(N, D) = E + A / N^alpha + B / D^beta.

Hoffmann et al. 2022 (arXiv 2203.15556), section 3.3: the sum of Huber losses on log L, the smallest of many starts.
Compute is C = 6 N D; what is best for it follows from the five numbers alone.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
DELTA = 1e-3  # of the Huber loss on log L, as in the paper
UNIT = 1e6  # of parameters and of tokens inside the fit, so that all five numbers are near 1
LEAST_RUNS = 6  # five numbers and one run to spare
EXPONENTS = (0.02, 3.0)
HIGHEST = math.log(1e4)  # of A and B at UNIT


@dataclass(frozen=True, slots=True)
class Trained:
    """A run: parameters, tokens read, held-out loss (any unit)."""

    parameters: float
    tokens: float
    loss: float

    @property
    def flops(self) -> float:
        """6 N D."""
        return 6 * self.parameters * self.tokens


@dataclass(frozen=True, slots=True)
class Law:
    """E, A, alpha, B, beta; N and D in ones, the loss in the unit of the runs."""

    floor: float
    a: float
    alpha: float
    b: float
    beta: float

    def loss(self, parameters: float, tokens: float) -> float:
        """Predicted held-out loss."""
        return float(self.floor + self.a / parameters**self.alpha + self.b / tokens**self.beta)

    @property
    def size_exponent(self) -> float:
        """How the best size grows: as compute to this power."""
        return self.beta / (self.alpha + self.beta)

    def best_size(self, flops: float) -> float:
        """The parameters that make the loss smallest among all (N, D) of 6 N D = ``flops`` (equation 4)."""
        ratio = (self.alpha * self.a / (self.beta * self.b)) ** (1 / (self.alpha + self.beta))
        return float(ratio * (flops / 6) ** self.size_exponent)

    def best_loss(self, flops: float) -> float:
        """The loss at the best size."""
        size = self.best_size(flops)
        return self.loss(size, flops / 6 / size)

    def sizes_within(self, flops: float, share: float) -> tuple[float, float]:
        """The smallest and the largest size, within a factor of 30 of the best, whose loss is at most ``share`` above
        the best at the same compute."""
        sizes = self.best_size(flops) * np.geomspace(1 / 30, 30, 2001)
        most = (1 + share) * self.best_loss(flops)
        good = [size for size in sizes if self.loss(size, flops / 6 / size) <= most]
        return float(good[0]), float(good[-1])


def fit(runs: Sequence[Trained], starts: Sequence[Floats] | None = None, most_steps: int = 500) -> Law:
    """The law nearest to the runs.

    Args:
        starts: (5,) points to start from, as `numbers_of` gives them; a grid of them by default.
        most_steps: of each descent; a law that the runs do not determine would take many.

    Raises:
        ValueError: fewer than six runs, or fewer than three sizes or amounts of text.
    """
    if not can_be_fitted(runs):
        raise ValueError(f"{len(runs)} runs of {len({run.parameters for run in runs})} sizes: a law needs {LEAST_RUNS} "
                         "runs, three sizes and three amounts of text")
    found = (_descend(runs, start, most_steps) for start in (starts or grid(runs)))
    return law_of(min(found, key=lambda each: each.cost).x)


def can_be_fitted(runs: Sequence[Trained]) -> bool:
    """Whether there is enough to fit five numbers to; amounts of text within 5 % of each other are one."""
    amounts = {round(math.log(run.tokens) / 0.05) for run in runs}
    return len(runs) >= LEAST_RUNS and len({run.parameters for run in runs}) >= 3 and len(amounts) >= 3


def grid(runs: Sequence[Trained]) -> list[Floats]:
    """108 starts: exponents, and how much of the smallest loss is floor, size and text."""
    low = min(run.loss for run in runs)
    return [np.array([math.log(floor * low), math.log(a * low), alpha, math.log(b * low), beta])
            for floor, a, b, alpha, beta in itertools.product(
                (0.2, 0.5, 0.8), (0.1, 0.5), (0.1, 0.5), (0.2, 0.5, 1.0), (0.2, 0.5, 1.0))]


def _descend(runs: Sequence[Trained], start: Floats, most_steps: int) -> Any:
    from scipy.optimize import least_squares

    size = np.log([run.parameters / UNIT for run in runs])
    text = np.log([run.tokens / UNIT for run in runs])
    loss = np.log([run.loss for run in runs])

    def parts(point: Floats) -> Floats:
        """(3, runs) logarithms of floor, size term, text term."""
        floor, a, alpha, b, beta = point
        return np.stack([np.full_like(size, floor), a - alpha * size, b - beta * text])

    def residuals(point: Floats) -> Floats:
        return np.asarray(np.logaddexp.reduce(parts(point)) - loss)

    def slopes(point: Floats) -> Floats:
        logs = parts(point)
        floor, of_size, of_text = np.exp(logs - np.logaddexp.reduce(logs))
        return np.stack([floor, of_size, -of_size * size, of_text, -of_text * text], axis=1)

    low = [-10.0, -10.0, EXPONENTS[0], -10.0, EXPONENTS[0]]
    high = [float(loss.min()), HIGHEST, EXPONENTS[1], HIGHEST, EXPONENTS[1]]
    inside = np.clip(start, np.add(low, 1e-6), np.subtract(high, 1e-6))
    return least_squares(residuals, inside, slopes, bounds=(low, high), loss="huber", f_scale=DELTA, x_scale="jac",
                         max_nfev=most_steps)


def law_of(point: Floats) -> Law:
    """The law at a point of the fit."""
    floor, a, alpha, b, beta = map(float, point)
    return Law(math.exp(floor), math.exp(a) * UNIT**alpha, alpha, math.exp(b) * UNIT**beta, beta)


def numbers_of(law: Law) -> Floats:
    """The point of the fit at a law."""
    return np.array([math.log(law.floor), math.log(law.a) - law.alpha * math.log(UNIT), law.alpha,
                     math.log(law.b) - law.beta * math.log(UNIT), law.beta])


def resampled(runs: Sequence[Trained], law: Law, draws: int, seed: int = 0) -> list[Law]:
    """Laws of runs drawn with replacement; draws that cannot be fitted are drawn again.

    Each is started from the law of all runs and from three points of the grid.
    """
    draw = np.random.default_rng(seed)
    starts = [numbers_of(law), *grid(runs)[::36]]
    found: list[Law] = []
    while len(found) < draws:
        taken = [runs[place] for place in draw.integers(len(runs), size=len(runs))]
        if can_be_fitted(sorted(set(taken), key=lambda run: run.flops)):
            found.append(fit(taken, starts, most_steps=80))
    return found


def interval(values: Sequence[float], level: float = 0.9) -> tuple[float, float]:
    """The middle ``level`` of the values."""
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
