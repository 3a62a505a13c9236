"""Tests and intervals of the audit: exact where answers are right or wrong, by permutation where they are not.

Shares of independent rows: Fisher's exact test and Newcombe's interval (1998, "Interval Estimation for the Difference
between Independent Proportions", method 10). Means, and rows that come in clusters: permutation of whole clusters
between the groups with a studentised statistic (Janssen 1997; Chung & Romano 2013, "Exact and asymptotically robust
permutation tests") and the bootstrap. Clusters that stand in both groups: Student's t with cluster-robust variance.
One sample of differences: their signs are turned (Fisher 1935). Where there are few ways to deal units or signs, all of
them are gone through, else they are drawn. A share against one half: the binomial, and Clopper & Pearson (1934).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations

import numpy as np

from treetune.audit.measured import difference_of_means
from treetune.core.records import FloatArray, Interval
from treetune.core.seeds import generator
from treetune.metrics.interval import LEVEL, MAX_CELLS, Clusters, cluster_ids, resampled_sums, unit_sums, wilson
from treetune.metrics.selective import BoolArray

NUM_PERMUTATIONS = 9999
ALL_WAYS = 20_000  # up to so many ways to deal are all gone through
FIRST_LOOK = 999  # permutations after which a test goes on only if its p-value is still below HOPELESS
HOPELESS = 0.1
TIE = 1e-9


@dataclass(frozen=True, slots=True)
class TwoSamples:
    """A group against the rest: interval of the difference of means, p-value, and what `Measured` needs to say which
    gaps can be seen.
    """

    interval: Interval
    p_value: float
    error: float
    correction: float = 0.0
    shares: tuple[float, int, int] | None = None
    freedom: float = math.inf


def compare_groups(values: FloatArray, inside: BoolArray, cluster: Clusters | None, seed: int) -> TwoSamples:
    """Mean of ``values`` (N,) where ``inside`` minus the mean elsewhere.

    Args:
        cluster: (N,) ids of rows that may err together; None or all different: rows are independent.
    """
    binary = bool(np.isin(values, (0.0, 1.0)).all())
    if cluster is not None and len(set(cluster)) == len(cluster):
        cluster = None
    rows = two_sample_rows(values, inside)
    value = float(difference_of_means(rows.sum(axis=0)))
    error = pooled_error(values, inside, cluster)
    if binary and cluster is None:
        count, rest = int(inside.sum()), int((~inside).sum())
        share = (float(values.sum()) + 1) / (len(values) + 2)  # never 0 or 1: the next row may differ
        error = math.sqrt(share * (1 - share) * (1 / count + 1 / rest))
        interval = newcombe(float(values[inside].mean()), count, float(values[~inside].mean()), rest)
        return TwoSamples(interval, fisher(values, inside), error, (1 / count + 1 / rest) / 2, (share, count, rest))
    interval = bootstrap_interval(rows, cluster, seed) or Interval(value, value, value, LEVEL)
    units = unit_sums(rows, cluster)
    both = (units[:, 1] > 0) & (units[:, 3] > 0)
    sides = int((units[:, 1] > 0).sum()), int((units[:, 3] > 0).sum())
    if both.any():
        return TwoSamples(interval, robust_t(values, inside, cluster), error, freedom=max(1, min(sides) - 1))
    return TwoSamples(interval, permutation(units, seed), error, freedom=welch_freedom(*sides))


def two_sample_rows(values: FloatArray, inside: BoolArray) -> FloatArray:
    """(N, 4): [value, 1] of the group's rows and of the others'."""
    group = inside.astype(np.float64)
    return np.stack([values * group, group, values * (1 - group), 1 - group], axis=1)


def fisher(values: FloatArray, inside: BoolArray) -> float:
    """Two-sided p-value of Fisher's exact test of (N,) zeros and ones."""
    from scipy.stats import fisher_exact

    right, total = (int(values[inside].sum()), int(values.sum())), (int(inside.sum()), len(values))
    rest = total[1] - total[0]
    others = right[1] - right[0]
    return float(fisher_exact([[right[0], total[0] - right[0]], [others, rest - others]])[1])


def newcombe(share: float, count: int, other: float, other_count: int) -> Interval:
    """Of the difference of two independent shares, from their Wilson intervals."""
    one, two = wilson(share, count), wilson(other, other_count)
    value = share - other
    low = value - math.hypot(share - one.low, two.high - other)
    high = value + math.hypot(one.high - share, other - two.low)
    return Interval(value, low, high, LEVEL)


def bootstrap_interval(rows: FloatArray, cluster: Clusters | None, seed: int) -> Interval | None:
    """Percentile interval of a difference of means; resamples that miss a group are left out. None when all do."""
    units = unit_sums(rows, cluster)
    drawn = np.concatenate([difference_of_means(sums) for sums in resampled_sums(units, seed, 1000)])
    kept = drawn[np.isfinite(drawn)]
    if not len(kept):
        return None
    low, high = np.quantile(kept, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(difference_of_means(units.sum(axis=0))), float(low), float(high), LEVEL)


def pooled_error(values: FloatArray, inside: BoolArray, cluster: Clusters | None) -> float:
    """Standard error of the difference if both groups had the pooled mean, clusters counted as they are."""
    weights = np.where(inside, 1 / inside.sum(), -1 / (~inside).sum())
    influence = ((values - values.mean()) * weights)[:, None]
    return float(np.sqrt((unit_sums(influence, cluster) ** 2).sum()))


def welch_freedom(count: int, rest: int) -> float:
    """Degrees of freedom of the difference of two means whose units vary alike (Welch 1947)."""
    parts = [1 / (each * each * max(1, each - 1)) for each in (count, rest)]
    return (1 / count + 1 / rest) ** 2 / sum(parts)


