"""One gradient for a matrix that is both the token embedding and the output head.

Autograd would fill a second (V, D) tensor with zeros for the few rows the embedding read, and add the two. Here the
head's gradient waits in a slot until the embedding's backward, which always comes last, adds its rows to it. On
two CPU cores that is a tenth of a step of an 82 M GPT-2 on short rows, and 150 MB less at the peak.

Where few tokens are labelled it waits as its two factors, and is multiplied out when all other memory of the pass is
free again: another 150 MB less; where very few are, not even then (`treetune.train.waiting`).
Letters: U labelled states, V vocabulary, D width.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from types import MethodType
from typing import Any, NamedTuple, Protocol

import torch
from torch import nn
from torch.nn import functional

from treetune.models.product import product

ROWS_AT_A_TIME = 2048
"""Rows of a gradient in half precision that are widened at a time."""


class Factors(NamedTuple):
    """Of the gradient of the matrix, which is slopesᵀ states.

    Attributes:
        slopes: (U, V) of the logits, in portions of ``words`` words by the first of them. states: (U, D).
    """

    slopes: dict[int, torch.Tensor]
    states: torch.Tensor
    words: int

    def of_words(self, some: slice) -> torch.Tensor:
        """(U, some words) of one portion."""
        first = self._portion_of(some)
        return self.slopes[first][:, some.start - first : some.stop - first]

    def let_go(self, some: slice) -> None:
        """Free the portion that ends with these words, if one does."""
        first = self._portion_of(some)
        if some.stop - first == self.slopes[first].shape[1]:
            del self.slopes[first]

    def _portion_of(self, some: slice) -> int:
        return int(some.start) // self.words * self.words


WAITS_AS = "_treetune_waiting"
"""Attribute of an embedding whose gradient may wait for the optimizer."""


class Keeper(Protocol):
    """Where a pass's part of the gradient waits for the optimizer."""

    def add(self, factors: Factors, ids: torch.Tensor, rows: torch.Tensor) -> None: ...


class TiedGradient:
    """Holds the head's part of the gradient between the two backward functions of one forward pass.

    ``keeper``: where both parts may wait beyond the pass.
    """

    def __init__(self, keeper: Keeper | None = None) -> None:
        self._keeper = keeper
        self._whole: torch.Tensor | None = None
        self._factors: Factors | None = None

    def leave(self, whole: torch.Tensor | None, factors: Factors | None) -> None:
        """The part (V, D), or what it is the product of."""
        self._whole, self._factors = whole, factors

    def kept(self, ids: torch.Tensor, rows: torch.Tensor) -> bool:
        """Whether the part, with the rows (..., D) of the words ``ids``, now waits beyond the pass."""
        if self._keeper is None or self._whole is not None or self._factors is None:
            return False
        self._keeper.add(self._factors, ids, rows)
        self._factors = None
        return True

    def take(self, dtype: torch.dtype) -> torch.Tensor | None:
        """The part (V, D), once; None where none was left."""
        found, factors = self._whole, self._factors
        self._whole, self._factors = None, None
        return found if factors is None else multiplied_out(factors, dtype)


def multiplied_out(factors: Factors, dtype: torch.dtype) -> torch.Tensor:
    """(V, D); slopes in portions go as they are used."""
    slopes, states, _ = factors
    whole = states.new_empty(sum(each.shape[1] for each in slopes.values()), states.shape[1], dtype=dtype)
    for first in list(slopes):
        some = slopes.pop(first)
        add_product(None, some, states, dtype, whole[first : first + some.shape[1]])
    return whole


def add_product(
    total: torch.Tensor | None, slopes: torch.Tensor, states: torch.Tensor, dtype: torch.dtype,
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """total (V, D) + slopesᵀ states; the first product, into ``out``, is the sum so far: no zeros to write and read.

    A product of half precision is widened a few rows at a time on a processor, while they are in its cache.
    """
    if slopes.dtype == dtype:
        return product(slopes.T, states, out) if total is None else total.addmm_(slopes.T, states)
    whole = total if total is not None else out
    if whole is None:
        whole = states.new_empty(slopes.shape[1], states.shape[1], dtype=dtype)
    rows = ROWS_AT_A_TIME if whole.device.type == "cpu" else len(whole)
    for start in range(0, len(whole), rows):
        part = slice(start, start + rows)
        put = whole[part].copy_ if total is None else whole[part].add_
        put(slopes[:, part].T @ states)
    return whole


class TokenRows(torch.autograd.Function):
    """The embedding lookup; its backward adds to what waits in the slot instead of to zeros."""

    @staticmethod
    def forward(
        ctx: Any, ids: torch.Tensor, matrix: torch.Tensor, slot: TiedGradient, padding: int | None = None
    ) -> torch.Tensor:
        """ids (...), matrix (V, D) -> (..., D); the lookup of the token ``padding`` has no gradient."""
        ctx.save_for_backward(ids)
        ctx.slot, ctx.shape, ctx.padding = slot, matrix.shape, padding
        return functional.embedding(ids, matrix)

    @staticmethod
    def backward(ctx: Any, slope: torch.Tensor) -> Any:
        """The gradient of the matrix from both its uses."""
        (ids,) = ctx.saved_tensors
        if ctx.padding is not None:
            slope = slope.masked_fill((ids == ctx.padding)[..., None], 0.0)
        if ctx.slot.kept(ids, slope):
            return None, None, None, None
        whole = ctx.slot.take(slope.dtype)
        if whole is None:  # the head was not asked for a gradient in this pass
            whole = slope.new_zeros(ctx.shape)
        return None, whole.index_add_(0, ids.flatten(), slope.flatten(0, -2)), None, None


def can_share_gradient(core: Any) -> bool:
    """Whether embedding and head are one plain matrix, on a CPU (elsewhere zeros cost nothing to speak of)."""
    embedding, head = core.get_input_embeddings(), core.get_output_embeddings()
    return (
        type(embedding) is nn.Embedding and head is not None and head.weight is embedding.weight
        and embedding.max_norm is None and not embedding.scale_grad_by_freq and not embedding.sparse
        and embedding.weight.device.type == "cpu"
    )


@contextlib.contextmanager
def shared_gradient(core: Any) -> Iterator[TiedGradient | None]:
    """A forward pass whose embedding waits for the head's gradient: hand the slot to the head's loss.

    Gives None, and changes nothing, where gradients are off or the two are not one plain matrix.
    """
    if not (torch.is_grad_enabled() and can_share_gradient(core) and core.get_input_embeddings().weight.requires_grad):
        yield None
        return
    embedding = core.get_input_embeddings()
    slot = TiedGradient(getattr(embedding, WAITS_AS, None))

    def forward(self: nn.Embedding, ids: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = TokenRows.apply(  # type: ignore[no-untyped-call]
            ids, self.weight, slot, self.padding_idx)
        return found

    embedding.forward = MethodType(forward, embedding)
    try:
        yield slot
    finally:
        del embedding.forward
