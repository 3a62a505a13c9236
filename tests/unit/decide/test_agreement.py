"""Agreement of drawn answers: between 0 and 1, 1 when all are the answer, and the stated measure in between."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from treetune.decide.agreement import MEASURES, agreement

TEXTS = st.text(alphabet="ab 好不.\u3002,", max_size=12)


@settings(max_examples=40, deadline=None)
@given(TEXTS, st.lists(TEXTS, min_size=1, max_size=4), st.sampled_from(sorted(MEASURES.values())),
       st.sampled_from(["en", "zh"]))
def test_it_lies_between_0_and_1_and_is_1_when_all_samples_equal_the_answer(
    answer: str, drawn: list[str], measure: str, language: str
) -> None:
    (value,) = agreement(measure, [answer], [drawn], [language])
    assert 0 <= value <= 1
    assert agreement(measure, [answer], [[answer] * 3], [language]) == [1.0]


def test_it_is_the_mean_of_the_stated_measure() -> None:
    assert agreement("f1", ["the red house"], [["red house", "a dog"]], ["en"]) == [0.5]  # articles do not count
    assert agreement("rougeL", ["a b c d"], [["a b c d", "a b x y"]], ["en"]) == pytest.approx([0.75])
    one, other = agreement("chrf", ["ein Haus", "ein Haus"], [["ein Haus"], ["kein Hut"]], ["de", "de"])
    assert one == 1.0
    assert 0.1 < other < 0.9


def test_rows_keep_their_own_samples_and_no_rows_are_no_values() -> None:
    found = agreement("f1", ["one", "two"], [["one", "two"], ["two", "two"]], ["en", "en"])
    assert found == [0.5, 1.0]
    assert agreement("f1", ["one", "two"], [["one"], ["two", "x"]], ["en", "en"]) == [1.0, 0.5]
