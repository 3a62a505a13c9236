"""A gradient that waits in factors has the norm, the values and the optimizer's step of the one multiplied out."""

import gc
import math
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from treetune.core import stretches
from treetune.core.records import TokenizedExample
from treetune.models.batches import batches_of
from treetune.models.decoder import loss_sum
from treetune.models.engine import fullest_engine, set_up
from treetune.models.tied import WAITS_AS, Factors
from treetune.train import waiting as module
from treetune.train.waiting import WaitingGradient, gradient_that_waits, step_in_portions

VOCABULARY, WIDTH = 101, 48


def waiting_gradient(
    states: list[int], reads: list[int], *, dtype: torch.dtype = torch.float64, half: bool = False
) -> WaitingGradient:
    """A pass for each number of labelled states, that read so many words, some of them twice."""
    torch.manual_seed(len(states) + sum(states))
    waiting = WaitingGradient(nn.Parameter(torch.randn(VOCABULARY, WIDTH, dtype=dtype)))
    for count, read in zip(states, reads, strict=True):
        slopes, labelled = torch.randn(count, VOCABULARY, dtype=dtype), torch.randn(count, WIDTH, dtype=dtype)
        if half:
            slopes, labelled = slopes.bfloat16(), labelled.bfloat16()
        waiting.add(Factors({0: slopes}, labelled, VOCABULARY), torch.randint(0, VOCABULARY // 3, (1, read)),
                    torch.randn(1, read, WIDTH, dtype=dtype))
    return waiting


def multiplied_out(waiting: WaitingGradient) -> torch.Tensor:
    """The gradient in one piece, by one product and one scatter for each pass."""
    whole = torch.zeros_like(waiting.matrix)
    for slopes, states, _ in waiting._factors:
        whole += (slopes[0].T @ states).to(whole.dtype)
    for ids, rows in waiting._rows:
        whole.index_add_(0, ids, rows)
    return whole


def settled(waiting: WaitingGradient) -> torch.Tensor:
    waiting.settle()
    assert not waiting
    assert waiting.matrix.grad is not None
    return waiting.matrix.grad


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(0, 8)), min_size=1, max_size=3), st.integers(1, 120))
@settings(deadline=None, max_examples=60)
def test_norm_and_portions_are_those_of_the_gradient_multiplied_out(
    passes: list[tuple[int, int]], words_at_a_time: int
) -> None:
    waiting = waiting_gradient([each[0] for each in passes], [each[1] for each in passes])
    whole = multiplied_out(waiting)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "NUMBERS_AT_A_TIME", words_at_a_time * WIDTH)
        portions = [(part, some.clone()) for part, some in waiting.portions()]
        norm = waiting.norm()
    assert [part.start for part, _ in portions] == list(range(0, VOCABULARY, words_at_a_time))
    assert torch.allclose(torch.cat([some for _, some in portions]), whole, rtol=1e-12, atol=1e-12)
    assert norm == pytest.approx(float(whole.norm()), rel=1e-12)
    assert torch.allclose(settled(waiting), whole, rtol=1e-12, atol=1e-12)


def test_the_norm_is_exact_where_labels_cancel_out() -> None:
    waiting = WaitingGradient(nn.Parameter(torch.zeros(VOCABULARY, WIDTH)))
    slopes, states = torch.randn(1, VOCABULARY), torch.randn(1, WIDTH)
    nearly = states * (1 + 1e-3 * torch.randn(1, WIDTH))
    waiting.add(Factors({0: torch.cat([slopes, -slopes])}, torch.cat([states, nearly]), VOCABULARY),
                torch.zeros(1, 0, dtype=torch.int64), torch.zeros(1, 0, WIDTH))
    norm = waiting.norm()
    exact = (slopes.double().T @ (states.double() - nearly.double())).norm()
    assert norm == pytest.approx(float(exact), rel=1e-9)
    assert norm < 0.01 * float(slopes.norm() * states.norm())


