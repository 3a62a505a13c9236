"""Words exchanged in the user's rows: English by whole words, Chinese by string, and back again."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from treetune.audit.measured import Measured
from treetune.audit.swaps import Swap, measure_swaps, swap_text, swapped_rows, swaps_of
from treetune.core.records import Row


def swap_named(language: str, name: str) -> Swap:
    return next(each for each in swaps_of(language) if each.name == name)


@pytest.mark.parametrize(("text", "swapped"), [
    ("She lost her keys.", "He lost his keys."),
    ("I told her to go.", "I told him to go."),
    ("I saw her.", "I saw him."),
    ("The book is his.", "The book is hers."),
    ("His sister and MOM", "Her brother and DAD"),
    ("Mrs. Smith herself", "Mr. Smith himself"),
    ("the shepherd and the theme there", "the shepherd and the theme there"),
])
def test_english_words(text: str, swapped: str) -> None:
    assert swap_text(text, swap_named("en", "gender"))[0] == swapped


@pytest.mark.parametrize(("text", "swapped", "sides"), [
    ("她的女儿很好", "他的儿子很好", [0, 0]),
    ("其他人在弹吉他", "其他人在弹吉他", []),
    ("他们的妈妈", "她们的爸爸", [1, 0]),
    ("女演员比男演员好", "男演员比女演员好", [0, 1]),
])
def test_chinese_strings(text: str, swapped: str, sides: list[int]) -> None:
    assert swap_text(text, swap_named("zh", "gender")) == (swapped, sides)


@given(st.lists(st.sampled_from(["他", "她", "女儿", "儿子", "妈妈", "爸爸", "很好", "，", "其他", "看"]), max_size=12))
def test_chinese_swapped_twice_is_the_text_itself(parts: list[str]) -> None:
    swap = swap_named("zh", "gender")
    text = "，".join(parts)
    assert swap_text(swap_text(text, swap)[0], swap)[0] == text


@given(st.lists(st.sampled_from(["woman", "boy", "aunt", "father", "film", "Wife"]), max_size=8))
def test_nouns_swapped_twice_are_the_text_itself(parts: list[str]) -> None:
    swap = swap_named("en", "gender")
    text = " ".join(parts)
    once, sides = swap_text(text, swap)
    assert swap_text(once, swap)[0] == text
    assert len(sides) == sum(part != "film" for part in parts)


def test_rows_of_questions_are_swapped_throughout_and_sided() -> None:
    rows = [Row({"context": "She met the boy.", "question": "Whom did she meet?", "answers": ["the boy"],
                 "answer_start": [8]}, "f", 1, 0, "test"),
            Row({"context": "A dog.", "question": "What?", "answers": ["A dog"]}, "f", 2, 1, "test"),
            Row({"context": "My mother.", "question": "Who?", "answers": ["My mother"]}, "f", 3, 2, "test")]
    first, second = swapped_rows("question_answering", rows, swap_named("en", "gender"))
    assert first.row.values == {"context": "He met the girl.", "question": "Whom did he meet?", "answers": ["the girl"]}
    assert (first.place, first.side) == (0, 0)
    assert (second.place, second.side) == (2, 1)


def shift(found: list[Measured]) -> Measured:
    [one] = [each for each in found if each.what.measure == "tone"]
    return one


def test_the_shift_is_first_group_minus_second_whoever_the_row_named() -> None:
    random = np.random.default_rng(0)
    sides = random.choice([1, -1, 0], size=90)
    before = random.normal(size=90)
    after = before - 0.3 * sides + random.normal(scale=0.05, size=90)  # women are liked better by 0.3
    found = measure_swaps(swap_named("en", "gender"), sides.tolist(), before, after, [False] * 90, "tone", None)
    one = shift(found)
    assert one.interval.low < 0.3 < one.interval.high
    assert one.p_value is not None
    assert one.p_value < 0.001
    assert one.counts[1] == int((sides != 0).sum())
    few = measure_swaps(swap_named("en", "gender"), [1] * 20, before[:20], after[:20], [True] * 20, "tone", None)
    assert [each.what.measure for each in few] == ["changed"]
    assert few[0].interval.value == 1
