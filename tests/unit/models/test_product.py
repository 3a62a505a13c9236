"""Products by numpy's library are torch's, for every layout, and are asked for only where they pay."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from treetune.core.records import TokenizedExample
from treetune.models import product as products
from treetune.models.exactness import prove
from treetune.models.gpt3 import GPT3LMHeadModel
from treetune.models.label_loss import LabelLoss
from treetune.models.low_rank import LowRank
from treetune.models.product import numpys, pays, product, same_threads
from treetune.models.projection import project


class Library:
    """Stands for what threadpoolctl gives."""

    num_threads = 1

    def set_num_threads(self, count: int) -> None:
        self.num_threads = count


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """numpy multiplies whatever it can, on any processor; gives the shapes of its products."""
    shapes: list[tuple[int, ...]] = []
    matmul = np.matmul

    def counted(left: Any, right: Any, out: Any) -> Any:
        shapes.append((*left.shape, right.shape[1]))
        return matmul(left, right, out=out)

    library = Library()
    monkeypatch.setattr(products, "LEAST_WORK", 1)
    monkeypatch.setattr(products, "NARROWEST", 1)
    monkeypatch.setattr(products, "numpys", lambda: library)
    monkeypatch.setattr(products.np, "matmul", counted)
    return shapes


def matrices() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    return torch.randn(9, 14), torch.randn(14, 11)


LAYOUTS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "rows": lambda whole: whole,
    "columns": lambda whole: whole.T.contiguous().T,
    "rows of a wider one": lambda whole: torch.cat([whole, whole], dim=1)[:, : whole.shape[1]],
    "columns of a higher one": lambda whole: torch.cat([whole, whole]).T.contiguous().T[: len(whole)],
    "every other": lambda whole: whole.repeat_interleave(2, dim=1)[:, ::2],
    "a weight": lambda whole: nn.Parameter(whole),
}


@pytest.mark.parametrize("left_layout", LAYOUTS)
@pytest.mark.parametrize("right_layout", LAYOUTS)
def test_every_layout_gives_torchs_product(
    left_layout: str, right_layout: str, calls: list[tuple[int, ...]]
) -> None:
    left, right = matrices()
    true = left.double() @ right.double()
    left, right = LAYOUTS[left_layout](left), LAYOUTS[right_layout](right)
    found = product(left, right)
    assert torch.allclose(found.double(), true, rtol=1e-5, atol=1e-5)
    assert not found.requires_grad
    assert calls == [(9, 14, 11)]


def test_a_place_that_is_given_is_filled(calls: list[tuple[int, ...]]) -> None:
    left, right = matrices()
    whole = torch.full((20, 11), 7.0)
    found = product(left, right, whole[4:13])
    assert found.data_ptr() == whole[4:13].data_ptr()
    assert torch.equal(whole[4:13], product(left, right))
    assert bool((whole[:4] == 7).all() and (whole[13:] == 7).all())
    assert len(calls) == 2


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_types_are_torchs(dtype: torch.dtype, calls: list[tuple[int, ...]]) -> None:
    left, right = (each.to(dtype) for each in matrices())
    assert torch.equal(product(left, right), left @ right)
    assert calls == []


def test_small_and_narrow_products_are_torchs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "numpys", Library)
    assert pays(torch.empty(512, 512), torch.empty(512, 512))
    assert not pays(torch.empty(511, 512), torch.empty(512, 512))
    assert not pays(torch.empty(127, 4096), torch.empty(4096, 4096))
    assert not pays(torch.empty(4096, 4096), torch.empty(4096, 127))


@pytest.mark.parametrize("missing", ["OPENBLAS_THREAD_TIMEOUT", "GOMP_SPINCOUNT"])
def test_threads_that_stay_awake_leave_all_to_torch(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    library = Library()
    monkeypatch.setattr(products, "_openblas", lambda: library)
    for name, value in {"OPENBLAS_THREAD_TIMEOUT": "14", "GOMP_SPINCOUNT": "5000"}.items():
        monkeypatch.setenv(name, value)
    assert numpys() is library
    monkeypatch.delenv(missing)
    assert numpys() is None


def test_more_threads_than_were_measured_leave_all_to_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    library = Library()
    monkeypatch.setattr(products, "_openblas", lambda: library)
    monkeypatch.setattr(products, "sleep_soon", lambda _: True)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    assert numpys() is library
    monkeypatch.setattr(torch, "get_num_threads", lambda: 5)
    assert numpys() is None


def test_its_threads_are_as_many_as_torchs(monkeypatch: pytest.MonkeyPatch) -> None:
    library = Library()
    monkeypatch.setattr(products, "numpys", lambda: library)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    same_threads()
    assert library.num_threads == 3


@pytest.mark.parametrize(("text", "amd"), [
    ("vendor_id : AuthenticAMD\nflags : fma avx2", True),
    ("vendor_id : GenuineIntel\nflags : avx512f", False),
    ("", False),
])
def test_only_amds_with_avx_512_were_measured(text: str, amd: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "processor_text", lambda: text)
    assert products.is_amd() is amd
    assert products._openblas.__wrapped__() is None


def test_the_library_is_found_where_numpy_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "processor_text", lambda: "AuthenticAMD avx512f")
    library = products._openblas.__wrapped__()
    if library is None:
        pytest.skip("numpy does not bring OpenBLAS with threads of its own here")
    before = library.num_threads
    library.set_num_threads(1)
    assert library.num_threads == 1
    library.set_num_threads(before)


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("turned", [False, True], ids=["rows of outputs", "as GPT-2 keeps it"])
def test_a_layer_is_torchs_in_value_and_gradients(biased: bool, turned: bool, calls: list[tuple[int, ...]]) -> None:
    torch.manual_seed(0)
    states = torch.randn(2, 30, 24, requires_grad=True)
    kept = torch.randn((24, 8) if turned else (8, 24), requires_grad=True)
    bias = torch.randn(8, requires_grad=True) if biased else None
    weight = kept.T if turned else kept
    inputs = [states, kept, *([bias] if bias is not None else [])]
    ours, plain = project(states, weight, bias), functional.linear(states, weight, bias)
    assert "Projection" in type(ours.grad_fn).__name__
    slope = torch.randn_like(plain)
    assert torch.allclose(ours, plain, rtol=1e-5, atol=1e-5)
    for found, true in zip(torch.autograd.grad(ours, inputs, slope), torch.autograd.grad(plain, inputs, slope),
                           strict=True):
        assert torch.allclose(found, true, rtol=1e-5, atol=1e-5)
    assert len(calls) == 3


def test_an_adapter_is_torchs_in_value_and_gradients(calls: list[tuple[int, ...]]) -> None:
    torch.manual_seed(0)
    states, down, up = (torch.randn(shape, requires_grad=True) for shape in ((1, 30, 12), (3, 12), (10, 3)))
    weight, bias = torch.randn(12, 10), torch.randn(10)
    ours = LowRank.apply(states, weight, bias, down, up, 0.5)
    plain = states @ weight + bias + 0.5 * (states @ down.T) @ up.T
    slope = torch.randn_like(plain)
    assert torch.allclose(ours, plain, rtol=1e-5, atol=1e-5)
    for found, true in zip(torch.autograd.grad(ours, [states, down, up], slope),
                           torch.autograd.grad(plain, [states, down, up], slope), strict=True):
        assert torch.allclose(found, true, rtol=1e-4, atol=1e-4)
    assert (30, 12, 10) in calls
    assert (30, 10, 12) in calls


def test_the_loss_is_torchs_in_value_and_gradients(calls: list[tuple[int, ...]]) -> None:
    torch.manual_seed(0)
    hidden, matrix = torch.randn(7, 5, requires_grad=True), torch.randn(11, 5, requires_grad=True)
    labels = torch.randint(0, 11, (7,))
    ours = LabelLoss.apply(hidden, matrix, torch.arange(7), labels, torch.ones(7))
    plain = functional.cross_entropy(hidden @ matrix.T, labels, reduction="sum")
    assert torch.allclose(ours, plain, rtol=1e-5)
    for found, true in zip(torch.autograd.grad(ours, [hidden, matrix]), torch.autograd.grad(plain, [hidden, matrix]),
                           strict=True):
        assert torch.allclose(found, true, rtol=1e-4, atol=1e-5)
    assert len(calls) == 3


def test_a_tree_is_proved_with_it(
    make_gpt3: Callable[..., GPT3LMHeadModel], rows: list[TokenizedExample], calls: list[tuple[int, ...]]
) -> None:
    proof = prove(make_gpt3(), rows, "tree", 512)
    assert proof.layout == "tree"
    assert proof.difference < 1e-5
    assert calls


def test_many_rows_are_multiplied_some_at_a_time(
    calls: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(products, "ROWS_AT_A_TIME", 4)
    left, right = matrices()
    assert torch.allclose(product(left, right), torch.mm(left, right), atol=1e-6)
    assert calls == [(4, 14, 11), (4, 14, 11), (1, 14, 11)]


def test_numbers_that_are_none_are_passed_on_in_silence(calls: list[tuple[int, ...]]) -> None:
    left, right = matrices()
    left[2, 3] = float("inf")
    right[3] = 0.0
    found = product(left, right)
    assert calls
    assert torch.isnan(found[2]).all()
    assert torch.isfinite(found[3:]).all()


def test_a_part_of_a_matrix_is_multiplied_where_it_stands(calls: list[tuple[int, ...]]) -> None:
    left, right = torch.randn(300, 400), torch.randn(400, 600)
    tracemalloc.start()
    try:
        product(left[:, 100:200], right[100:200, 300:], out=torch.empty(300, 300))
        product(left[:, 100:200].T, right[:300, 300:], out=torch.empty(100, 300))
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(calls) == 2
    assert most < 4 * 100 * 300  # the smallest of the matrices
