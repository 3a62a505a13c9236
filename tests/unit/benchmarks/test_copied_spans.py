"""Longest copied spans against the plain way: try every window of every sample."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st


@pytest.fixture(scope="module")
def spans(benchmark_module: Any) -> Any:
    return benchmark_module("copied_spans")


def plainly(sample: str, text: str) -> int:
    return max((stop - start for start in range(len(sample)) for stop in range(start, len(sample) + 1)
                if sample[start:stop] in text), default=0)


@pytest.mark.parametrize("first_lengths", [(12, 4, 1), (3, 1), (1,)])
def test_as_long_as_the_plain_way_finds(spans: Any, first_lengths: tuple[int, ...], monkeypatch: Any) -> None:
    monkeypatch.setattr(spans, "CHUNK", 7)
    words = st.text(alphabet="abé猫", max_size=40)

    @settings(max_examples=60, deadline=None)
    @given(st.lists(words, max_size=4), words)
    def check(samples: list[str], text: str) -> None:
        found = spans.longest_spans([spans.characters(each) for each in samples], spans.characters(text), first_lengths)
        for sample, span in zip(samples, found, strict=True):
            assert span.length == plainly(sample, text)
            assert sample[span.start : span.start + span.length] == text[span.place : span.place + span.length]

    check()


def test_a_span_does_not_run_from_one_sample_into_the_next(spans: Any) -> None:
    text = spans.characters("one two three four five six seven")
    found = spans.longest_spans([spans.characters("xx one two thr"), spans.characters("ee four fi yy")], text)
    assert [span.length for span in found] == [11, 10]


def test_words_as_symbols(spans: Any) -> None:
    text = np.array([5, 9, 2, 7, 7, 1], np.uint32)
    found = spans.longest_spans([np.array([1, 9, 2, 7, 3], np.uint32), np.array([8], np.uint32)], text, (3, 1))
    assert [span.length for span in found] == [3, 0]
