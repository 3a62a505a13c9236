"""Perplexity and bits per byte, from sums of log-probabilities."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from treetune.core.records import FloatArray
from treetune.metrics.statistics import RowStatistics, nothing_to_score, ratio

Rows = Sequence[Sequence[float]]


def perplexity(log_prob_sum: float, num_tokens: int) -> float:
    """exp of the mean negative log-probability of a token: 1 is certain, the vocabulary's size blind.

    Comparable only between models with the same tokenizer; else use `bits_per_byte`.

    Args:
        log_prob_sum: natural-log probabilities of all tokens, summed, <= 0.
        num_tokens: how many, >= 1.

    Raises:
        DataError: E1402 when there is no token.
    """
    return float(perplexity_of_sums(np.array([-log_prob_sum, num_tokens], dtype=np.float64)))


def bits_per_byte(log_prob_sum: float, num_bytes: int) -> float:
    """Bits the model needs for a byte of UTF-8 text; comparable whatever the tokenizer.

    Gao et al. 2020, "The Pile", section 3.1.

    Args:
        log_prob_sum: natural-log probabilities of all tokens, summed, <= 0.
        num_bytes: UTF-8 bytes of the text these tokens stand for, >= 1.

    Raises:
        DataError: E1402 when there is no byte.
    """
    return float(bits_of_sums(np.array([-log_prob_sum, num_bytes], dtype=np.float64)))


def perplexity_statistics(token_log_probs: Rows) -> RowStatistics:
    """Perplexity over the tokens of all rows. rows (N, 2): negative log-probability in nats, tokens."""
    return RowStatistics(_sums(token_log_probs, [len(row) for row in token_log_probs]), perplexity_of_sums,
                         "perplexity|per token|nats")


def bits_per_byte_statistics(token_log_probs: Rows, texts: Sequence[str]) -> RowStatistics:
    """Bits per UTF-8 byte over all rows. rows (N, 2): negative log-probability in nats, bytes."""
    counts = [len(text.encode()) for text in texts]
    return RowStatistics(_sums(token_log_probs, counts), bits_of_sums, "bits_per_byte|utf-8")


def perplexity_of_sums(sums: FloatArray) -> FloatArray:
    """(..., 2) holding [nats, tokens] -> (...); infinite when it does not fit a float."""
    with np.errstate(over="ignore"):
        return np.exp(ratio(sums))


def bits_of_sums(sums: FloatArray) -> FloatArray:
    """(..., 2) holding [nats, bytes] -> (...)."""
    return ratio(sums) / math.log(2)


def _sums(token_log_probs: Rows, counts: Sequence[int]) -> FloatArray:
    if not counts:
        raise nothing_to_score()
    pairs = [(-math.fsum(row), count) for row, count in zip(token_log_probs, counts, strict=True)]
    return np.array(pairs, dtype=np.float64)
