"""The attention of the mission, written as its formulas, to hold the fast layer against.

One head, no scaling, values are the inputs themselves:

    e_ij = x_iᵀ W x_j        how much token i wants of token j
    a_i  = softmax(e_i)      over the tokens j that i may see
    h_i  = Σ_j a_ij x_j

A multi-head layer with one head computes exactly this when W = W_q W_kᵀ / sqrt(d_head) and its value and output
projections are the identity; `tests/unit/models/gpt3/test_reference.py` proves it on `GPT3Attention`.

Source: Vaswani et al. 2017 (arXiv 1706.03762) section 3.2.1; the bilinear form of Luong et al. 2015 section 3.1.
"""

from __future__ import annotations

import torch


def attention_weights(inputs: torch.Tensor, bilinear: torch.Tensor, allowed: torch.Tensor) -> torch.Tensor:
    """``a_ij`` for every pair of tokens.

    Args:
        inputs: (T, D) one vector ``x_i`` a token. bilinear: (D, D) the matrix ``W``.
        allowed: (T, T) bool, whether token i may see token j; every row has at least one True.

    Returns:
        (T, T), rows sum to 1, 0 where not allowed.
    """
    scores = inputs @ bilinear @ inputs.T
    return torch.softmax(scores.masked_fill(~allowed, float("-inf")), dim=-1)


def attend(inputs: torch.Tensor, bilinear: torch.Tensor, allowed: torch.Tensor) -> torch.Tensor:
    """``h_i = Σ_j a_ij x_j``, (T, D)."""
    return attention_weights(inputs, bilinear, allowed) @ inputs
