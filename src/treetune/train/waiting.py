"""The gradient of a tied matrix, never in one piece: it waits for the optimizer in factors or in pieces.

Where few tokens are labelled, the gradient of a matrix that is embedding and head at once is a product of few rows, and
a row for each token that was read. Its norm is taken from the factors (a squared norm of a product is a sum over two
small squares), and the optimizer takes it a few words at a time, while they are in the processor's cache. An 82 M GPT-2
has 154 MB less at the peak of a step, and of its memory that much less is written once and read three times.
Where more are labelled it is multiplied out, into pieces that find room where activations were; 154 MB in one piece
find none between the gradients that have come to stand there.
Letters: U labelled states, V vocabulary, D width, R words read.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.optim.adam import adam

from treetune.core.stretches import may_stay_in_factors, words_of_piece
from treetune.models.norm import total_norm
from treetune.models.tied import WAITS_AS, Factors, add_product, can_share_gradient
from treetune.train.optimizers import is_fused_adam

NUMBERS_AT_A_TIME = 3 << 20
"""Of a gradient in factors; 12 MB in float32. Smaller portions are as fast to make and slower to step by."""


class WaitingGradient:
    """Sum over passes of slopesᵀ states, (U, V) and (U, D), and of rows (R, D) at the words ``ids`` (R,).

    Attributes:
        matrix: (V, D) whose gradient this is, beside what stands in its ``grad``.
    """

    def __init__(self, matrix: nn.Parameter) -> None:
        self.matrix = matrix
        self._factors: list[Factors] = []
        self._rows: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._pieces: list[tuple[slice, torch.Tensor]] = []

    def __bool__(self) -> bool:
        return bool(self._factors or self._pieces)

    def add(self, factors: Factors, ids: torch.Tensor, rows: torch.Tensor) -> None:
        """Add a pass's part; multiply out where all factors together would be no less work."""
        self._factors.append(factors._replace(states=factors.states.detach()))  # out of the graph they hang in
        self._rows.append((ids.flatten(), rows.flatten(0, -2)))
        states, tokens = sum(len(each.states) for each in self._factors), sum(len(ids) for ids, _ in self._rows)
        vocabulary, width = self.matrix.shape
        if self._pieces or not may_stay_in_factors(states, width, tokens, vocabulary):
            self._multiply_out()

    def _multiply_out(self) -> None:
        words, rows = self._merged_rows()
        standing: dict[int, torch.Tensor] = {part.start: piece for part, piece in self._pieces}
        self._pieces = []
        for part in _portions(self.matrix, words_of_piece(self.matrix.shape[1])):
            found = self._product(part, standing.pop(part.start, None))
            self._pieces.append((part, self._with_rows(found, part, words, rows)))
            for factors in self._factors:
                factors.let_go(part)
        self._factors, self._rows = [], []

    def settle(self) -> None:
        """Add all to the matrix's ``grad``."""
        whole = torch.zeros_like(self.matrix) if self.matrix.grad is None else self.matrix.grad
        for part, some in self.portions():
            whole[part] += some
        self._factors, self._rows, self._pieces, self.matrix.grad = [], [], [], whole

    def norm(self) -> float:
        """The 2-norm of all values. Of factors, in float64, |Sᵀ H|² = ∑ (S Sᵀ) ∘ (H Hᵀ), with twice what it has in
        common with the rows and their own square beside it.
        """
        if self._pieces:
            return total_norm([piece for _, piece in self._pieces])
        words, rows = self._merged_rows()
        states, rows = torch.cat([each.states for each in self._factors]).double(), rows.double()
        by_slopes = states.new_zeros(len(states), len(states))
        for part in _portions(self.matrix, _words_at_a_time(self.matrix.shape[1])):
            some = self._slopes(part).double()
            by_slopes.addmm_(some, some.T)
        square = (by_slopes * (states @ states.T)).sum() + rows.square().sum()
        square += 2 * (self._slopes(words) * (states @ rows.T)).sum()
        return float(square.clamp(min=0.0).sqrt())

    def _slopes(self, words: slice | torch.Tensor) -> torch.Tensor:
        """(U, some words)."""
        found = [each.slopes[0][:, words] for each in self._factors]
        return found[0] if len(found) == 1 else torch.cat(found)

    def portions(self) -> Iterator[tuple[slice, torch.Tensor]]:
        """Some words, and their gradient; its memory may be used again for the next."""
        if self._pieces:
            yield from self._pieces
            return
        words, rows = self._merged_rows()
        memory: torch.Tensor | None = None
        for part in _portions(self.matrix, _words_at_a_time(self.matrix.shape[1])):
            memory = torch.empty_like(self.matrix[part]) if memory is None else memory
            found = self._product(part, None, memory[: part.stop - part.start])
            yield part, self._with_rows(found, part, words, rows)

    def _product(self, part: slice, total: torch.Tensor | None, out: torch.Tensor | None = None) -> torch.Tensor:
        """total + slopesᵀ states of some words; into ``out`` where there is no total."""
        for factors in self._factors:
            total = add_product(total, factors.of_words(part), factors.states, self.matrix.dtype, out)
        assert total is not None, "a pass leaves factors"
        return total

    @staticmethod
    def _with_rows(found: torch.Tensor, part: slice, words: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """(some words, D) and what reached them as words read."""
        first, last = torch.searchsorted(words, torch.tensor([part.start, part.stop])).tolist()
        return found.index_add_(0, words[first:last] - part.start, rows[first:last])

    def _merged_rows(self) -> tuple[torch.Tensor, torch.Tensor]:
        """(R,) ascending words, each once, and (R, D) the sums of their rows."""
        ids, rows = (torch.cat([pair[place] for pair in self._rows]) for place in (0, 1))
        words, place = torch.unique(ids, return_inverse=True)
        return words, rows.new_zeros(len(words), rows.shape[1]).index_add_(0, place, rows)


def _portions(matrix: torch.Tensor, words: int) -> list[slice]:
    return [slice(start, min(start + words, len(matrix))) for start in range(0, len(matrix), words)]


def _words_at_a_time(width: int) -> int:
    return max(1, NUMBERS_AT_A_TIME // width)


@contextlib.contextmanager
def gradient_that_waits(core: Any, optimizers: list[torch.optim.Optimizer]) -> Iterator[WaitingGradient | None]:
    """Passes inside leave the tied matrix's gradient in what is given, unless the head had to make it in its own pass.

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
                suits = is_fused_adam(optimizer) and not group["amsgrad"]
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
