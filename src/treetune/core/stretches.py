"""How much of a pass stands in memory at a time, of logits, slopes and probabilities: for the loss and the plan."""

from __future__ import annotations

import math

CHUNK_BYTES = 2**27
NUMBERS_OF_A_PIECE = 1 << 20
"""Of a gradient multiplied out; 4 MB in float32, about as much as one activation of a pass."""

KEPT_ODDS = 1 << 20
"""Probabilities of a layer's short blocks of attention that are kept, 4 MB; more are made again."""

PIECES_A_PORTION = 2
"""Logits and slopes a portion at a time: of 1365 words they take 2 % of a step of an 82 M GPT-2 longer than of 2730."""


def rows_of_chunk(vocabulary: int) -> int:
    """States whose logits, in float32, take about `CHUNK_BYTES`."""
    return max(64, CHUNK_BYTES // (4 * max(1, vocabulary)))


def rows_of_stretch(states: int, vocabulary: int) -> int:
    """States of each stretch, all of one length: a product with few rows is a slow one."""
    count = max(1, math.ceil(states / rows_of_chunk(vocabulary)))
    return max(1, math.ceil(states / count))


def may_wait_in_factors(states: int, width: int, vocabulary: int) -> bool:
    """Whether slopes (states, vocabulary) take no more memory than the gradient of the output matrix that they make
    with the states, and the stretch of logits beside which it would be made."""
    return states <= width + rows_of_chunk(vocabulary)


def may_stay_in_factors(states: int, width: int, tokens: int, vocabulary: int) -> bool:
    """Whether slopes and states may wait for the optimizer itself, beside a row for each token read: the norm of their
    product, taken from squares of (states, states), is little work, and slopes and rows take a quarter of the memory
    each that the product would.
    """
    return 4 * states <= width and 4 * tokens <= vocabulary


def words_of_piece(width: int) -> int:
    """Words of the gradient of an output matrix that are one tensor where it is multiplied out."""
    return max(1, NUMBERS_OF_A_PIECE // width)


def words_of_portion(states: int, width: int, vocabulary: int) -> int:
    """Words whose slopes, which are to stand in factors, are one tensor: all, where few states are labelled; else those
    of `PIECES_A_PORTION` of the gradient, so that they go, portion by portion, as it is made of them.
    """
    return vocabulary if 4 * states <= width else min(vocabulary, PIECES_A_PORTION * words_of_piece(width))
