"""What every part of the audit returns: one number with its interval, its test, and how small a gap it could see.

Holm's step-down correction (1979, "A Simple Sequentially Rejective Multiple Test Procedure") goes over all tests of a
family: the user's groups in every measure; sentences that differ in a person; pairs and questions of others. In each
family the chance of one false alarm or more is at most ``ALPHA``. The tests are exact where names and sentences stand
for each other, which real ones do but nearly, so a part of ``ALPHA`` is held back (benchmarks/fairness.py counts the
alarms of simulated models, for which it holds exactly).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from treetune.core.records import FloatArray, Interval
from treetune.metrics.interval import Clusters
from treetune.metrics.statistics import ScoreOfSums

ALPHA = 0.05  # chance of one false alarm or more, over all tests of a family
HELD_BACK = 0.3  # share of ALPHA that is not used
POWER = 0.8  # chance that a gap as large as the printed one is found
MIN_ROWS = 30  # a group with fewer is named and not tested
FAMILIES = {"gap": "groups", "flip": "sentences", "swap": "sentences", "translation": "sentences", "pairs": "others",
            "questions": "others"}


@dataclass(frozen=True, slots=True)
class What:
    """Which number this is.

    Attributes:
        kind: ``gap``, ``flip``, ``swap``, ``pairs``, ``questions`` or ``translation``. measure: e.g. ``quality``.
        attribute: column or attribute. group, against: what is compared; "" for the whole. language: of the texts.
    """

    kind: str
    measure: str
    attribute: str = ""
    group: str = ""
    against: str = ""
    language: str = ""


@dataclass(frozen=True, slots=True)
class Measured:
    """One number of the audit.

    Attributes:
        interval: value and 95 % bounds. counts: units in the group and outside, or units in all.
        p_value: two-sided, against no difference; None: described, not tested. error: standard error without a
            difference. shares: of a test of two shares instead: the pooled share, rows in the group and outside.
        correction: what a discrete test adds to the detectable gap. freedom: degrees of freedom of ``error``.
        rows: (N, S) statistics of the rows and score: what makes the value of their sums, for comparisons of two runs.
        cluster: rows that belong together. parts: further numbers to show, by name.
    """

    what: What
    interval: Interval
    counts: tuple[int, ...]
    p_value: float | None
    error: float
    rows: FloatArray
    score: ScoreOfSums
    correction: float = 0.0
    shares: tuple[float, int, int] | None = None
    cluster: Clusters | None = None
    parts: Mapping[str, float] = field(default_factory=dict)
    freedom: float = math.inf

    def detectable(self, num_tests: int) -> float:
        """The smallest gap found with chance ``POWER`` when ``num_tests`` are corrected for (Holm's first step).

        An error that few units tell is itself uncertain: Student's t has its place then.
        """
        from scipy.stats import t

        level = (1 - HELD_BACK) * ALPHA / max(1, num_tests)
        beyond, above = (float(t.ppf(each, self.freedom)) for each in (1 - level / 2, POWER))
        if self.shares is not None:
            return detectable_share(*self.shares, beyond, above, self.correction)
        return (beyond + above) * self.error + self.correction


def detectable_share(share: float, count: int, rest: int, beyond: float, above: float, correction: float) -> float:
    """The smallest gap d between a group's share and ``share`` elsewhere that is found.

    The group's share moves towards one half, where shares vary most, and its spread moves with it (Fleiss, Levin & Paik
    2003, "Statistical Methods for Rates and Proportions", section 4.2). 1 where no gap is large enough.
    """
    gaps = np.linspace(0, max(share, 1 - share), 1001)
    group = share - gaps if share > 0.5 else share + gaps
    pooled = (count * group + rest * share) / (count + rest)
    needed = beyond * np.sqrt(pooled * (1 - pooled) * (1 / count + 1 / rest)) + above * np.sqrt(
        group * (1 - group) / count + share * (1 - share) / rest) + correction
    enough = gaps >= needed
    return float(gaps[enough.argmax()]) if enough.any() else 1.0


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values in the order given."""
    order = sorted(range(len(p_values)), key=lambda place: p_values[place])
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, place in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = largest
    return adjusted


def findings(measured: Sequence[Measured]) -> list[dict[str, Any]]:
    """Plain records of all numbers of an audit in the order given, the tests of each family corrected together; a
    difference is found where ``p_adjusted``, what is held back counted in, is below ``ALPHA``.
    """
    tested: dict[str, list[float]] = {}
    for each in measured:
        if each.p_value is not None:
            tested.setdefault(FAMILIES[each.what.kind], []).append(each.p_value)
    adjusted = {family: iter(holm(values)) for family, values in tested.items()}
    found = []
    for each in measured:
        test = {}
        if each.p_value is not None:
            family = FAMILIES[each.what.kind]
            p_adjusted = min(1.0, next(adjusted[family]) / (1 - HELD_BACK))
            test = {"p_value": each.p_value, "p_adjusted": p_adjusted, "found": p_adjusted < ALPHA,
                    "detectable": each.detectable(len(tested[family]))}
        found.append({**asdict(each.what), **asdict(each.interval), "counts": list(each.counts),
                      "parts": dict(each.parts), **test})
    return found


def difference_of_means(sums: FloatArray) -> FloatArray:
    """(..., 4) holding [sum, count] of a group and of the rest -> (...) difference of their means; NaN without rows."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(sums[..., 0] / sums[..., 1] - sums[..., 2] / sums[..., 3])


def mean_or_nan(sums: FloatArray) -> FloatArray:
    """(..., 2) holding [sum, count] -> (...)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(sums[..., 0] / sums[..., 1])
