"""Attention of short rows, block by block, in one function whose gradients are written out.

torch's kernel for processors spends most of its time on starting where a block has a hundred queries and keys: products
of one block's heads at once take two thirds of it, and one function for all blocks saves the copies of keys and values,
the joining of outputs and a node of the graph a block. The probabilities are kept, so this is for blocks whose keys are
few. Letters: H query heads, K key heads, G = H / K, Q queries, T tokens, D width of a head.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.autograd.function import once_differentiable

from treetune.trees.blocks import Block

Ranges = tuple[tuple[int, int], ...]


class ShortAttention(torch.autograd.Function):
    """softmax(scale · query keyᵀ + mask) value, over the keys that each block of queries sees."""

    @staticmethod
    def forward(
        ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, blocks: Sequence[Block],
        masks: Sequence[torch.Tensor], scale: float,
    ) -> torch.Tensor:
        """query (1, H, Q, D), key and value (1, K, T, D), masks (G · queries, keys) of the blocks -> (1, H, Q, D).

        In the type of its states, whatever autocast says (see `treetune.models.sdpa.widened`).
        """
        _, heads, asking, width = query.shape
        mixed = query.new_empty(asking, heads, width)  # as what follows wants it: tokens first
        kept = []
        with torch.autocast(query.device.type, enabled=False):
            for block, mask in zip(blocks, masks, strict=True):
                asked, keys, values = _of_block(block, query, key, value)
                odds = torch.softmax(torch.baddbmm(mask, asked, keys.transpose(1, 2), alpha=scale), dim=-1)
                _tokens_first(mixed, block).copy_(torch.bmm(odds, values).view(heads, -1, width))
                kept.append(odds)
        ctx.save_for_backward(query, key, value, *kept)
        ctx.blocks, ctx.scale = blocks, scale
        return mixed.transpose(0, 1)[None]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: torch.Tensor) -> Any:
        """Gradients of query, key and value; of keys that several blocks see, the sum."""
        query, key, value, *kept = ctx.saved_tensors
        _, heads, asking, width = query.shape
        by_query = query.new_empty(asking, heads, width)
        by_key, by_value = (key.new_zeros(key.shape[2], key.shape[1], width) for _ in range(2))
        for block, odds in zip(ctx.blocks, kept, strict=True):
            asked, keys, values = _of_block(block, query, key, value)
            given = _grouped(slope[0, :, block.start : block.stop], len(keys))
            by_odds = torch.bmm(given, values.transpose(1, 2))
            by_scores = torch._softmax_backward_data(by_odds, odds, -1, odds.dtype).mul_(ctx.scale)
            _tokens_first(by_query, block).copy_(torch.bmm(by_scores, keys).view(heads, -1, width))
            _add(by_key, block, torch.bmm(by_scores.transpose(1, 2), asked))
            _add(by_value, block, torch.bmm(odds.transpose(1, 2), given))
        return (*(each.transpose(0, 1)[None] for each in (by_query, by_key, by_value)), None, None, None)


def _of_block(
    block: Block, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(K, G · queries, D) of the block, and its keys and values (K, keys, D)."""
    asked = _grouped(query[0, :, block.start : block.stop], key.shape[1])
    return asked, joined(key[0], block.ranges), joined(value[0], block.ranges)


def _grouped(states: torch.Tensor, key_heads: int) -> torch.Tensor:
    """(H, queries, D) -> (K, G · queries, D): the query heads of one key head stand side by side."""
    return states if len(states) == key_heads else states.reshape(key_heads, -1, states.shape[2])


def joined(states: torch.Tensor, ranges: Ranges) -> torch.Tensor:
    """Some runs of tokens of (..., H, T, D), side by side."""
    pieces = [states[..., start:stop, :] for start, stop in ranges]
    if len(pieces) == 1:
        return pieces[0]
    return torch.cat([each.transpose(-3, -2) for each in pieces], dim=-3).transpose(-3, -2)  # a token's heads together


def _tokens_first(whole: torch.Tensor, block: Block) -> torch.Tensor:
    """The block's place in (Q, H, D), as (H, queries, D)."""
    return whole[block.start : block.stop].transpose(0, 1)


def _add(whole: torch.Tensor, block: Block, slopes: torch.Tensor) -> None:
    """whole (T, K, D) += slopes (K, keys, D) at the block's keys."""
    place = 0
    for start, stop in block.ranges:
        whole[start:stop] += slopes[:, place : place + stop - start].transpose(0, 1)
        place += stop - start
