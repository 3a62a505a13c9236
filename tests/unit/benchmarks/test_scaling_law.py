"""The fitted law of size and text: it finds the numbers that losses were made with, and its best size is the best."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

SIZES = (0.7e6, 1.1e6, 1.7e6, 3.5e6, 6.2e6)
TEXTS = (0.6e6, 1.2e6, 2.4e6, 4.8e6)


@pytest.fixture(scope="module")
def laws(benchmark_module: Any) -> Any:
    return benchmark_module("scaling_law")


def law_of(laws: Any, floor: float, a: float, alpha: float, b: float, beta: float) -> Any:
    """A law whose terms of size and text are ``a`` and ``b`` at a million."""
    return laws.Law(floor, a * 1e6**alpha, alpha, b * 1e6**beta, beta)


def made(laws: Any, law: Any, noise: float = 0.0) -> list[Any]:
    """A grid of runs whose losses are those of the law, but for a share of chance."""
    draw = np.random.default_rng(7)
    return [laws.Trained(size, text, law.loss(size, text) * (1 + noise * draw.normal()))
            for size in SIZES for text in TEXTS]


@pytest.mark.parametrize(("floor", "alpha", "beta"), [(0.9, 0.34, 0.28), (1.3, 0.5, 0.6), (0.4, 0.25, 0.9)])
def test_the_numbers_that_losses_were_made_with_are_found(laws: Any, floor: float, alpha: float, beta: float) -> None:
    law = law_of(laws, floor, 0.5, alpha, 0.9, beta)
    found = laws.fit(made(laws, law))
    assert found.floor == pytest.approx(floor, rel=1e-3)
    assert (found.alpha, found.beta) == pytest.approx((alpha, beta), rel=1e-3)
    assert (found.a, found.b) == pytest.approx((law.a, law.b), rel=1e-2)
    assert found.best_size(5e14) == pytest.approx(law.best_size(5e14), rel=1e-2)


def test_one_run_gone_wrong_does_not_bend_the_law(laws: Any) -> None:
    law = law_of(laws, 0.9, 0.5, 0.4, 0.9, 0.35)
    runs = made(laws, law)
    runs[7] = laws.Trained(runs[7].parameters, runs[7].tokens, 1.3 * runs[7].loss)
    assert laws.fit(runs).loss(6.2e6, 2.4e6) == pytest.approx(law.loss(6.2e6, 2.4e6), rel=2e-3)


def test_intervals_come_from_resampled_runs_and_hold_the_truth(laws: Any) -> None:
    law = law_of(laws, 0.9, 0.5, 0.4, 0.9, 0.35)
    runs = made(laws, law, noise=0.003)
    found = laws.resampled(runs, laws.fit(runs), 12)
    assert found == laws.resampled(runs, laws.fit(runs), 12)
    low, high = laws.interval([each.loss(3.5e6, 9.6e6) for each in found])
    assert low < high
    assert 0.98 * low < law.loss(3.5e6, 9.6e6) < 1.02 * high


numbers = st.tuples(st.floats(0.1, 2), st.floats(0.1, 2), st.floats(0.1, 1.5), st.floats(0.1, 2), st.floats(0.1, 1.5))


@settings(deadline=None)
@given(numbers, st.floats(1e12, 1e16), st.floats(1.1, 100))
def test_more_compute_wants_a_larger_model_and_more_text(
    laws: Any, numbers: tuple[float, ...], flops: float, more: float
) -> None:
    law = law_of(laws, *numbers)
    size, larger = law.best_size(flops), law.best_size(more * flops)
    assert larger > size
    assert more * flops / larger > flops / size
    assert law.best_loss(more * flops) < law.best_loss(flops)


@settings(deadline=None)
@given(numbers, st.floats(1e12, 1e16), st.floats(1.01, 10))
def test_no_other_size_of_the_same_compute_is_better(
    laws: Any, numbers: tuple[float, ...], flops: float, factor: float
) -> None:
    law = law_of(laws, *numbers)
    for size in (law.best_size(flops) * factor, law.best_size(flops) / factor):
        assert law.loss(size, flops / 6 / size) >= law.best_loss(flops) * (1 - 1e-12)
    low, high = law.sizes_within(flops, 0.01)
    assert low <= law.best_size(flops) * (1 + 1e-9)
    assert high >= law.best_size(flops) * (1 - 1e-9)


def test_too_few_runs_are_refused(laws: Any) -> None:
    law = laws.Law(0.9, 100, 0.4, 100, 0.35)
    two_sizes = [run for run in made(laws, law) if run.parameters in SIZES[:2]]
    assert not laws.can_be_fitted(two_sizes)
    with pytest.raises(ValueError, match="8 runs of 2 sizes"):
        laws.fit(two_sizes)
