"""Logits stand in memory a stretch at a time, and stretches are of one length."""

import math

from hypothesis import given
from hypothesis import strategies as st

from treetune.core.stretches import rows_of_chunk, rows_of_stretch


def test_a_stretch_holds_about_128_megabytes() -> None:
    assert rows_of_chunk(50_257) * 50_257 * 4 <= 2**27
    assert rows_of_chunk(10**9) == 64


@given(st.integers(0, 10**5), st.integers(0, 10**6))
def test_stretches_are_as_few_as_fit_and_of_one_length(states: int, vocabulary: int) -> None:
    room, size = rows_of_chunk(vocabulary), rows_of_stretch(states, vocabulary)
    assert 1 <= size <= room
    assert math.ceil(states / size) <= math.ceil(states / room)
    assert size == 1 or (size - 1) * math.ceil(states / size) < states
