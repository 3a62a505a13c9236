"""Cross-entropy from hidden states, a stretch at a time: vocabulary x labels never stands in memory whole.

The gradient of a stretch is computed beside its loss, as in Wijmans et al. 2024 (arXiv 2411.09009) and Hsu et al.
2024 (arXiv 2410.10989), so no logits are kept for the backward pass.
Letters: U states, K labels (several may stand at one state), D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch

from treetune.core.stretches import may_wait_in_factors, rows_of_stretch, words_of_portion
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
            total, by_hidden, by_matrix, (slopes, states, words) = _loss_and_slopes(
                hidden.to(inner), matrix.to(inner), place, labels, weights, wanted)
        ctx.save_for_backward(None if by_hidden is None else by_hidden.to(hidden.dtype), by_matrix,
                              states if slopes else None, *slopes.values())
        ctx.slot, ctx.firsts, ctx.words = slot, list(slopes), words
        return total

    @staticmethod
    def backward(ctx: Any, scale: torch.Tensor) -> Any:
        """The gradients kept from the forward pass, times the scalar that comes from behind."""
        by_hidden, by_matrix, states, *slopes = ctx.saved_tensors
        if float(scale) != 1.0:
            by_hidden, by_matrix, states = (None if each is None else each * scale.to(each.dtype)
                                            for each in (by_hidden, by_matrix, states))
        if ctx.slot is not None:
            parts = dict(zip(ctx.firsts, slopes, strict=True))
            ctx.slot.leave(by_matrix, Factors(parts, states, ctx.words) if parts else None)
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
) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None, Factors]:
    """(loss, its gradient by the states, its gradient by the matrix, the factors of the latter)."""
    count, hidden = len(hidden), filled_up(hidden, rows_together(matrix))
    size = words_of_portion(len(hidden), hidden.shape[1], len(matrix)) if wanted.in_factors else max(1, len(matrix))
    factors = Factors({}, hidden, size)
    by_hidden = at_least_float32(torch.zeros_like(hidden)) if wanted.by_hidden else None
    by_matrix = torch.zeros_like(matrix, dtype=wanted.by_matrix) if wanted.by_matrix and not len(hidden) else None
    total = torch.zeros((), dtype=torch.float64 if hidden.dtype == torch.float64 else torch.float32,
                        device=hidden.device)
    for part in _stretches(len(hidden), len(matrix), whole=wanted.in_factors):
        at_state: torch.Tensor | None = None
        for words, logs in _logs(hidden[part], matrix, size):
            mine = _standing_at(place, part, labels, words)
            row, label, weight = place[mine] - part.start, labels[mine] - words.start, weights[mine].to(logs.dtype)
            total -= (logs[row, label] * weight).sum()
            if not (wanted.by_hidden or wanted.by_matrix):
                del logs
                continue
            if at_state is None:
                at_state = _weight_of_states(place, part, weights.to(logs.dtype))
            slope = weighted_(logs.exp_(), at_state)
            slope.index_put_((row, label), -weight, accumulate=True)
            slope = slope.to(hidden.dtype)
            if by_hidden is not None:
                by_hidden[part] += product(slope, matrix[words])
            if wanted.in_factors:
                factors.slopes[words.start] = slope
            elif wanted.by_matrix:  # of all words at once
                by_matrix = add_product(by_matrix, slope, hidden[part], wanted.by_matrix)
            del logs, slope  # before the next is made
    return total, None if by_hidden is None else by_hidden[:count], by_matrix, factors


def _weight_of_states(place: torch.Tensor, part: slice, weights: torch.Tensor) -> torch.Tensor:
    """(states of the stretch,) the weight of all labels at each."""
    mine = _standing_at(place, part)
    found = torch.zeros(part.stop - part.start, dtype=weights.dtype, device=weights.device)
    return found.index_add_(0, place[mine] - part.start, weights[mine])


def _standing_at(
    place: torch.Tensor, part: slice, labels: torch.Tensor | None = None, words: slice | None = None
) -> torch.Tensor:
    """Which labels stand at the states of a stretch, and are among the words where these are given."""
    found = (place >= part.start) & (place < part.stop)
    if labels is not None and words is not None:
        found &= (labels >= words.start) & (labels < words.stop)
    return torch.nonzero(found)[:, 0]


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
    for part in _stretches(len(hidden), len(matrix)):
        logs, mine = _logs_of_all_words(hidden[part], matrix), _standing_at(place, part)
        result[mine] = logs[place[mine] - part.start, labels[mine]]
        del logs  # before the next stretch is made
    return result


def _stretches(states: int, vocabulary: int, whole: bool = False) -> Iterator[slice]:
    """The states whose logits are made at a time; all of them where their slopes are to stand in any case."""
    size = max(1, states) if whole else rows_of_stretch(states, vocabulary)
    for start in range(0, states, size):
        yield slice(start, min(start + size, states))


def _logs(hidden: torch.Tensor, matrix: torch.Tensor, size: int) -> Iterator[tuple[slice, torch.Tensor]]:
    """(words, (U, their number) natural-log probabilities), ``size`` words at a time: portions find room where one
    tensor of all words would not.

    Each is made a distribution of its own first, while it is in the processor's cache; what is missing is the logarithm
    of its share of the sum over all words.
    """
    portions = [slice(start, min(start + size, len(matrix))) for start in range(0, len(matrix), size)]
    if len(portions) == 1:
        yield slice(0, len(matrix)), _logs_of_all_words(hidden, matrix)
        return
    logs, sums = [], []
    for words in portions:
        logits = at_least_float32(_logits(hidden, matrix[words]))
        largest = logits.amax(1)
        logs.append(log_softmax_(logits))
        sums.append(largest - logits.amax(1))
    share = torch.log_softmax(torch.stack(sums, 1), 1)
    for number, words in enumerate(portions):
        yield words, logs.pop(0).add_(share[:, number, None])


def _logs_of_all_words(hidden: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    """(U, V) natural-log probabilities."""
    return log_softmax_(at_least_float32(_logits(hidden, matrix)))


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
