"""Shared spans are found whole, copied text is counted, density tells far from near."""

import numpy as np

from treetune.explain.coverage import SPAN, SpanIndex, density_ranks, units

ROW = "the quick brown fox jumps over the lazy dog near the old river bank"


def test_the_longest_shared_span_is_found_whole() -> None:
    index = SpanIndex(["something else entirely", ROW])
    found = index.shared("I saw that the quick brown fox jumps over the lazy dog yesterday.")
    assert (found.longest, found.row) == (9, 1)
    assert found.span == "the quick brown fox jumps over the lazy dog"
    assert 0 < found.known < 1
    assert index.shared(ROW).longest == len(units(ROW))
    assert index.copied_share(ROW) == 1.0


def test_short_spans_count_as_none() -> None:
    index = SpanIndex([ROW])
    found = index.shared("the quick brown fox jumps over the")
    assert len(units("the quick brown fox jumps over the")) < SPAN
    assert (found.longest, found.row, found.span) == (0, -1, "")
    assert found.known == 1.0
    assert index.copied_share("nothing of it") == 0.0
    assert SpanIndex([]).shared("").known == 0.0


def test_chinese_is_counted_by_characters() -> None:
    index = SpanIndex(["这部电影非常好看我喜欢"])
    assert index.shared("他说这部电影非常好看").longest == 8


def test_density_is_high_in_the_cloud_and_zero_far_out() -> None:
    random = np.random.default_rng(0)
    states = (np.eye(8)[0] * 5 + random.normal(0, 1, (200, 8))).astype(np.float32)
    far = -10 * np.eye(8)[1] + 10 * np.eye(8)[2] - 30 * np.eye(8)[0]
    ranks = density_ranks(states, np.stack([states[0], far.astype(np.float32)]))
    assert ranks[0] > 0.5
    assert ranks[1] < ranks[0]
