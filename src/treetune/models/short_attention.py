"""Attention of short rows, block by block, in one function whose gradients are written out.

torch's kernel for processors spends most of its time on starting where a block has a hundred queries and keys: products
of one block's heads at once take two thirds of it. What a block needs beside its four or five products is done for all
blocks at once, since each call of torch costs as much as a small product: keys and values are gathered by one index,
their gradients scattered by it. Few probabilities are kept, many made again: this is for blocks whose keys are few.
Letters: H query heads, K key heads, G = H / K, Q queries, T tokens, S keys of all blocks together, D width of a head.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.autograd.function import once_differentiable

from treetune.core.stretches import KEPT_ODDS
from treetune.models.recomputed import is_plain_pass, noted
from treetune.trees.blocks import Block


class Seen(NamedTuple):
    """What the blocks see, block after block.

    Attributes:
        tokens: (S,) numbers of the tokens that are keys. queries, keys: how many each block has.
    """

    tokens: torch.Tensor
    queries: list[int]
    keys: list[int]


def seen_of(blocks: Sequence[Block]) -> Seen:
    """`Seen` of blocks."""
    tokens = [np.arange(start, stop) for block in blocks for start, stop in block.ranges]
    return Seen(torch.from_numpy(np.concatenate(tokens)), [block.stop - block.start for block in blocks],
                [block.allowed.shape[1] for block in blocks])


class OddsAgain:
    """The probabilities of all blocks, made again from queries and keys: once for the two functions that need them in
    the backward pass, the layer behind attention and attention itself, which follow one another.
    """

    def __init__(self, seen: Seen, masks: Sequence[torch.Tensor], scale: float) -> None:
        self._how = seen, masks, scale
        self._made: list[torch.Tensor] = []

    def take(self, query: torch.Tensor, key: torch.Tensor) -> list[torch.Tensor]:
        """(K, G · queries, keys) of each block."""
        found, self._made = self._made or _odds(query, key, *self._how), []
        return found

    def mixed(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """What attention gave, (Q, H, D)."""
        self._made = self.take(query, key)
        return _mixed(query.shape[1], self._how[0], value, *self._made)


def short_attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, seen: Seen, masks: Sequence[torch.Tensor],
    scale: float,
) -> torch.Tensor:
    """`ShortAttention` as (1, H, Q, D), with how it can be made again: of what is kept anyway."""
    many = key.shape[1] * sum(mask.numel() for mask in masks) > KEPT_ODDS
    again = OddsAgain(seen, masks, scale) if many else None
    mixed, *kept = ShortAttention.apply(query, key, value, seen, masks, scale, again)  # type: ignore[no-untyped-call]
    if torch.is_grad_enabled() and is_plain_pass(query.device.type):
        if again is None:
            noted(mixed, partial(_mixed, query.shape[1], seen), value, *kept)
        else:
            noted(mixed, again.mixed, query, key, value)
    found: torch.Tensor = mixed.transpose(0, 1)[None]
    return found


def _odds(
    query: torch.Tensor, key: torch.Tensor, seen: Seen, masks: Sequence[torch.Tensor], scale: float
) -> list[torch.Tensor]:
    """(K, G · queries, keys) of each block."""
    parts = zip(_asked(query, key, seen), _gathered(key, seen), masks, strict=True)
    return [torch.softmax(torch.baddbmm(mask, asked, keys.transpose(1, 2), alpha=scale), dim=-1)
            for asked, keys, mask in parts]


def _mixed(heads: int, seen: Seen, value: torch.Tensor, *kept: torch.Tensor) -> torch.Tensor:
    """value (1, K, T, D), probabilities (K, G · queries, keys) of the blocks -> (Q, H, D)."""
    mixed = value.new_empty(sum(seen.queries), heads, value.shape[3])
    for odds, values, place in zip(kept, _gathered(value, seen), _blocks_of(mixed, seen.queries), strict=True):
        place.copy_(torch.bmm(odds, values).view(place.shape))
    return mixed


class ShortAttention(torch.autograd.Function):
    """softmax(scale · query keyᵀ + mask) value, over the keys that each block of queries sees."""

    @staticmethod
    def forward(
        ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, seen: Seen,
        masks: Sequence[torch.Tensor], scale: float, again: OddsAgain | None,
    ) -> tuple[torch.Tensor, ...]:
        """query (1, H, Q, D), key and value (1, K, T, D), masks (G · queries, keys) of the blocks -> (Q, H, D), tokens
        first, as what follows wants it, and the probabilities of each block, unless they are made ``again``.

        In the type of its states, whatever autocast says (see `treetune.models.sdpa.widened`).
        """
        with torch.autocast(query.device.type, enabled=False):
            odds = _odds(query, key, seen, masks, scale)
            mixed = _mixed(query.shape[1], seen, value, *odds)
        kept = odds if again is None else []
        ctx.save_for_backward(query, key, value, *kept)
        ctx.mark_non_differentiable(*kept)
        ctx.seen, ctx.scale, ctx.again = seen, scale, again
        return mixed, *kept

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: torch.Tensor, *_: Any) -> Any:
        """Gradients of query, key and value; of keys that several blocks see, the sum."""
        query, key, value, *kept = ctx.saved_tensors
        if ctx.again is not None:
            kept = ctx.again.take(query, key)
        by_query, *by_seen = _by_blocks(query, key, value, kept, slope.transpose(0, 1)[None], ctx.seen, ctx.scale)
        by_key, by_value = (_added_up(by_seen.pop(0), ctx.seen, key.shape[2]) for _ in range(2))  # freed one by one
        return (*(each.transpose(0, 1)[None] for each in (by_query, by_key, by_value)), None, None, None, None)


def _by_blocks(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, kept: Sequence[torch.Tensor], slope: torch.Tensor,
    seen: Seen, scale: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of query (Q, H, D), and of the keys and values that each block sees (S, K, D)."""
    by_scores, by_values = _through_values(value, kept, _asked(slope, key, seen), seen, scale)
    by_query, by_keys = query.new_empty(query.shape[2], query.shape[1], query.shape[3]), torch.empty_like(by_values)
    parts = zip(by_scores, _asked(query, key, seen), _gathered(key, seen), _blocks_of(by_query, seen.queries),
                _blocks_of(by_keys, seen.keys), strict=True)
    for of_scores, asked, keys, of_query, of_keys in parts:
        of_query.copy_(torch.bmm(of_scores, keys).view(of_query.shape))
        of_keys.copy_(torch.bmm(of_scores.transpose(1, 2), asked))
    return by_query, by_keys, by_values


