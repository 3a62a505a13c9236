"""Relative Mahalanobis distance: scipy's distances, scikit-learn's shrinkage, and what it must not depend on."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import mahalanobis
from sklearn.covariance import ledoit_wolf

from treetune.decide.distance import LEAST_SPREAD, Distances, fit_normal


def made(seed: int, count: int = 60, width: int = 5) -> tuple[np.ndarray, list[str], np.ndarray]:
    """States of two classes, their names, and other states."""
    random = np.random.default_rng(seed)
    mix = random.normal(size=(width, width))
    names = ["a" if place % 3 else "b" for place in range(count)]
    apart = np.array([[2.0 if name == "a" else -1.0] for name in names])
    return random.normal(size=(count, width)) @ mix + apart, names, 3 * random.normal(size=(7, width)) @ mix


def test_distances_are_those_of_scipy_on_random_data() -> None:
    states, names, others = made(0)
    own = fit_normal(states, names, shrinkage=0.0)
    centred = states - own.means[[0 if name == "a" else 1 for name in names]]
    inverse = np.linalg.inv(centred.T @ centred / len(centred))
    wanted = [[mahalanobis(row, mean, inverse) ** 2 for mean in own.means] for row in others]
    assert own.distances(others) == pytest.approx(np.array(wanted), rel=1e-6)
    assert own.means[0] == pytest.approx(states[[name == "a" for name in names]].mean(0))


@pytest.mark.parametrize(("count", "width"), [(60, 5), (8, 30)])
def test_shrinkage_is_ledoit_and_wolf_s(count: int, width: int) -> None:
    states, _, _ = made(1, count, width)
    own = fit_normal(states)
    wanted, share = ledoit_wolf(states)
    assert own.shrinkage == pytest.approx(share, rel=1e-9)
    assert own.covariance == pytest.approx(wanted, rel=1e-6, abs=1e-8)
    assert np.isfinite(own.distances(states)).all()  # with fewer rows than dimensions, too


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.sampled_from(["any map", "rotation"]))
def test_it_does_not_depend_on_the_axes_it_is_measured_in(seed: int, kind: str) -> None:
    states, names, others = made(seed)
    random = np.random.default_rng(seed + 1)
    turn = np.linalg.qr(random.normal(size=(5, 5)))[0] * random.uniform(0.1, 10)
    if kind == "any map":  # an invertible one, with nothing shrunk
        turn = turn @ np.diag(random.uniform(0.5, 2, size=5)) @ np.linalg.qr(random.normal(size=(5, 5)))[0]
    shift, share = random.normal(size=5), 0.0 if kind == "any map" else None

    def nearness(rows: np.ndarray, asked: np.ndarray) -> tuple[np.ndarray, float]:
        """And what the least spread, which depends on the axes, may change of it."""
        both = fit_normal(rows, names, share), fit_normal(rows, (), share)
        blur = sum(LEAST_SPREAD * np.linalg.cond(own.covariance) * own.distances(asked).max() for own in both)
        return Distances(*both).nearness(asked), blur

    (turned, blur), (plain, own_blur) = nearness(states @ turn + shift, others @ turn + shift), nearness(states, others)
    assert turned == pytest.approx(plain, rel=1e-5, abs=1e-6 + blur + own_blur)


def test_what_both_normals_share_cancels_and_rows_like_the_training_are_nearer() -> None:
    states, _, others = made(3)
    same = Distances(fit_normal(states), fit_normal(states))
    assert same.nearness(others) == pytest.approx(np.zeros(len(others)), abs=1e-9)
    random = np.random.default_rng(0)
    background = 4 * random.normal(size=(200, 5)) + 3
    own = Distances(fit_normal(states), fit_normal(background))
    assert own.nearness(states).mean() > own.nearness(background).mean() + 1


def test_it_is_read_as_it_was_written() -> None:
    states, names, others = made(4)
    own = Distances(fit_normal(states, names), fit_normal(states))
    again = Distances.from_bytes(own.to_bytes())
    assert again.nearness(others).tolist() == own.nearness(others).tolist()


def test_states_that_never_vary_have_a_distance() -> None:
    still = np.ones((10, 3))
    assert np.isfinite(Distances(fit_normal(still), fit_normal(still)).nearness(still + 1)).all()
