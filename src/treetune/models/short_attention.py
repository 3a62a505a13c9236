"""Attention of short rows, block by block, in one function whose gradients are written out.

torch's kernel for processors spends most of its time on starting where a block has a hundred queries and keys: products
of one block's heads at once take two thirds of it. What a block needs beside its four or five products is done for all
blocks at once, since each call of torch costs as much as a small product: keys and values are gathered by one index,
their gradients scattered by it. The probabilities are kept, so this is for blocks whose keys are few.
Letters: H query heads, K key heads, G = H / K, Q queries, T tokens, S keys of all blocks together, D width of a head.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.autograd.function import once_differentiable

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


class ShortAttention(torch.autograd.Function):
    """softmax(scale · query keyᵀ + mask) value, over the keys that each block of queries sees."""

    @staticmethod
    def forward(
        ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, seen: Seen,
        masks: Sequence[torch.Tensor], scale: float,
    ) -> torch.Tensor:
        """query (1, H, Q, D), key and value (1, K, T, D), masks (G · queries, keys) of the blocks -> (1, H, Q, D).

        In the type of its states, whatever autocast says (see `treetune.models.sdpa.widened`).
        """
        _, heads, asking, width = query.shape
        mixed = query.new_empty(asking, heads, width)  # as what follows wants it: tokens first
        kept = []
        with torch.autocast(query.device.type, enabled=False):
            parts = zip(_asked(query, key, seen), _gathered(key, seen), _gathered(value, seen), masks,
                        _blocks_of(mixed, seen.queries), strict=True)
            for asked, keys, values, mask, place in parts:
                odds = torch.softmax(torch.baddbmm(mask, asked, keys.transpose(1, 2), alpha=scale), dim=-1)
                place.copy_(torch.bmm(odds, values).view(place.shape))
                kept.append(odds)
        ctx.save_for_backward(query, key, value, *kept)
        ctx.seen, ctx.scale = seen, scale
        return mixed.transpose(0, 1)[None]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: torch.Tensor) -> Any:
        """Gradients of query, key and value; of keys that several blocks see, the sum."""
        query, key, value, *kept = ctx.saved_tensors
        by_query, *by_seen = _by_blocks(query, key, value, kept, slope, ctx.seen, ctx.scale)
        by_key, by_value = (_added_up(by_seen.pop(0), ctx.seen, key.shape[2]) for _ in range(2))  # popped: gone when used
        return (*(each.transpose(0, 1)[None] for each in (by_query, by_key, by_value)), None, None, None)


def _by_blocks(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, kept: Sequence[torch.Tensor], slope: torch.Tensor,
    seen: Seen, scale: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of query (Q, H, D), and of the keys and values that each block sees (S, K, D)."""
    _, heads, asking, width = query.shape
    by_query = query.new_empty(asking, heads, width)
    by_keys, by_values = (key.new_empty(len(seen.tokens), key.shape[1], width) for _ in range(2))
    states = zip(_asked(query, key, seen), _gathered(key, seen), _gathered(value, seen), kept,
                 _asked(slope, key, seen), strict=True)
    places = zip(_blocks_of(by_query, seen.queries), _blocks_of(by_keys, seen.keys),
                 _blocks_of(by_values, seen.keys), strict=True)
    for (asked, keys, values, odds, given), (of_query, of_keys, of_values) in zip(states, places, strict=True):
        by_odds = torch.bmm(given, values.transpose(1, 2))
        by_scores = torch._softmax_backward_data(by_odds, odds, -1, odds.dtype).mul_(scale)
        of_query.copy_(torch.bmm(by_scores, keys).view(of_query.shape))
        of_keys.copy_(torch.bmm(by_scores.transpose(1, 2), asked))
        of_values.copy_(torch.bmm(odds.transpose(1, 2), given))
    return by_query, by_keys, by_values


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
