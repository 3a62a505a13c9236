"""The counting model of the base model's table: a distribution, better with context, the formula of the paper."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

TEXT = b"the cat sat on the mat, the dog sat on the log. " * 20 + "Der Hund saß auf. 猫坐在垫子上。".encode() * 5


@pytest.fixture(scope="module")
def ngram(benchmark_module: Any) -> Any:
    return benchmark_module("byte_ngram")


def test_probabilities_of_all_bytes_sum_to_one_after_any_context(ngram: Any) -> None:
    model = ngram.ByteNgram(TEXT, 5)

    @settings(max_examples=25, deadline=None)
    @given(st.binary(max_size=8) | st.sampled_from([TEXT[n : n + 7] for n in range(0, 90, 7)]))
    def check(context: bytes) -> None:
        each = [model.probabilities(context + bytes([symbol]))[-1] for symbol in range(256)]
        assert min(each) > 0
        assert sum(each) == pytest.approx(1, abs=1e-9)

    check()


def test_context_pays_on_text_that_was_not_counted(ngram: Any) -> None:
    seen, unseen = b"".join([TEXT[:700], TEXT[960:]]), b"the dog sat on the mat, the cat sat on the log. "
    bits = [-np.log2(ngram.ByteNgram(seen, order).probabilities(unseen)).mean() for order in (0, 1, 2, 5)]
    assert bits == sorted(bits, reverse=True)
    assert bits[-1] < bits[0] / 3


def test_places_stop_the_context_at_the_start_of_a_block(ngram: Any) -> None:
    model = ngram.ByteNgram(TEXT, 5)
    together = model.probabilities(b"the cat" + b"sat on", np.array([*range(7), *range(6)]))
    alone = [model.probabilities(b"the cat"), model.probabilities(b"sat on")]
    np.testing.assert_array_equal(together, np.concatenate(alone))
    assert not np.allclose(model.probabilities(b"the catsat on"), together)


def test_the_formula_on_counts_small_enough_to_do_by_hand(ngram: Any) -> None:
    """b'aab' in order 1: pairs aa, ab once each; a follows {a}, b follows {a}; every discount is a half."""
    model = ngram.ByteNgram(b"aab", 1)
    below = (1 - 0.5 + 2 * 0.5 / 256) / 2  # 'a' and 'b' each continue one context of two
    assert model.probabilities(b"ab")[1] == pytest.approx((1 - 0.5 + 2 * 0.5 * below) / 2)
    assert model.probabilities(b"b")[0] == pytest.approx(below)
    assert model.probabilities(b"z")[0] == pytest.approx(2 * 0.5 / 256 / 2)
    assert model.probabilities(b"ba")[1] == pytest.approx(below)  # nothing was seen behind b


@pytest.mark.parametrize(("text", "order"), [(b"abc", 3), (b"abcdefghij", 8), (b"abc", -1)])
def test_an_order_that_cannot_be_is_refused(ngram: Any, text: bytes, order: int) -> None:
    with pytest.raises(ValueError, match="order"):
        ngram.ByteNgram(text, order)
