"""Products by another library are the same products, with the same gradients, and only where they are meant to be."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional
from transformers.pytorch_utils import Conv1D

from treetune.models import products
from treetune.models.products import FEW, Projection, by_onednn, outer, product, project, serves, use_products

needs_onednn = pytest.mark.skipif(not hasattr(torch.ops.mkldnn, "_linear_pointwise"), reason="a torch without oneDNN")


@pytest.fixture
def anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on an AMD processor."""
    monkeypatch.setattr(products, "by_onednn", lambda: True)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Grows by one with each product that oneDNN is asked for."""
    found: list[str] = []
    plain = products.serves

    def watched(states: torch.Tensor, weight: torch.Tensor) -> bool:
        served = plain(states, weight)
        found.extend(["onednn"] * served)
        return served

    monkeypatch.setattr(products, "serves", watched)
    return found


def gradients(out: torch.Tensor, inputs: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    torch.manual_seed(1)
    return torch.autograd.grad(out, inputs, torch.randn_like(out))


@needs_onednn
@pytest.mark.usefixtures("anywhere")
@pytest.mark.parametrize("shape", [(FEW, 24), (2, FEW, 24), (70, 24)])
@pytest.mark.parametrize("turned", [False, True], ids=["rows of outputs", "as GPT-2 keeps it"])
@pytest.mark.parametrize("outputs", [8, 40])
@pytest.mark.parametrize("biased", [False, True])
def test_value_and_gradients_are_torchs(shape: tuple[int, ...], turned: bool, outputs: int, biased: bool) -> None:
    torch.manual_seed(0)
    states = torch.randn(shape, requires_grad=True)
    kept = torch.randn((24, outputs) if turned else (outputs, 24), requires_grad=True)
    bias = torch.randn(outputs, requires_grad=True) if biased else None
    weight = kept.T if turned else kept
    inputs = [states, kept, *([bias] if bias is not None else [])]
    ours, plain = project(states, weight, bias), functional.linear(states, weight, bias)
    assert "Projection" in type(ours.grad_fn).__name__
    assert torch.allclose(ours, plain, rtol=1e-4, atol=1e-5)
    for one, other in zip(gradients(ours, inputs), gradients(plain, inputs), strict=True):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-4)
        assert one.stride() == other.stride() or one.is_contiguous()


@needs_onednn
@pytest.mark.usefixtures("anywhere")
def test_gradients_that_nobody_wants_are_not_computed() -> None:
    states, weight = torch.randn(40, 6), torch.randn(5, 6, requires_grad=True)
    Projection.apply(states, weight, None).sum().backward()
    assert states.grad is None
    assert torch.allclose(weight.grad, states.sum(0).expand(5, 6), rtol=1e-4)


@needs_onednn
@pytest.mark.usefixtures("anywhere")
@pytest.mark.parametrize(("states", "weight"), [
    (torch.randn(FEW - 1, 6), torch.randn(5, 6)),
    (torch.randn(40, 6, dtype=torch.float64), torch.randn(5, 6, dtype=torch.float64)),
    (torch.randn(40, 6).bfloat16(), torch.randn(5, 6).bfloat16()),
    (torch.randn(40, 6), torch.randn(5, 9)[:, :6]),
    (torch.randn(40, 9)[:, :6], torch.randn(5, 6)),
    (torch.randn(0, 6), torch.randn(5, 6)),
    (torch.randn(40, 6), torch.randn(0, 6)),
], ids=["few rows", "float64", "bfloat16", "a part of a matrix", "a part of the states", "no rows", "no outputs"])
def test_other_products_stay_torchs(states: torch.Tensor, weight: torch.Tensor) -> None:
    assert not serves(states, weight)
    assert torch.equal(product(states, weight), functional.linear(states, weight))
    assert torch.equal(project(states, weight, None), functional.linear(states, weight))


@needs_onednn
@pytest.mark.usefixtures("anywhere")
def test_under_autocast_torch_chooses_the_type() -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert project(torch.randn(40, 6), torch.randn(5, 6), None).dtype == torch.bfloat16


@needs_onednn
@pytest.mark.usefixtures("anywhere")
@pytest.mark.filterwarnings("ignore:.*jit.*deprecated:DeprecationWarning")
def test_what_is_traced_is_torchs_own(asked: list[str]) -> None:
    model = Both()
    use_products(model)
    traced = torch.jit.trace(model, torch.randn(40, 6), check_trace=False)
    assert not asked
    assert "mkldnn" not in str(traced.inlined_graph)


@needs_onednn
@pytest.mark.usefixtures("anywhere")
@pytest.mark.parametrize(("rows", "columns", "served"), [(6, 40, 1), (40, 6, 0), (6, 6, 0)])
def test_a_sum_of_outer_products_goes_where_it_is_faster(
    rows: int, columns: int, served: int, asked: list[str]
) -> None:
    left, right = torch.randn(50, rows), torch.randn(50, columns)
    found = outer(left, right)
    assert torch.allclose(found, left.T @ right, rtol=1e-4, atol=1e-5)
    assert bool(asked) == bool(served and rows >= FEW)


class Both(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.plain, self.turned = nn.Linear(6, 5), Conv1D(7, 5)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.turned(torch.tanh(self.plain(states)))
        return out


@needs_onednn
def test_both_kinds_of_layer_are_switched_and_give_what_they_gave(
    monkeypatch: pytest.MonkeyPatch, asked: list[str]
) -> None:
    monkeypatch.setattr(products, "by_onednn", lambda: True)
    model: Any = Both()
    states = torch.randn(2, 40, 6)
    before = model(states)
    use_products(model)
    assert torch.allclose(model(states), before, rtol=1e-4, atol=1e-6)
    assert asked
    kept = model.plain.forward
    use_products(model)
    assert model.plain.forward is kept


def test_elsewhere_layers_stay_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "by_onednn", lambda: False)
    model = Both()
    use_products(model)
    assert "forward" not in vars(model.plain)


@pytest.mark.parametrize(("text", "expected"), [("vendor : AuthenticAMD", True), ("vendor : GenuineIntel", False)])
def test_the_processor_decides(text: str, expected: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products.Path, "read_text", lambda self, encoding: text)
    by_onednn.cache_clear()
    try:
        assert by_onednn() is (expected and hasattr(torch.ops.mkldnn, "_linear_pointwise"))
    finally:
        by_onednn.cache_clear()


def test_a_system_without_that_file_is_no_amd(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(self: Any, encoding: str) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(products.Path, "read_text", missing)
    by_onednn.cache_clear()
    try:
        assert not by_onednn()
    finally:
        monkeypatch.undo()
        by_onednn.cache_clear()
