"""The norm of gradients of all shapes."""

import pytest
import torch

from treetune.models.norm import distance, total_norm

SHAPES = [(), (1,), (7,), (5, 3), (2, 3, 4)]


def test_it_is_that_of_all_values_in_one_row() -> None:
    torch.manual_seed(0)
    gradients = [torch.randn(shape, dtype=torch.float64) for shape in SHAPES]
    whole = torch.cat([each.flatten() for each in gradients])
    assert total_norm(gradients) == pytest.approx(float(whole.norm()), rel=1e-12)


def test_there_may_be_none() -> None:
    assert total_norm([]) == 0.0


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_no_number_shows(bad: float) -> None:
    assert not torch.isfinite(torch.tensor(total_norm([torch.ones(3, 4), torch.tensor([[1.0, bad]])])))


def test_ten_million_values_lose_nothing_in_float32() -> None:
    torch.manual_seed(0)
    gradient = torch.randn(10_000, 1000)
    assert total_norm([gradient]) == pytest.approx(float(gradient.double().norm()), rel=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_distance_is_the_norm_of_the_difference(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    one, other = torch.randn(shape, dtype=torch.float64), torch.randn(shape, dtype=torch.float64)
    expected, kept = float((one - other).norm()), other.clone()
    assert distance(one, other) == pytest.approx(expected, rel=1e-12)
    assert torch.equal(other, kept)
