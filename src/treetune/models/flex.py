"""Attention over a tree on a GPU: one FlexAttention kernel with a block mask made from the tree.

Dong et al. 2024 (arXiv 2412.05496). Blocks of 128 by 128 in which no query sees a key are skipped, so the cost follows
the tree and not the square of the pack, with one launch a layer where `tree_attention.attend` has one a block. The
kernel is compiled when first used. torch has no backward of it on CPUs; there `attend` is the faster one anyway.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from treetune.core.records import IntArray


def tree_block_mask(
    depth: IntArray, branch_end: IntArray, columns: IntArray | None, window: int | None, device: torch.device
) -> BlockMask:
    """Which blocks of keys a block of queries sees, and within them which pairs.

    Args:
        depth, branch_end: (T,) of a `TokenTree`. columns: (Q,) ascending tokens that ask; None for all.
        window: tokens a query sees along its branch, itself included; None for all.
    """
    deep, ends = torch.from_numpy(depth).to(device), torch.from_numpy(branch_end).to(device)
    asking = torch.arange(len(depth), device=device) if columns is None else torch.from_numpy(columns).to(device)
    reach = len(depth) + 1 if window is None else window

    def allowed(_row: torch.Tensor, _head: torch.Tensor, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        token = asking[query]
        return (key <= token) & (token < ends[key]) & (deep[token] - deep[key] < reach)

    return create_block_mask(allowed, None, None, len(asking), len(depth), device=device)


@cache
def kernel() -> Any:
    """FlexAttention, compiled once for all lengths."""
    return torch.compile(flex_attention, dynamic=True)


def flex_attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: BlockMask, scale: float | None
) -> torch.Tensor:
    """(1, H, Q, D) queries, (1, H / groups, T, D) keys and values -> (1, H, Q, D).

    Uncompiled on a CPU, where it is there to be checked and has no backward.
    """
    run = kernel() if query.is_cuda else flex_attention
    found: torch.Tensor = run(query, key, value, block_mask=mask, scale=scale,
                              enable_gqa=query.shape[1] != key.shape[1])
    return found
