"""The loss in stretches is the loss of whole logits, in value and gradient."""

import weakref

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from treetune.core import stretches
from treetune.models import label_loss
from treetune.models.label_loss import LabelLoss, label_log_probs_of
from treetune.models.tied import Factors, TiedGradient, multiplied_out


@pytest.fixture(params=[2, 64], ids=["several stretches", "one stretch"])
def small_chunks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stretches, "rows_of_chunk", lambda vocabulary: request.param)
    monkeypatch.setattr(label_loss, "columns", lambda: 4)  # the 11 words below in three portions


def problem(dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, ...]:
    """Seven states, one of them with three labels and one with none."""
    torch.manual_seed(0)
    hidden, matrix = torch.randn(7, 5, dtype=dtype), torch.randn(11, 5, dtype=dtype)
    place = torch.tensor([0, 1, 1, 1, 3, 4, 5, 6, 4])
    return hidden, matrix, place, torch.randint(0, 11, (9,)), torch.rand(9, dtype=dtype)


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("scale", [1.0, 0.25])
def test_value_and_gradients_are_those_of_whole_logits(scale: float) -> None:
    hidden, matrix, place, labels, weights = problem()
    inputs = [(hidden.clone().requires_grad_(), matrix.clone().requires_grad_()) for _ in range(2)]
    ours = LabelLoss.apply(*inputs[0], place, labels, weights)
    logits = (inputs[1][0] @ inputs[1][1].T)[place]
    whole = (functional.cross_entropy(logits, labels, reduction="none") * weights).sum()
    (ours * scale).backward()
    (whole * scale).backward()
    assert ours.item() == pytest.approx(whole.item(), rel=1e-12)
    for mine, theirs in zip(*inputs, strict=True):
        assert torch.allclose(mine.grad, theirs.grad, rtol=1e-10, atol=1e-12)


class Slot(TiedGradient):
    """Keeps what is left."""

    factors: Factors | None = None

    def leave(self, whole: torch.Tensor | None, factors: Factors | None) -> None:
        assert whole is None
        self.factors = factors


@given(st.integers(1, 8), st.integers(1, 13), st.sampled_from([1.0, 0.25]))
@settings(deadline=None, max_examples=40)
def test_slopes_in_portions_are_those_of_whole_logits(states: int, words: int, scale: float) -> None:
    torch.manual_seed(states)
    hidden, matrix = 30 * torch.randn(states, 5, dtype=torch.float64), torch.randn(11, 5, dtype=torch.float64)
    place = torch.randint(0, states, (9,))
    labels, weights = torch.randint(0, 11, (9,)), torch.rand(9, dtype=torch.float64)
    inputs = [(hidden.clone().requires_grad_(), matrix.clone().requires_grad_()) for _ in range(2)]
    slot = Slot()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(label_loss, "words_of_portion", lambda *_: words)
        ours = LabelLoss.apply(*inputs[0], place, labels, weights, slot)
    (ours * scale).backward()
    logits = (inputs[1][0] @ inputs[1][1].T)[place]
    whole = (functional.cross_entropy(logits, labels, reduction="none") * weights).sum()
    (whole * scale).backward()
    assert ours.item() == pytest.approx(whole.item(), rel=1e-12)
    assert torch.allclose(inputs[0][0].grad, inputs[1][0].grad, rtol=1e-9, atol=1e-12)
    assert slot.factors is not None
    assert list(slot.factors.slopes) == list(range(0, 11, words))
    parts = [slot.factors.of_words(slice(first, min(first + 1, 11))) for first in range(11)]
    by_hand = torch.cat(parts, 1).T @ slot.factors.states
    assert torch.allclose(by_hand, inputs[1][1].grad, rtol=1e-9, atol=1e-12)
    with torch.no_grad():  # as in a backward pass
        assert torch.allclose(multiplied_out(slot.factors, torch.float64), inputs[1][1].grad, rtol=1e-9, atol=1e-12)
    assert not slot.factors.slopes  # gone as they were used


