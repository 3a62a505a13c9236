"""The learning rate of a step."""

import pytest

from treetune.train.schedule import learning_rate


def rates(total: int, warmup: float, kind: str) -> list[float]:
    return [learning_rate(step, total, 2.0, warmup, kind) for step in range(total)]


def test_linear_rises_to_the_peak_and_would_reach_zero_after_the_last_step() -> None:
    assert rates(10, 0.2, "linear") == pytest.approx([1.0, 2.0, 2.0, 1.75, 1.5, 1.25, 1.0, 0.75, 0.5, 0.25])
    assert learning_rate(10, 10, 2.0, 0.2, "linear") == 0


def test_without_warm_up_the_first_step_has_the_peak() -> None:
    assert rates(4, 0, "linear") == pytest.approx([2.0, 1.5, 1.0, 0.5])


def test_cosine_is_at_half_in_the_middle() -> None:
    values = rates(8, 0, "cosine")
    assert values[0] == 2.0
    assert values[4] == pytest.approx(1.0)
    assert values == sorted(values, reverse=True)
    assert learning_rate(8, 8, 2.0, 0, "cosine") == pytest.approx(0)


def test_constant_stays_at_the_peak_after_the_warm_up() -> None:
    assert rates(5, 0.4, "constant") == [1.0, 2.0, 2.0, 2.0, 2.0]


@pytest.mark.parametrize("kind", ["linear", "cosine", "constant"])
@pytest.mark.parametrize("total", [1, 2, 7])
@pytest.mark.parametrize("warmup", [0, 0.05, 1.0])
def test_every_step_learns_and_none_passes_the_peak(kind: str, total: int, warmup: float) -> None:
    assert all(0 < rate <= 2.0 for rate in rates(total, warmup, kind))
