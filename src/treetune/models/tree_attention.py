"""Attention over a tree of rows, block by block, for every model that asks transformers for its attention function.

A model is switched to it once (`use_tree_attention`); a forward pass that brings ``tree=TreeLayout`` is computed
over the tree, any other as by transformers' scaled-dot-product attention. The layout travels as a keyword argument,
so a layer recomputed under activation checkpointing sees the same tree.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch.autograd.function import once_differentiable
from torch.nn.attention.flex_attention import BlockMask
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from treetune.core.records import IntArray, TokenTree
from treetune.models.continuation import Continuation
from treetune.models.flex import flex_attend, tree_block_mask
from treetune.models.sdpa import attention, widened
from treetune.models.short_attention import Seen, seen_of, short_attention
from treetune.trees.blocks import Block, are_short, sized_blocks

NAME = "treetune_tree"
FOLDS_BELOW = 0.7  # of the work that keys and values of all tokens are


class TreeLayout:
    """Who sees whom in one packed forward pass; blocks and masks are made when first asked for, and kept.

    Attributes:
        depth, branch_end: (T,) of the tree. columns: (K',) ascending tokens whose output is wanted: those with labels.
        pruned: whether the last layer computes these tokens only. flex: whether attention is FlexAttention's kernel.
    """

    def __init__(self, tree: TokenTree) -> None:
        self.depth = tree.depth
        self.branch_end = tree.branch_end
        self.columns: IntArray = np.unique(tree.label_index)
        self.pruned = False
        self.flex = False
        self._block_masks: dict[tuple[Any, ...], BlockMask] = {}
        self._blocks: dict[tuple[int | None, bool], list[Block]] = {}
        self._masks: dict[tuple[Any, ...], list[torch.Tensor]] = {}
        self._seen: dict[tuple[int | None, bool], Seen] = {}

    def align(self, multiple: int) -> None:
        """Fill up to a multiple of tokens, with roots that see themselves alone, and to one of ``columns``."""
        missing, length = -len(self.depth) % multiple, len(self.depth)
        wanted = min(-len(self.columns) % multiple, length + missing - len(self.columns))
        if not (missing or wanted):
            return
        self.depth = np.concatenate([self.depth, np.zeros(missing, dtype=self.depth.dtype)])
        self.branch_end = np.concatenate([self.branch_end, np.arange(length, length + missing) + 1])
        others = np.setdiff1d(np.arange(len(self.depth)), self.columns)
        self.columns = np.union1d(self.columns, others[len(others) - wanted :])
        for made in (self._block_masks, self._blocks, self._masks, self._seen):
            made.clear()

    def blocks(self, window: int | None, labels_only: bool) -> list[Block]:
        """Blocks of all tokens, or of the labelled ones."""
        key = (window, labels_only)
        if key not in self._blocks:
            queries = self.columns if labels_only else None
            self._blocks[key] = sized_blocks(self.depth, self.branch_end, window=window, queries=queries)
        return self._blocks[key]

    def seen(self, window: int | None, labels_only: bool) -> Seen:
        """The keys of the blocks as one index, for `ShortAttention`, which is the processor's."""
        key = (window, labels_only)
        if key not in self._seen:
            self._seen[key] = seen_of(self.blocks(window, labels_only))
        return self._seen[key]

    def folds(self, window: int | None, width: int) -> bool:
        """Whether labelled tokens are so few that keys and values of all tokens cost more than doing without."""
        if self.flex or not self.pruned:
            return False
        blocks = self.blocks(window, labels_only=True)
        seen = sum(block.allowed.size for block in blocks)  # queries times keys
        return are_short(blocks) and len(self.columns) * width + seen < FOLDS_BELOW * len(self.depth) * width

    def block_mask(self, window: int | None, labels_only: bool, device: torch.device) -> BlockMask:
        """For `flex_attend`, one for all layers of a kind."""
        key = (window, labels_only, device)
        if key not in self._block_masks:
            columns = self.columns if labels_only else None
            self._block_masks[key] = tree_block_mask(self.depth, self.branch_end, columns, window, device)
        return self._block_masks[key]

    def masks(self, window: int | None, labels_only: bool, groups: int, like: torch.Tensor) -> list[torch.Tensor]:
        """Additive masks (groups * queries, keys) of the blocks, one set for all layers of a kind."""
        key = (window, labels_only, groups, like.dtype, like.device)
        if key not in self._masks:
            lowest = torch.finfo(like.dtype).min
            self._masks[key] = [
                torch.zeros(block.allowed.shape, dtype=like.dtype, device=like.device)
                .masked_fill_(torch.from_numpy(~block.allowed).to(like.device), lowest).repeat(groups, 1)
                for block in self.blocks(window, labels_only)
            ]
        return self._masks[key]


Layout = TreeLayout | Continuation
Ranges = tuple[tuple[int, int], ...]


def attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, layout: Layout, *,
    window: int | None = None, scale: float | None = None, dropout: float = 0.0, labels_only: bool = False,
) -> torch.Tensor:
    """Scaled-dot-product attention over a tree, or of the next tokens of its rows.

    Args:
        query: (1, H, Q, D): all T tokens, or the labelled ones when ``labels_only``.
        key, value: (1, H / groups, T, D). window: see `attention_blocks`.

    Returns:
        (1, H, Q, D).
    """
    if isinstance(layout, Continuation):
        return layout.attend(query, window, scale)
    if layout.flex and not dropout:  # the kernel knows no dropout
        return flex_attend(query, key, value, layout.block_mask(window, labels_only, query.device), scale)
    heads, width = query.shape[1], query.shape[3]
    groups = heads // key.shape[1]
    narrow = value.dtype
    query, key, value = widened(query, key, value)  # once, and not block by block
    blocks, masks = layout.blocks(window, labels_only), layout.masks(window, labels_only, groups, query)
    if query.device.type == "cpu" and not dropout and are_short(blocks):
        own, seen = width**-0.5 if scale is None else scale, layout.seen(window, labels_only)
        return short_attention(query, key, value, seen, masks, own).to(narrow)
    ranges = [block.ranges for block in blocks]
    keys, values = seen_by_blocks(key, ranges), seen_by_blocks(value, ranges)
    parts = []
    queries = torch.split(query, [block.stop - block.start for block in blocks], dim=2)
    for block, mask, asked, seen_keys, seen_values in zip(blocks, masks, queries, keys, values, strict=True):
        if groups > 1:  # the query heads of one key head stand side by side: more queries instead of copied keys
            asked = asked.reshape(1, key.shape[1], -1, width)
        seen = attention(asked, seen_keys, seen_values, mask[None, None], dropout=dropout, scale=scale)
        parts.append(seen.reshape(1, heads, block.stop - block.start, width) if groups > 1 else seen)
    return (parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)).to(narrow)