@pytest.mark.parametrize(("states", "reads"), [
    ([WIDTH // 4 + 1], [5]), ([7, 7, 30], [5, 5, 5]), ([40, 2], [5, 5]), ([1], [VOCABULARY]), ([1, 1], [20, 20]),
], ids=["one pass", "three", "many first", "many tokens", "many tokens together"])
def test_more_states_or_tokens_than_pay_are_multiplied_out_into_pieces(
    states: list[int], reads: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stretches, "NUMBERS_OF_A_PIECE", 30 * WIDTH)
    waiting, twin = (waiting_gradient(states, reads) for _ in range(2))
    portions = list(waiting.portions())
    assert [part.start for part, _ in portions] == [0, 30, 60, 90]
    norm, whole = waiting.norm(), torch.cat([some for _, some in portions])
    assert norm == pytest.approx(float(whole.norm()), rel=1e-12)
    monkeypatch.setattr(module, "may_stay_in_factors", lambda *_: True)
    in_factors = multiplied_out(waiting_gradient(states, reads))
    assert torch.allclose(whole, in_factors, rtol=1e-10)
    assert torch.equal(settled(twin), whole)


@pytest.mark.parametrize("words", [30, 60], ids=["a piece", "two pieces"])
def test_portions_of_slopes_go_as_pieces_are_made_of_them(words: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stretches, "NUMBERS_OF_A_PIECE", 30 * WIDTH)
    torch.manual_seed(0)
    slopes, states = torch.randn(40, VOCABULARY, dtype=torch.float64), torch.randn(40, WIDTH, dtype=torch.float64)
    portions = {first: slopes[:, first : first + words].clone() for first in range(0, VOCABULARY, words)}
    alive = [weakref.ref(each) for each in portions.values()]
    waiting = WaitingGradient(nn.Parameter(torch.zeros(VOCABULARY, WIDTH, dtype=torch.float64)))
    standing, product = [], WaitingGradient._product

    def watched(self: WaitingGradient, part: slice, *rest: Any) -> torch.Tensor:
        standing.append(sum(each() is not None for each in alive))
        return product(self, part, *rest)

    monkeypatch.setattr(WaitingGradient, "_product", watched)
    waiting.add(Factors(portions, states, words), torch.zeros(1, 0, dtype=torch.int64),
                torch.zeros(1, 0, WIDTH, dtype=torch.float64))
    assert standing == ([4, 3, 2, 1] if words == 30 else [2, 2, 1, 1])
    assert not any(each() is not None for each in alive)
    assert torch.allclose(settled(waiting), slopes.T @ states, rtol=1e-12, atol=1e-12)


def test_settling_adds_to_a_gradient_that_stands() -> None:
    waiting = waiting_gradient([2], [4])
    portions = torch.cat([some.clone() for _, some in waiting.portions()])
    waiting.matrix.grad = torch.ones_like(waiting.matrix)
    assert torch.allclose(settled(waiting), 1 + portions)


@pytest.mark.parametrize("kind", [torch.optim.AdamW, torch.optim.Adam])
@pytest.mark.parametrize("half", [False, True], ids=["float32", "bfloat16 factors"])
def test_a_step_in_portions_is_the_optimizers_own(
    kind: Callable[..., torch.optim.Optimizer], half: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "NUMBERS_AT_A_TIME", 30 * WIDTH)
    waiting, twin = (waiting_gradient([3, 4], [9, 6], dtype=torch.float32, half=half) for _ in range(2))
    optimizers = [kind([each.matrix], lr=1e-2, weight_decay=0.1, fused=True) for each in (waiting, twin)]
    for each, optimizer in zip((waiting, twin), optimizers, strict=True):  # a step before, so that a state stands
        each.matrix.grad = torch.ones_like(each.matrix)
        optimizer.step()
        each.matrix.grad = None
    step_in_portions(waiting, [optimizers[0]], torch.tensor(7.0))
    twin.matrix.grad = multiplied_out(twin) / 7.0
    optimizers[1].step()
    assert torch.allclose(waiting.matrix, twin.matrix, rtol=1e-6, atol=1e-7)
    state, other = (optimizer.state[each.matrix] for optimizer, each in zip(optimizers, (waiting, twin), strict=True))
    assert float(state["step"]) == float(other["step"]) == 2.0
    for name in ("exp_avg", "exp_avg_sq"):
        assert torch.allclose(state[name], other[name], rtol=1e-5, atol=1e-7), name


def few_labels(rows: list[TokenizedExample]) -> list[TokenizedExample]:
    return [row for row in rows if len(row.completion_ids) <= 2][:3]


def adamw(model: Any, **changes: Any) -> torch.optim.Optimizer:
    optimizer = torch.optim.AdamW(model.parameters(), **{"lr": 1e-3, "fused": True, **changes})
    for weight in model.parameters():
        optimizer.state[weight] = {name: torch.zeros_like(weight) for name in ("exp_avg", "exp_avg_sq")}
        optimizer.state[weight]["step"] = torch.zeros(())
    return optimizer


def test_a_pass_leaves_the_gradient_where_it_waits_and_nothing_holds_it_longer(
    make_model: Callable[..., Any], rows: list[TokenizedExample]
) -> None:
    model = make_model(vocab_size=400)
    set_up(model, fullest_engine(model))
    [batch] = batches_of(few_labels(rows), "tree", 3, 500)
    with gradient_that_waits(model, [adamw(model)]) as waiting:
        loss_sum(model, batch).total.backward()
    assert waiting
    assert waiting._factors  # whose states hang in the graph; pieces do not
    assert waiting.matrix is model.get_input_embeddings().weight
    assert waiting.matrix.grad is None
    assert not hasattr(model.get_input_embeddings(), WAITS_AS)
    found = torch.cat([some.clone() for _, some in waiting.portions()])
    model.zero_grad(set_to_none=True)
    gc.collect()
    gc.disable()  # a circle through autograd's graph is none that Python could find
    try:
        alive = weakref.ref(waiting)
        del waiting
        assert alive() is None
    finally:
        gc.enable()
    loss_sum(model, batch).total.backward()
    assert torch.allclose(model.get_input_embeddings().weight.grad, found, rtol=1e-5, atol=1e-6)


def test_it_waits_only_for_an_optimizer_that_can_take_it_in_portions(make_model: Callable[..., Any]) -> None:
    model = make_model()
    without_state = torch.optim.AdamW(model.parameters(), fused=True)
    others = [[], [torch.optim.SGD(model.parameters())], [adamw(model, fused=False)], [adamw(model, amsgrad=True)],
              [without_state]]
    for optimizers in others:
        with gradient_that_waits(model, optimizers) as waiting:
            assert waiting is None
    with gradient_that_waits(make_model(tie_word_embeddings=False), [adamw(model)]) as waiting:
        assert waiting is None
    with gradient_that_waits(model, [adamw(model)]) as waiting:
        assert waiting is not None
        assert not waiting
    model.get_input_embeddings().weight.grad = torch.zeros(50, 32)
    with gradient_that_waits(model, [adamw(model)]) as waiting:
        assert waiting is None


@pytest.mark.parametrize("states", [[3], [30]], ids=["in factors", "in pieces"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_no_number_shows_in_the_norm(bad: float, states: list[int]) -> None:
    waiting = waiting_gradient(states, [4])
    slopes, hidden = torch.zeros(1, VOCABULARY, dtype=torch.float64), torch.ones(1, WIDTH, dtype=torch.float64)
    slopes[0, 50] = bad
    waiting.add(Factors({0: slopes}, hidden, VOCABULARY), torch.tensor([[1]]),
                torch.ones(1, 1, WIDTH, dtype=torch.float64))
    assert not math.isfinite(waiting.norm())
