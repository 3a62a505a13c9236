"""Perplexity and bits per byte."""

import math

import pytest

from treetune.core.errors import DataError
from treetune.metrics.language_model import (
    bits_per_byte,
    bits_per_byte_statistics,
    perplexity,
    perplexity_statistics,
)


def test_a_blind_guess_among_eight_has_perplexity_eight() -> None:
    assert perplexity(5 * math.log(1 / 8), 5) == pytest.approx(8)
    assert perplexity(0.0, 3) == 1


def test_one_bit_a_byte() -> None:
    assert bits_per_byte(-10 * math.log(2), 10) == pytest.approx(1)


def test_rows_are_weighted_by_their_tokens_not_averaged() -> None:
    rows = [[math.log(0.5)] * 3, [math.log(0.25)]]
    assert perplexity_statistics(rows).value() == pytest.approx(2 ** (5 / 4))
    assert perplexity_statistics(rows).rows[:, 1].tolist() == [3, 1]
    bits = bits_per_byte_statistics(rows, ["猫", "ab"])  # 3 + 2 bytes of UTF-8, 5 bits
    assert bits.value() == pytest.approx(1)


def test_hopeless_is_infinite_and_nothing_is_an_error() -> None:
    assert perplexity(-1e6, 1) == math.inf
    for act in (lambda: perplexity(0.0, 0), lambda: bits_per_byte(0.0, 0), lambda: perplexity_statistics([])):
        with pytest.raises(DataError, match="E1402"):
            act()
