"""The gradient of a tied matrix, never made whole: it waits in factors for the optimizer.

Where few tokens are labelled, the gradient of a matrix that is embedding and head at once is a product of few rows, and
a row for each token that was read. Its norm is taken from the factors (a squared norm of a product is a sum over two
small squares), and the optimizer takes it a few words at a time, while they are in the processor's cache. An 82 M GPT-2
has 154 MB less at the peak of a step, and of its memory that much less is written once and read three times.
Letters: U labelled states, V vocabulary, D width, R words read.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.optim.adam import adam

from treetune.core.stretches import may_stay_in_factors
from treetune.models.tied import WAITS_AS, Factors, add_product, can_share_gradient

NUMBERS_AT_A_TIME = 3 << 20
"""Of the gradient; 12 MB in float32. Smaller portions are as fast to make and slower to step by."""


class WaitingGradient:
    """Sum over passes of slopesᵀ states, (U, V) and (U, D), and of rows (R, D) at the words ``ids`` (R,).

    Attributes:
        matrix: (V, D) whose gradient this is, beside what stands in its ``grad``.
    """

    def __init__(self, matrix: nn.Parameter) -> None:
        self.matrix = matrix
        self._factors: list[Factors] = []
        self._rows: list[tuple[torch.Tensor, torch.Tensor]] = []

    def __bool__(self) -> bool:
        return bool(self._factors)

    def takes(self, factors: list[Factors], ids: torch.Tensor, rows: torch.Tensor) -> bool:
        """Add a pass's part; False, and nothing added, where all factors together would be no less work."""
        states = sum(len(states) for _, states in [*self._factors, *factors])
        if not may_stay_in_factors(states, self.matrix.shape[1]):
            return False
        self._factors += [(slopes, states.detach()) for slopes, states in factors]  # out of the graph they hang in
        self._rows.append((ids.flatten(), rows.flatten(0, -2)))
        return True

    def settle(self) -> None:
        """Multiply out and add to the matrix's ``grad``."""
        whole = self.matrix.grad
        for slopes, states in self._factors:
            whole = add_product(whole, slopes, states, self.matrix.dtype)
        for ids, rows in self._rows:
            assert whole is not None
            whole.index_add_(0, ids, rows)
        self._factors, self._rows, self.matrix.grad = [], [], whole

    def norm(self) -> float:
        """The 2-norm of all values, in float64: |Sᵀ H|² = ∑ (S Sᵀ) ∘ (H Hᵀ), with twice what it has in common with
        the rows and their own square beside it.
        """
        words, rows = self._merged_rows()
        states, rows = torch.cat([states for _, states in self._factors]).double(), rows.double()
        by_slopes = states.new_zeros(len(states), len(states))
        for part in _portions(*self.matrix.shape):
            some = self._slopes(part).double()
            by_slopes.addmm_(some, some.T)
        square = (by_slopes * (states @ states.T)).sum() + rows.square().sum()
        square += 2 * (self._slopes(words) * (states @ rows.T)).sum()
        return float(square.clamp(min=0.0).sqrt())

    def _slopes(self, words: slice | torch.Tensor) -> torch.Tensor:
        """(U, some words)."""
        found = [slopes[:, words] for slopes, _ in self._factors]
        return found[0] if len(found) == 1 else torch.cat(found)

    def portions(self) -> Iterator[tuple[slice, torch.Tensor]]:
        """Some words, and their gradient; its memory is used again for the next."""
        words, rows = self._merged_rows()
        memory: torch.Tensor | None = None
        for part in _portions(*self.matrix.shape):
            memory = torch.empty_like(self.matrix[part]) if memory is None else memory
            found = memory[: part.stop - part.start]
            for place, (slopes, states) in enumerate(self._factors):
                _multiply(slopes[:, part].T, states, found, first=place == 0)
            first, last = torch.searchsorted(words, torch.tensor([part.start, part.stop])).tolist()
            yield part, found.index_add_(0, words[first:last] - part.start, rows[first:last])

    def _merged_rows(self) -> tuple[torch.Tensor, torch.Tensor]:
        """(R,) ascending words, each once, and (R, D) the sums of their rows."""
        ids, rows = (torch.cat([pair[place] for pair in self._rows]) for place in (0, 1))
        words, place = torch.unique(ids, return_inverse=True)
        return words, rows.new_zeros(len(words), rows.shape[1]).index_add_(0, place, rows)


def _portions(words: int, width: int) -> list[slice]:
    size = max(1, NUMBERS_AT_A_TIME // width)
    return [slice(start, min(start + size, words)) for start in range(0, words, size)]


def _multiply(left: torch.Tensor, right: torch.Tensor, out: torch.Tensor, *, first: bool) -> None:
    """out = left @ right if it is the ``first``, else out += that; half precision is widened."""
    if left.dtype != out.dtype:
        found = left @ right
        out.copy_(found) if first else out.add_(found)
    elif first:
        torch.mm(left, right, out=out)
    else:
        out.addmm_(left, right)


@contextlib.contextmanager
def gradient_that_waits(core: Any, optimizers: list[torch.optim.Optimizer]) -> Iterator[WaitingGradient | None]:
    """Passes inside leave the tied matrix's gradient in what is given, where it may stay in factors.

    None where an optimizer of it could not take it in portions, or a gradient stands already.
    """
    embedding = core.get_input_embeddings() if hasattr(core, "get_input_embeddings") else None
    matrix: Any = getattr(embedding, "weight", None)
    known = matrix is not None and matrix.requires_grad and matrix.grad is None and can_share_gradient(core)
    if not known or _group_of(matrix, optimizers) is None:
        yield None
        return
    waiting = WaitingGradient(matrix)
    setattr(embedding, WAITS_AS, waiting)
    try:
        yield waiting
    finally:
        delattr(embedding, WAITS_AS)


def _group_of(matrix: nn.Parameter, optimizers: list[torch.optim.Optimizer]) -> tuple[Any, dict[str, Any]] | None:
    """The optimizer of Adam's kind, with one fused kernel, that has the matrix, and the group it is in."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            if any(weight is matrix for weight in group["params"]):
                suits = isinstance(optimizer, torch.optim.Adam) and group["fused"] and not group["amsgrad"]
                return (optimizer, group) if suits and optimizer.state.get(matrix) else None
    return None


@torch.no_grad()
def step_in_portions(waiting: WaitingGradient, optimizers: list[torch.optim.Optimizer], divisor: torch.Tensor) -> None:
    """One step of Adam's kind of the matrix, by its gradient over ``divisor``, as the optimizer would take it."""
    found = _group_of(waiting.matrix, optimizers)
    assert found is not None, "asked before the first pass"
    optimizer, group = found
    state = optimizer.state[waiting.matrix]
    beta1, beta2 = group["betas"]
    for part, gradient in waiting.portions():
        adam([waiting.matrix[part]], [gradient], [state["exp_avg"][part]], [state["exp_avg_sq"][part]], [],
             [state["step"].clone()], fused=True, grad_scale=divisor, amsgrad=False, beta1=beta1, beta2=beta2,
             lr=group["lr"], weight_decay=group["weight_decay"], eps=group["eps"], maximize=group["maximize"],
             decoupled_weight_decay=group["decoupled_weight_decay"])
    state["step"] += 1
