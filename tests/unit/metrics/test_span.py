"""SQuAD and CMRC 2018, against values worked out by hand."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from treetune.metrics.span import (
    chinese_segments,
    exact_match,
    exact_match_statistics,
    f1,
    f1_statistics,
    normalise_chinese,
    normalise_english,
)


@pytest.mark.parametrize(("answer", "reference", "same", "overlap"), [
    ("The  Eiffel Tower!", "eiffel tower", 1, 1),
    ("in the year 1999", "1999", 0, 0.5),  # in, year, 1999 against 1999
    ("cat dog", "dog cat", 0, 1),  # order does not matter to SQuAD
    ("cat cat", "cat", 0, 2 / 3),  # a word counts as often as both have it
    ("Paris", "London", 0, 0),
    ("an apple a day", "apple day", 1, 1),
    ("U.S.", "us", 1, 1),
    ("", "", 1, 1),
    ("", "Paris", 0, 0),
    ("Paris", "", 0, 0),
])
def test_english(answer: str, reference: str, same: float, overlap: float) -> None:
    assert exact_match(answer, reference, False) == same
    assert f1(answer, reference, False) == pytest.approx(overlap)


@pytest.mark.parametrize(("answer", "reference", "same", "overlap"), [
    ("九个。", "九个", 1, 1),
    ("共有九个隧道", "九个", 0, 0.5),  # 2 of 6 and 2 of 2
    ("甲乙丙丁", "甲丙丁乙", 0, 0.5),  # longest run in one piece: 丙丁, 2 of 4
    ("《红楼梦》", "红楼梦", 1, 1),
    ("GPT 3", "gpt 3", 1, 1),
    ("15.5公里", "15.5千米", 0, 1 / 3),  # 15.5 is one segment of three
    ("北京", "上海", 0, 0),
    ("", "北京", 0, 0),
    ("", "", 1, 1),
])
def test_chinese(answer: str, reference: str, same: float, overlap: float) -> None:
    assert exact_match(answer, reference, True) == same
    assert f1(answer, reference, True) == pytest.approx(overlap)


def test_normal_forms() -> None:
    assert normalise_english("A man, a plan: the canal?") == "man plan canal"
    assert normalise_english("Theatre") == "theatre"
    assert normalise_chinese(" 他说：“好”。 ") == "他说好"
    assert chinese_segments("共15.5 km，北Abc路") == ["共", "15.5", "km", "北", "abc", "路"]


def test_the_best_reference_counts_row_by_row_in_its_own_language() -> None:
    answers = ["the tower", "九个", "red car"]
    references = [["Eiffel", "Tower"], ["十个", "九个隧道"], ["red bus", "car"]]
    languages = ["en", "zh", "en"]
    exact = exact_match_statistics(answers, references, languages)
    assert exact.rows[:, 0].tolist() == [1, 0, 0]
    assert exact.signature == "exact_match|squad 2 rows, cmrc2018 1 rows"
    overlap = f1_statistics(answers, references, languages)
    assert overlap.rows[:, 0].tolist() == pytest.approx([1, 2 / 3, 2 / 3])


def test_an_unanswerable_question_is_right_exactly_when_the_answer_is_empty() -> None:
    references = [[], [""], [], ["无"]]
    for statistics in (
        exact_match_statistics(["", "", "Paris", ""], references, ["en", "zh", "en", "zh"]),
        f1_statistics(["", "", "Paris", ""], references, ["en", "zh", "en", "zh"]),
    ):
        assert statistics.rows[:, 0].tolist() == [1, 1, 0, 0]


@given(st.text(max_size=20), st.text(max_size=20), st.booleans())
@settings(max_examples=150, deadline=None, derandomize=True)
def test_bounds_symmetry_and_perfection(answer: str, reference: str, chinese: bool) -> None:
    overlap = f1(answer, reference, chinese)
    assert 0 <= overlap <= 1
    assert overlap == f1(reference, answer, chinese)
    assert f1(answer, answer, chinese) == exact_match(answer, answer, chinese) == 1
    if exact_match(answer, reference, chinese):
        assert overlap == 1