def test_portions_in_half_precision_are_added_up_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    hidden, matrix = torch.randn(7, 16), torch.randn(400, 16)
    place, labels, weights = torch.arange(7), torch.randint(0, 400, (7,)), torch.ones(7)
    found = []
    for words in (2, 400):
        monkeypatch.setattr(label_loss, "words_of_portion", lambda *_, words=words: words)
        inputs = hidden.clone().requires_grad_(), matrix.clone().requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            LabelLoss.apply(*inputs, place, labels, weights, Slot()).backward()
        found.append(inputs[0].grad)
    assert (found[0] - found[1]).norm() < 4e-3 * found[1].norm()  # one rounding to bfloat16


def test_a_sum_over_portions_is_exact_where_a_portion_is_far_below_the_others() -> None:
    logits = torch.tensor([[5000.0, 5001.0, -5000.0, -4999.0, 0.0]])
    found = torch.cat([logs for _, logs in label_loss._logs(torch.eye(1), logits.T.contiguous(), 2)], 1)
    assert torch.allclose(found, torch.log_softmax(logits, 1), rtol=1e-6)


@pytest.mark.usefixtures("small_chunks")
def test_a_frozen_matrix_gets_no_gradient() -> None:
    hidden, matrix, place, labels, weights = problem()
    hidden.requires_grad_()
    LabelLoss.apply(hidden, matrix, place, labels, weights).backward()
    assert hidden.grad is not None
    assert matrix.grad is None


@pytest.mark.usefixtures("small_chunks")
def test_log_probabilities_come_in_the_order_of_the_labels() -> None:
    hidden, matrix, place, labels, _ = problem()
    expected = (hidden @ matrix.T).log_softmax(-1)[place, labels]
    assert torch.allclose(label_log_probs_of(hidden, matrix, place, labels), expected)


def test_no_labels_no_loss() -> None:
    hidden, matrix, place, labels, weights = problem(torch.float32)
    none = slice(0, 0)
    total = LabelLoss.apply(hidden[none].requires_grad_(), matrix, place[none], labels[none], weights[none])
    total.backward()
    assert total.item() == 0.0


def test_under_autocast_products_are_in_its_type_and_gradients_in_that_of_the_weights() -> None:
    hidden, matrix, place, labels, weights = problem(torch.float32)
    hidden.requires_grad_()
    matrix.requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        total = LabelLoss.apply(hidden, matrix, place, labels, weights)
    total.backward()
    plain = LabelLoss.apply(hidden.detach(), matrix.detach(), place, labels, weights)
    assert total.dtype == hidden.grad.dtype == matrix.grad.dtype == torch.float32
    assert total.item() != plain.item()
    assert total.item() == pytest.approx(plain.item(), rel=0.05)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("slab", [1, 70, 10**6], ids=["a row at a time", "some rows at a time", "all at once"])
def test_logarithms_in_the_place_of_the_logits_are_torchs_own(
    slab: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(label_loss, "SLAB_BYTES", slab)
    logits = torch.randn(7, 3, dtype=dtype) * 30
    expected = torch.log_softmax(logits, dim=-1)
    found = label_loss.log_softmax_(logits)
    assert found is logits
    assert torch.equal(found, expected)


@pytest.mark.parametrize("asked", ["gradients", "loss", "log-probabilities"])
def test_one_stretch_of_logits_stands_at_a_time(asked: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[weakref.ref[torch.Tensor]] = []
    logits = label_loss._logits

    def watched(states: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
        assert not [each for each in made if each() is not None]
        found = logits(states, matrix)
        made.append(weakref.ref(found))
        return found

    monkeypatch.setattr(stretches, "rows_of_chunk", lambda _: 2)
    monkeypatch.setattr(label_loss, "_logits", watched)
    hidden, matrix, place, labels, weights = problem(torch.float32)
    if asked == "log-probabilities":
        label_log_probs_of(hidden, matrix, place, labels)
    else:
        LabelLoss.apply(hidden.requires_grad_(asked == "gradients"), matrix, place, labels, weights)
    assert len(made) == 4
