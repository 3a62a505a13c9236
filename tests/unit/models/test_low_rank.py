"""A layer and its adapter in one function give what peft gives, in value and gradient; peft does what else is asked."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers.pytorch_utils import Conv1D

from treetune.models import low_rank
from treetune.models.low_rank import LowRank, adapted, fuse_adapters, is_plain


class Both(nn.Module):
    """One matrix kept each way round, without and with a bias."""

    def __init__(self) -> None:
        super().__init__()
        self.plain = nn.Linear(6, 5, bias=False)
        self.turned = Conv1D(7, 5)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.turned(torch.tanh(self.plain(states)))
        return out


def adapted_model(dtype: torch.dtype = torch.float64, **options: Any) -> Any:
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="fan_in_fan_out")
        model = get_peft_model(Both(), LoraConfig(r=2, lora_alpha=6, target_modules=["plain", "turned"], **options))
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(weight)
    return model.to(dtype)


def results(model: Any, states: torch.Tensor) -> list[torch.Tensor]:
    """Value, and gradients of the states and of every trained weight."""
    states = states.clone().requires_grad_()
    model.zero_grad(set_to_none=True)
    out = model(states)
    (out.float() ** 2 if out.dtype == torch.bfloat16 else out**2).sum().backward()
    return [out, states.grad, *(weight.grad for weight in model.parameters() if weight.requires_grad)]


def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one with each use of the one function."""
    made: list[int] = []

    def counted(*given: Any) -> Any:
        made.append(1)
        return adapted(*given)

    monkeypatch.setattr(low_rank, "adapted", counted)
    return made


@pytest.mark.parametrize("shape", [(4, 6), (2, 3, 6), (1, 0, 6)])
def test_value_and_gradients_are_those_of_peft(shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    model, states = adapted_model(), torch.randn(shape, dtype=torch.float64)
    theirs = results(model, states)
    fuse_adapters(model)
    made = calls(monkeypatch)
    ours = results(model, states)
    assert len(made) == 2
    assert all(torch.allclose(one, other, rtol=1e-12, atol=1e-12) for one, other in zip(ours, theirs, strict=True))


def test_frozen_weights_get_no_gradient_and_what_is_not_asked_for_is_not_computed() -> None:
    weight, down, up = (torch.randn(shape, dtype=torch.float64) for shape in ((6, 5), (2, 6), (5, 2)))
    states = torch.randn(3, 6, dtype=torch.float64, requires_grad=True)
    up.requires_grad_()
    LowRank.apply(states, weight, None, down, up, 0.5).sum().backward()
    assert states.grad is not None
    assert up.grad is not None
    assert weight.grad is None
    assert down.grad is None


def test_some_outputs_are_those_columns_of_all() -> None:
    model, states = adapted_model(), torch.randn(3, 5, dtype=torch.float64)
    layer = model.base_model.model.turned
    whole = layer(states)
    assert torch.allclose(adapted(layer, states, slice(2, 6)), whole[:, 2:6], rtol=1e-12)


def test_under_autocast_products_are_in_its_type_and_gradients_in_that_of_the_weights() -> None:
    model, states = adapted_model(torch.float32), torch.randn(8, 6)
    plain = results(model, states)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        theirs = results(model, states)
    fuse_adapters(model)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours = results(model, states)
    assert ours[0].dtype == theirs[0].dtype == torch.bfloat16
    assert [each.dtype for each in ours[1:]] == [torch.float32] * len(ours[1:])
    for mine, other, exact in zip(ours, theirs, plain, strict=True):
        off, peft_off = (float(((each - exact).norm() / exact.norm()).detach()) for each in (mine, other))
        assert off < max(0.02, 2 * peft_off)


def other_adapter(model: Any) -> None:
    model.add_adapter("second", LoraConfig(r=2, target_modules=["plain", "turned"], fan_in_fan_out=False))
    model.base_model.set_adapter(["default", "second"])


ASIDE: dict[str, tuple[dict[str, Any], Callable[[Any], Any]]] = {
    "dropout": ({"lora_dropout": 0.5}, lambda model: None),
    "DoRA": ({"use_dora": True}, lambda model: None),
    "a bias of its own": ({"lora_bias": True}, lambda model: None),
    "two adapters": ({}, other_adapter),
    "merged": ({}, lambda model: model.merge_adapter()),
    "switched off": ({}, lambda model: model.base_model.disable_adapter_layers()),
    "a matrix that is trained": ({}, lambda model: [weight.requires_grad_() for weight in model.parameters()]),
}


@pytest.mark.filterwarnings("ignore:fan_in_fan_out")
@pytest.mark.parametrize("name", ASIDE)
def test_where_something_else_is_asked_peft_computes_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    options, change = ASIDE[name]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*merging LoRA weights")  # of a layer without a bias
        model, states = adapted_model(**options), torch.randn(4, 6, dtype=torch.float64)
    change(model)
    torch.manual_seed(1)
    expected = model(states)
    fuse_adapters(model)
    made = calls(monkeypatch)
    torch.manual_seed(1)
    assert torch.equal(model(states), expected)
    assert not made


def test_dropout_matters_in_training_only() -> None:
    layer = adapted_model(lora_dropout=0.5).base_model.model.turned
    states = torch.randn(3, 5, dtype=torch.float64)
    assert not is_plain(layer, states)
    assert is_plain(layer.eval(), states)


def test_a_second_call_changes_nothing() -> None:
    model = adapted_model()
    fuse_adapters(model)
    before = model.base_model.model.plain.forward
    fuse_adapters(model)
    assert model.base_model.model.plain.forward is before
