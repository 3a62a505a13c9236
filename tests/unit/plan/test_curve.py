"""Learning curves: what is expected ahead, and that its interval holds as often as it says."""

import numpy as np
import pytest

from treetune.core.errors import UsageError
from treetune.plan.curve import Point, ahead, fit, worth_going_on


def measured(rows: int, floor: float, slope: float, exponent: float, count: int, random: np.random.Generator) -> Point:
    right = 1 - (floor + slope * rows**-exponent)
    return Point(rows, random.binomial(count, right) / count, count)


def test_the_interval_holds_about_as_often_as_it_says_on_curves_of_its_kind() -> None:
    random = np.random.default_rng(0)
    inside = 0
    cases = 120
    for _ in range(cases):
        law = (random.uniform(0.02, 0.25), random.uniform(0.5, 1.2), random.uniform(0.2, 0.6), 400)
        points = [measured(rows, *law, random) for rows in (64, 128, 256, 512)]
        found = ahead(fit(points), 1024).score
        inside += found.low <= measured(1024, *law, random).score <= found.high
    assert 0.85 <= inside / cases <= 1.0


def test_a_flat_curve_promises_nothing_and_a_steep_one_something() -> None:
    flat = fit([Point(rows, 0.8, 2000) for rows in (100, 200, 400, 800)])
    steep = fit([Point(rows, score, 2000) for rows, score in ((100, 0.5), (200, 0.6), (400, 0.68), (800, 0.745))])
    assert ahead(flat, 1600).gain.high < 0.02
    assert ahead(steep, 1600).gain.low > 0.02
    assert ahead(steep, 1600).score.expected > 0.76
    assert not worth_going_on(flat, 1600, 0.02)
    assert worth_going_on(steep, 1600, 0.02)


def test_bounds_stand_in_order_inside_the_scale_and_more_rows_never_lose() -> None:
    curves = fit([Point(10, 0.1, 20), Point(20, 0.95, 20), Point(40, 1.0, 20)])
    before = 0.0
    for rows in (40, 80, 160, 1000):
        found = ahead(curves, rows)
        assert 0 <= found.score.low <= found.score.expected <= found.score.high <= 1
        assert found.gain.expected >= before - 1e-9
        before = found.gain.expected


def test_two_points_are_no_curve() -> None:
    with pytest.raises(UsageError, match="E2064"):
        fit([Point(10, 0.5, 20), Point(20, 0.6, 20)])