def _through_values(
    value: torch.Tensor, kept: Sequence[torch.Tensor], slopes: Sequence[torch.Tensor], seen: Seen, scale: float
) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Gradients of the blocks' scores before ``scale``, and of the values they see (S, K, D)."""
    by_scores, by_values = [], value.new_empty(len(seen.tokens), value.shape[1], value.shape[3])
    parts = zip(kept, slopes, _gathered(value, seen), _blocks_of(by_values, seen.keys), strict=True)
    for odds, given, values, of_values in parts:
        by_odds = torch.bmm(given, values.transpose(1, 2))
        by_scores.append(torch._softmax_backward_data(by_odds, odds, -1, odds.dtype).mul_(scale))
        of_values.copy_(torch.bmm(odds.transpose(1, 2), given))
    return by_scores, by_values


def _added_up(found: torch.Tensor, seen: Seen, num_tokens: int) -> torch.Tensor:
    """(S, K, D) -> (T, K, D)."""
    return found.new_zeros(num_tokens, *found.shape[1:]).index_add_(0, seen.tokens, found)


def _asked(states: torch.Tensor, key: torch.Tensor, seen: Seen) -> list[torch.Tensor]:
    """(1, H, Q, D) -> (K, G · queries, D) of each block: the query heads of one key head stand side by side."""
    parts, heads = torch.split(states[0], seen.queries, dim=1), key.shape[1]
    return [part if len(part) == heads else part.reshape(heads, -1, part.shape[2]) for part in parts]


def _gathered(states: torch.Tensor, seen: Seen) -> tuple[torch.Tensor, ...]:
    """(1, K, T, D) -> (K, keys, D) of each block."""
    return _blocks_of(states[0].transpose(0, 1).index_select(0, seen.tokens), seen.keys)


def _blocks_of(whole: torch.Tensor, sizes: list[int]) -> tuple[torch.Tensor, ...]:
    """(Q or S, heads, D) -> (heads, size, D) of each block, in the same memory."""
    return torch.split(whole.transpose(0, 1), sizes, dim=1)
