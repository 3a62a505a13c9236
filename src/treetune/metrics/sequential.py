"""Tests that may be looked at after every row: betting against "nothing has changed" and "the error is within bounds".

Test martingales: Ville 1939; conformal test martingales: Vovk, Gammerman & Shafer 2005, "Algorithmic Learning in a
Random World", chapter 7. A bet that multiplies capital by factors with mean at most 1 under the hypothesis reaches
1 / alpha with chance at most alpha, however long it goes on. Mixture over the time of a change: Shin, Ramdas & Rinaldo
2022, "E-detectors". Confidence sequence by the method of mixtures: Robbins 1970, "Statistical methods related to the
law of the iterated logarithm".
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from treetune.core.records import FloatArray
from treetune.metrics.selective import BoolArray

LINEAR = (-0.9, -0.5, 0.5, 0.9)  # 1 + b (2p - 1): small or large p-values on the whole
POWERS = (0.3, 0.6)  # k p^(k-1): a few extreme ones, at either end
NUM_BETS = len(LINEAR) + 2 * len(POWERS)
GRID = 200
MOST = 1e300


class ChangeMartingale:
    """Capital of a bettor who says that p-values which were uniform stop being so at some time.

    The time is unknown: share 1 / (j (j + 1)) of the capital enters at row j and bets from there on, in equal parts
    on every one of ``NUM_BETS`` ways to differ; the rest is kept. So a change late in a long stream costs only the
    logarithm of its time.
    """

    def __init__(self) -> None:
        self.rows = 0
        self._in_play = [0.0] * NUM_BETS

    @property
    def capital(self) -> float:
        """1 at the start; at least 1 / alpha ever with chance at most alpha while nothing changes."""
        return sum(self._in_play) / NUM_BETS + 1 / (self.rows + 1)

    def update(self, p_value: float) -> float:
        """Bet on one more p-value, above 0 and at most 1; gives the capital."""
        self.rows += 1
        enters = 1 / (self.rows * (self.rows + 1))
        self._in_play = [min((own + enters) * bet, MOST)
                         for own, bet in zip(self._in_play, bets(p_value), strict=True)]
        return self.capital


def bets(p_value: float) -> list[float]:
    """(NUM_BETS,) factors, each with mean 1 over a uniform p-value."""
    low, high = max(p_value, 1e-12), max(1 - p_value, 1e-12)
    return [*(1 + bet * (2 * p_value - 1) for bet in LINEAR), *(power * low ** (power - 1) for power in POWERS),
            *(power * high ** (power - 1) for power in POWERS)]


def risk_evidence(wrong: BoolArray, max_error: float) -> FloatArray:
    """(N,) capital after each row against "every row is wrong with chance at most ``max_error``".

    Likelihood ratios of ``GRID`` larger error rates, in equal parts; each falls on average under every smaller rate.
    """
    rates = max_error + (1 - max_error) * (np.arange(GRID) + 0.5) / GRID
    bad = np.cumsum(wrong)[:, None]
    good = np.arange(1, len(wrong) + 1)[:, None] - bad
    logs = bad * np.log(rates / max_error) + good * np.log((1 - rates) / (1 - max_error))
    return np.asarray(np.exp(np.minimum(logs, math.log(MOST))).mean(1))


def confidence_sequence(num_wrong: int, num_rows: int, confidence: float) -> tuple[float, float]:
    """Bounds of the error rate that hold at every time together with chance ``confidence``; (0, 1) without rows.

    A rate is left out once the mixture over all rates, by Jeffreys' Beta(1/2, 1/2), is 1 / (1 - confidence) times as
    likely.
    """
    from scipy.special import betaln

    if not num_rows:
        return 0.0, 1.0
    mixed = betaln(num_wrong + 0.5, num_rows - num_wrong + 0.5) - betaln(0.5, 0.5)
    seen = num_wrong / num_rows

    def kept(rate: float) -> bool:
        good = num_rows - num_wrong
        log = (num_wrong * math.log(rate) if num_wrong else 0.0) + (good * math.log1p(-rate) if good else 0.0)
        return bool(mixed - log < -math.log(1 - confidence))

    return _edge(kept, seen, 1e-12) if num_wrong else 0.0, _edge(kept, seen, 1 - 1e-12) if num_wrong < num_rows else 1.0


def _edge(kept: object, inside: float, outside: float) -> float:
    """The last rate that is kept between one that is and one that may not be, by halving."""
    assert callable(kept)
    if kept(outside):
        return outside
    inside = min(max(inside, 1e-12), 1 - 1e-12)
    for _ in range(60):
        middle = (inside + outside) / 2
        inside, outside = (middle, outside) if kept(middle) else (inside, middle)
    return inside


def first_alarm(capital: Sequence[float] | FloatArray, alarm_chance: float) -> int | None:
    """Number of rows (1 and up) after which the capital first reaches 1 / ``alarm_chance``."""
    reached = np.flatnonzero(np.asarray(capital) >= 1 / alarm_chance)
    return int(reached[0]) + 1 if len(reached) else None
