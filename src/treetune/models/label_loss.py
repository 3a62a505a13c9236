"""Cross-entropy from hidden states, a stretch at a time: vocabulary x labels never stands in memory whole.

The gradient of a stretch is computed beside its loss, as in Wijmans et al. 2024 (arXiv 2411.09009) and Hsu et al.
2024 (arXiv 2410.10989), so no logits are kept for the backward pass.
Letters: U states, K labels (several may stand at one state), D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch

from treetune.core.stretches import may_wait_in_factors, rows_of_stretch
from treetune.models.alignment import filled_up, rows_together
from treetune.models.product import is_amd, pays, product
from treetune.models.tied import Factors, TiedGradient, add_product

SLAB_BYTES = 2**22


def at_least_float32(logits: torch.Tensor) -> torch.Tensor:
    """What a softmax is taken of: half precision becomes float32, float64 stays."""
    return logits if logits.dtype == torch.float64 else logits.float()


class LabelLoss(torch.autograd.Function):
    """Weighted sum of negative log-likelihoods; differentiable once in hidden states and output matrix."""

    @staticmethod
    def forward(
        ctx: Any, hidden: torch.Tensor, matrix: torch.Tensor, place: torch.Tensor, labels: torch.Tensor,
        weights: torch.Tensor, slot: TiedGradient | None = None,
    ) -> torch.Tensor:
        """hidden (U, D), matrix (V, D), place (K,) which state, labels (K,), weights (K,) -> scalar.

        With a ``slot`` the gradient of the matrix is left there for the embedding that shares it: as its two factors
        where they are smaller. Under autocast the products are taken in its type; the sum is float32 (float64 for
        float64 states).
        """
        device = hidden.device.type
        inner = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
        of_hidden, of_matrix = ctx.needs_input_grad[:2]
        vocabulary, width = matrix.shape
        wanted = Wanted(of_hidden, matrix.dtype if of_matrix else None, in_factors=(
            slot is not None and of_matrix and may_wait_in_factors(len(hidden), width, vocabulary)))
        with torch.autocast(device, enabled=False):
            total, by_hidden, by_matrix, factors = _loss_and_slopes(
                hidden.to(inner), matrix.to(inner), place, labels, weights, wanted)
        ctx.save_for_backward(None if by_hidden is None else by_hidden.to(hidden.dtype), by_matrix,
                              *(each for pair in factors for each in pair))
        ctx.slot = slot
        return total

    @staticmethod
    def backward(ctx: Any, scale: torch.Tensor) -> Any:
        """The gradients kept from the forward pass, times the scalar that comes from behind."""
        by_hidden, by_matrix, *factors = ctx.saved_tensors
        slopes, states = factors[::2], factors[1::2]
        if float(scale) != 1.0:
            by_hidden, by_matrix, *states = (None if each is None else each * scale.to(each.dtype)
                                             for each in (by_hidden, by_matrix, *states))
        if ctx.slot is not None:
            ctx.slot.leave(by_matrix, list(zip(slopes, states, strict=True)))
            by_matrix = None
        return by_hidden, by_matrix, None, None, None, None


class Wanted(NamedTuple):
    """Which gradients: by the states; by the matrix in what type (None: not), as one tensor or ``in_factors``."""

    by_hidden: bool
    by_matrix: torch.dtype | None
    in_factors: bool


def _loss_and_slopes(
    hidden: torch.Tensor, matrix: torch.Tensor, place: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor,
    wanted: Wanted,
) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None, list[Factors]]:
    """(loss, its gradient by the states, its gradient by the matrix, the factors of the latter)."""
    count, hidden = len(hidden), filled_up(hidden, rows_together(matrix))
    by_hidden, factors = torch.empty_like(hidden) if wanted.by_hidden else None, list[Factors]()
    by_matrix = torch.zeros_like(matrix, dtype=wanted.by_matrix) if wanted.by_matrix and not len(hidden) else None
    total = torch.zeros((), dtype=torch.float64 if hidden.dtype == torch.float64 else torch.float32,
                        device=hidden.device)
    for part, mine, logs in _stretches(hidden, matrix, place):
        row, label, weight = place[mine] - part.start, labels[mine], weights[mine].to(logs.dtype)
        total -= (logs[row, label] * weight).sum()
        if not (wanted.by_hidden or wanted.by_matrix):
            del logs
            continue
        at_state = torch.zeros(len(logs), dtype=logs.dtype, device=logs.device).index_add_(0, row, weight)
        slope = weighted_(logs.exp_(), at_state)
        slope.index_put_((row, label), -weight, accumulate=True)
        slope = slope.to(hidden.dtype)
        if by_hidden is not None:
            product(slope, matrix, by_hidden[part])
        if wanted.in_factors:
            factors.append((slope, hidden[part]))
        elif wanted.by_matrix:
            by_matrix = add_product(by_matrix, slope, hidden[part], wanted.by_matrix)
        del logs, slope  # before the next stretch is made
    return total, None if by_hidden is None else by_hidden[:count], by_matrix, factors


def weighted_(slope: torch.Tensor, at_state: torch.Tensor) -> torch.Tensor:
    """slope (U, V) times the weight (U,) of the labels at each state; on a processor only where that is not 1."""
    if slope.device.type != "cpu":
        return slope.mul_(at_state[:, None])
    for row in torch.nonzero(at_state != 1)[:, 0].tolist():
        slope[row] *= at_state[row]
    return slope


@torch.no_grad()
def label_log_probs_of(
    hidden: torch.Tensor, matrix: torch.Tensor, place: torch.Tensor, labels: torch.Tensor
) -> torch.Tensor:
    """(K,) natural-log probability of each label, for evaluation."""
    hidden = filled_up(hidden, rows_together(matrix))
    result = torch.empty(len(labels), dtype=torch.float64 if hidden.dtype == torch.float64 else torch.float32,
                         device=hidden.device)
    for part, mine, logs in _stretches(hidden, matrix, place):
        result[mine] = logs[place[mine] - part.start, labels[mine]]
        del logs  # before the next stretch is made
    return result


def _stretches(
    hidden: torch.Tensor, matrix: torch.Tensor, place: torch.Tensor
) -> Iterator[tuple[slice, torch.Tensor, torch.Tensor]]:
    """(states, which labels stand at them, (states, V) natural-log probabilities) stretch by stretch."""
    size = rows_of_stretch(len(hidden), len(matrix))
    for start in range(0, len(hidden), size):
        part = slice(start, start + size)
        logs = log_softmax_(at_least_float32(_logits(hidden[part], matrix)))
        mine = torch.nonzero((place >= start) & (place < start + size))[:, 0]
        yield part, mine, logs
        del logs


def log_softmax_(logits: torch.Tensor) -> torch.Tensor:
    """(U, V) natural-log probabilities in the place of their logits, a few rows at a time, so that no second tensor of
    that size is needed and each row is still in the processor's cache when it is written."""
    for rows in torch.split(logits, max(1, SLAB_BYTES // (logits.element_size() * logits.shape[1]))):
        rows.copy_(torch.log_softmax(rows, dim=-1))
    return logits


def columns() -> int:
    """Words of the vocabulary multiplied at a time by `_logits`: few on AMD processors."""
    return 512 if is_amd() else 4096


def _logits(states: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    """states (U, D), matrix (V, D) -> (U, V).

    On AMD processors MKL multiplies by a transposed matrix of this size at hardly more than half its speed; portions
    that stay in the cache bring that back (82 M GPT-2, 333 states: 104 against 159 GFLOP/s; numpy's library, where it
    is used, 177 without). On Intel's they are worth a twentieth. oneDNN's bfloat16 needs none.
    """
    if states.device.type != "cpu" or states.dtype == torch.bfloat16 or pays(states, matrix.T):
        return product(states, matrix.T)
    found, size = states.new_empty(len(states), len(matrix)), columns()
    for start in range(0, len(matrix), size):
        part = slice(start, start + size)
        torch.mm(states, matrix[part].T, out=found[:, part])
    return found
