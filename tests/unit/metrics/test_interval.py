"""Intervals and paired comparisons: they cover, they are paired, they are the same for the same seed."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from treetune.core.errors import DataError, UsageError
from treetune.core.records import FloatArray
from treetune.metrics import interval
from treetune.metrics.interval import (
    bootstrap,
    cluster_ids,
    paired_bootstrap,
    resampled_sums,
    unit_sums,
    wilson,
)
from treetune.metrics.statistics import mean_statistics, ratio
from treetune.metrics.text import bleu_statistics


def rows_of(values: FloatArray) -> FloatArray:
    return mean_statistics(values.tolist(), "x").rows


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    random = np.random.default_rng(1)
    covered = 0
    for seed in range(300):
        found = bootstrap(rows_of(random.exponential(size=80)), ratio, seed=seed, num_resamples=300)
        covered += found.low <= 1 <= found.high
    assert 0.90 <= covered / 300 <= 0.98  # 0.95 less the small-sample loss of a skewed mean


def test_the_width_is_that_of_theory() -> None:
    values = np.random.default_rng(2).normal(size=2000)
    found = bootstrap(rows_of(values), ratio, seed=0, num_resamples=4000)
    assert found.value == pytest.approx(values.mean())
    assert found.high - found.low == pytest.approx(2 * 1.96 * values.std() / math.sqrt(2000), rel=0.06)
    narrow = bootstrap(rows_of(values), ratio, seed=0, num_resamples=4000, level=0.5)
    assert narrow.high - narrow.low == pytest.approx(2 * 0.6745 * values.std() / math.sqrt(2000), rel=0.08)


def test_same_seed_same_interval_other_seed_another() -> None:
    rows = rows_of(np.random.default_rng(3).normal(size=50))
    assert bootstrap(rows, ratio, seed=5) == bootstrap(rows, ratio, seed=5)
    assert bootstrap(rows, ratio, seed=5) != bootstrap(rows, ratio, seed=6)


def test_chunks_of_bounded_memory_draw_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.arange(14.0).reshape(7, 2)
    whole = np.concatenate(list(resampled_sums(rows, 0, 50)))
    monkeypatch.setattr(interval, "MAX_CELLS", 21)
    chunks = list(resampled_sums(rows, 0, 50))
    assert len(chunks) == 17
    assert np.concatenate(chunks).tolist() == whole.tolist()
    assert whole.shape == (50, 2)


def test_every_resample_has_as_many_rows_as_the_data() -> None:
    sums = np.concatenate(list(resampled_sums(np.ones((9, 1)), 0, 40)))
    assert (sums == 9).all()


def test_a_corpus_score_is_resampled_too() -> None:
    answers = ["the cat sat on the mat", "a dog ran by the river today", "no idea at all"] * 10
    references = [["a cat sat on a mat"], ["the dog ran by a river today"], ["no idea of it at all"]] * 10
    statistics = bleu_statistics(answers, references)
    found = bootstrap(statistics.rows, statistics.score, seed=0, num_resamples=200)
    assert 0 < found.low < found.value < found.high < 100


def test_rows_of_one_cluster_are_drawn_together() -> None:
    # Each value stands four times; as single rows they look like four times the evidence.
    values = np.random.default_rng(4).normal(size=100)
    rows = rows_of(np.repeat(values, 4))
    cluster = np.repeat(np.arange(100), 4).tolist()
    alone = bootstrap(rows, ratio, seed=0)
    together = bootstrap(rows, ratio, seed=0, cluster=cluster)
    plain = bootstrap(rows_of(values), ratio, seed=0)
    assert (together.high - together.low) / (alone.high - alone.low) == pytest.approx(2, rel=0.15)
    assert together.low == pytest.approx(plain.low)
    assert together.high == pytest.approx(plain.high)


def test_clusters_keep_their_rows_whatever_they_are_called() -> None:
    assert cluster_ids(["b", "a", "b", 3]).tolist() == [0, 1, 0, 2]
    assert unit_sums(np.array([[1.0], [2.0], [4.0]]), ["x", "y", "x"]).tolist() == [[5], [2]]
    with pytest.raises(ValueError, match="2 cluster ids for 3 rows"):
        unit_sums(np.ones((3, 1)), ["x", "y"])


def test_the_paired_test_is_symmetric() -> None:
    random = np.random.default_rng(5)
    a, b = rows_of(random.normal(0.3, 1, size=60)), rows_of(random.normal(size=60))
    forth, back = paired_bootstrap(a, b, ratio, seed=0), paired_bootstrap(b, a, ratio, seed=0)
    assert forth.p_value == back.p_value
    assert forth.interval.value == pytest.approx(-back.interval.value)
    assert forth.interval.low == pytest.approx(-back.interval.high)
    assert forth.count == 60


def test_a_system_does_not_differ_from_itself() -> None:
    rows = rows_of(np.random.default_rng(6).normal(size=30))
    found = paired_bootstrap(rows, rows, ratio, seed=0, metric="f1")
    assert (found.interval.value, found.interval.low, found.interval.high) == (0, 0, 0)
    assert found.p_value == 1
    assert found.metric == "f1"


def test_pairing_finds_what_two_separate_intervals_do_not() -> None:
    hard = np.random.default_rng(7).normal(0, 5, size=100)  # rows differ much more than systems
    better = rows_of(hard + 0.3 + np.random.default_rng(8).normal(0, 0.2, size=100))
    worse = rows_of(hard)
    a, b = bootstrap(better, ratio, seed=0), bootstrap(worse, ratio, seed=0)
    assert a.low < b.high
    found = paired_bootstrap(better, worse, ratio, seed=0)
    assert found.interval.low > 0
    assert found.p_value == pytest.approx(1 / 1001)  # never 0


def test_the_p_value_is_right_when_systems_are_equal() -> None:
    random = np.random.default_rng(9)
    p_values = [
        paired_bootstrap(rows_of(random.normal(size=30)), rows_of(random.normal(size=30)), ratio,
                         seed=seed, num_resamples=199).p_value
        for seed in range(200)
    ]
    assert np.mean(np.array(p_values) <= 0.1) == pytest.approx(0.1, abs=0.06)
    assert np.mean(p_values) == pytest.approx(0.5, abs=0.08)


def test_three_rows_by_hand() -> None:
    # a wins each of 3 rows by 1: of 8 swaps, 2 (none, all) are as far apart, so p is near 1/4.
    found = paired_bootstrap(rows_of(np.ones(3)), rows_of(np.zeros(3)), ratio, seed=0, num_resamples=4000)
    assert found.p_value == pytest.approx(0.25, abs=0.02)
    clustered = paired_bootstrap(rows_of(np.ones(3)), rows_of(np.zeros(3)), ratio, seed=0, cluster=[0, 0, 0])
    assert clustered.p_value == 1  # one cluster proves nothing


def test_wilson_by_hand() -> None:
    # 10 of 10, z = 1.96: low = 10 / (10 + 3.8415).
    found = wilson(1.0, 10)
    assert found.low == pytest.approx(10 / (10 + 1.959964**2))
    assert found.high == 1
    assert wilson(0.0, 10).high == pytest.approx(1 - found.low)


@given(st.integers(0, 50), st.integers(1, 50), st.floats(0.5, 0.999))
@settings(max_examples=80, deadline=None, derandomize=True)
def test_wilson_holds_the_share_and_stays_within_bounds(right: int, wrong: int, level: float) -> None:
    found = wilson(right / (right + wrong), right + wrong, level)
    assert 0 <= found.low <= found.value <= found.high <= 1


def test_wilson_equals_scipy() -> None:
    from scipy.stats import binomtest

    expected = binomtest(37, 50).proportion_ci(0.9, method="wilson")
    found = wilson(37 / 50, 50, 0.9)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_refusals() -> None:
    rows = np.ones((3, 2))
    with pytest.raises(DataError, match="E1402"):
        bootstrap(np.ones((0, 2)), ratio, seed=0)
    with pytest.raises(UsageError, match="E2404"):
        bootstrap(rows, ratio, seed=0, level=1.0)
    with pytest.raises(UsageError, match="E2404"):
        paired_bootstrap(rows, rows, ratio, seed=0, num_resamples=0)
    with pytest.raises(ValueError, match="not paired"):
        paired_bootstrap(rows, np.ones((2, 2)), ratio, seed=0)
