"""A linear layer that keeps a recipe gives what torch's gives; where there is none, it is torch's."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional
from transformers.pytorch_utils import Conv1D

from treetune.models.projection import project, use_projections
from treetune.models.recomputed import recompute


def normed(states: torch.Tensor) -> torch.Tensor:
    """States that can be made again."""
    norm = nn.LayerNorm(states.shape[-1]).to(states.dtype)
    recompute(norm)
    found: torch.Tensor = norm(states)
    return found


def gradients(out: torch.Tensor, inputs: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    torch.manual_seed(1)
    return torch.autograd.grad(out, inputs, torch.randn_like(out))


@pytest.mark.parametrize("shape", [(1, 24), (2, 30, 24), (70, 24)])
@pytest.mark.parametrize("turned", [False, True], ids=["rows of outputs", "as GPT-2 keeps it"])
@pytest.mark.parametrize("biased", [False, True])
def test_value_and_gradients_are_torchs(shape: tuple[int, ...], turned: bool, biased: bool) -> None:
    torch.manual_seed(0)
    states = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    kept = torch.randn((24, 8) if turned else (8, 24), dtype=torch.float64, requires_grad=True)
    bias = torch.randn(8, dtype=torch.float64, requires_grad=True) if biased else None
    weight = kept.T if turned else kept
    inputs = [states, kept, *([bias] if bias is not None else [])]
    ours = project(normed(states), weight, bias)
    plain = functional.linear(functional.layer_norm(states, (24,)), weight, bias)
    assert "Projection" in type(ours.grad_fn).__name__
    assert torch.allclose(ours, plain, rtol=1e-12, atol=1e-12)
    for found, true in zip(gradients(ours, inputs), gradients(plain, inputs), strict=True):
        assert torch.allclose(found, true, rtol=1e-10, atol=1e-12)


def test_a_gradient_of_a_turned_weight_is_laid_out_as_the_weight() -> None:
    layer = Conv1D(8, 24)
    use_projections(layer)
    layer(normed(torch.randn(50, 24))).sum().backward()
    assert layer.weight.grad.stride() == layer.weight.stride()


@pytest.mark.parametrize("trained", ["states", "weight"])
def test_what_needs_no_gradient_gets_none(trained: str) -> None:
    states = torch.randn(40, 6, requires_grad=trained == "states")
    weight = torch.randn(5, 6, requires_grad=trained == "weight")
    project(normed(states), weight, None).sum().backward()
    assert (states.grad is None) == (trained == "weight")
    assert (weight.grad is None) == (trained == "states")


def test_a_frozen_weight_keeps_no_input() -> None:
    states = normed(torch.randn(40, 6, requires_grad=True))
    out = project(states, torch.randn(5, 6), None)
    assert [tuple(each.shape) for each in out.grad_fn.saved_tensors] == [(5, 6)]  # type: ignore[union-attr]


def test_states_without_a_recipe_are_torchs_own() -> None:
    out = project(torch.randn(40, 6, requires_grad=True), torch.randn(5, 6), None)
    assert "Projection" not in type(out.grad_fn).__name__


@pytest.mark.parametrize("shape", [(6,), (0, 6), (2, 0, 6)])
def test_one_state_or_none_is_a_layers_input_as_well(shape: tuple[int, ...]) -> None:
    states, weight = torch.randn(shape), torch.randn(5, 6)
    assert torch.equal(project(states, weight, None), functional.linear(states, weight))


def test_under_autocast_torch_chooses_the_type() -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert project(normed(torch.randn(40, 6)), torch.randn(5, 6), None).dtype == torch.bfloat16


class Both(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.plain, self.turned = nn.LayerNorm(6), nn.Linear(6, 5), Conv1D(7, 5)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.turned(torch.tanh(self.plain(self.norm(states))))
        return out


def switched() -> Any:
    model = Both()
    use_projections(model)
    recompute(model)
    return model


@pytest.mark.filterwarnings("ignore:.*jit.*deprecated:DeprecationWarning")
def test_what_is_traced_is_torchs_own() -> None:
    traced = torch.jit.trace(switched(), torch.randn(40, 6), check_trace=False)
    assert "PythonOp" not in str(traced.inlined_graph)
    assert "Projection" not in str(traced.inlined_graph)


def test_both_kinds_of_layer_give_what_they_gave_and_are_switched_once() -> None:
    torch.manual_seed(0)
    before = Both()
    torch.manual_seed(0)
    model = switched()
    states = torch.randn(2, 40, 6)
    assert torch.equal(model(states), before(states))
    kept = model.plain.forward
    use_projections(model)
    assert model.plain.forward is kept


class TestGelu:
    """A layer behind a GELU, whose gradient is written in the place of the GELU's."""

    @pytest.mark.parametrize("turned", [False, True], ids=["rows of outputs", "as GPT-2 keeps it"])
    def test_value_and_gradients_are_torchs(self, turned: bool) -> None:
        torch.manual_seed(0)
        states = torch.randn(2, 30, 24, dtype=torch.float64, requires_grad=True)
        kept = torch.randn((24, 8) if turned else (8, 24), dtype=torch.float64, requires_grad=True)
        bias, weight = torch.randn(8, dtype=torch.float64, requires_grad=True), kept.T if turned else kept
        ours = project(activated(states), weight, bias)
        plain = functional.linear(functional.gelu(states, approximate="tanh"), weight, bias)
        assert "ProjectionOfGelu" in type(ours.grad_fn).__name__
        assert torch.allclose(ours, plain, rtol=1e-12, atol=1e-12)
        inputs = [states, kept, bias]
        for found, true in zip(gradients(ours, inputs), gradients(plain, inputs), strict=True):
            assert torch.allclose(found, true, rtol=1e-9, atol=1e-12)

    @pytest.mark.parametrize("trained", ["states", "weight"])
    def test_what_needs_no_gradient_gets_none(self, trained: str) -> None:
        states = torch.randn(40, 6, requires_grad=trained == "states")
        weight = torch.randn(5, 6, requires_grad=trained == "weight")
        project(activated(states), weight, None).sum().backward()
        assert (states.grad is None) == (trained == "weight")
        assert (weight.grad is None) == (trained == "states")

    def test_a_second_use_of_the_output_and_a_second_walk_back_find_what_the_first_found(self) -> None:
        torch.manual_seed(0)
        states, weight = torch.randn(40, 6, requires_grad=True), torch.randn(5, 6, requires_grad=True)
        found = activated(states)
        out = project(found, weight, None).sum() + found.square().sum()
        first = torch.autograd.grad(out, [states, weight], retain_graph=True)
        plain = functional.gelu(states, approximate="tanh")
        true = torch.autograd.grad(functional.linear(plain, weight).sum() + plain.square().sum(), [states, weight])
        for one, again, other in zip(first, torch.autograd.grad(out, [states, weight]), true, strict=True):
            assert torch.equal(one, again)
            assert torch.allclose(one, other, rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize("changed", ["input", "output"])
    def test_what_was_written_into_is_an_ordinary_input(self, changed: str) -> None:
        states = torch.randn(40, 6)
        found = activated(states)
        (states if changed == "input" else found).add_(1.0)
        weight = torch.randn(5, 6, requires_grad=True)
        out = project(found, weight, None)
        assert "ProjectionOfGelu" not in type(out.grad_fn).__name__
        assert torch.allclose(out, functional.linear(found, weight))


def activated(states: torch.Tensor) -> torch.Tensor:
    """A GELU that can be made again."""
    layer = nn.GELU(approximate="tanh")
    recompute(layer)
    found: torch.Tensor = layer(states)
    return found
