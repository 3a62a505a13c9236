"""How sure a score is: percentile bootstrap, paired comparison, and Wilson's interval where nothing varies.

Percentile bootstrap: Efron & Tibshirani 1993, "An Introduction to the Bootstrap", section 13.3. For clustered
rows (five questions about one passage) whole clusters are drawn: Davison & Hinkley 1997, "Bootstrap Methods
and their Application", section 3.8; Field & Welsh 2007, "Bootstrapping clustered data". Paired p-value:
approximate randomisation, Noreen 1989, "Computer-Intensive Methods for Testing Hypotheses"; for texts,
Riezler & Maxwell 2005, "On Some Pitfalls in Automatic Evaluation and Significance Testing for MT".
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Sequence
from statistics import NormalDist

import numpy as np

from treetune.core.errors import UsageError
from treetune.core.records import Comparison, FloatArray, IntArray, Interval
from treetune.core.seeds import generator
from treetune.metrics.statistics import ScoreOfSums, nothing_to_score

NUM_RESAMPLES = 1000
LEVEL = 0.95
MAX_CELLS = 1 << 20  # weights held at a time: 8 MiB of float64, some 32 MiB with what they are made from
TIE = 1e-9  # differences closer than this count as equal

Clusters = Sequence[Hashable]


def bootstrap(
    statistics: FloatArray,
    score: ScoreOfSums,
    *,
    seed: int,
    num_resamples: int = NUM_RESAMPLES,
    level: float = LEVEL,
    cluster: Clusters | None = None,
) -> Interval:
    """Percentile bootstrap interval of a score.

    It describes chance in the choice of rows, not in training. Where no row differs from another it has no
    width: see `wilson`. With few units (fewer than about 20) it is too narrow.

    Args:
        statistics: (N, S) per row. score: sums (S,) or (B, S) -> value () or (B,).
        cluster: (N,) id of the cluster each row belongs to; rows of one cluster are drawn together. None:
            each row is drawn by itself.
        level: share of resamples inside, 0-1.

    Raises:
        UsageError: E2404 for a level or a number of resamples out of range. DataError: E1402 for no rows.
    """
    _check(statistics, num_resamples, level)
    units = unit_sums(statistics, cluster)
    values = np.concatenate([score(sums) for sums in resampled_sums(units, seed, num_resamples)])
    return _percentiles(float(score(units.sum(axis=0))), values, level)


def paired_bootstrap(
    statistics_a: FloatArray,
    statistics_b: FloatArray,
    score: ScoreOfSums,
    *,
    seed: int,
    num_resamples: int = NUM_RESAMPLES,
    level: float = LEVEL,
    cluster: Clusters | None = None,
    metric: str = "",
) -> Comparison:
    """Difference (a - b) of two systems on the same rows.

    The interval is the percentile bootstrap of the difference, both systems on the same resamples. The
    p-value is two-sided, from paired approximate randomisation: for each row (or cluster) the two systems'
    outputs are swapped by a coin, and p = (1 + trials at least as far apart) / (1 + trials); never 0. It is
    not corrected for several comparisons.

    Args:
        statistics_a, statistics_b: (N, S) of the same rows in the same order. Others as in `bootstrap`.

    Raises:
        UsageError: E2404. DataError: E1402. ValueError: when the two shapes differ.
    """
    if statistics_a.shape != statistics_b.shape:
        raise ValueError(f"statistics of shape {statistics_a.shape} and {statistics_b.shape} are not paired")
    _check(statistics_a, num_resamples, level)
    a, b = unit_sums(statistics_a, cluster), unit_sums(statistics_b, cluster)
    width = a.shape[1]
    both = np.concatenate([a, b], axis=1)
    differences = np.concatenate([
        score(sums[:, :width]) - score(sums[:, width:]) for sums in resampled_sums(both, seed, num_resamples)
    ])
    difference = float(score(a.sum(axis=0)) - score(b.sum(axis=0)))
    p_value = _randomisation(a, b, score, difference, seed, num_resamples)
    return Comparison(metric, _percentiles(difference, differences, level), p_value, len(statistics_a))


def wilson(share: float, count: int, level: float = LEVEL) -> Interval:
    """Wilson's interval (1927) of a share: honest even at 0 and 1, where the bootstrap claims certainty.

    Args:
        share: 0-1. count: independent units it stands on, >= 1.
    """
    z = NormalDist().inv_cdf((1 + level) / 2)
    scale = 1 + z * z / count
    centre = (share + z * z / (2 * count)) / scale
    half = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count)) / scale
    return Interval(share, min(share, max(0.0, centre - half)), max(share, min(1.0, centre + half)), level)


def unit_sums(statistics: FloatArray, cluster: Clusters | None) -> FloatArray:
    """(N, S) -> (G, S): the statistics of each unit that is drawn as a whole.

    Raises:
        ValueError: when there is not one cluster id a row.
    """
    if cluster is None:
        return statistics
    if len(cluster) != len(statistics):
        raise ValueError(f"{len(cluster)} cluster ids for {len(statistics)} rows")
    ids = cluster_ids(cluster)
    sums = np.zeros((int(ids.max()) + 1, statistics.shape[1]))
    np.add.at(sums, ids, statistics)
    return sums


def cluster_ids(cluster: Clusters) -> IntArray:
    """Clusters numbered 0, 1, … in order of first appearance, (N,)."""
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(name, len(numbers)) for name in cluster], dtype=np.int64)


def resampled_sums(units: FloatArray, seed: int, num_resamples: int) -> Iterator[FloatArray]:
    """Sums of ``num_resamples`` draws of G units with replacement, in chunks (b, S) of bounded memory.

    A draw is a line of multinomial weights; the sums of b draws are one matrix product (b, G) @ (G, S).
    """
    random = generator(seed, "bootstrap")
    count = len(units)
    for size in _chunks(num_resamples, count):
        drawn = random.integers(0, count, size=(size, count)) + np.arange(size)[:, None] * count
        weights = np.bincount(drawn.ravel(), minlength=size * count).reshape(size, count)
        yield weights.astype(np.float64) @ units


def _randomisation(
    a: FloatArray, b: FloatArray, score: ScoreOfSums, difference: float, seed: int, num_trials: int
) -> float:
    """Two-sided p-value of paired approximate randomisation over units (G, S)."""
    random = generator(seed, "randomisation")
    total_a, total_b, swap = a.sum(axis=0), b.sum(axis=0), b - a
    at_least = 0
    for size in _chunks(num_trials, len(a)):
        moved = random.integers(0, 2, size=(size, len(a))).astype(np.float64) @ swap
        shuffled = score(total_a + moved) - score(total_b - moved)
        at_least += int((np.abs(shuffled) >= abs(difference) - TIE).sum())
    return (1 + at_least) / (1 + num_trials)


def _chunks(total: int, width: int) -> Iterator[int]:
    """Sizes that add up to ``total``, each at most ``MAX_CELLS / width`` but at least 1."""
    size = max(1, MAX_CELLS // width)
    for start in range(0, total, size):
        yield min(size, total - start)


def _percentiles(value: float, values: FloatArray, level: float) -> Interval:
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high), level)


def _check(statistics: FloatArray, num_resamples: int, level: float) -> None:
    if not len(statistics):
        raise nothing_to_score()
    if not 0 < level < 1 or num_resamples < 1:
        raise UsageError("E2404", "this interval cannot be computed",
                         found=f"level {level}, {num_resamples} resamples",
                         allowed="a level between 0 and 1, at least 1 resample", do="correct the value")