def permutation(units: FloatArray, seed: int) -> float:
    """Two-sided p-value: whole units (U, 4) are dealt out anew between group and rest.

    All ways to deal are gone through where they are at most ``ALL_WAYS``, else some are drawn: (1 + as far) / (1 +
    drawn). A test whose p-value is far from any limit after ``FIRST_LOOK`` ends there: that can only keep it from being
    found.
    """
    inside = units[:, 1] > 0
    total, counts = units[:, 0] + units[:, 2], units[:, 1] + units[:, 3]
    moments = np.stack([total, counts, total**2, total * counts, counts**2], axis=1)
    whole, size = moments.sum(axis=0), int(inside.sum())
    observed = abs(float(_studentised(inside.astype(np.float64)[None] @ moments, whole)[0]))

    def as_far(chosen: FloatArray) -> int:
        return int((np.abs(_studentised(chosen @ moments, whole)) >= observed - TIE).sum())

    if math.comb(len(units), size) <= ALL_WAYS:
        ways = all_ways(len(units), size)
        return as_far(ways) / len(ways)
    random = generator(seed, "groups")
    at_least, done = 0, 0
    while done < NUM_PERMUTATIONS:
        goal = FIRST_LOOK if done < FIRST_LOOK else NUM_PERMUTATIONS
        step = min(goal - done, max(1, MAX_CELLS // len(units)))
        keys = random.random((step, len(units)))
        chosen = keys <= np.partition(keys, size - 1, axis=1)[:, size - 1 : size]
        at_least += as_far(chosen.astype(np.float64))
        done += step
        if done == FIRST_LOOK and at_least >= HOPELESS * FIRST_LOOK:
            break
    return (1 + at_least) / (1 + done)


@lru_cache(maxsize=4)
def all_ways(count: int, size: int) -> FloatArray:
    """(ways, ``count``) ones where a way to choose ``size`` of ``count`` units chooses."""
    chosen = np.array(list(combinations(range(count), size)), dtype=np.int64)
    ways = np.zeros((len(chosen), count))
    np.put_along_axis(ways, chosen, 1.0, axis=1)
    return ways


def _studentised(sums: FloatArray, total: FloatArray) -> FloatArray:
    """(b, 5) sums of [x, c, x², xc, c²] inside -> (b,) difference of means over its standard error."""
    outside = total - sums
    parts = []
    for one in (sums, outside):
        mean = one[:, 0] / one[:, 1]
        spread = np.maximum(0.0, one[:, 2] - 2 * mean * one[:, 3] + mean**2 * one[:, 4]) / one[:, 1] ** 2
        parts.append((mean, spread))
    (mean, spread), (other, other_spread) = parts
    error = np.sqrt(spread + other_spread)
    gap = mean - other
    return np.where(error > TIE, gap / np.maximum(error, TIE), np.where(np.abs(gap) > TIE, np.sign(gap) / TIE, 0.0))


def robust_t(values: FloatArray, inside: BoolArray, cluster: Clusters | None) -> float:
    """Two-sided p-value with cluster-robust variance; as many degrees of freedom as the smaller side has clusters."""
    from scipy.stats import t

    ids = np.arange(len(values)) if cluster is None else cluster_ids(cluster)
    mean, other = values[inside].mean(), values[~inside].mean()
    influence = np.where(inside, (values - mean) / inside.sum(), -(values - other) / (~inside).sum())
    units = np.bincount(ids, weights=influence)
    freedom = min(len(set(ids[inside].tolist())), len(set(ids[~inside].tolist()))) - 1
    error = math.sqrt(float((units**2).sum()) * len(units) / max(1, len(units) - 1))
    if error < TIE or freedom < 1:
        return 1.0 if abs(mean - other) < TIE or freedom < 1 else 0.0
    return float(2 * t.sf(abs(mean - other) / error, freedom))


def sign_test(differences: FloatArray, seed: int) -> float:
    """Two-sided p-value that (N,) differences are symmetric about 0: their signs are turned in all ways, or at random
    where there are more than ``ALL_WAYS``. Dividing by the spread would change nothing: squares have no sign.
    """
    observed = abs(float(differences.sum()))
    if 2 ** max(0, len(differences) - 1) <= ALL_WAYS:
        sums = differences[:1]  # the first sign may stay: turning all of them turns the sum
        for each in differences[1:]:
            sums = np.concatenate([sums + each, sums - each])
        return float((np.abs(sums) >= observed - TIE).mean())
    random = generator(seed, "signs")
    signs = random.integers(0, 2, size=(NUM_PERMUTATIONS, len(differences))) * 2 - 1
    at_least = int((np.abs(signs @ differences) >= observed - TIE).sum())
    return (1 + at_least) / (1 + NUM_PERMUTATIONS)


def against_half(count: int, total: int) -> tuple[Interval, float]:
    """Clopper and Pearson's interval of a share, and the two-sided binomial p-value of one half. ``total`` >= 1."""
    from scipy.stats import binomtest

    test = binomtest(count, total, 0.5)
    bounds = test.proportion_ci(LEVEL, method="exact")
    return Interval(count / total, float(bounds.low), float(bounds.high), LEVEL), float(test.pvalue)


def mean_interval(values: FloatArray, seed: int) -> Interval:
    """Bootstrap interval of a mean of (N,) independent units; Wilson's where they are 0 or 1."""
    value = float(values.mean())
    if bool(np.isin(values, (0.0, 1.0)).all()):
        return wilson(value, len(values))
    rows = np.stack([values, np.ones_like(values)], axis=1)
    drawn = np.concatenate([sums[:, 0] / sums[:, 1] for sums in resampled_sums(rows, seed, 1000)])
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(value, float(low), float(high), LEVEL)


