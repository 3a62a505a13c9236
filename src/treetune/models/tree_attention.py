"""Attention over a tree of rows, block by block, for every model that asks transformers for its attention function.

A model is switched to it once (`use_tree_attention`); a forward pass that brings ``tree=TreeLayout`` is computed
over the tree, any other as by transformers' scaled-dot-product attention. The layout travels as a keyword argument,
so a layer recomputed under activation checkpointing sees the same tree.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.nn import functional
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from treetune.core.records import IntArray, TokenTree
from treetune.trees.blocks import Block, attention_blocks

NAME = "treetune_tree"


class TreeLayout:
    """Who sees whom in one packed forward pass; blocks and masks are made when first asked for, and kept.

    Attributes:
        depth, branch_end: (T,) of the tree. columns: (K',) ascending tokens that carry labels.
        pruned: whether the last layer computes these tokens only.
    """

    def __init__(self, tree: TokenTree) -> None:
        self.depth = tree.depth
        self.branch_end = tree.branch_end
        self.columns: IntArray = np.unique(tree.label_index)
        self.pruned = False
        self._blocks: dict[tuple[int | None, bool], list[Block]] = {}
        self._masks: dict[tuple[Any, ...], list[torch.Tensor]] = {}

    def blocks(self, window: int | None, labels_only: bool) -> list[Block]:
        """Blocks of all tokens, or of the labelled ones."""
        key = (window, labels_only)
        if key not in self._blocks:
            queries = self.columns if labels_only else None
            self._blocks[key] = attention_blocks(self.depth, self.branch_end, window=window, queries=queries)
        return self._blocks[key]

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


def attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, layout: TreeLayout, *, window: int | None = None,
    scale: float | None = None, dropout: float = 0.0, labels_only: bool = False,
) -> torch.Tensor:
    """Scaled-dot-product attention over a tree.

    Args:
        query: (1, H, Q, D): all T tokens, or the labelled ones when ``labels_only``.
        key, value: (1, H / groups, T, D). window: see `attention_blocks`.

    Returns:
        (1, H, Q, D).
    """
    heads, width = query.shape[1], query.shape[3]
    groups = heads // key.shape[1]
    masks = layout.masks(window, labels_only, groups, query)
    parts = []
    for block, mask in zip(layout.blocks(window, labels_only), masks, strict=True):
        asked = query[:, :, block.start : block.stop]
        if groups > 1:  # the query heads of one key head stand side by side: more queries instead of copied keys
            asked = asked.reshape(1, key.shape[1], -1, width)
        seen = functional.scaled_dot_product_attention(
            asked, _joined(key, block.ranges), _joined(value, block.ranges), attn_mask=mask[None, None],
            dropout_p=dropout, scale=scale,
        )
        parts.append(seen.reshape(1, heads, block.stop - block.start, width) if groups > 1 else seen)
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)


def _joined(states: torch.Tensor, ranges: tuple[tuple[int, int], ...]) -> torch.Tensor:
    pieces = [states[:, :, start:stop] for start, stop in ranges]
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim=2)


def tree_attention(
    module: torch.nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor,
    attention_mask: torch.Tensor | None, dropout: float = 0.0, scaling: float | None = None,
    sliding_window: int | None = None, tree: TreeLayout | None = None, **kwargs: Any,
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
    unknown = [name for name in ("softcap", "s_aux", "position_bias") if kwargs.get(name) is not None]
    if unknown:
        raise NotImplementedError(f"attention with {', '.join(unknown)} has no tree form")
    labels_only = tree.pruned and query.shape[2] != key.shape[2]
    mixed = attend(query, key, value, tree, window=sliding_window, scale=scaling, dropout=dropout,
                   labels_only=labels_only)
    return mixed.transpose(1, 2), None


AttentionInterface.register(NAME, tree_attention)
AttentionMaskInterface.register(NAME, sdpa_mask)