class SeenByBlocks(torch.autograd.Function):
    """The keys (or values) of every block. Backward adds all blocks into one tensor, where a slice for each would
    write zeros for all T tokens as many times as there are blocks: an eighth of a step on short rows."""

    @staticmethod
    def forward(ctx: Any, states: torch.Tensor, ranges: list[Ranges]) -> tuple[torch.Tensor, ...]:
        """states (1, H, T, D), ranges: of each block -> (1, H, keys of the block, D) each."""
        ctx.ranges, ctx.shape = ranges, states.shape
        return tuple(joined(states, each) for each in ranges)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *slopes: torch.Tensor) -> Any:
        """The sum over blocks of what reaches each token."""
        total = slopes[0].new_zeros(ctx.shape)
        for slope, ranges in zip(slopes, ctx.ranges, strict=True):
            place = 0
            for start, stop in ranges:
                total[:, :, start:stop] += slope[:, :, place : place + stop - start]
                place += stop - start
        return total, None


def seen_by_blocks(states: torch.Tensor, ranges: list[Ranges]) -> tuple[torch.Tensor, ...]:
    """`SeenByBlocks`, typed."""
    found: tuple[torch.Tensor, ...] = SeenByBlocks.apply(states, ranges)  # type: ignore[no-untyped-call]
    return found


def joined(states: torch.Tensor, ranges: Ranges) -> torch.Tensor:
    """Some runs of tokens of (..., H, T, D), side by side."""
    pieces = [states[..., start:stop, :] for start, stop in ranges]
    if len(pieces) == 1:
        return pieces[0]
    return torch.cat([each.transpose(-3, -2) for each in pieces], dim=-3).transpose(-3, -2)  # a token's heads together


def unbuilt_forms(kwargs: Mapping[str, Any]) -> list[str]:
    """What a model asks of its attention that neither trees nor packed rows can give it."""
    return [name for name in ("softcap", "s_aux", "position_bias") if kwargs.get(name) is not None]


def tree_attention(
    module: torch.nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor,
    attention_mask: torch.Tensor | None, dropout: float = 0.0, scaling: float | None = None,
    sliding_window: int | None = None, tree: Layout | None = None, **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """The attention function transformers calls: (1, H, T, D) -> (1, T, H, D).

    Raises:
        NotImplementedError: a form of attention that is not built here (soft caps, sinks, biases).
    """
    if tree is None:
        output: tuple[torch.Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling,
            sliding_window=sliding_window, **kwargs,
        )
        return output
    if unknown := unbuilt_forms(kwargs):
        raise NotImplementedError(f"attention with {', '.join(unknown)} has no tree form")
    labels_only = tree.pruned and query.shape[2] != key.shape[2]
    mixed = attend(query, key, value, tree, window=sliding_window, scale=scaling, dropout=dropout,
                   labels_only=labels_only)
    return mixed.transpose(1, 2), None


AttentionInterface.register(NAME, tree_attention)
AttentionMaskInterface.register(NAME, sdpa_mask)
