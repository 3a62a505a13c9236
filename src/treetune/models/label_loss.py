"""Cross-entropy from hidden states, a stretch at a time: vocabulary x labels never stands in memory whole.

The gradient of a stretch is computed beside its loss, as in Wijmans et al. 2024 (arXiv 2411.09009) and Hsu et al.
2024 (arXiv 2410.10989), so no logits are kept for the backward pass.
Letters: U states, K labels (several may stand at one state), D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from treetune.core.stretches import rows_of_stretch
from treetune.models.products import product, serves
from treetune.models.tied import TiedGradient

COLUMNS = 512
FEW_STATES = 256
"""States up to which `treetune.models.products` is faster than MKL at a whole vocabulary."""
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

        With a ``slot`` the gradient of the matrix is left there for the embedding that shares it. Under autocast the
        products are taken in its type; the sum is float32 (float64 for float64 states).
        """
        device = hidden.device.type
        inner = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
        with torch.autocast(device, enabled=False):
            total, *slopes = _loss_and_slopes(hidden.to(inner), matrix.to(inner), place, labels, weights,
                                              ctx.needs_input_grad[:2])
        ctx.save_for_backward(*(None if slope is None else slope.to(like.dtype)
                                for slope, like in zip(slopes, (hidden, matrix), strict=True)))
        ctx.slot = slot
        return total

    @staticmethod
    def backward(ctx: Any, scale: torch.Tensor) -> Any:
        """The gradients kept from the forward pass, times the scalar that comes from behind."""
        kept = ctx.saved_tensors
        if float(scale) != 1.0:
            kept = tuple(None if grad is None else grad * scale.to(grad.dtype) for grad in kept)
        by_hidden, by_matrix = kept
        if ctx.slot is not None:
            ctx.slot.waiting, by_matrix = by_matrix, None
        return by_hidden, by_matrix, None, None, None, None


def _loss_and_slopes(
    hidden: torch.Tensor, matrix: torch.Tensor, place: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor,
    wanted: tuple[bool, bool],
) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
    """(loss, its gradient by the states, its gradient by the matrix); gradients where wanted."""
    by_hidden = torch.empty_like(hidden) if wanted[0] else None
    by_matrix = torch.zeros_like(matrix) if wanted[1] and len(hidden) == 0 else None
    total = torch.zeros((), dtype=torch.float64 if hidden.dtype == torch.float64 else torch.float32,
                        device=hidden.device)
    for part, mine, logs in _stretches(hidden, matrix, place):
        row, label, weight = place[mine] - part.start, labels[mine], weights[mine].to(logs.dtype)
        total -= (logs[row, label] * weight).sum()
        if not any(wanted):
            continue
        at_state = torch.zeros(len(logs), dtype=logs.dtype, device=logs.device).index_add_(0, row, weight)
        slope = logs.exp_().mul_(at_state[:, None])
        slope.index_put_((row, label), -weight, accumulate=True)
        slope = slope.to(hidden.dtype)
        if by_hidden is not None:
            if len(slope) <= FEW_STATES and serves(slope, matrix):
                by_hidden[part] = product(slope, matrix.T)
            else:
                torch.mm(slope, matrix, out=by_hidden[part])
        if wanted[1]:  # the first product is the sum so far: no zeros to write and read
            by_matrix = slope.T @ hidden[part] if by_matrix is None else by_matrix.addmm_(slope.T, hidden[part])
    return total, by_hidden, by_matrix


@torch.no_grad()
def label_log_probs_of(
    hidden: torch.Tensor, matrix: torch.Tensor, place: torch.Tensor, labels: torch.Tensor
) -> torch.Tensor:
    """(K,) natural-log probability of each label, for evaluation."""
    parts = [(mine, logs[place[mine] - part.start, labels[mine]]) for part, mine, logs in
             _stretches(hidden, matrix, place)]
    result = torch.empty(len(labels), dtype=torch.float64 if hidden.dtype == torch.float64 else torch.float32,
                         device=hidden.device)
    for mine, values in parts:
        result[mine] = values
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


def log_softmax_(logits: torch.Tensor) -> torch.Tensor:
    """(U, V) natural-log probabilities in the place of their logits, a few rows at a time, so that no second tensor of
    that size is needed and each row is still in the processor's cache when it is written."""
    for rows in torch.split(logits, max(1, SLAB_BYTES // (logits.element_size() * logits.shape[1]))):
        rows.copy_(torch.log_softmax(rows, dim=-1))
    return logits


def _logits(states: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    """states (U, D), matrix (V, D) -> (U, V).

    On processors MKL multiplies by a transposed matrix of this size at hardly more than half its speed; portions that
    stay in the cache bring that back (82 M GPT-2, 333 states: 104 against 159 GFLOP/s). oneDNN's bfloat16 needs none.
    """
    if len(states) <= FEW_STATES and serves(states, matrix):
        return product(states, matrix)
    if states.device.type != "cpu" or states.dtype == torch.bfloat16:
        return states @ matrix.T
    found = states.new_empty(len(states), len(matrix))
    for start in range(0, len(matrix), COLUMNS):
        part = slice(start, start + COLUMNS)
        torch.mm(states, matrix[part].T, out=found[:, part])
    return found
